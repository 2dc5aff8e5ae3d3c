"""Hydroxyl groups: bonds and angles."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from aiida_mofmace.worker.kernels.orientation import hydroxyl_bonds, orientation_angles


def test_angles_of_known_vectors() -> None:
    vectors = np.array([[1, 5, 0], [1, -2, 1], [0, 1, -3], [-1, 0, 1], [-2, 9, 0], [0, 1, 0]], dtype=float)
    axes = np.eye(3)
    angles = orientation_angles(vectors, axes[0], axes[1])
    assert angles[:5] == pytest.approx([0.0, 45.0, 90.0, 135.0, 180.0])
    assert np.isnan(angles[5])
    turned = orientation_angles(np.array([[0.0, 1.0, 1.0]]), 2 * axes[2], 3 * axes[0])
    assert turned == pytest.approx([45.0])
    with pytest.raises(ValueError, match="plane of projection"):
        orientation_angles(vectors, np.array([1.0, 1.0, 0.0]), axes[1])


def test_hydroxyl_groups_of_mil120(framework: Atoms) -> None:
    """Each of the 8 bridging oxygens carries one hydrogen; the two on the aromatic ring do not count."""
    bonds = hydroxyl_bonds(framework.numbers, framework.positions, framework.cell.array)
    assert len(bonds) == 8
    assert len(set(bonds[:, 0])) == 8
    for oxygen, hydrogen in bonds:
        assert framework.get_distance(oxygen, hydrogen, mic=True) == pytest.approx(0.976, abs=0.01)


def test_no_hydroxyl_group_is_said() -> None:
    empty = hydroxyl_bonds(np.array([13, 8]), np.zeros((2, 3)), np.eye(3) * 9)
    assert empty.shape == (0, 2)
