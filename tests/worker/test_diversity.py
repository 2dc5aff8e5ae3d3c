from __future__ import annotations

import numpy as np
import pytest

from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.diversity import (
    Coverage,
    CoverageMeter,
    clusters,
    farthest_points,
    kmeans_picks,
    nearest_members,
    pick,
)
from aiida_mofmace.worker.kernels.projection import Projection, duplicates, map_points

NOTHING = np.zeros((0, 2))


def blobs(centres: list[tuple[float, float]], size: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(centre, 0.1, size=(size, 2)) for centre in centres])


def test_kmeans_picks_are_the_members_nearest_to_the_centres() -> None:
    points = blobs([(0, 0), (5, 0), (0, 5), (5, 5)], 25)
    picks = kmeans_picks(points, 4, seed=3)
    means = np.array([points[start : start + 25].mean(axis=0) for start in range(0, 100, 25)])
    expected = [int(np.argmin(np.linalg.norm(points - mean, axis=1))) for mean in means]
    assert sorted(picks.tolist()) == sorted(expected)


def test_centres_of_very_many_points_come_from_a_sample_and_all_points_get_a_cluster() -> None:
    points = blobs([(0, 0), (5, 0), (0, 5), (5, 5)], 500)
    labels, centres = clusters(points, 4, seed=1)
    assert len(labels) == 2000
    assert all(len(set(labels[start : start + 500])) == 1 for start in range(0, 2000, 500))
    assert np.allclose(np.sort(np.round(centres, 1), axis=0), [[0, 0], [0, 0], [5, 5], [5, 5]], atol=0.11)


def test_nearest_members_are_distinct_even_for_neighbouring_centres() -> None:
    points = np.random.default_rng(0).normal(size=(300, 3))
    labels, centres = clusters(points, 40, seed=1)
    picks = nearest_members(points, labels, centres, np.arange(40))
    assert len(set(picks.tolist())) == 40
    assert np.array_equal(labels[picks], np.arange(40))


def test_kmeans_leaves_out_the_region_the_dataset_holds() -> None:
    points = blobs([(0, 0), (5, 0), (0, 5), (5, 5)], 25)
    picks = kmeans_picks(points, 3, seed=3, occupied=blobs([(0, 0)], 10, seed=9))
    assert sorted(picks // 25) == [1, 2, 3]


def test_kmeans_takes_the_most_populated_region_first() -> None:
    """Of two that the dataset knows nothing of, wherever they stand among the points."""
    small, large = blobs([(0, 5)], 24), blobs([(5, 0)], 30)
    held = blobs([(0, 0)], 10, seed=9)
    for points, first in ((np.concatenate([small, large]), 24), (np.concatenate([large, small]), 0)):
        for seed in range(4):
            (pick,) = kmeans_picks(points, 1, seed=seed, occupied=held)
            assert first <= pick < first + 30


def test_kmeans_fills_up_when_the_pool_lies_inside_the_dataset() -> None:
    points = blobs([(0, 0)], 12)
    picks = kmeans_picks(points, 5, seed=3, occupied=points + 1e-9)
    assert len(set(picks.tolist())) == 5
    assert kmeans_picks(points, 50, seed=0).tolist() == list(range(12))


def test_farthest_points_on_a_line() -> None:
    line = np.array([[0.0], [1.0], [2.0], [4.0], [9.0]])
    assert farthest_points(line, 3).tolist() == [3, 4, 0]  # 4 is nearest to the mean of 3.2, then 9, then 0
    assert farthest_points(line, 2, occupied=np.array([[9.0]])).tolist() == [0, 3]
    assert farthest_points(line, 2, occupied=np.array([[0.0], [8.0]])).tolist() == [3, 2]
    assert sorted(farthest_points(line, 99).tolist()) == [0, 1, 2, 3, 4]


def test_farthest_points_never_repeat_among_identical_frames() -> None:
    picks = farthest_points(np.zeros((6, 2)), 6)
    assert sorted(picks.tolist()) == list(range(6))


def test_duplicates_keep_the_first_and_respect_the_reference() -> None:
    points = np.array([[1, 0], [0, 1], [1, 0], [0, 1], [0.5, 0.5], [0.5, 0.501]])
    assert duplicates(points, 1e-4, 0).tolist() == [False, False, True, True, False, False]
    assert duplicates(points, 1e-2, 0).tolist() == [False, False, True, True, False, True]
    assert duplicates(points, 1e-4, 3).tolist() == [False, False, False, True, False, False]
    assert duplicates(points + 1000.0, 1e-2, 0).tolist() == [False, False, True, True, False, True]
    assert not duplicates(points, 0.0, 0).any()
    assert duplicates(np.zeros((3, 1)), 1e-3, 0).tolist() == [False, True, True]


def test_projection_keeps_distances_that_single_precision_would_lose() -> None:
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(40, 2)) @ rng.normal(size=(2, 30))
    features = (1000.0 + plane).astype(np.float32)
    points = Projection.fit(features, 2, seed=0)(features)
    exact = np.linalg.norm(plane[0] - plane[1])
    assert np.linalg.norm(points[0] - points[1]) == pytest.approx(exact, rel=1e-3)
    assert np.abs(points[:, -1]).max() < 1e-3
    same = np.ones((3, 5), dtype=np.float32)
    assert Projection.fit(same, 2, seed=0)(same).tolist() == [[0.0]] * 3


