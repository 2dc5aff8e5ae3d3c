"""Hybrid molecular dynamics and grand-canonical Monte Carlo: one point of an adsorption isotherm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units

from ..errors import WorkerError
from ..kernels.checkpoint import load_checkpoint, restore_generator, save_checkpoint
from ..kernels.dynamics import MdState, NoseHooverChain, initial_state, velocity_verlet_step
from ..kernels.exchange import Exchange, ExchangeRules
from ..kernels.frames import Frames
from ..kernels.gases import Gas
from ..kernels.ideal_gas import IdealGasReservoir
from ..kernels.loading import place_molecules
from ..kernels.model import Potential
from ..kernels.statistics import estimate_mean
from ..kernels.thermodynamics import chemical_potential, ideal_gas_number, isosteric_heat
from ..stopping import StopRequest
from .simulation import (
    Clock,
    Guard,
    SimulationParameters,
    TimeSeries,
    describe_explosion,
    open_model,
    read_structure,
)

__all__ = ["HybridSimulation", "MdGcmcParameters", "run"]

_CHECKPOINT = Path("checkpoint.npz")
_CANDIDATES = Path("candidates.npz")
_AVERAGES = (
    "mean_loading",
    "loading_error",
    "statistical_inefficiency",
    "equilibration_index",
    "effective_samples",
    "mean_temperature",
    "isosteric_heat",
    "isosteric_heat_error",
)


@dataclass(frozen=True, kw_only=True)
class MdGcmcParameters(SimulationParameters):
    """Parameters of a run; those of any dynamics in :class:`SimulationParameters`.

    :param pressure: in Pa
    :param fugacity: in Pa; None for an ideal gas, where it is the pressure
    :param gas: description of the molecule
    :param md_steps_per_attempt: steps of dynamics between the attempts
    :param attempts_per_block: insertions and deletions attempted after them
    :param model_hole_bound: energy of insertion in eV below which the model is not believed
    :param initial_loading: molecules in the pores at the start
    :param max_loading: largest loading, None for no limit
    :param explosion_distance: distance in Å between any two atoms below which the run has exploded
    """

    pressure: float
    gas: Mapping[str, Any]
    md_steps_per_attempt: int
    attempts_per_block: int
    model_hole_bound: float
    explosion_distance: float
    fugacity: float | None = None
    initial_loading: int = 0
    max_loading: int | None = None

    def check(self) -> None:
        """Refuse values that no simulation can have.

        :raises WorkerError: kind bad_input
        """
        super().check()
        self.require_positive("pressure", "md_steps_per_attempt", "attempts_per_block")
        if self.fugacity is not None:
            self.require_positive("fugacity")
        if self.initial_loading < 0 or (self.max_loading is not None and self.max_loading < self.initial_loading):
            raise WorkerError("bad_input", "initial_loading must lie between 0 and max_loading")

    @property
    def rules(self) -> ExchangeRules:
        """What an exchange is judged by."""
        fugacity = self.pressure if self.fugacity is None else self.fugacity
        return ExchangeRules(self.temperature, fugacity, self.minimum_distance, self.model_hole_bound, self.max_loading)


class HybridSimulation:
    """One run: state, exchange, random numbers and record. Needs no file but its checkpoint.

    :param parameters: of the run
    :param potential: energies and forces
    :param framework: the empty framework; not needed when a checkpoint is given
    :param seed: of all random numbers; not needed when a checkpoint is given
    :param checkpoint: file to go on from, or None
    """

    def __init__(
        self,
        parameters: MdGcmcParameters,
        potential: Potential,
        framework: Atoms | None,
        seed: int = 0,
        checkpoint: Path | None = None,
    ):
        p = self.parameters = parameters
        self.potential = potential
        self.gas = Gas.from_dict(p.gas)
        self.thermostat = NoseHooverChain(p.temperature, p.thermostat_time_fs * units.fs)
        self.series = TimeSeries("step", "loading", "potential_energy", "temperature")
        self.images: list[Atoms] = []
        if checkpoint is not None:
            self._restore(checkpoint)
        elif framework is not None:
            self._start(framework, seed)
        else:
            raise ValueError("a framework or a checkpoint is needed")

    def _start(self, framework: Atoms, seed: int) -> None:
        p, self.rng = self.parameters, np.random.default_rng(seed)
        self._make_exchange(equilibrate=True)
        atoms = place_molecules(framework, self.gas, p.initial_loading, p.minimum_distance, self.rng)
        self.state = initial_state(atoms, self.potential, p.temperature, self.rng, len(framework))

    def _restore(self, path: Path) -> None:
        arrays, values = load_checkpoint(path)
        if values.get("program") != "md_gcmc":
            raise WorkerError("bad_input", f"{path.name} is a checkpoint of another program")
        self.rng = restore_generator(values["rng"])
        self._make_exchange(equilibrate=False)
        self.exchange.reservoir.restore(arrays)
        self.exchange.restore_counts(values["counts"])
        self.series.restore(arrays, "series_")
        self.state = MdState.from_arrays(arrays)

    def _make_exchange(self, equilibrate: bool) -> None:
        p = self.parameters
        reservoir = IdealGasReservoir(
            self.gas, self.potential, p.temperature, p.timestep_fs * units.fs, self.rng, equilibrate=equilibrate
        )
        self.exchange = Exchange(self.gas, self.potential, reservoir, p.rules, self.rng)

    @property
    def loading(self) -> int:
        """Gas molecules in the cell."""
        return self.exchange.loading(self.state)

    def advance(self, stop: StopRequest) -> tuple[dict[str, Any] | None, bool, float]:
        """Go on to the last step.

        :return: what exploded or None; whether a stop was asked for; steps per second
        """
        p, state = self.parameters, self.state
        guard = Guard(p.temperature, p.max_temperature_factor, p.explosion_distance)
        clock = Clock(p.checkpoint_seconds, state.step)
        explosion, stopped = None, False
        while state.step < p.steps and not stopped:
            velocity_verlet_step(state, self.potential, self.thermostat, p.timestep_fs * units.fs)
            is_recorded = state.step % p.stride == 0
            explosion = guard.check(state, thorough=is_recorded)
            if explosion is not None:
                break
            if is_recorded:
                self.images.append(state.atoms(loading=self.loading, group=p.group))
            if state.step % p.md_steps_per_attempt == 0:
                self._exchange()
            stopped = stop.reason() is not None and state.step < p.steps
            if not stopped and clock.is_due():
                self.save()
        return explosion, stopped, clock.steps_per_second(state.step)

    def _exchange(self) -> None:
        """Attempt exchanges, then record the block; forces are evaluated once, however many were accepted."""
        state = self.state
        temperature = state.temperature
        accepted = [self.exchange.attempt(state) for _ in range(self.parameters.attempts_per_block)]
        if any(accepted):
            state.update(self.potential)
        energy = state.energy + state.atomic_energy
        self.series.append(step=state.step, loading=self.loading, potential_energy=energy, temperature=temperature)

    def save(self, with_state: bool = True) -> None:
        """Write frames, time series and candidates, then the checkpoint that follows them."""
        Frames.from_atoms(self.images).save("frames.npz")
        np.savez(Path("timeseries.npz"), allow_pickle=False, **self.series.arrays())
        if self.exchange.candidates:
            candidates = Frames.from_atoms(self.exchange.candidates)
            candidates.groups = [f"{self.parameters.group}_hole"] * len(candidates)
            candidates.save(_CANDIDATES)
        if with_state:
            arrays = self.state.to_arrays() | self.exchange.reservoir.to_arrays() | self.series.arrays("series_")
            values = {"rng": self.rng.bit_generator.state, "counts": self.exchange.counts(), "program": "md_gcmc"}
            save_checkpoint(_CHECKPOINT, arrays, values)

    def results(self) -> dict[str, Any]:
        """Averages over the equilibrated part of the whole run, earlier parts included."""
        counts = self.exchange.counts()
        ideal = self._ideal_gas()
        averages = {
            "acceptance": counts,
            "model_holes": counts["insertion"]["holes"] + counts["deletion"]["holes"],
            "ideal_gas": ideal,
        }
        if len(self.series) == 0:
            return averages | dict.fromkeys(_AVERAGES) | {"too_short": True}
        arrays = self.series.arrays()
        loading = estimate_mean(arrays["loading"])
        kept = slice(loading.equilibration_index, None)
        heat = isosteric_heat(
            arrays["potential_energy"][kept], arrays["loading"][kept], self.parameters.temperature, ideal["energy"]
        )
        return averages | {
            "mean_loading": loading.mean,
            "loading_error": loading.error,
            "statistical_inefficiency": loading.statistical_inefficiency,
            "equilibration_index": loading.equilibration_index,
            "effective_samples": loading.effective_samples,
            "too_short": loading.too_short,
            "mean_temperature": float(arrays["temperature"][kept].mean()),
            "isosteric_heat": None if heat is None else heat[0],
            "isosteric_heat_error": None if heat is None else heat[1],
        }

    def _ideal_gas(self) -> dict[str, Any]:
        """Describe the gas without the framework: β f V, μ and the mean total energy of a molecule."""
        rules, reservoir = self.parameters.rules, self.exchange.reservoir
        energy = estimate_mean(np.array(reservoir.mean_energies), detect_equilibration=False)
        volume = abs(float(np.linalg.det(self.state.cell)))
        atomic = self.potential.evaluate([reservoir.isolated()], forces=False)[0].atomic_energy
        return {
            "number": ideal_gas_number(rules.fugacity, volume, rules.temperature),
            "chemical_potential": chemical_potential(rules.temperature, rules.fugacity, self.gas.mass),
            "energy": energy.mean + atomic,
            "energy_error": energy.error,
        }


def run(inputs: dict[str, Any], stop: StopRequest) -> dict[str, Any]:
    """Run the simulation and write frames.npz, timeseries.npz, checkpoint.npz and, if holes were met, candidates.npz.

    :raises WorkerError: kind bad_input, no_model, does_not_fit; explosion or nan if nothing good came before it
    """
    parameters = MdGcmcParameters.from_dict(inputs["parameters"])
    files = inputs["files"]
    potential = open_model(inputs, parameters.head)
    potential.require_elements(Gas.from_dict(parameters.gas).numbers)
    checkpoint = Path(files["checkpoint"]) if files.get("checkpoint") else None
    framework = None
    if checkpoint is None:
        framework = read_structure(files["structure"])
        potential.require_elements(framework.numbers)
    simulation = HybridSimulation(parameters, potential, framework, int(inputs["seed"]), checkpoint)
    explosion, stopped, speed = simulation.advance(stop)
    if explosion is not None and len(simulation.series) == 0:
        kind = "nan" if explosion["reason"] == "not_finite" else "explosion"
        raise WorkerError(kind, describe_explosion(explosion))
    simulation.save(with_state=explosion is None)
    results = simulation.results() | {
        "n_frames": len(simulation.images),
        "steps_done": simulation.state.step,
        "steps_total": parameters.steps,
        "steps_per_second": speed,
        "device": potential.device,
    }
    if explosion is not None:
        results["explosion"] = explosion | {"message": describe_explosion(explosion)}
    return results | ({"stopped_early": True} if stopped else {})
