"""One simulation of hybrid molecular dynamics and grand-canonical Monte Carlo: state, moves, random numbers, record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from ..errors import WorkerError
from ..kernels.checkpoint import load_checkpoint, restore_generator, save_checkpoint
from ..kernels.displacement import DISPLACEMENTS, Displacement
from ..kernels.dynamics import MdState, Thermostat, initial_state, velocity_verlet_step
from ..kernels.exchange import Exchange, MoveCounts, MoveRules, Species
from ..kernels.frames import Frames
from ..kernels.gases import Gas, mixture
from ..kernels.geometry import cell_volume
from ..kernels.ideal_gas import IdealGasReservoir, Reservoir, RigidReservoir
from ..kernels.loading import place_molecules
from ..kernels.model import Potential
from ..kernels.multiple_try import MultipleTry
from ..kernels.surrogate import LennardJonesSurrogate
from ..kernels.thermostats import Langevin, NoseHooverChain
from ..kernels.whole_files import save_arrays
from ..stopping import StopRequest
from .flexible import FlexibleCellParameters
from .guards import DriftGuard, broken_molecule, detached_atom, has_neighbour
from .simulation import Clock, Guard, TimeSeries

__all__ = ["HybridSimulation", "MdGcmcParameters"]

_ENGINES = ("native", "lammps")
_THERMOSTATS = ("nose_hoover", "langevin")


@dataclass(frozen=True, kw_only=True)
class MdGcmcParameters(FlexibleCellParameters):
    """Parameters of a run; those of any dynamics in :class:`FlexibleCellParameters` and its base.

    :param pressure: in Pa, of the whole gas
    :param gas: description of the molecule, or of a mixture (:func:`mixture`)
    :param md_steps_per_attempt: steps of dynamics between the blocks of attempts
    :param attempts_per_block: Monte Carlo moves attempted after them
    :param model_hole_bound: energy of insertion in eV below which the model is not believed
    :param explosion_distance: distance in Å between any two atoms below which the run has exploded
    :param fugacity: in Pa; of a mixture by name of the component; None for an ideal gas
    :param initial_loading: molecules in the pores at the start; of a mixture by name, or of its first component
    :param max_loading: largest loading, None for no limit
    :param trial_places: places weighed in each insertion or deletion, one of them tried; 1 for one drawn uniformly
    :param surrogate: what places are weighed by (:class:`LennardJonesSurrogate`); None: all that do not overlap alike
    :param moves: relative frequency of exchange, translation, rotation and reinsertion; those left out do not happen
    :param translation_step: largest displacement of a translation in Å along each axis
    :param rotation_step: largest angle of a rotation in degrees
    :param framework_flexible: False holds the framework's atoms where they are
    :param gas_flexible: False keeps the molecules rigid; they then move by Monte Carlo alone
    :param thermostat: nose_hoover or langevin
    :param engine: "native", or "lammps": LAMMPS makes steps and exchanges
    :param cell_pressure: in Pa, what presses on a flexible cell; None for the pressure of the gas
    """

    pressure: float
    gas: Mapping[str, Any]
    md_steps_per_attempt: int
    attempts_per_block: int
    model_hole_bound: float
    explosion_distance: float
    fugacity: float | Mapping[str, float] | None = None
    initial_loading: int | Mapping[str, int] = 0
    max_loading: int | None = None
    trial_places: int = 1
    surrogate: Mapping[str, Any] | None = None
    moves: Mapping[str, float] = field(default_factory=lambda: {"exchange": 1.0})
    translation_step: float = 0.0
    rotation_step: float = 0.0
    framework_flexible: bool = True
    gas_flexible: bool = True
    thermostat: str = "nose_hoover"
    max_energy_drift: float | None = None
    energy_drift_window_fs: float = 500.0
    longest_bond: float | None = None
    engine: str = "native"
    cell_pressure: float | None = None

    def check(self) -> None:
        """Refuse values that no simulation can have.

        :raises WorkerError: kind bad_input
        """
        super().check()
        self.require_positive("pressure", "md_steps_per_attempt", "attempts_per_block", "trial_places")
        if min(self.fugacities) <= 0:
            raise WorkerError("bad_input", f"fugacities must be positive, got {self.fugacity}")
        most = self.max_loading
        if min(self.initial_loadings) < 0 or (most is not None and most < sum(self.initial_loadings)):
            raise WorkerError("bad_input", "initial_loading must lie between 0 and max_loading")
        if self.thermostat not in _THERMOSTATS:
            raise WorkerError("bad_input", f"thermostat must be one of {', '.join(_THERMOSTATS)}")
        if self.engine not in _ENGINES:
            raise WorkerError("bad_input", f"engine must be one of {', '.join(_ENGINES)}, got {self.engine!r}")
        self._check_moves()
        if self.flexible_cell != "none":
            self._check_cell()

    def _check_cell(self) -> None:
        if self.engine != "native":
            raise WorkerError("bad_input", "a flexible_cell needs the engine native")
        if not self.framework_flexible:
            raise WorkerError("bad_input", "a flexible_cell needs a framework that moves: set framework_flexible")
        if self.md_steps_per_cell_move % self.md_steps_per_attempt:
            raise WorkerError("bad_input", "md_steps_per_cell_move must be a multiple of md_steps_per_attempt")

    def _check_moves(self) -> None:
        unknown = sorted(set(self.moves) - {"exchange", *DISPLACEMENTS})
        if unknown or min(self.moves.values(), default=0.0) < 0 or not sum(self.moves.values()) > 0:
            raise WorkerError("bad_input", f"moves must be frequencies of exchange and {', '.join(DISPLACEMENTS)}")
        for move, step in (("translation", "translation_step"), ("rotation", "rotation_step")):
            if self.moves.get(move, 0.0) > 0:
                self.require_positive(step)
        if self.gas_flexible:
            return
        needed = ["translation", *(["rotation"] if any(len(gas) > 1 for gas in self.gases) else [])]
        if not all(self.moves.get(move, 0.0) > 0 for move in needed):
            raise WorkerError("bad_input", f"rigid molecules move by Monte Carlo alone: give moves {needed}")

    @property
    def gases(self) -> list[Gas]:
        """The kinds of molecules."""
        return [gas for gas, _ in mixture(self.gas)]

    @property
    def fugacities(self) -> list[float]:
        """In Pa, of each kind of molecule; those of an ideal gas if none are given."""
        if self.fugacity is None:
            return [self.pressure * fraction for _, fraction in mixture(self.gas)]
        return [float(value) for value in self._by_kind(self.fugacity, "fugacity")]

    @property
    def initial_loadings(self) -> list[int]:
        """Molecules of each kind at the start."""
        given = self.initial_loading
        if isinstance(given, Mapping):
            return [int(value) for value in self._by_kind(given, "initial_loading")]
        return [int(given), *[0] * (len(self.gases) - 1)]

    def _by_kind(self, given: float | Mapping[str, Any], what: str) -> list[Any]:
        names = [gas.name for gas in self.gases]
        values = given if isinstance(given, Mapping) else {names[0]: given}
        if set(values) != set(names):
            raise WorkerError("bad_input", f"{what} must be given for {', '.join(names)}, got {given}")
        return [values[name] for name in names]

    @property
    def rules(self) -> MoveRules:
        """What a move is judged by."""
        return MoveRules(self.temperature, self.minimum_distance, self.model_hole_bound, self.max_loading)


class HybridSimulation:
    """One run. Needs no file but its checkpoint.

    :param parameters: of the run
    :param potential: energies and forces
    :param framework: the empty framework; not needed when a checkpoint is given
    :param seed: of all random numbers; not needed when a checkpoint is given
    :param checkpoint: file to go on from, or None
    :param folder: where its files are written, None for the present one
    """

    def __init__(
        self,
        parameters: MdGcmcParameters,
        potential: Potential,
        framework: Atoms | None,
        seed: int = 0,
        checkpoint: Path | None = None,
        *,
        folder: Path | None = None,
    ):
        p = self.parameters = parameters
        self.folder = folder or Path()
        self.potential, self.gases = potential, parameters.gases
        loadings = [f"loading_{gas.name}" for gas in self.gases] if len(self.gases) > 1 else []
        volume = ["volume"] if p.flexible_cell != "none" else []
        self.series = TimeSeries("step", "loading", *loadings, "potential_energy", "temperature", *volume)
        self.images: list[Atoms] = []
        self.drift = DriftGuard(p.max_energy_drift, p.energy_drift_window_fs * 1e-3)
        if checkpoint is not None:
            self._restore(checkpoint)
        elif framework is not None:
            self._start(framework, seed)
        else:
            raise ValueError("a framework or a checkpoint is needed")
        surrogate = self.exchange.multiple_try.surrogate if self.exchange.multiple_try else None
        if surrogate is not None:
            surrogate.require_elements(np.concatenate([self.state.numbers, *(gas.numbers for gas in self.gases)]))
        period = p.thermostat_time_fs * units.fs
        self.thermostat: Thermostat = NoseHooverChain(p.temperature, period)
        if p.thermostat == "langevin":
            self.thermostat = Langevin(p.temperature, period, self.rng)
        if checkpoint is None:
            self.drift.begun = self._conserved_energy()
            self.bonded = has_neighbour(self.state, p.longest_bond or 1.0)
        frequencies = np.array([p.moves.get(move, 0.0) for move in ("exchange", *DISPLACEMENTS)])
        self._chances = np.cumsum(frequencies / frequencies.sum())

    def _start(self, framework: Atoms, seed: int) -> None:
        p, self.rng = self.parameters, np.random.default_rng(seed)
        self._make_moves(equilibrate=True)
        atoms = framework
        for gas, loading in zip(self.gases, p.initial_loadings, strict=True):
            atoms = place_molecules(atoms, gas, loading, p.minimum_distance, self.rng)
        self.state = initial_state(
            atoms,
            self.potential,
            p.temperature,
            self.rng,
            len(framework),
            counts=np.array(p.initial_loadings),
            sizes=np.array([len(gas) for gas in self.gases]),
            framework_moves=p.framework_flexible,
            gas_moves=p.gas_flexible,
        )
        self._make_cell_moves(self.state.cell, {})

    def _restore(self, path: Path) -> None:
        arrays, values = load_checkpoint(path)
        if values.get("program") != "md_gcmc" or values.get("engine") != self.parameters.engine:
            raise WorkerError("bad_input", f"{path.name} is a checkpoint of another program or engine")
        self.rng = restore_generator(values["rng"])
        self._make_moves(equilibrate=False)
        for index, each in enumerate(self.species):
            prefix = f"reservoir_{index}_"
            each.reservoir.restore({k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)})
        counts = {move: MoveCounts(**trials) for move, trials in values["counts"].items()}
        self.exchange.insertions, self.exchange.deletions = counts.pop("insertion"), counts.pop("deletion")
        self.series.restore(arrays, "series_")
        self.state, self.bonded = MdState.from_arrays(arrays), arrays["bonded"]
        if self.state.is_held:
            self.state.show(self.potential)
        cell_counts = vars(counts.pop("cell", MoveCounts()))
        self._make_cell_moves(arrays.get("start_cell", self.state.cell), cell_counts)
        self.displacement.counts |= counts
        self.drift = replace(self.drift, **values["drift"])

    def _make_moves(self, equilibrate: bool) -> None:
        p = self.parameters
        self.species = [
            Species(gas, fugacity, self._reservoir(gas, equilibrate))
            for gas, fugacity in zip(self.gases, p.fugacities, strict=True)
        ]
        self.exchange = Exchange(self.species, self.potential, p.rules, self.rng, self._multiple_try())
        self.displacement = Displacement(
            self.species, self.potential, p.rules, self.rng, p.translation_step, p.rotation_step
        )

    def _make_cell_moves(self, start: NDArray[np.float64], counts: Mapping[str, int]) -> None:
        p = self.parameters
        pressure = p.pressure if p.cell_pressure is None else p.cell_pressure
        self.cell_moves = p.cell_moves(pressure, self.potential, self.rng, start, counts)

    def _multiple_try(self) -> MultipleTry | None:
        p = self.parameters
        if p.trial_places == 1:
            return None
        surrogate = None if p.surrogate is None else LennardJonesSurrogate.from_dict(p.surrogate)
        return MultipleTry(p.trial_places, surrogate, p.rules.thermal, p.minimum_distance, self.rng)

    def _reservoir(self, gas: Gas, equilibrate: bool) -> Reservoir:
        p = self.parameters
        if not p.gas_flexible:
            return RigidReservoir(gas, self.potential)
        return IdealGasReservoir(
            gas, self.potential, p.temperature, p.timestep_fs * units.fs, self.rng, equilibrate=equilibrate
        )

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
            explosion = self._tripped(guard)
            if explosion is not None:
                self._keep(explosion["reason"])
                break
            if state.step % p.stride == 0:
                self.images.append(state.atoms(loading=state.loading, group=p.group))
            if state.step % p.md_steps_per_attempt == 0:
                self._attempt_moves()
            stopped = stop.reason() is not None and state.step < p.steps
            if not stopped and clock.is_due():
                self.save()
        return explosion, stopped, clock.steps_per_second(state.step)

    def _tripped(self, guard: Guard) -> dict[str, Any] | None:
        """Say which guard a state has tripped; fragments are looked for in recorded frames."""
        p, state = self.parameters, self.state
        is_recorded = state.step % p.stride == 0
        explosion = guard.check(state, thorough=is_recorded)
        if explosion is None and is_recorded:
            explosion = self._fragment()
        if explosion is None and self.cell_moves is not None:
            explosion = self.cell_moves.outgrown(state)
        if explosion is None and state.step % p.md_steps_per_attempt == 0:
            time = p.md_steps_per_attempt * p.timestep_fs * 1e-3
            explosion = self.drift.end_piece(self._conserved_energy(), time, len(state), state.step)
        return explosion

    def _fragment(self) -> dict[str, Any] | None:
        """Say what has come off a molecule or the framework."""
        found = broken_molecule(self.state, self.gases)
        return found or detached_atom(self.state, self.bonded, self.parameters.longest_bond)

    def _conserved_energy(self) -> float:
        return self.state.energy + self.state.kinetic_energy + self.thermostat.energy(self.state)

    def _keep(self, reason: str) -> None:
        """Keep the frame that tripped a guard, if it is one at all."""
        if np.all(np.isfinite(self.state.positions)):
            self.exchange.candidates.append(self.state.atoms(loading=self.state.loading, guard=reason))

    def _attempt_moves(self) -> None:
        """Attempt moves, then record the block; forces are evaluated once, however many were accepted."""
        state, p = self.state, self.parameters
        temperature = state.temperature
        accepted = [self._attempt_move() for _ in range(p.attempts_per_block)]
        if self.cell_moves is not None and p.is_cell_move_due(state.step):
            accepted.append(self.cell_moves.attempt(state))
        if any(accepted):
            state.show(self.potential)
        by_kind = zip(self.gases, state.counts.tolist(), strict=True) if len(self.gases) > 1 else ()
        self.series.append(
            step=state.step,
            loading=state.loading,
            potential_energy=state.energy + state.atomic_energy,
            temperature=temperature,
            volume=cell_volume(state.cell),
            **{f"loading_{gas.name}": count for gas, count in by_kind},
        )
        self.drift.begun = self._conserved_energy()

    def _attempt_move(self) -> bool:
        if self._chances[0] == 1.0:
            return self.exchange.attempt(self.state)
        index = int(np.searchsorted(self._chances, self.rng.random(), side="right"))
        if index == 0:
            return self.exchange.attempt(self.state)
        return self.displacement.attempt(self.state, DISPLACEMENTS[index - 1])

    def counts(self) -> dict[str, dict[str, int]]:
        """Return what became of all trials by kind of move; displacements only where they are attempted."""
        displacements = {move: counts for move, counts in self.displacement.counts.items() if counts.attempted}
        trials = {"insertion": self.exchange.insertions, "deletion": self.exchange.deletions} | displacements
        if self.cell_moves is not None:
            trials["cell"] = self.cell_moves.counts
        return {move: vars(counts).copy() for move, counts in trials.items()}

    def save(self, with_state: bool = True) -> None:
        """Write frames, time series and candidates, then the checkpoint that follows them."""
        Frames.from_atoms(self.images).save(self.folder / "frames.npz")
        save_arrays(self.folder / "timeseries.npz", **self.series.arrays())
        if self.exchange.candidates:
            candidates = Frames.from_atoms(self.exchange.candidates)
            reasons = [str(atoms.info.get("guard", "hole")) for atoms in self.exchange.candidates]
            candidates.groups = [f"{self.parameters.group}_{reason}" for reason in reasons]
            candidates.save(self.folder / "candidates.npz")
        if with_state:
            values = {"program": "md_gcmc", "engine": self.parameters.engine, "counts": self.counts()}
            values |= {"rng": self.rng.bit_generator.state, "drift": self.drift.to_dict()}
            save_checkpoint(self.folder / "checkpoint.npz", self.checkpoint_arrays(), values)

    def remarks(self) -> dict[str, Any]:
        """Return results that only this engine has."""
        return {}

    def checkpoint_arrays(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside random numbers and counts."""
        arrays = self.state.to_arrays() | self.series.arrays("series_") | {"bonded": self.bonded}
        if self.cell_moves is not None:
            arrays["start_cell"] = self.cell_moves.start
        for index, each in enumerate(self.species):
            arrays |= {f"reservoir_{index}_{k}": v for k, v in each.reservoir.to_arrays().items()}
        return arrays
