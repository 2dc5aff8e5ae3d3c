"""The graph of a configuration of which a few atoms are replaced: who sees the change, and through which edges."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .geometry import cell_heights

__all__ = ["Change", "ChangedGraph", "NeighbourTable", "Part", "difference"]

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Change:
    """A block of atoms replaced by others; an insertion replaces none, a deletion puts none in their place.

    :param first: index of the first atom that goes
    :param last: index behind the last one
    :param numbers: atomic numbers of the atoms that come, shape (m,)
    :param positions: of the atoms that come in Å, shape (m, 3)
    """

    first: int
    last: int
    numbers: Indices
    positions: Array


def difference(numbers: Indices, positions: Array, new_numbers: Indices, new_positions: Array) -> Change:
    """Return the shortest block by whose replacement one configuration becomes the other."""
    shorter = min(len(numbers), len(new_numbers))

    def alike(old: slice, new: slice) -> NDArray[np.bool_]:
        same = (positions[old] == new_positions[new]).all(axis=1)
        return np.asarray(same & (numbers[old] == new_numbers[new]))

    ahead = alike(slice(0, shorter), slice(0, shorter))
    first = shorter if ahead.all() else int(np.argmin(ahead))
    left = shorter - first
    behind = alike(slice(len(numbers) - left, None), slice(len(new_numbers) - left, None))[::-1]
    equal = left if behind.all() else int(np.argmin(behind))
    new = slice(first, len(new_numbers) - equal)
    return Change(first, len(numbers) - equal, new_numbers[new], new_positions[new])


class NeighbourTable:
    """Edges of a configuration by their receiver.

    :param edges: senders and receivers, shape (2, edges); each edge has its reverse
    :param positions: of the atoms in Å, within the cell, shape (n, 3)
    :param cell: lattice vectors as rows in Å, shape (3, 3)
    :param cutoff: in Å
    """

    def __init__(self, edges: Indices, positions: Array, cell: Array, cutoff: float):
        self.positions, self._cell, self._cutoff = positions, cell, cutoff
        count = len(positions)
        # Sorting is linear in the edges for small integers, and there are seldom more atoms than these hold.
        small = edges[1].astype(np.uint16) if count < 2**16 else edges[1]
        self._order = np.argsort(small, kind="stable")
        self._senders = edges[0][self._order]
        self._starts = np.concatenate([[0], np.cumsum(np.bincount(edges[1], minlength=count))])
        reach = np.floor(cutoff / cell_heights(cell) + 0.5).astype(int)
        self._images = np.array(list(itertools.product(*(range(-m, m + 1) for m in reach)))) @ cell
        self._inverse = np.linalg.inv(cell)

    def into(self, atoms: Indices) -> tuple[Indices, Indices, Indices]:
        """Edges into some atoms.

        :return: numbers of the edges, senders, and receivers as positions in `atoms`, shape (edges,) each
        """
        counts = self._starts[atoms + 1] - self._starts[atoms]
        receivers = np.repeat(np.arange(len(atoms)), counts)
        ends = np.cumsum(counts)
        places = np.arange(len(receivers)) - np.repeat(ends - counts, counts) + np.repeat(self._starts[atoms], counts)
        return self._order[places], self._senders[places], receivers

    def between(self, points: Array, others: Array) -> tuple[Indices, Indices, Array]:
        """Pairs of points and atoms, or their images, within the cut-off, an atom itself left out.

        :param points: in Å, shape (m, 3)
        :param others: in Å, shape (k, 3)
        :return: points, others, shape (pairs,) each, and vectors from the one to the other in Å, shape (pairs, 3)
        """
        vectors = others - points[:, None]
        vectors -= np.round(vectors @ self._inverse) @ self._cell
        vectors = vectors[..., None, :] + self._images
        squares = np.einsum("...i,...i->...", vectors, vectors)
        point, other, image = np.nonzero((squares < self._cutoff**2) & (squares > 0.0))
        return point, other, vectors[point, other, image]


@dataclass(frozen=True)
class Part:
    """The part of a graph that some atoms need to be seen.

    Nodes are numbered as the atoms of the old configuration, the ones that come behind them.

    :param atoms: that are to be computed, ascending
    :param nodes: these atoms, then those that only send to them
    :param old_edges: numbers of the edges that are taken over from the old configuration
    :param edge_index: senders and receivers of these edges and then of all new ones, as positions in `nodes`
    """

    atoms: Indices
    nodes: Indices
    old_edges: Indices
    edge_index: Indices


class ChangedGraph:
    """A configuration after a :class:`Change`, seen from the change.

    :param table: edges of the old configuration
    :param change: what is replaced
    """

    def __init__(self, table: NeighbourTable, change: Change):
        self._table, self._size = table, len(table.positions)
        self.gone = np.arange(change.first, change.last)
        self._stays = np.ones(self._size, dtype=bool)
        self._stays[self.gone] = False
        stays = np.flatnonzero(self._stays)
        point, other, vectors = table.between(change.positions, table.positions[stays])
        first, second, own = table.between(change.positions, change.positions)
        point, other, first, second = self._size + point, stays[other], self._size + first, self._size + second
        self.new_edges = np.stack([np.concatenate([point, other, first]), np.concatenate([other, point, second])])
        #: from sender to receiver of each new edge in Å, shape (edges, 3)
        self.new_vectors = np.concatenate([vectors, -vectors, own])
        self.more_atoms = len(change.numbers) - len(self.gone)
        self._seen = np.zeros(self._size + len(change.numbers), dtype=bool)
        self._seen[self._size :] = True
        self._seen[other] = True
        self._mark(table.into(self.gone)[1])

    def _mark(self, atoms: Indices) -> None:
        self._seen[atoms] = True
        self._seen[self.gone] = False

    def grow(self) -> None:
        """Go on from the atoms that see the change to those that see any of them."""
        self._mark(self._table.into(np.flatnonzero(self._seen[: self._size]))[1])

    def part(self) -> Part:
        """Return what the atoms that see the change need."""
        atoms = np.flatnonzero(self._seen)
        edges, senders, receivers = self._table.into(atoms[atoms < self._size])
        stays = self._stays[senders]
        edges, senders, receivers = edges[stays], senders[stays], receivers[stays]
        place = np.full(len(self._seen), -1)
        place[atoms] = np.arange(len(atoms))
        outside = np.unique(senders[place[senders] < 0])
        place[outside] = len(atoms) + np.arange(len(outside))
        index = np.concatenate([np.stack([place[senders], receivers]), place[self.new_edges]], axis=1)
        return Part(atoms, np.concatenate([atoms, outside]), edges, index)
