"""Geometry under periodic boundaries: shortest distances and random orientations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "cell_heights",
    "cell_volume",
    "closest_distance",
    "minimum_image",
    "minimum_pair_distance",
    "random_rotation",
]

Array = NDArray[np.float64]


def cell_heights(cell: Array) -> Array:
    """Distances between opposite faces of the cell.

    :param cell: lattice vectors as rows in Å, shape (3, 3)
    :return: heights in Å, shape (3,)
    """
    return np.asarray(1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0))


def cell_volume(cell: Array) -> float:
    """Return the volume in Å³.

    :param cell: lattice vectors as rows in Å, shape (3, 3)
    """
    return abs(float(np.linalg.det(cell)))


def minimum_image(vectors: Array, cell: Array) -> Array:
    """Move difference vectors into the parallelepiped around the origin.

    A vector shorter than half of the smallest cell height has fractional components below one half, so it is its own
    image here: every distance below that length is exact in any cell, however skewed. Longer ones may be overestimated.

    :param vectors: difference vectors in Å, shape (..., 3)
    :param cell: lattice vectors as rows in Å, shape (3, 3)
    :return: images of the vectors in Å, shape (..., 3)
    """
    fractional = vectors @ np.linalg.inv(cell)
    return np.asarray((fractional - np.round(fractional)) @ cell)


def closest_distance(first: Array, second: Array, cell: Array) -> Array:
    """Shortest distance between two groups of atoms.

    :param first: positions in Å, shape (..., n, 3); leading axes are independent trials
    :param second: positions in Å, shape (m, 3)
    :param cell: lattice vectors as rows in Å, shape (3, 3)
    :return: shortest distances in Å, shape (...); infinite if the second group is empty
    """
    if len(second) == 0:
        return np.full(first.shape[:-2], np.inf)
    vectors = minimum_image(first[..., :, None, :] - second, cell)
    squares = np.einsum("...i,...i->...", vectors, vectors)
    return np.asarray(np.sqrt(squares.min(axis=(-2, -1))))


def minimum_pair_distance(positions: Array, cell: Array) -> float:
    """Shortest distance between any two atoms of a configuration.

    :param positions: positions in Å, shape (n, 3)
    :param cell: lattice vectors as rows in Å, shape (3, 3)
    :return: shortest distance in Å; infinite for fewer than two atoms
    """
    first, second = np.triu_indices(len(positions), k=1)
    if len(first) == 0:
        return float("inf")
    vectors = minimum_image(positions[first] - positions[second], cell)
    return float(np.sqrt(np.einsum("ij,ij->i", vectors, vectors).min()))


def random_rotation(rng: np.random.Generator) -> Array:
    """Draw a rotation uniformly from SO(3), from a uniform unit quaternion (Shoemake 1992).

    :param rng: source of random numbers
    :return: rotation matrix, shape (3, 3)
    """
    quaternion = rng.standard_normal(4)
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
