"""Who is near whom in periodic cells: one system on a CPU, by vesin, or a whole batch on any device of torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Pairs", "neighbours", "neighbours_of_batch", "short_distances", "wrapped"]

Array = NDArray[np.float64]
_COLUMNS = list(itertools.product((-1, 0, 1), repeat=2))  # of bins around one


class Pairs(NamedTuple):
    """Directed pairs of atoms, each as often as it has images within the cut-off; numpy's arrays, or torch's.

    :param edges: first and second atom, shape (2, pairs)
    :param unit_shifts: from the cell of the first to that of the second in lattice vectors, shape (pairs, 3)
    :param positions: of all atoms in Å, wrapped into their cells, so that float32 resolves them however far a molecule
        has diffused, shape (n, 3)
    """

    edges: Any
    unit_shifts: Any
    positions: Any


def wrapped(positions: Array, cell: Array) -> Array:
    """Return positions moved into the cell by whole lattice vectors.

    :param positions: in Å, shape (n, 3)
    :param cell: lattice vectors as rows in Å, shape (3, 3)
    """
    return np.asarray(positions - np.floor(positions @ np.linalg.inv(cell)) @ cell)


def short_distances(positions: Array, cell: Array, cutoff: float) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """Find what is nearer than a bond or two: first and second atoms of the pairs and their distances in Å.

    For such short cut-offs matscipy is faster than vesin; for those of a model it is slower (benchmarks/neighbours.py).

    :param positions: in Å, shape (n, 3)
    :param cell: lattice vectors as rows in Å, shape (3, 3); periodic in all directions
    :param cutoff: in Å, above 0
    """
    from matscipy.neighbours import neighbour_list

    inside = wrapped(positions, cell)
    first, second, distances = neighbour_list("ijd", pbc=(True,) * 3, cell=cell, positions=inside, cutoff=cutoff)
    return first, second, distances


def neighbours(positions: Array, cell: Array, cutoff: float) -> Pairs:
    """Find the pairs of one system on a CPU; equal input gives an equal order of pairs.

    :param positions: in Å, shape (n, 3)
    :param cell: lattice vectors as rows in Å, shape (3, 3); periodic in all directions
    :param cutoff: in Å
    """
    from vesin import NeighborList

    inside = wrapped(positions, cell)
    # Several threads would leave the order of the pairs, and with it the last bits of sums over them, to chance.
    search = NeighborList(cutoff=cutoff, full_list=True, n_threads=1)
    first, second, shifts = search.compute(points=inside, box=cell, periodic=True, quantities="ijS")
    return Pairs(np.stack([first, second]).astype(np.int64), shifts.astype(np.float64), inside)


def neighbours_of_batch(positions: Sequence[Array], cells: Sequence[Array], cutoff: float, device: str) -> Pairs:
    """Find the pairs of several systems at once, in a time proportional to the number of atoms and the volume.

    Atoms of all systems and their images near the cells are sorted into bins as high as the cut-off, and an atom is
    compared with what is in its own bin and the 26 around it. Images are atoms of their own here, so cells may be as
    small or skewed as they like. On a CPU :func:`neighbours` is several times faster; what this one is for is a GPU,
    which would wait for a search on the CPU.

    :param positions: of each system in Å, shape (n, 3) each
    :param cells: of each system, lattice vectors as rows in Å, shape (3, 3) each; periodic in all directions
    :param cutoff: in Å
    :param device: of torch, where the work is done and the result is
    :return: tensors, with atoms of all systems numbered through and pairs sorted by their second atom
    """
    return _Search(positions, cells, cutoff, device).pairs()


class _Search:
    """One search of :func:`neighbours_of_batch`.

    Of the axes of tensors, the last is that of the three lattice vectors or directions.
    """

    def __init__(self, positions: Sequence[Array], cells: Sequence[Array], cutoff: float, device: str):
        import torch

        self._cutoff, self._device = cutoff, device
        matrices = np.stack([np.asarray(cell, dtype=np.float64) for cell in cells])
        inverses = np.linalg.inv(matrices)
        # The cut-off in heights of the cell, shape (systems, 3).
        reach = cutoff * np.linalg.norm(inverses, axis=1)
        # One layer of bins on either side is for images; a cell that ends within a bin needs a part of the next.
        bins = np.ceil(1.0 / reach).astype(np.int64) + 2
        sizes = bins.prod(axis=1)
        self._all_bins = int(sizes.sum())
        strides = np.stack([bins[:, 1] * bins[:, 2], bins[:, 2], np.ones_like(sizes)], axis=1)
        images = [range(-most, most + 1) for most in np.ceil(reach.max(axis=0)).astype(int).tolist()]
        self._images = self._tensor(np.array(list(itertools.product(*images)), dtype=np.float64))

        system = self._tensor(np.repeat(np.arange(len(matrices)), [len(each) for each in positions]))
        of_systems = (matrices, inverses, reach, bins, strides, np.cumsum(sizes) - sizes)
        cell, inverse, self._reach, self._bins, self._strides, self._first_bin = (
            self._tensor(each)[system] for each in of_systems
        )
        outside = self._tensor(np.concatenate([np.asarray(each, dtype=np.float64) for each in positions]))
        fractional = _turned(outside, inverse)
        whole = torch.floor(fractional)
        # What is below zero by less than the last digit of one would come out as one, which is the next cell's.
        whole += fractional - whole >= 1.0
        self._fractional, self._cell = (fractional - whole).clamp(min=0.0), cell
        self._positions = outside - _turned(whole, cell)

    def _tensor(self, array: NDArray[Any]) -> Any:
        import torch

        return torch.as_tensor(array, device=self._device)

    def _bin(self, places: Any, owners: Any, rim: int) -> Any:
        """Return the bin along each lattice vector of places, in fractions of the cell of their owners.

        :param rim: outermost bins on either side that there cannot be anything in, though rounding may say so
        """
        import torch

        found = (places / self._reach[owners]).floor().long() + 1
        return torch.minimum(found.clamp(min=rim), self._bins[owners] - 1 - rim)

    def pairs(self) -> Pairs:
        """Return what is to be found."""
        import torch

        places, reach = self._fractional[:, None] + self._images, self._reach[:, None]
        owner, image = ((places > -reach) & (places < 1.0 + reach)).all(dim=2).nonzero(as_tuple=True)
        shift = self._images[image]
        images = self._positions[owner] + _turned(shift, self._cell[owner])
        names = self._first_bin[owner] + (self._bin(places[owner, image], owner, 0) * self._strides[owner]).sum(dim=1)
        candidate, centre = self._candidates(names)

        near = (images[candidate] - self._positions[centre]).square().sum(dim=1) < self._cutoff**2
        is_itself = (owner[candidate] == centre) & (shift[candidate] == 0.0).all(dim=1)
        kept = (near & ~is_itself).nonzero()[:, 0]
        candidate, centre = candidate[kept], centre[kept]
        return Pairs(torch.stack([owner[candidate], centre]), -shift[candidate], self._positions)

    def _candidates(self, names: Any) -> tuple[Any, Any]:
        """Return images that may be near an atom, and that atom.

        Bins along the last vector follow each other, so nine stretches of three bins hold all that may be near.

        :param names: the bin of each image
        """
        import torch

        order = names.argsort(stable=True)
        ends = torch.bincount(names, minlength=self._all_bins).cumsum(0)
        ends = torch.cat([ends.new_zeros(1), ends])
        atoms = torch.arange(len(self._fractional), device=self._device)
        home = self._first_bin + (self._bin(self._fractional, atoms, 1) * self._strides).sum(dim=1)
        aside = self._strides[:, None, :2] * self._tensor(np.array(_COLUMNS))  # whole numbers: no product of matrices
        middle = home[:, None] + aside.sum(dim=2)
        first, last = ends[middle - 1].flatten(), ends[middle + 2].flatten()
        lengths = last - first
        stretch = torch.repeat_interleave(lengths)
        place = torch.arange(len(stretch), device=self._device) + (last - lengths.cumsum(0))[stretch]
        return order[place], stretch // len(_COLUMNS)


def _turned(rows: Any, matrices: Any) -> Any:
    """Multiply each row by a matrix of its own."""
    import torch

    return torch.bmm(rows[:, None], matrices)[:, 0]
