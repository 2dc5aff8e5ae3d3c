"""Closed pockets of a framework: where a probe fits but cannot get to, and spheres that block them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from .geometry import cell_heights, cell_volume

__all__ = ["BlockingSpheres", "blocking_spheres"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_MOST_POINTS = 1_000_000
_REACH = 6.0  # Å; clearances above are not told apart, and no sphere is larger
_MARGIN = 0.1  # Å that a sphere extends beyond the grid points that it covers


@dataclass(frozen=True)
class BlockingSpheres:
    """Spheres over all closed pockets.

    :param centres: fractional coordinates, shape (n, 3)
    :param radii: Å, shape (n,)
    :param volume_fraction: of the cell, where the probe's centre fits and cannot get to
    """

    centres: Floats
    radii: Floats
    volume_fraction: float

    def text(self) -> str:
        """Return the spheres as Zeo++ writes and RASPA reads them."""
        rows = [
            f"{x:.6f} {y:.6f} {z:.6f} {radius:.4f}" for (x, y, z), radius in zip(self.centres, self.radii, strict=True)
        ]
        return "\n".join([str(len(rows)), *rows, ""])


def blocking_spheres(
    cell: Floats, positions: Floats, radii: Floats, probe: float, spacing: float = 0.2
) -> BlockingSpheres:
    """Find the pockets that a hard sphere cannot reach and cover them with spheres that spare what it can reach.

    The places of the probe's centre are sought on a grid. A connected region of them is open if it holds a way from a
    point to one of its own periodic images; any other region is a closed pocket. A window whose radius differs from the
    probe's by less than about half the spacing may be judged either way.

    :param cell: lattice vectors in Å as rows
    :param positions: of the atoms in Å, shape (n_atoms, 3)
    :param radii: of the atoms in Å, shape (n_atoms,)
    :param probe: radius of the probe in Å
    :param spacing: of the grid in Å, made coarser for very large cells
    """
    spacing = max(spacing, (cell_volume(cell) / _MOST_POINTS) ** (1 / 3))
    shape = np.maximum(3, np.ceil(np.linalg.norm(cell, axis=1) / spacing)).astype(np.int64)
    fractions = np.stack(np.meshgrid(*[np.arange(n) / n for n in shape], indexing="ij"), axis=-1).reshape(-1, 3)
    clearance = _clearance(fractions @ cell, cell, positions, radii)
    fits = np.flatnonzero(clearance > probe)
    region, places, is_open = _regions(fits, shape)
    points, clearance = (fractions[fits] + places) @ cell, clearance[fits]
    free = points[is_open[region]]
    spheres = []
    for number in np.flatnonzero(~is_open):
        members = region == number
        spheres += _cover(points[members], clearance[members], _images(free, cell, _REACH), cell)
    centres = np.array([centre for centre, _ in spheres]).reshape(-1, 3) @ np.linalg.inv(cell)
    closed = 1.0 - len(free) / len(fits) if len(fits) else 0.0
    volume = closed * len(fits) / len(fractions)
    return BlockingSpheres(centres % 1.0, np.array([radius for _, radius in spheres]), volume)


def _images(points: Floats, cell: Floats, margin: float) -> Floats:
    """Return the points and their periodic images in the cell and up to a margin around it."""
    inverse = np.linalg.inv(cell)
    reach = margin / cell_heights(cell)
    wrapped = (points @ inverse) % 1.0
    shifts = product(*[range(-n, n + 1) for n in np.ceil(reach).astype(int)])
    images = np.concatenate([wrapped + shift for shift in shifts])
    return np.asarray(images[np.all((images > -reach) & (images < 1.0 + reach), axis=1)] @ cell)


def _clearance(points: Floats, cell: Floats, positions: Floats, radii: Floats) -> Floats:
    """Distance of each point to the surface of the nearest atom in Å, at most the reach."""
    from scipy.spatial import cKDTree

    found = np.full(len(points), _REACH)
    for radius in np.unique(radii):
        atoms = _images(positions[radii == radius], cell, _REACH + radius)
        distances, _ = cKDTree(atoms).query(points, distance_upper_bound=_REACH + radius)
        np.minimum(found, distances - radius, out=found)
    return found


def _regions(fits: Integers, shape: Integers) -> tuple[Integers, Integers, NDArray[np.bool_]]:
    """Connect neighbouring grid points, across the faces of the cell as well.

    :param fits: flat indices of the points where the probe fits, rising
    :param shape: of the grid
    :return: region of each point; the cell (n, 3) in which a walk from the region's first point arrives at it; and for
        each region whether it holds a way to an image of itself
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import breadth_first_order, connected_components

    first, second, crossed = _edges(fits, shape)
    size = len(fits)
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(size, size))
    count, region = connected_components(graph, directed=False)
    # One more node, tied to the first point of each region: a single walk then visits all of them.
    roots = np.unique(region, return_index=True)[1]
    starts, ends = np.append(first, np.full(count, size)), np.append(second, roots)
    tied = coo_array((np.ones(len(starts)), (starts, ends)), shape=(size + 1, size + 1))
    parents = breadth_first_order(tied, size, directed=False)[1][:size].astype(np.int64)
    parents[roots] = roots
    indices = np.stack(np.unravel_index(fits, tuple(shape)), axis=1)
    # A step to a neighbour is -1, 0 or 1; where the indices differ by more, a face of the cell was crossed.
    places = -np.rint((indices - indices[parents]) / shape).astype(np.int64)
    while np.any(parents != parents[parents]):  # sums over all callers, doubling the length of the way each time
        places, parents = places + places[parents], parents[parents]
    winds = np.any(places[first] + crossed != places[second], axis=1)
    is_open = np.zeros(count, dtype=np.bool_)
    is_open[region[first[winds]]] = True
    return region.astype(np.int64), places, is_open


def _edges(fits: Integers, shape: Integers) -> tuple[Integers, Integers, Integers]:
    """Return pairs of neighbouring points (of 26) and the faces of the cell crossed from the first to the second."""
    number = np.full(int(np.prod(shape)), -1, dtype=np.int64)
    number[fits] = np.arange(len(fits))
    here = np.stack(np.unravel_index(fits, tuple(shape)), axis=1)
    pairs = []
    for step in product((-1, 0, 1), repeat=3):
        if step <= (0, 0, 0):
            continue
        crossed, there = np.divmod(here + step, shape)
        neighbour = number[np.ravel_multi_index(tuple(there.T), tuple(shape))]
        known = np.flatnonzero(neighbour >= 0)
        pairs.append((known, neighbour[known], crossed[known]))
    first, second, crossed = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    return first, second, crossed


def _cover(points: Floats, clearance: Floats, free: Floats, cell: Floats) -> list[tuple[Floats, float]]:
    """Cover a pocket with spheres around its widest places, none of which reaches a place that is free.

    :param points: places of the probe's centre in the pocket, not wrapped into the cell, shape (n, 3)
    :param clearance: of these points in Å
    :param free: places outside of all pockets, with images around the cell, shape (m, 3)
    """
    spheres = []
    left = np.ones(len(points), dtype=np.bool_)
    while left.any():
        centre = points[np.argmax(np.where(left, clearance, -np.inf))]
        distances = np.linalg.norm(points - centre, axis=1)
        home = ((centre @ np.linalg.inv(cell)) % 1.0) @ cell
        limit = min(np.linalg.norm(free - home, axis=1).min(initial=np.inf), _REACH)
        radius = min(float(distances[left].max()) + _MARGIN, 0.99 * limit)
        left &= distances > radius
        spheres.append((centre, radius))
    return spheres
