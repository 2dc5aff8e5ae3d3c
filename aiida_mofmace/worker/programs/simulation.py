"""What the simulation programs share: their inputs, the guard against explosions, the record of a run."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from ase import Atoms
from ase.io import read
from numpy.typing import NDArray

from ..errors import WorkerError
from ..kernels.dynamics import MdState
from ..kernels.model import MaceEvaluator
from ..kernels.neighbour_search import short_distances

__all__ = [
    "DISTANCE_CHECK_INTERVAL",
    "Clock",
    "Guard",
    "SimulationParameters",
    "TimeSeries",
    "describe_explosion",
    "explosion_error",
    "open_model",
    "read_structure",
]

CHECKPOINT_SECONDS = 60.0
DISTANCE_CHECK_INTERVAL = 5  # steps; a pair that collapses needs about 20 of them at 0.5 fs
_FLUCTUATION = 6.0  # standard deviations of the kinetic temperature

ParametersT = TypeVar("ParametersT", bound="SimulationParameters")


@dataclass(frozen=True, kw_only=True)
class SimulationParameters:
    """Parameters of any molecular dynamics.

    :param temperature: in K
    :param timestep_fs: time step in fs
    :param steps: total number of steps, those before the checkpoint included
    :param stride: steps between two frames
    :param thermostat_time_fs: relaxation time of the thermostat in fs
    :param max_temperature_factor: kinetic temperature over the wanted one above which the run has exploded
    :param minimum_distance: smallest allowed distance between atoms in Å
    :param group: lab-journal name that the frames carry
    :param head: head of a multihead model, or None
    :param checkpoint_seconds: wall time between two checkpoints
    """

    temperature: float
    timestep_fs: float
    steps: int
    stride: int
    thermostat_time_fs: float
    max_temperature_factor: float
    minimum_distance: float
    group: str = ""
    head: str | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    @classmethod
    def from_dict(cls: type[ParametersT], parameters: Mapping[str, Any]) -> ParametersT:
        """Pick the parameters out of those of the job.

        :raises WorkerError: kind bad_input, if one is missing or impossible
        """
        required = {each.name for each in fields(cls) if each.default is MISSING and each.default_factory is MISSING}
        missing = sorted(required - set(parameters))
        if missing:
            raise WorkerError("bad_input", f"parameters are missing: {', '.join(missing)}")
        chosen = cls(**{each.name: parameters[each.name] for each in fields(cls) if each.name in parameters})
        chosen.check()
        return chosen

    def check(self) -> None:
        """Refuse values that no simulation can have.

        :raises WorkerError: kind bad_input
        """
        self.require_positive(
            "temperature", "timestep_fs", "steps", "stride", "thermostat_time_fs", "max_temperature_factor"
        )
        if self.minimum_distance < 0:
            raise WorkerError("bad_input", f"minimum_distance must not be negative, got {self.minimum_distance}")

    def require_positive(self, *names: str) -> None:
        """Refuse parameters that are not positive.

        :raises WorkerError: kind bad_input, naming them
        """
        wrong = {name: getattr(self, name) for name in names if not getattr(self, name) > 0}
        if wrong:
            raise WorkerError("bad_input", f"parameters must be positive: {wrong}")


@dataclass(frozen=True)
class Guard:
    """Recognises a simulation that has left physics behind.

    :param temperature: wanted temperature in K
    :param factor: multiple of it above which the run has exploded, beyond natural fluctuation
    :param minimum_distance: smallest allowed distance between any two atoms in Å
    """

    temperature: float
    factor: float
    minimum_distance: float

    def highest_temperature(self, degrees_of_freedom: int) -> float:
        """Limit in K: the factor, plus what few degrees of freedom may fluctuate to (6 standard deviations)."""
        return self.temperature * (self.factor + _FLUCTUATION * math.sqrt(2.0 / max(degrees_of_freedom, 1)))

    def check(self, state: MdState, thorough: bool = False) -> dict[str, Any] | None:
        """Say what is wrong with a state: reason, step, value and limit; None if nothing is.

        :param state: after a step
        :param thorough: measure distances now, not only every few steps
        """
        temperature = state.temperature
        if not np.isfinite(state.energy) or not np.isfinite(temperature):
            return {"reason": "not_finite", "step": state.step, "value": None, "limit": None}
        limit = self.highest_temperature(state.degrees_of_freedom)
        if temperature > limit:
            return {"reason": "temperature", "step": state.step, "value": temperature, "limit": limit}
        is_due = thorough or state.step % DISTANCE_CHECK_INTERVAL == 0
        if is_due and self.minimum_distance > 0.0:
            _, _, distances = short_distances(state.positions, state.cell, self.minimum_distance)
            if len(distances):
                nearest, limit = float(distances.min()), self.minimum_distance
                return {"reason": "distance", "step": state.step, "value": nearest, "limit": limit}
        return None


class TimeSeries:
    """Rows of numbers that grow with the run and go through its checkpoints.

    :param names: names of the columns
    """

    def __init__(self, *names: str):
        self._columns: dict[str, list[float]] = {name: [] for name in names}

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def append(self, **row: float) -> None:
        """Add one value to each column."""
        for name, column in self._columns.items():
            column.append(row[name])

    def arrays(self, prefix: str = "") -> dict[str, Any]:
        """Columns as arrays of shape (rows,)."""
        return {f"{prefix}{name}": np.array(column) for name, column in self._columns.items()}

    def restore(self, arrays: Mapping[str, NDArray[Any]], prefix: str) -> None:
        """Take over the columns of a checkpoint.

        :raises WorkerError: kind bad_input, if the run before kept no record of one of them
        """
        missing = [name for name in self._columns if f"{prefix}{name}" not in arrays]
        if missing:
            raise WorkerError("bad_input", f"the checkpoint is of a run that kept no record of {', '.join(missing)}")
        for name in self._columns:
            self._columns[name] = arrays[f"{prefix}{name}"].tolist()


class Clock:
    """Tells when the next checkpoint is due and how fast the run goes.

    :param interval: seconds between two checkpoints
    :param step: step at which this process began
    """

    def __init__(self, interval: float, step: int):
        self._interval, self._first = interval, step
        self._started = self._written = time.monotonic()

    def is_due(self) -> bool:
        """Whether to write a checkpoint now; starts the next interval if so."""
        now = time.monotonic()
        if now - self._written < self._interval:
            return False
        self._written = now
        return True

    def steps_per_second(self, step: int) -> float:
        """Return the steps done by this process per second of wall time."""
        return (step - self._first) / max(time.monotonic() - self._started, 1e-9)


def open_model(inputs: Mapping[str, Any], head: str | None) -> MaceEvaluator:
    """Load the model that the job names, on the device and in the precision it asks for."""
    return MaceEvaluator(inputs["files"]["model"], inputs.get("device", "cpu"), inputs.get("dtype", "float32"), head)


def read_structure(path: str) -> Atoms:
    """Read the framework.

    :raises WorkerError: kind bad_input, if it cannot be read or has no three-dimensional cell
    """
    try:
        atoms = read(Path(path))
    except Exception as error:
        raise WorkerError("bad_input", f"{path} cannot be read: {error}") from error
    if not isinstance(atoms, Atoms) or atoms.cell.rank != 3:
        raise WorkerError("bad_input", f"{path} holds no structure with a three-dimensional cell")
    return Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)


def explosion_error(explosion: Mapping[str, Any]) -> WorkerError:
    """Return what to raise where nothing good came before an explosion."""
    kind = "nan" if explosion["reason"] == "not_finite" else "explosion"
    return WorkerError(kind, describe_explosion(explosion))


def describe_explosion(explosion: Mapping[str, Any]) -> str:
    """Say in one sentence what happened and what to do."""
    what = {
        "not_finite": "energy or temperature was no longer a number",
        "temperature": "the kinetic temperature was {value:.0f} K, above the limit of {limit:.0f} K",
        "escape": "an atom left its molecule: a distance in it was {value:.1f} times that at equilibrium",
        "detachment": "atom {value} of the framework had no neighbour within {limit:.1f} sums of covalent radii",
        "drift": "the conserved energy drifted by {value:.3f} eV per atom and ps, beyond the limit of {limit:.3f}",
        "distance": "two atoms were {value:.2f} Å apart, below the limit of {limit:.2f} Å",
        "volume": "the volume was {value:.2f} times that at the start, a change beyond the limit of {limit:.2f}",
    }[explosion["reason"]].format(**explosion)
    advice = "the model is not stable here; train it on such frames or lower timestep_fs"
    return f"at step {explosion['step']} {what}: {advice}"
