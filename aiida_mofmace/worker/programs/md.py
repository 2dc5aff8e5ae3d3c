"""Molecular dynamics of a framework with a fixed number of gas molecules, or of one molecule alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from ..errors import WorkerError
from ..kernels.checkpoint import load_checkpoint, restore_generator, save_checkpoint
from ..kernels.dynamics import MdState, Thermostat, initial_state, velocity_verlet_step
from ..kernels.frames import Frames
from ..kernels.gases import Gas
from ..kernels.geometry import cell_volume
from ..kernels.loading import place_molecules
from ..kernels.model import MaceEvaluator
from ..kernels.referee import Referee
from ..kernels.relaxation import relax
from ..kernels.statistics import estimate_mean
from ..kernels.thermostats import MomentumResampling, NoseHooverChain
from ..kernels.whole_files import save_arrays
from ..stopping import StopRequest
from .flexible import FlexibleCellParameters
from .simulation import Clock, Guard, TimeSeries, describe_explosion, explosion_error, open_model, read_structure

__all__ = ["MdParameters", "Simulation", "md_averages", "run"]

_CHECKPOINT = Path("checkpoint.npz")
_RELAXATION_STEPS = 100
_RELAXATION_FORCE = 0.5  # eV/Å; takes the worst contacts out, no more


@dataclass(frozen=True, kw_only=True)
class MdParameters(FlexibleCellParameters):
    """Parameters of a run; those of any dynamics in :class:`FlexibleCellParameters` and its base.

    :param equilibration_steps: steps at the start of which no frames are kept and no means taken
    :param loading: gas molecules to put into the pores
    :param gas: description of the molecule; None for an empty framework
    :param insertion_minimum_distance: smallest distance in Å at which a molecule is put beside other atoms
    :param gas_phase_box: edge in Å of the box of a molecule alone (no structure given)
    :param relax_first: take the worst contacts out before the first step
    :param engine: "native", or "lammps": LAMMPS makes the steps
    :param pressure: in Pa, of a cell that is free to change; None for constant volume
    :param flexible_cell: how it may change; LAMMPS knows full alone
    :param barostat_time_fs: relaxation time of LAMMPS's barostat in fs
    :param check_first_frame: compare the first frame with MACE's own ASE calculator
    """

    equilibration_steps: int
    loading: int = 0
    gas: Mapping[str, Any] | None = None
    insertion_minimum_distance: float | None = None
    gas_phase_box: float | None = None
    relax_first: bool = False
    check_first_frame: bool = False
    engine: str = "native"
    pressure: float | None = None
    flexible_cell: str = "full"
    barostat_time_fs: float = 1000.0

    def check(self) -> None:
        """Refuse values that no simulation can have.

        :raises WorkerError: kind bad_input
        """
        super().check()
        if self.loading > 0 and (self.gas is None or self.insertion_minimum_distance is None):
            raise WorkerError("bad_input", "a loading needs gas and insertion_minimum_distance")
        if self.engine not in ("native", "lammps"):
            raise WorkerError("bad_input", f"engine is {self.engine!r}, give native or lammps")
        if self.pressure is not None:
            self._check_cell()
        if not 0 <= self.equilibration_steps < self.steps:
            raise WorkerError("bad_input", "equilibration_steps must be fewer than steps")

    def _check_cell(self) -> None:
        if self.flexible_cell == "none":
            raise WorkerError("bad_input", "a pressure needs a cell that changes; set flexible_cell to full")
        if self.engine == "lammps" and self.flexible_cell != "full":
            raise WorkerError("bad_input", "the engine lammps changes the whole cell; set flexible_cell to full")


class Simulation:
    """One run: state, random numbers and record."""

    def __init__(self, parameters: MdParameters, files: Mapping[str, Any], seed: int, potential: MaceEvaluator):
        self.parameters, self.potential = parameters, potential
        self.is_gas_phase = not files.get("structure")
        volume = () if parameters.pressure is None else ("volume",)
        self.observables = TimeSeries("step", "potential_energy", "kinetic_temperature", "conserved_energy", *volume)
        self.images: list[Atoms] = []
        self.cell_work, counts = 0.0, dict[str, int]()
        if files.get("checkpoint"):
            start, counts = self._restore(Path(files["checkpoint"]))
        else:
            self.rng = np.random.default_rng(seed)
            self.state = self._start(files)
            start = self.state.cell
        if self.is_gas_phase and parameters.pressure is not None:
            raise WorkerError("bad_input", "a molecule alone has no pressure; set pressure to null")
        pressure = parameters.pressure if parameters.engine == "native" else None
        self.cell_moves = parameters.cell_moves(pressure, potential, self.rng, start, counts)
        self.thermostat = self._thermostat()

    def _start(self, files: Mapping[str, Any]) -> MdState:
        p = self.parameters
        gas = None if p.gas is None else Gas.from_dict(p.gas)
        if self.is_gas_phase:
            atoms = _lone_molecule(gas, p.gas_phase_box, self.potential.r_max)
        else:
            atoms = read_structure(files["structure"])
        framework_atoms = 0 if self.is_gas_phase else len(atoms)
        if p.loading and gas is not None and p.insertion_minimum_distance is not None:
            atoms = place_molecules(atoms, gas, p.loading, p.insertion_minimum_distance, self.rng)
        self.potential.require_elements(atoms.numbers)
        if p.relax_first:
            relax(atoms, self.potential, _RELAXATION_FORCE, _RELAXATION_STEPS)
        layout = {} if gas is None or self.is_gas_phase else {"counts": [p.loading], "sizes": [len(gas)]}
        arrays = {name: np.array(value) for name, value in layout.items()}
        return initial_state(atoms, self.potential, p.temperature, self.rng, framework_atoms, **arrays)

    def _restore(self, path: Path) -> tuple[NDArray[np.float64], dict[str, int]]:
        """Take up a checkpoint; return the cell at the start and what became of its moves."""
        arrays, values = load_checkpoint(path)
        if values.get("program") != "md" or values.get("engine") != self.parameters.engine:
            raise WorkerError("bad_input", f"{path.name} is a checkpoint of another program or engine")
        self.observables.restore(arrays, "observable_")
        self.state, self.rng = MdState.from_arrays(arrays), restore_generator(values["rng"])
        self.cell_work = values.get("cell_work", 0.0)
        return arrays.get("start_cell", self.state.cell), values.get("cell_counts", {})

    def _thermostat(self) -> Thermostat:
        p = self.parameters
        if self.is_gas_phase:
            interval = max(1, round(p.thermostat_time_fs / p.timestep_fs))
            return MomentumResampling(p.temperature, interval, self.rng)
        return NoseHooverChain(p.temperature, p.thermostat_time_fs * units.fs)

    @property
    def loading(self) -> int:
        """Gas molecules in the cell."""
        return 1 if self.is_gas_phase else self.parameters.loading

    def advance(self, stop: StopRequest) -> tuple[dict[str, Any] | None, bool, float]:
        """Go on to the last step.

        :return: what exploded or None; whether a stop was asked for; steps per second
        """
        p, state = self.parameters, self.state
        guard = Guard(p.temperature, p.max_temperature_factor, p.minimum_distance)
        clock = Clock(p.checkpoint_seconds, state.step)
        explosion, stopped = None, False
        while state.step < p.steps and not stopped:
            velocity_verlet_step(state, self.potential, self.thermostat, p.timestep_fs * units.fs)
            is_recorded = state.step % p.stride == 0
            explosion = guard.check(state, thorough=is_recorded) or self._outgrown()
            if explosion is not None:
                break
            if is_recorded:
                self.record()
            self._move_cell()
            stopped = stop.reason() is not None and state.step < p.steps
            if not stopped and clock.is_due():
                self.save()
        return explosion, stopped, clock.steps_per_second(state.step)

    def _outgrown(self) -> dict[str, Any] | None:
        """Say whether the cell has changed too much."""
        return None if self.cell_moves is None else self.cell_moves.outgrown(self.state)

    def _move_cell(self) -> None:
        """Attempt a move of the cell if one is due; what it changes the energy by is no error of the dynamics."""
        state = self.state
        if self.cell_moves is None or not self.parameters.is_cell_move_due(state.step):
            return
        before = state.energy
        if self.cell_moves.attempt(state):
            state.update(self.potential)
            self.cell_work += state.energy - before

    def record(self) -> None:
        """Write down this step; keep its frame if the equilibration is over."""
        state = self.state
        total = state.energy + state.atomic_energy
        conserved = total + state.kinetic_energy + self.thermostat.energy(state) - self.cell_work
        self.observables.append(
            step=state.step,
            potential_energy=total,
            kinetic_temperature=state.temperature,
            conserved_energy=conserved,
            volume=cell_volume(state.cell),
        )
        if state.step > self.parameters.equilibration_steps:
            self.images.append(state.atoms(loading=self.loading, group=self.parameters.group))

    def save(self, with_state: bool = True) -> None:
        """Write frames and observables, then the checkpoint that follows them."""
        Frames.from_atoms(self.images).save("frames.npz")
        save_arrays("observables.npz", **self.observables.arrays())
        if with_state:
            values: dict[str, Any] = {"program": "md", "engine": self.parameters.engine}
            values["rng"] = self.rng.bit_generator.state
            if self.cell_moves is not None:
                values |= {"cell_work": self.cell_work, "cell_counts": vars(self.cell_moves.counts)}
            save_checkpoint(_CHECKPOINT, self.checkpoint_arrays(), values)

    def checkpoint_arrays(self) -> dict[str, Any]:
        """Return what a checkpoint holds beside the random numbers."""
        start = {} if self.cell_moves is None else {"start_cell": self.cell_moves.start}
        return self.state.to_arrays() | self.observables.arrays("observable_") | start

    def averages(self) -> dict[str, Any]:
        """Means over all that was recorded after the equilibration, earlier parts of the run included."""
        p, results = self.parameters, dict[str, Any]()
        if self.cell_moves is not None:
            results["cell_moves"] = vars(self.cell_moves.counts).copy()
        return results | md_averages(self.observables.arrays(), p.equilibration_steps, p.stride, atoms=len(self.state))


def md_averages(
    observables: Mapping[str, NDArray[Any]], equilibration_steps: int, stride: int, *, atoms: int
) -> dict[str, Any]:
    """Means over what was recorded after the equilibration.

    :param observables: step, potential_energy (eV), kinetic_temperature (K) and, of a cell that changes, volume (Å³);
        shape (n,) each
    :param equilibration_steps: steps that count for nothing
    :param stride: steps between two values
    :param atoms: of the system; the energy of one alone is exact
    """
    kept = observables["step"] > equilibration_steps
    if not np.any(kept):
        names = ("mean_energy", "mean_energy_error", "correlation_steps", "mean_temperature")
        return dict.fromkeys(names) | {"too_short": True}
    energy = estimate_mean(observables["potential_energy"][kept])
    results: dict[str, Any] = {
        "mean_energy": energy.mean,
        "mean_energy_error": energy.error if atoms > 1 else 0.0,
        "correlation_steps": energy.statistical_inefficiency * stride,
        "too_short": energy.too_short and atoms > 1,
        "mean_temperature": float(observables["kinetic_temperature"][kept].mean()),
    }
    if "volume" in observables:
        volume = estimate_mean(observables["volume"][kept])
        results |= {"mean_volume": volume.mean, "mean_volume_error": volume.error}
        results["volume_too_short"] = volume.too_short
    return results


def _lone_molecule(gas: Gas | None, box: float | None, r_max: float) -> Atoms:
    """One molecule in the middle of a box so large that it does not see its images."""
    if gas is None or box is None:
        raise WorkerError("bad_input", "a run without a structure needs gas and gas_phase_box")
    smallest = r_max + 2.0 * float(np.linalg.norm(gas.positions, axis=1).max()) + 1.0
    if box < smallest:
        raise WorkerError("bad_input", f"gas_phase_box must be at least {smallest:.1f} Å for this model, got {box}")
    return Atoms(gas.numbers, gas.positions + box / 2, cell=[box] * 3, pbc=True)


def _check_first_frame(simulation: Simulation, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Compare what the first step starts from with ASE."""
    state = simulation.state
    dtype, head = inputs.get("dtype", "float32"), simulation.parameters.head
    referee = Referee(str(inputs["files"]["model"]), simulation.potential.device, dtype, head)
    return referee.compare_frame(state.atoms(), state.energy + state.atomic_energy, state.forces)


