"""Smooth overlap of atomic positions: one averaged vector a frame, and the check that its atoms make sense."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, fields
from multiprocessing import get_context
from typing import Any, Literal, TypeVar

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ..errors import WorkerError
from .frames import Frames

__all__ = ["FAULTS", "Environments", "FrameDescriptor", "SoapSettings", "allowed_cores", "describe_all", "faults"]

Environments = Literal["all", "framework", "gas", "framework_and_gas", "species"]
#: What may be wrong with a frame; :func:`faults` gives positions in this list, 0 for nothing.
FAULTS = ("", "not_finite", "too_close", "detached")

_CHUNKS_AHEAD = 2
Key = TypeVar("Key")


@dataclass(frozen=True)
class SoapSettings:
    """Settings of the SOAP descriptor (Bartók et al., Phys. Rev. B 87, 184115, 2013) as DScribe names them.

    :param r_cut: radius of the environments in Å
    :param n_max: number of radial basis functions
    :param l_max: highest degree of the spherical harmonics
    :param sigma: width of the Gaussian on each atom in Å
    :param average: "inner" averages the expansion coefficients over the centres, "outer" the power spectra
    """

    r_cut: float
    n_max: int
    l_max: int
    sigma: float = 1.0
    average: str = "inner"

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> SoapSettings:
        """Read the settings of a job.

        :raises WorkerError: of kind bad_input if a setting is missing, unknown or out of range
        """
        known = {field.name for field in fields(cls)}
        unknown, missing = set(parameters) - known, {"r_cut", "n_max", "l_max"} - set(parameters)
        if unknown or missing:
            raise WorkerError("bad_input", f"soap settings: unknown {sorted(unknown)}, missing {sorted(missing)}")
        settings = cls(**dict(parameters))
        if settings.r_cut <= 1.0 or settings.n_max < 1 or settings.l_max < 0 or settings.sigma <= 0.0:
            raise WorkerError("bad_input", f"soap settings out of range: {settings}; DScribe wants r_cut above 1 Å")
        if settings.average not in {"inner", "outer"}:
            raise WorkerError("bad_input", f"soap average is {settings.average!r}, give 'inner' or 'outer'")
        return settings


class FrameDescriptor:
    """Describes a frame by averages over groups of its atomic environments, put behind one another.

    The groups are all atoms ("all"), the atoms of the framework ("framework", which sees the gas as neighbours only),
    those of the gas ("gas", which sees the framework as neighbours), one of each ("framework_and_gas"), or the atoms of
    each element ("species"). A group without atoms gives zeros.

    :param species: atomic numbers that span the descriptor; must cover all frames that are to be compared
    """

    def __init__(self, settings: SoapSettings, species: list[int], environments: Environments = "all"):
        self._settings, self._species, self._environments = settings, species, environments
        self._soap: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_soap": None}

    def _open(self) -> Any:
        if self._soap is None:
            from dscribe.descriptors import SOAP

            self._soap = SOAP(species=self._species, periodic=True, **vars(self._settings))
        return self._soap

    def _groups(self, numbers: NDArray[np.int16], framework_atoms: int) -> list[NDArray[np.int64]]:
        atoms = np.arange(len(numbers))
        framework, gas = atoms[:framework_atoms], atoms[framework_atoms:]
        if self._environments == "species":
            return [np.flatnonzero(numbers == number) for number in self._species]
        return {"all": [atoms], "framework": [framework], "gas": [gas], "framework_and_gas": [framework, gas]}[
            self._environments
        ]

    def has_centres(self, frames: Frames) -> NDArray[np.bool_]:
        """Say which frames have an atom to look from, shape (n_frames,)."""
        atoms = np.diff(frames.offsets)
        counts = {"framework": frames.framework_atoms, "gas": atoms - frames.framework_atoms}
        return np.asarray(counts.get(self._environments, atoms) > 0)

    def __call__(self, frames: Frames) -> NDArray[np.float32]:
        """Describe frames.

        :return: descriptors, shape (n_frames, n_features)
        """
        soap = self._open()
        n_groups = {"species": len(self._species), "framework_and_gas": 2}.get(self._environments, 1)
        width = soap.get_number_of_features()
        features = np.zeros((len(frames), n_groups, width), dtype=np.float32)
        for index in range(len(frames)):
            atoms = frames.atoms(index)
            groups = self._groups(atoms.numbers, int(frames.framework_atoms[index]))
            for number, group in enumerate(groups):
                if len(group):
                    features[index, number] = soap.create(atoms, centers=group.tolist())
        return features.reshape(len(frames), n_groups * width)


def allowed_cores() -> int:
    """Return the number of cores that the job was given, from the variable that schedulers and AiiDA set."""
    return max(1, int(os.environ.get("OMP_NUM_THREADS") or 1))


def describe_all(
    chunks: Iterable[tuple[Key, Frames]], describe: FrameDescriptor, processes: int = 1
) -> Iterator[tuple[Key, NDArray[np.float32]]]:
    """Describe chunks of frames, on several cores if allowed; the result is the same, in the same order.

    :param chunks: what to call each chunk, and its frames; read only a few ahead
    :return: the same keys with descriptors, shape (n_frames, n_features)
    """
    if processes == 1:
        yield from ((key, describe(frames)) for key, frames in chunks)
        return
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as executor:
        waiting: deque[tuple[Key, Future[NDArray[np.float32]]]] = deque()
        for key, frames in chunks:
            waiting.append((key, executor.submit(describe, frames)))
            if len(waiting) >= _CHUNKS_AHEAD * processes:
                first, future = waiting.popleft()
                yield first, future.result()
        for key, future in waiting:
            yield key, future.result()


def _fault(atoms: Atoms, minimum_distance: float, detached_distance: float | None) -> int:
    from matscipy.neighbours import neighbour_list

    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return FAULTS.index("not_finite")
    reach = max(minimum_distance, detached_distance or 0.0)
    if reach <= 0.0:
        return 0
    centres, distances = neighbour_list("id", atoms, reach)
    if np.any(distances < minimum_distance):
        return FAULTS.index("too_close")
    if detached_distance is not None and len(np.unique(centres)) < len(atoms):
        return FAULTS.index("detached")
    return 0


def faults(frames: Frames, minimum_distance: float, detached_distance: float | None = None) -> NDArray[np.int8]:
    """Find frames that are no physics: something is not a number, atoms overlap, or an atom has flown away.

    :param minimum_distance: Å; two atoms (periodic images included) nearer than this are too close; 0 for no limit
    :param detached_distance: Å; an atom with no other within this distance is detached; None for no limit
    :return: positions in :data:`FAULTS`, shape (n_frames,)
    """
    found = (_fault(frames.atoms(index), minimum_distance, detached_distance) for index in range(len(frames)))
    return np.fromiter(found, dtype=np.int8, count=len(frames))
