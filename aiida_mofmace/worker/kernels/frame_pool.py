"""Many files of frames as one sequence, of which only one file is in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .frames import Frames

__all__ = ["FramePool"]

Integers = NDArray[np.int64]

_CHUNK = 64


class FramePool:
    """The frames of several sources behind one another; row ``i`` is frame ``indices[i]`` of source ``files[i]``.

    What is kept of each frame is a few numbers; positions are read again whenever they are asked for.

    :param sources: paths of files that :meth:`Frames.save` wrote, or frames that are in memory anyway
    """

    def __init__(self, sources: Sequence[str | Frames]):
        self._sources = list(sources)
        self._opened: tuple[int, Frames] | None = None
        species: set[int] = set()
        counts, loadings, framework_atoms = [], [], []
        self.groups: list[str] = []
        for number in range(len(self._sources)):
            frames = self._open(number)
            species.update(frames.species)
            counts.append(len(frames))
            loadings.append(frames.loadings)
            framework_atoms.append(frames.framework_atoms)
            self.groups += frames.groups
        self.species = sorted(species)
        self.files: Integers = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        self.indices: Integers = np.concatenate([np.arange(count, dtype=np.int64) for count in counts])
        self.loadings: Integers = np.concatenate(loadings)
        self.framework_atoms: Integers = np.concatenate(framework_atoms)

    def __len__(self) -> int:
        return len(self.files)

    def _open(self, number: int) -> Frames:
        source = self._sources[number]
        if isinstance(source, Frames):
            return source
        if self._opened is None or self._opened[0] != number:
            self._opened = None  # before the next one is read, so that two are never there
            self._opened = (number, Frames.load(source))
        return self._opened[1]

    def chunks(self, rows: Integers, size: int = _CHUNK) -> Iterator[tuple[Integers, Frames]]:
        """Yield rows and their frames, a few at a time.

        :param rows: in ascending order
        """
        for number in range(len(self._sources)):
            wanted = rows[self.files[rows] == number]
            for start in range(0, len(wanted), size):
                chunk = wanted[start : start + size]
                yield chunk, self._open(number).select(self.indices[chunk])

    def read(self, rows: Integers) -> Frames:
        """Return some frames in the order of the rows; all of them are in memory then."""
        order = np.argsort(rows, kind="stable")
        frames = Frames.concatenate(chunk for _, chunk in self.chunks(rows[order]))
        return frames.select(np.argsort(order))
