"""Orientation of the hydroxyl groups of a framework: the angle alpha of the paper."""

from __future__ import annotations

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from .geometry import minimum_image

__all__ = ["hydroxyl_bonds", "orientation_angles"]

Array = NDArray[np.float64]
_LONGEST_BOND = 1.3  # Å; O-H is 0.97, a hydrogen bond 1.6 and more
_OXYGEN, _HYDROGEN = atomic_numbers["O"], atomic_numbers["H"]


def hydroxyl_bonds(numbers: NDArray[np.int64], positions: Array, cell: Array) -> NDArray[np.int64]:
    """Find the O-H bonds: each hydrogen whose nearest oxygen is within 1.3 Å, with that oxygen.

    :param numbers: atomic numbers of the framework, shape (n,)
    :param positions: in Å, shape (n, 3)
    :param cell: lattice vectors as rows in Å, shape (3, 3)
    :return: indices of oxygen and hydrogen, ordered by hydrogen, shape (bonds, 2)
    """
    oxygens, hydrogens = np.flatnonzero(numbers == _OXYGEN), np.flatnonzero(numbers == _HYDROGEN)
    if len(oxygens) == 0 or len(hydrogens) == 0:
        return np.zeros((0, 2), dtype=np.int64)
    vectors = minimum_image(positions[hydrogens][:, None] - positions[oxygens], cell)
    distances = np.linalg.norm(vectors, axis=-1)
    nearest = distances.argmin(axis=1)
    is_bond = distances.min(axis=1) < _LONGEST_BOND
    return np.asarray(np.stack([oxygens[nearest], hydrogens], axis=1)[is_bond], dtype=np.int64)


def orientation_angles(vectors: Array, axis: Array, normal: Array) -> Array:
    """Angle alpha between O-H bonds projected on a plane and an axis in that plane (figure 8 of the paper: xz, x).

    :param vectors: from oxygen to hydrogen in Å, shape (..., 3)
    :param axis: direction that alpha is measured from, shape (3,)
    :param normal: normal of the plane of projection, at right angles to the axis, shape (3,)
    :return: alpha in degrees between 0 and 180, shape (...); NaN for a bond along the normal
    :raises ValueError: if axis and normal are not at right angles
    """
    axis, upright = axis / np.linalg.norm(axis), normal / np.linalg.norm(normal)
    if abs(axis @ upright) > 1e-6:
        raise ValueError("the axis must lie in the plane of projection")
    along, across = vectors @ axis, vectors @ np.cross(axis, upright)
    angles = np.degrees(np.arctan2(np.abs(across), along))
    return np.where(np.hypot(along, across) > 1e-6, angles, np.nan)
