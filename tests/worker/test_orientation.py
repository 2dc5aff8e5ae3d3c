"""Hydroxyl groups: bonds, angles and fractions."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.kernels.orientation import (
    hydroxyl_bonds,
    orientation_angles,
    orientation_fractions,
    trajectory_angles,
)


def test_angles_of_known_vectors() -> None:
    vectors = np.array([[1, 5, 0], [1, -2, 1], [0, 1, -3], [-1, 0, 1], [-2, 9, 0], [0, 1, 0]], dtype=float)
    angles = orientation_angles(vectors)
    assert angles[:5] == pytest.approx([0.0, 45.0, 90.0, 135.0, 180.0])
    assert np.isnan(angles[5])
    turned = orientation_angles(np.array([[0.0, 1.0, 1.0]]), x_axis=(0, 0, 2), normal=(3, 0, 0))
    assert turned == pytest.approx([45.0])
    with pytest.raises(ValueError, match="plane of projection"):
        orientation_angles(vectors, x_axis=(1, 1, 0))


def test_hydroxyl_groups_of_mil120(framework: Atoms) -> None:
    """Each of the 8 bridging oxygens carries one hydrogen; the two on the aromatic ring do not count."""
    bonds = hydroxyl_bonds(framework.numbers, framework.positions, framework.cell.array)
    assert len(bonds) == 8
    assert len(set(bonds[:, 0])) == 8
    for oxygen, hydrogen in bonds:
        assert framework.get_distance(oxygen, hydrogen, mic=True) == pytest.approx(0.976, abs=0.01)


def test_fractions_do_not_depend_on_gas_or_images(framework: Atoms) -> None:
    """The lowest structure has as many donors as free groups, in any image and beside water in the pore."""
    loaded = framework + Atoms("OHH", [[3, 3, 5], [3.96, 3, 5], [2.76, 3.93, 5]])
    loaded.positions += 1.0
    loaded.positions[:40] += np.arange(40)[:, None] % 3 * framework.cell.array[1]
    framework.info = {"framework_atoms": 40}
    loaded.info = {"framework_atoms": 40, "loading": 1}
    angles = trajectory_angles(Frames.from_atoms([framework, loaded]))
    assert angles.shape == (2, 8)
    assert angles[1] == pytest.approx(angles[0], abs=1e-9)
    fractions = orientation_fractions(angles)
    assert (fractions.free_low, fractions.donor, fractions.free_high) == pytest.approx((0.25, 0.5, 0.25))
    assert fractions.free == pytest.approx(0.5)


def test_no_hydroxyl_group_is_said() -> None:
    empty = hydroxyl_bonds(np.array([13, 8]), np.zeros((2, 3)), np.eye(3) * 9)
    assert empty.shape == (0, 2)
    with pytest.raises(ValueError, match="no hydroxyl group"):
        orientation_fractions(np.zeros((3, 0)))