def _simulation_class(parameters: MdParameters) -> type[Simulation]:
    if parameters.engine == "native":
        return Simulation
    from .md_lammps import LammpsSimulation

    return LammpsSimulation


def run(inputs: dict[str, Any], stop: StopRequest) -> dict[str, Any]:
    """Run the dynamics and write frames.npz, observables.npz and checkpoint.npz.

    :raises WorkerError: kind bad_input, no_model, does_not_fit, wrong_engine; explosion or nan if nothing good came
        before it
    """
    parameters = MdParameters.from_dict(inputs["parameters"])
    potential = open_model(inputs, parameters.head)
    simulation = _simulation_class(parameters)(parameters, inputs["files"], int(inputs["seed"]), potential)
    first_frame = _check_first_frame(simulation, inputs) if parameters.check_first_frame else None
    explosion, stopped, speed = simulation.advance(stop)
    averages = simulation.averages()
    if explosion is not None and averages["mean_energy"] is None:
        raise explosion_error(explosion)
    simulation.save(with_state=explosion is None)
    results = {
        **averages,
        "n_frames": len(simulation.images),
        "steps_done": simulation.state.step,
        "steps_total": parameters.steps,
        "steps_per_second": speed,
        "device": potential.device,
        "reason_if_stopped": stop.reason() if stopped else None,
        "first_frame": first_frame,
    }
    if explosion is not None:
        results["explosion"] = explosion | {"message": describe_explosion(explosion)}
    return results | ({"stopped_early": True} if stopped else {})
