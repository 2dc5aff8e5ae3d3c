"""Orientation of the hydroxyl groups of a framework: the angle alpha of the paper and the free and donor fractions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from .frames import Frames
from .geometry import minimum_image

__all__ = ["OrientationFractions", "hydroxyl_bonds", "orientation_angles", "orientation_fractions", "trajectory_angles"]

Array = NDArray[np.float64]
_LONGEST_BOND = 1.3  # Å; O-H is 0.97, a hydrogen bond 1.6 and more
_DONOR_RANGE = (45.0, 135.0)  # degrees, from the paper
_OXYGEN, _HYDROGEN = atomic_numbers["O"], atomic_numbers["H"]
_X_AXIS, _Y_AXIS = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)


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


def orientation_angles(
    vectors: Array, x_axis: tuple[float, float, float] = _X_AXIS, normal: tuple[float, float, float] = _Y_AXIS
) -> Array:
    """Angle alpha between O-H bonds projected on a plane and an axis in that plane (figure 8 of the paper: xz, x).

    :param vectors: from oxygen to hydrogen in Å, shape (..., 3)
    :param x_axis: direction that alpha is measured from
    :param normal: normal of the plane of projection, at right angles to the axis
    :return: alpha in degrees between 0 and 180, shape (...); NaN for a bond along the normal
    :raises ValueError: if axis and normal are not at right angles
    """
    axis = np.array(x_axis) / np.linalg.norm(x_axis)
    upright = np.array(normal) / np.linalg.norm(normal)
    if abs(axis @ upright) > 1e-6:
        raise ValueError("the axis must lie in the plane of projection")
    along, across = vectors @ axis, vectors @ np.cross(axis, upright)
    angles = np.degrees(np.arctan2(np.abs(across), along))
    return np.where(np.hypot(along, across) > 1e-6, angles, np.nan)


def trajectory_angles(
    frames: Frames,
    x_axis: tuple[float, float, float] = _X_AXIS,
    normal: tuple[float, float, float] = _Y_AXIS,
) -> Array:
    """Angle alpha of every hydroxyl group of the framework in every frame; bonds are those of the first frame.

    :param frames: frames of one framework, whatever their loading
    :param x_axis: direction that alpha is measured from
    :param normal: normal of the plane of projection
    :return: alpha in degrees, shape (frames, bonds)
    """
    angles, bonds = [], np.zeros((0, 2), dtype=np.int64)
    for index in range(len(frames)):
        first = int(frames.offsets[index])
        framework = slice(first, first + int(frames.framework_atoms[index]))
        positions, cell = frames.positions[framework], frames.cells[index]
        if index == 0:
            bonds = hydroxyl_bonds(frames.numbers[framework].astype(np.int64), positions, cell)
        vectors = minimum_image(positions[bonds[:, 1]] - positions[bonds[:, 0]], cell)
        angles.append(orientation_angles(vectors, x_axis, normal))
    return np.array(angles).reshape(len(frames), len(bonds))


@dataclass(frozen=True)
class OrientationFractions:
    """Fractions of the hydroxyl groups by the range that alpha lies in.

    :param free_low: 0 to 45 degrees: points into a pore, an acceptor of the neighbouring rod's hydrogen bond
    :param donor: 45 to 135 degrees: donates a hydrogen bond to the neighbouring rod
    :param free_high: 135 to 180 degrees: points into the pore on the other side
    """

    free_low: float
    donor: float
    free_high: float

    @property
    def free(self) -> float:
        """Fraction that points into a pore."""
        return self.free_low + self.free_high


def orientation_fractions(angles: Array) -> OrientationFractions:
    """Sort angles into the three ranges of the paper; undefined ones are left out.

    :param angles: alpha in degrees, any shape
    :raises ValueError: if no angle is defined
    """
    known = angles[np.isfinite(angles)]
    if known.size == 0:
        raise ValueError("there is no angle to sort: the framework has no hydroxyl group")
    low, high = _DONOR_RANGE
    free_low, free_high = float(np.mean(known < low)), float(np.mean(known > high))
    return OrientationFractions(free_low=free_low, donor=1.0 - free_low - free_high, free_high=free_high)
