"""Distances under skewed periodic boundaries and random orientations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from aiida_mofmace.worker.kernels.geometry import (
    cell_heights,
    cell_volume,
    closest_distance,
    minimum_image,
    minimum_pair_distance,
    random_rotation,
)

SKEWED = np.array([[7.1, 0.0, 0.0], [-3.4, 6.5, 0.0], [-3.1, -3.7, 9.97]])


def test_short_distances_are_exact_in_a_skewed_cell() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.uniform(-20, 20, (500, 3))
    images = np.array(list(itertools.product(range(-5, 6), repeat=3))) @ SKEWED
    exact = np.linalg.norm(vectors[:, None] + images, axis=-1).min(axis=1)
    found = np.linalg.norm(minimum_image(vectors, SKEWED), axis=1)
    short = exact < cell_heights(SKEWED).min() / 2
    assert 50 < short.sum() < 450
    assert found[short] == pytest.approx(exact[short])
    assert np.all(found >= exact - 1e-9)


def test_heights_are_volumes_over_areas() -> None:
    a, b, c = SKEWED
    areas = [np.linalg.norm(np.cross(*pair)) for pair in ((b, c), (c, a), (a, b))]
    assert cell_heights(SKEWED) == pytest.approx(cell_volume(SKEWED) / np.array(areas))
    assert cell_volume(SKEWED) == pytest.approx(a @ np.cross(b, c)) == pytest.approx(7.1 * 6.5 * 9.97)


def test_closest_distances() -> None:
    first = np.array([[[0.1, 0, 0], [1, 1, 1]], [[3, 3, 3], [3.5, 3, 3]]], dtype=float)
    second = np.array([[9.8, 0, 0], [5.0, 3, 3]])
    cell = np.eye(3) * 10
    assert closest_distance(first, second, cell) == pytest.approx([0.3, 1.5])
    assert np.all(np.isinf(closest_distance(first, np.zeros((0, 3)), cell)))
    assert minimum_pair_distance(np.concatenate([first[0], second]), cell) == pytest.approx(0.3)
    assert minimum_pair_distance(first[0][:1], cell) == np.inf


def test_rotations_are_proper_and_uniform() -> None:
    rng = np.random.default_rng(1)
    rotations = np.array([random_rotation(rng) for _ in range(4000)])
    assert np.allclose(np.einsum("nij,nkj->nik", rotations, rotations), np.eye(3))
    assert np.linalg.det(rotations) == pytest.approx(np.ones(4000))
    # Under the uniform measure every element has mean 0 and variance 1/3, and the trace has mean 0 and variance 1.
    error = 1 / np.sqrt(4000)
    assert np.all(np.abs(rotations.mean(axis=0)) < 4 * error / np.sqrt(3))
    traces = np.trace(rotations, axis1=1, axis2=2)
    assert abs(traces.mean()) < 4 * error
    assert traces.var() == pytest.approx(1.0, abs=0.1)
