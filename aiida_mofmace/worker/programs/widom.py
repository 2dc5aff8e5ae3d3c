"""Henry coefficient of a gas in a framework, by insertions on trial between pieces of molecular dynamics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units

from ..errors import WorkerError
from ..kernels.checkpoint import load_checkpoint, restore_generator, save_checkpoint
from ..kernels.dynamics import MdState, Thermostat, initial_state, velocity_verlet_step
from ..kernels.exchange import MoveCounts, MoveRules
from ..kernels.frames import Frames
from ..kernels.gases import Gas
from ..kernels.geometry import cell_volume
from ..kernels.ideal_gas import IdealGasReservoir, Reservoir, RigidReservoir
from ..kernels.mace_kinds import why_not
from ..kernels.model import Potential
from ..kernels.receptive_field import LayerRecord, LocalPotential
from ..kernels.thermodynamics import henry_coefficient
from ..kernels.thermostats import NoseHooverChain
from ..kernels.whole_files import save_arrays
from ..kernels.widom import WidomAverages, WidomInsertion, widom_averages
from ..stopping import StopRequest
from .simulation import Clock, Guard, SimulationParameters, TimeSeries, explosion_error, open_model, read_structure

__all__ = ["WidomParameters", "WidomSimulation", "run"]

_CHECKPOINT = Path("checkpoint.npz")


@dataclass(frozen=True, kw_only=True)
class WidomParameters(SimulationParameters):
    """Parameters of a run; those of any dynamics in :class:`SimulationParameters`.

    ``stride`` is the number of steps between two sets of insertions; in a rigid framework a step is only a count.

    :param gas: description of the molecule
    :param equilibration_steps: steps at the start without insertions
    :param insertions: trial insertions in each set
    :param model_hole_bound: energy of insertion in eV below which the model is not believed
    :param explosion_distance: distance in Å between any two atoms below which the run has exploded
    :param framework_flexible: False holds the framework's atoms where they are
    :param gas_flexible: False inserts the equilibrium geometry only
    """

    gas: Mapping[str, Any]
    equilibration_steps: int
    insertions: int
    model_hole_bound: float
    explosion_distance: float
    framework_flexible: bool = True
    gas_flexible: bool = True

    def check(self) -> None:
        """Refuse values that no simulation can have.

        :raises WorkerError: kind bad_input
        """
        super().check()
        self.require_positive("insertions")
        if not 0 <= self.equilibration_steps < self.steps:
            raise WorkerError("bad_input", "equilibration_steps must be fewer than steps")


class WidomSimulation:
    """One run: empty framework, insertions, record. Needs no file but its checkpoint.

    :param parameters: of the run
    :param potential: energies and forces
    :param framework: the empty framework; not needed when a checkpoint is given
    :param seed: of all random numbers; not needed when a checkpoint is given
    :param checkpoint: file to go on from, or None
    """

    def __init__(
        self,
        parameters: WidomParameters,
        potential: Potential,
        framework: Atoms | None,
        seed: int = 0,
        checkpoint: Path | None = None,
    ):
        p = self.parameters = parameters
        self.potential, self.gas = potential, Gas.from_dict(p.gas)
        self.thermostat: Thermostat = NoseHooverChain(p.temperature, p.thermostat_time_fs * units.fs)
        self.series = TimeSeries(
            "step", "boltzmann_factor", "weighted_total_energy", "molecule_energy", "potential_energy"
        )
        if checkpoint is not None:
            arrays, values = load_checkpoint(checkpoint)
            if values.get("program") != "widom":
                raise WorkerError("bad_input", f"{checkpoint.name} is a checkpoint of another program")
            self.rng = restore_generator(values["rng"])
            self.widom = self._insertion(self._reservoir(equilibrate=False), MoveCounts(**values["counts"]))
            self.widom.reservoir.restore({k[10:]: v for k, v in arrays.items() if k.startswith("reservoir_")})
            self.series.restore(arrays, "series_")
            self.state = MdState.from_arrays(arrays)
            if self.state.is_held:
                self.state.show(potential)
        elif framework is not None:
            self.rng = np.random.default_rng(seed)
            self.widom = self._insertion(self._reservoir(equilibrate=True), MoveCounts())
            layout: dict[str, Any] = {"counts": np.zeros(1, dtype=np.int64), "sizes": np.array([len(self.gas)])}
            flexible = p.framework_flexible
            self.state = initial_state(
                framework, potential, p.temperature, self.rng, framework_moves=flexible, **layout
            )
        else:
            raise ValueError("a framework or a checkpoint is needed")

    def _reservoir(self, equilibrate: bool) -> Reservoir:
        p = self.parameters
        if not p.gas_flexible:
            return RigidReservoir(self.gas, self.potential)
        timestep = p.timestep_fs * units.fs
        return IdealGasReservoir(self.gas, self.potential, p.temperature, timestep, self.rng, equilibrate=equilibrate)

    def _insertion(self, reservoir: Reservoir, counts: MoveCounts) -> WidomInsertion:
        p = self.parameters
        rules = MoveRules(p.temperature, p.minimum_distance, p.model_hole_bound)
        return WidomInsertion(self.gas, self.potential, reservoir, rules, self.rng, counts, [])

    def advance(self, stop: StopRequest) -> tuple[dict[str, Any] | None, bool, float]:
        """Go on to the last step.

        :return: what exploded or None; whether a stop was asked for; steps per second
        """
        p, state = self.parameters, self.state
        guard = Guard(p.temperature, p.max_temperature_factor, p.explosion_distance)
        clock = Clock(p.checkpoint_seconds, state.step)
        stopped = False
        while state.step < p.steps and not stopped:
            velocity_verlet_step(state, self.potential, self.thermostat, p.timestep_fs * units.fs)
            explosion = guard.check(state, thorough=state.step % p.stride == 0)
            if explosion is not None:
                return explosion, False, clock.steps_per_second(state.step)
            if state.step % p.stride == 0 and state.step > p.equilibration_steps:
                factor, energy, own = self.widom.sample(state, p.insertions)
                self.series.append(
                    step=state.step,
                    boltzmann_factor=factor,
                    weighted_total_energy=energy,
                    molecule_energy=own,
                    potential_energy=state.energy + state.atomic_energy,
                )
            stopped = stop.reason() is not None and state.step < p.steps
            if not stopped and clock.is_due():
                self.save()
        return None, stopped, clock.steps_per_second(state.step)

    def averages(self) -> WidomAverages | None:
        """Averages over all insertions, earlier parts of the run included."""
        arrays = self.series.arrays()
        return widom_averages(
            arrays["boltzmann_factor"],
            arrays["weighted_total_energy"],
            arrays["molecule_energy"],
            arrays["potential_energy"],
            self.parameters.temperature,
        )

    def save(self) -> None:
        """Write time series and candidates, then the checkpoint that follows them."""
        save_arrays("timeseries.npz", **self.series.arrays())
        if self.widom.candidates:
            candidates = Frames.from_atoms(self.widom.candidates)
            candidates.groups = [f"{self.parameters.group}_hole"] * len(candidates)
            candidates.save("candidates.npz")
        arrays = self.state.to_arrays() | self.series.arrays("series_")
        arrays |= {f"reservoir_{k}": v for k, v in self.widom.reservoir.to_arrays().items()}
        values = {"rng": self.rng.bit_generator.state, "counts": vars(self.widom.counts), "program": "widom"}
        save_checkpoint(_CHECKPOINT, arrays, values)

    def results(self) -> dict[str, Any]:
        """Henry coefficient in molecules per cell and mol/kg per Pa, excess chemical potential and heat in eV."""
        found, state, p = self.averages(), self.state, self.parameters
        mass = float(state.masses[: state.framework_atoms].sum())
        volume = cell_volume(state.cell)
        pairs: dict[str, tuple[float | None, float | None]] = dict.fromkeys(
            ("boltzmann_factor", "henry_molecules_per_pascal", "henry", "excess_chemical_potential", "heat"),
            (None, None),
        )
        if found is not None:
            per_cell, per_mass = henry_coefficient(1.0, volume, mass, p.temperature)
            value, error = found.factor
            pairs = {
                "boltzmann_factor": found.factor,
                "henry_molecules_per_pascal": (value * per_cell, error * per_cell),
                "henry": (value * per_mass, error * per_mass),
                "excess_chemical_potential": found.excess,
                "heat": found.heat,
            }
        values = {name: pair[0] for name, pair in pairs.items()} | {f"{n}_error": pair[1] for n, pair in pairs.items()}
        return values | {
            "effective_samples": None if found is None else found.effective_samples,
            "too_short": found is None or found.too_short,
            "insertions": vars(self.widom.counts).copy(),
            "model_holes": self.widom.counts.holes,
        }


def run(inputs: dict[str, Any], stop: StopRequest) -> dict[str, Any]:
    """Run the simulation and write timeseries.npz, checkpoint.npz and, if holes were met, candidates.npz.

    :raises WorkerError: kind bad_input, no_model, explosion or nan
    """
    parameters = WidomParameters.from_dict(inputs["parameters"])
    files = inputs["files"]
    model = open_model(inputs, parameters.head)
    model.require_elements(Gas.from_dict(parameters.gas).numbers)
    framework = read_structure(files["structure"])
    model.require_elements(framework.numbers)
    # A GPU takes all insertions of a frame in one call, each in full.
    is_local = model.device == "cpu" and not why_not(model.model)
    potential: Potential = LocalPotential(LayerRecord(model)) if is_local else model
    checkpoint = Path(files["checkpoint"]) if files.get("checkpoint") else None
    simulation = WidomSimulation(parameters, potential, framework, int(inputs["seed"]), checkpoint)
    explosion, stopped, speed = simulation.advance(stop)
    if explosion is not None:
        raise explosion_error(explosion)
    simulation.save()
    results = simulation.results() | {
        "steps_done": simulation.state.step,
        "steps_total": parameters.steps,
        "steps_per_second": speed,
        "device": model.device,
        "local_trials": is_local,
    }
    return results | ({"stopped_early": True} if stopped else {})
