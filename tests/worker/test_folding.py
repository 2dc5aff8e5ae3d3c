"""Snapshots of a large cell are cut into single cells without clashes."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from aiida_mofmace.worker.kernels.folding import fold_snapshot

FRAMEWORK = Atoms("Al", positions=[[0.0, 0.0, 0.0]], cell=[[8.0, 0, 0], [1.0, 9.0, 0], [0.5, 0.3, 10.0]], pbc=True)
REPEATS = (3, 2, 1)
LARGE = np.asarray(FRAMEWORK.cell.array) * np.array(REPEATS)[:, None]


def nitrogen(cell: tuple[int, int, int], place: tuple[float, float, float]) -> np.ndarray:
    """A molecule in one of the cells, at fractional coordinates of that cell; fractional coordinates of all."""
    centre = (np.array(cell) + place) @ np.asarray(FRAMEWORK.cell.array)
    return (centre + np.array([[0, 0, 0], [0, 0, 1.1]])) @ np.linalg.inv(LARGE)


def fold(*molecules: np.ndarray) -> list[Atoms]:
    return fold_snapshot(FRAMEWORK, ["N", "N"], np.array(molecules).reshape(-1, 2, 3), REPEATS, 2.0)


def test_every_cell_gets_its_own_molecules() -> None:
    middle = (0.5, 0.5, 0.5)
    images = fold(nitrogen((0, 0, 0), middle), nitrogen((2, 1, 0), middle), nitrogen((2, 1, 0), (0.5, 0.5, 0.9)))
    assert [image.info["loading"] for image in images] == [1, 0, 0, 0, 0, 2]
    assert all(image.info["framework_atoms"] == 1 for image in images)
    np.testing.assert_allclose(images[0].positions, np.vstack([[0, 0, 0], images[5].positions[1:3]]), atol=1e-9)
    np.testing.assert_allclose(images[0].cell.array, FRAMEWORK.cell.array)


def test_molecules_are_whole_wherever_the_large_cell_ends() -> None:
    across = nitrogen((1, 1, 0), (0.5, 0.5, 0.95))
    across[1, 2] -= 1.0  # the second atom, as RASPA may wrap it
    shifted = across + np.array([-2.0, 1.0, 0.0])
    for molecule in (across, shifted):
        loaded = [image for image in fold(molecule) if image.info["loading"]]
        assert len(loaded) == 1
        assert loaded[0].get_distance(1, 2) == pytest.approx(1.1)


def test_images_that_clash_are_left_out() -> None:
    """Far apart in the large cell, but images on top of each other in the small one."""
    apart = fold(nitrogen((0, 0, 0), (0.02, 0.5, 0.5)), nitrogen((1, 0, 0), (0.98, 0.5, 0.5)))
    assert [image.info["loading"] for image in apart] == [1, 0, 1, 0, 0, 0]
    together = fold(nitrogen((0, 0, 0), (0.02, 0.5, 0.5)), nitrogen((0, 0, 0), (0.98, 0.5, 0.5)))
    assert [image.info["loading"] for image in together] == [0, 0, 0, 0, 0]
