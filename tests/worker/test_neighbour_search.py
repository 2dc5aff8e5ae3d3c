"""Pairs within a cut-off: by the search for a CPU, by that for a GPU, and by ASE."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase.neighborlist import primitive_neighbor_list
from numpy.typing import NDArray

from aiida_mofmace.worker.kernels.geometry import cell_heights
from aiida_mofmace.worker.kernels.neighbour_search import neighbours, neighbours_of_batch, short_distances, wrapped

Array = NDArray[np.float64]


def rows(edges: Any, shifts: Any) -> Array:
    """Return pairs in an order that does not depend on who found them."""
    table = np.column_stack([np.asarray(edges).T, np.asarray(shifts)]).astype(np.int64)
    return table[np.lexsort(table.T)]


def cells(rng: np.random.Generator, least: float) -> Array:
    """Return a cell that may be skewed and far smaller than the cut-off."""
    while True:
        cell = rng.uniform(-3.0, 3.0, (3, 3)) + np.diag(rng.uniform(1.5, 9.0, 3))
        if cell_heights(cell).min() > least:
            return cell


def test_all_searches_find_the_same_pairs() -> None:
    """Batches of one to four systems of one to nineteen atoms, some of them far outside their cells."""
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(40):
        batch = [
            (rng.uniform(-20.0, 20.0, (rng.integers(1, 20), 3)), cells(rng, 0.8)) for _ in range(rng.integers(1, 5))
        ]
        cutoff = rng.uniform(2.0, 5.0)
        joint = neighbours_of_batch([each[0] for each in batch], [each[1] for each in batch], cutoff, "cpu")
        edges, shifts, inside = (each.numpy() for each in joint)
        assert np.all(np.diff(edges[1]) >= 0)
        first = 0
        for positions, cell in batch:
            own = neighbours(positions, cell, cutoff)
            i, j, unit = primitive_neighbor_list("ijS", (True,) * 3, cell, wrapped(positions, cell), cutoff)
            expected = rows([i, j], unit)
            mine = (edges[0] >= first) & (edges[0] < first + len(positions))
            assert np.array_equal(rows(own.edges, own.unit_shifts), expected)
            assert np.array_equal(rows(edges[:, mine] - first, shifts[mine]), expected)
            assert np.allclose(inside[first : first + len(positions)], own.positions, atol=1e-12)
            first += len(positions)
            found += len(expected)
    assert found > 10_000


def test_the_rims_of_bins_and_cells() -> None:
    """Atoms on the faces of a cell whose height is a multiple of the cut-off: each other's neighbours all the same."""
    for cutoff in (1.0, 2.0, 3.0):
        cell = 6.0 * np.eye(3)
        positions = np.stack(np.meshgrid(*[np.arange(6.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        positions[::2] -= 1e-15
        reach = cutoff + 1e-6
        expected = primitive_neighbor_list("i", (True,) * 3, cell, wrapped(positions, cell), reach)
        joint = neighbours_of_batch([positions], [cell], reach, "cpu")
        own = neighbours(positions, cell, reach)
        assert len(own.edges[0]) == joint.edges.shape[1] == len(expected)


@pytest.mark.parametrize("bins", [1, 2, 3, 4])
@pytest.mark.parametrize("rim", [-1e-17, 1.0 - 1e-16, 1.0, 0.0])
def test_an_atom_on_the_rim_of_a_cell(bins: int, rim: float) -> None:
    """In a cell whose height is a whole number of cut-offs, where it is rounded into the next one; not alone, too."""
    cutoff = 3.0
    cell = bins * cutoff * np.eye(3)
    positions = np.array([[rim, 0.3, rim], [0.5, 0.5, 0.5], [0.9, rim, 0.1]]) @ cell
    other = (np.array([[0.1, 0.2, 0.3], [2.0, 2.0, 2.0]]), 4.0 * np.eye(3))
    i, j, unit = primitive_neighbor_list("ijS", (True,) * 3, cell, wrapped(positions, cell), cutoff - 1e-9)
    expected = np.linalg.norm((wrapped(positions, cell)[j] + unit @ cell - wrapped(positions, cell)[i]), axis=1)
    for batch in ([(positions, cell)], [other, (positions, cell), other]):
        found = neighbours_of_batch([each[0] for each in batch], [each[1] for each in batch], cutoff - 1e-9, "cpu")
        first = 2 if len(batch) > 1 else 0
        edges, shifts, inside = (each.numpy() for each in found)
        mine = (edges >= first) & (edges < first + 3)
        assert np.array_equal(mine[0], mine[1])
        pairs, own = edges[:, mine[0]], shifts[mine[0]]
        distances = np.linalg.norm(inside[pairs[1]] + own @ cell - inside[pairs[0]], axis=1)
        np.testing.assert_allclose(np.sort(distances), np.sort(expected), atol=1e-12)
        exact = neighbours_of_batch([each[0] for each in batch], [each[1] for each in batch], cutoff, "cpu")
        assert exact.edges.shape[1] >= edges.shape[1]


def test_nobody_near() -> None:
    lone = (np.zeros((1, 3)), 20.0 * np.eye(3))
    assert neighbours(*lone, 5.0).edges.shape == (2, 0)
    joint = neighbours_of_batch([lone[0]] * 2, [lone[1]] * 2, 5.0, "cpu")
    assert (joint.edges.shape, joint.unit_shifts.shape) == ((2, 0), (0, 3))
    assert joint.edges.dtype == joint.edges.new_empty(0).long().dtype


def test_equal_input_gives_equal_bits() -> None:
    rng = np.random.default_rng(5)
    positions, cell = rng.uniform(0.0, 9.0, (60, 3)), 9.0 * np.eye(3)
    first, second = (neighbours(positions, cell, 5.0) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_short_distances() -> None:
    """Across a face of the cell, from outside of it."""
    cell = np.diag([8.0, 9.0, 10.0])
    first, second, distances = short_distances(np.array([[0.1, 0, 0], [15.8, 0, 0], [4.0, 4, 4]]), cell, 0.5)
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 1), (1, 0)]
    assert distances == pytest.approx([0.3, 0.3])
