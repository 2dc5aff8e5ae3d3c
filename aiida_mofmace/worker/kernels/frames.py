"""Frames of simulations: one compact, pickle-free format for every trajectory that crosses a process boundary."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import IO, Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from .whole_files import whole_file

__all__ = ["Frames"]

_PER_FRAME = ("cells", "energies", "steps", "framework_atoms", "loadings")


@dataclass
class Frames:
    """A sequence of periodic configurations whose compositions may differ.

    The atoms of all frames stand behind one another; frame ``i`` owns the atoms ``offsets[i]:offsets[i + 1]``. Within a
    frame the framework comes first and the gas molecules follow, molecule by molecule.

    :param numbers: atomic numbers, int16, shape (total_atoms,)
    :param offsets: first atom of each frame and the total, int64, shape (n + 1,)
    :param positions: Cartesian positions in Å, float64, shape (total_atoms, 3)
    :param cells: lattice vectors as rows in Å, float64, shape (n, 3, 3)
    :param energies: potential energies in eV, NaN where unknown, float64, shape (n,)
    :param steps: MD step of each frame, int64, shape (n,)
    :param framework_atoms: number of leading framework atoms, int64, shape (n,)
    :param loadings: number of gas molecules, int64, shape (n,)
    :param groups: name of the run each frame comes from, length n
    :raises ValueError: if the shapes do not belong together
    """

    numbers: NDArray[np.int16]
    offsets: NDArray[np.int64]
    positions: NDArray[np.float64]
    cells: NDArray[np.float64]
    energies: NDArray[np.float64]
    steps: NDArray[np.int64]
    framework_atoms: NDArray[np.int64]
    loadings: NDArray[np.int64]
    groups: list[str]

    def __post_init__(self) -> None:
        n_frames = len(self.offsets) - 1
        total = int(self.offsets[-1])
        if self.numbers.shape != (total,) or self.positions.shape != (total, 3):
            raise ValueError(
                f"{total} atoms expected, got {self.numbers.shape} numbers, {self.positions.shape} positions"
            )
        lengths = {name: len(getattr(self, name)) for name in (*_PER_FRAME, "groups")}
        wrong = {name: length for name, length in lengths.items() if length != n_frames}
        if wrong:
            raise ValueError(f"{n_frames} frames expected, got {wrong}")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def species(self) -> list[int]:
        """Atomic numbers that occur, ascending."""
        return [int(number) for number in np.unique(self.numbers)]

    def atoms(self, index: int) -> Atoms:
        """Return one frame as ASE atoms; step, energy, loading, group and framework_atoms stand in ``info``."""
        span = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        atoms = Atoms(numbers=self.numbers[span], positions=self.positions[span], cell=self.cells[index], pbc=True)
        atoms.info = {
            "step": int(self.steps[index]),
            "loading": int(self.loadings[index]),
            "framework_atoms": int(self.framework_atoms[index]),
            "group": self.groups[index],
        }
        if np.isfinite(self.energies[index]):
            atoms.info["energy"] = float(self.energies[index])
        return atoms

    def select(self, indices: Sequence[int] | NDArray[np.int64]) -> Frames:
        """Return the frames at these indices, in this order."""
        order = np.asarray(indices, dtype=np.int64)
        spans = [np.arange(self.offsets[i], self.offsets[i + 1]) for i in order]
        chosen = np.concatenate(spans) if spans else np.zeros(0, dtype=np.int64)
        counts = np.array([len(span) for span in spans], dtype=np.int64)
        return Frames(
            numbers=self.numbers[chosen],
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            positions=self.positions[chosen],
            groups=[self.groups[i] for i in order],
            **{name: getattr(self, name)[order] for name in _PER_FRAME},
        )

    @classmethod
    def from_atoms(cls, images: Iterable[Atoms]) -> Frames:
        """Collect ASE atoms; what :meth:`atoms` puts into ``info`` is read back, with defaults where it is missing."""
        images = list(images)
        counts = [len(image) for image in images]
        infos: list[dict[str, Any]] = [image.info for image in images]
        empty = np.zeros((0, 3))
        return cls(
            numbers=np.concatenate([image.numbers for image in images] or [[]]).astype(np.int16),
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            positions=np.concatenate([image.positions for image in images] or [empty]).astype(np.float64),
            cells=np.array([image.cell.array for image in images], dtype=np.float64).reshape(-1, 3, 3),
            energies=np.array([info.get("energy", np.nan) for info in infos], dtype=np.float64),
            steps=np.array([info.get("step", 0) for info in infos], dtype=np.int64),
            framework_atoms=np.array(
                [info.get("framework_atoms", count) for info, count in zip(infos, counts, strict=True)], dtype=np.int64
            ),
            loadings=np.array([info.get("loading", 0) for info in infos], dtype=np.int64),
            groups=[str(info.get("group", "")) for info in infos],
        )

    @classmethod
    def concatenate(cls, parts: Iterable[Frames]) -> Frames:
        """Put several sets of frames behind one another."""
        parts = list(parts)
        if not parts:
            return cls.from_atoms([])
        counts = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(
            numbers=np.concatenate([part.numbers for part in parts]),
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            positions=np.concatenate([part.positions for part in parts]),
            groups=[group for part in parts for group in part.groups],
            **{name: np.concatenate([getattr(part, name) for part in parts]) for name in _PER_FRAME},
        )

    def save(self, path: str | PathLike[str] | IO[bytes]) -> None:
        """Write a compressed ``npz`` file without any pickled object; of a path, whole or not at all."""
        if isinstance(path, (str, PathLike)):
            with whole_file(path) as handle:
                self.save(handle)
            return
        arrays = {name: getattr(self, name) for name in ("numbers", "offsets", "positions", *_PER_FRAME)}
        np.savez_compressed(path, groups=np.array(self.groups, dtype=np.str_), **arrays)

    @classmethod
    def load(cls, path: str | PathLike[str] | IO[bytes]) -> Frames:
        """Read what :meth:`save` wrote; pickled content is refused."""
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("numbers", "offsets", "positions", *_PER_FRAME)}
            return cls(groups=[str(group) for group in archive["groups"]], **arrays)