def test_projection_keeps_apart_what_its_sample_did_not_know() -> None:
    rng = np.random.default_rng(0)
    sample = np.hstack([rng.normal(size=(50, 2)), np.zeros((50, 3))]).astype(np.float32)
    projection = Projection.fit(sample, 2, seed=0)
    strange = sample[:1] + np.array([[0, 0, 0, 3.0, 4.0]], dtype=np.float32)
    assert np.linalg.norm(projection(strange) - projection(sample[:1])) == pytest.approx(5.0, rel=1e-4)


def coverage(points: np.ndarray, picks: np.ndarray, occupied: np.ndarray, *, n_cells: int, n_random: int) -> Coverage:
    return CoverageMeter(points, occupied, n_cells, seed=0).measure(picks, n_random)


def test_coverage_counts_cells_and_the_worst_frame() -> None:
    points = blobs([(0, 0), (5, 0), (0, 5), (5, 5)], 25)
    good = coverage(points, np.array([0, 25, 50, 75]), NOTHING, n_cells=4, n_random=50)
    assert (good.cells, good.selected_cells) == (4, 4)
    assert good.covering_radius < 1.0 < good.random_covering_radius
    # four draws from four equal cells hit 4 (1 - (3/4)^4) = 2.73 of them on average
    assert good.random_cells_mean == pytest.approx(2.73, abs=0.35)
    poor = coverage(points, np.array([0, 1, 2, 3]), NOTHING, n_cells=4, n_random=5)
    assert poor.selected_cells == 1
    expected = max(min(np.linalg.norm(point - points[j]) for j in range(4)) for point in points)
    assert poor.covering_radius == pytest.approx(expected, rel=1e-9)
    helped = coverage(points, np.array([0, 1, 2, 3]), points[[25, 50, 75]], n_cells=4, n_random=5)
    assert helped.covering_radius < 1.0


def test_map_of_few_points() -> None:
    assert map_points(np.array([[1.0], [2.0]]), 30.0, 0).tolist() == [[1.0, 0.0], [2.0, 0.0]]
    xy = map_points(blobs([(0, 0), (50, 50)], 6), 30.0, 0)
    assert xy.shape == (12, 2)
    near = np.linalg.norm(xy[:6] - xy[:6].mean(axis=0), axis=1).max()
    assert np.linalg.norm(xy[:6].mean(axis=0) - xy[6:].mean(axis=0)) > near


def test_unknown_method_is_refused() -> None:
    with pytest.raises(WorkerError, match="random"):
        pick("random", np.zeros((3, 2)), 1, 0, NOTHING)
