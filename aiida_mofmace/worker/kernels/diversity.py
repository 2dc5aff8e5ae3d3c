"""Pick few frames that stand for many: K-means, farthest point sampling, and how well the picks cover the pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import WorkerError

__all__ = [
    "METHODS",
    "Coverage",
    "CoverageMeter",
    "clusters",
    "farthest_points",
    "kmeans_picks",
    "nearest_distances",
    "nearest_members",
    "pick",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

METHODS = ("kmeans", "fps")
_BLOCK = 32
_KMEANS_STARTS = 4
_KMEANS_SAMPLE = 100  # points a cluster whose centres are looked for; all points are then given to the nearest centre
_GROWTH_ROUNDS = 8


def nearest_distances(points: Floats, to: Floats) -> Floats:
    """Distance of every point to the nearest of the others, shape (n,); infinite if there is none."""
    nearest = np.full(len(points), np.inf)
    squares = (points**2).sum(axis=1)
    for start in range(0, len(to), _BLOCK):
        block = to[start : start + _BLOCK]
        distances = squares[:, None] + (block**2).sum(axis=1) - 2.0 * (points @ block.T)
        np.minimum(nearest, distances.min(axis=1), out=nearest)
    return np.asarray(np.sqrt(np.maximum(nearest, 0.0)))


def farthest_points(points: Floats, n_select: int, occupied: Floats | None = None) -> Integers:
    """Farthest point sampling: each pick is the point farthest from all that is held already.

    :param points: shape (n, d)
    :param occupied: points that are held from the start, shape (m, d); with none, the point nearest to the mean opens
    :return: indices in the order of picking, shape (min(n_select, n),)
    """
    n_select = min(n_select, len(points))
    picks: list[int] = []
    nearest = nearest_distances(points, points[:0] if occupied is None else occupied) ** 2
    squares = (points**2).sum(axis=1)
    while len(picks) < n_select:
        opening = not picks and (occupied is None or len(occupied) == 0)
        if opening:
            chosen = int(np.argmin(((points - points.mean(axis=0)) ** 2).sum(axis=1)))
        else:
            chosen = int(np.argmax(nearest))
        picks.append(chosen)
        np.minimum(nearest, squares + squares[chosen] - 2.0 * (points @ points[chosen]), out=nearest)
        nearest[picks] = -1.0
    return np.array(picks, dtype=np.int64)


def clusters(points: Floats, n_clusters: int, seed: int) -> tuple[Integers, Floats]:
    """K-means clusters; of very many points the centres are those of a random sample.

    :return: cluster of each point, shape (n,), and centres, shape (n_clusters, d)
    """
    from sklearn.cluster import KMeans

    sample, size = points, _KMEANS_SAMPLE * n_clusters
    if len(points) > size:
        sample = points[np.random.default_rng(seed).choice(len(points), size, replace=False)]
    model = KMeans(n_clusters=n_clusters, n_init=_KMEANS_STARTS, random_state=seed).fit(sample)
    labels = model.labels_ if sample is points else model.predict(points)
    return labels.astype(np.int64), model.cluster_centers_


def nearest_members(points: Floats, labels: Integers, centres: Floats, wanted: Integers) -> Integers:
    """For each wanted cluster, its member nearest to the centre; members belong to one cluster, so all are distinct."""
    picks = []
    for cluster in wanted:
        members = np.flatnonzero(labels == cluster)
        picks.append(members[np.argmin(((points[members] - centres[cluster]) ** 2).sum(axis=1))])
    return np.array(picks, dtype=np.int64)


def kmeans_picks(points: Floats, n_select: int, seed: int, occupied: Floats | None = None) -> Integers:
    """Frames nearest to K-means centres, from clusters that hold nothing of what is known already.

    Without occupied points these are the nearest members of ``n_select`` clusters. With them, all points are clustered
    together, into more clusters until enough are free of occupied points; the most populated free ones are used. What
    is still missing then (the pool lies inside the known region) comes from farthest point sampling.

    :param points: shape (n, d)
    :param occupied: points that are held already, shape (m, d)
    :return: indices, shape (min(n_select, n),)
    """
    if n_select >= len(points):
        return np.arange(len(points), dtype=np.int64)
    held = points[:0] if occupied is None else occupied
    everything = np.concatenate([points, held])
    n_clusters = n_select
    for _ in range(_GROWTH_ROUNDS):
        labels, centres = clusters(everything, n_clusters, seed)
        sizes = np.bincount(labels[: len(points)], minlength=n_clusters)
        sizes[labels[len(points) :]] = 0
        free = np.flatnonzero(sizes)
        if len(free) >= n_select or len(held) == 0 or n_clusters == len(everything):
            break
        n_clusters = min(n_clusters + 2 * (n_select - len(free)), len(everything))
    wanted = free[np.argsort(-sizes[free], kind="stable")][:n_select]
    picks = nearest_members(points, labels[: len(points)], centres, wanted)
    rest = np.setdiff1d(np.arange(len(points)), picks)
    more = farthest_points(points[rest], n_select - len(picks), np.concatenate([held, points[picks]]))
    return np.concatenate([picks, rest[more]])


def pick(method: str, points: Floats, n_select: int, seed: int, occupied: Floats) -> Integers:
    """Pick by the method of that name, away from the occupied points.

    :raises WorkerError: of kind bad_input for an unknown method
    """
    methods: dict[str, Callable[[], Integers]] = {
        "kmeans": lambda: kmeans_picks(points, n_select, seed, occupied),
        "fps": lambda: farthest_points(points, n_select, occupied),
    }
    if method not in methods:
        raise WorkerError("bad_input", f"selection method {method!r} is unknown, give one of {sorted(methods)}")
    if n_select <= 0 or len(points) == 0:
        return np.zeros(0, dtype=np.int64)
    return methods[method]()


@dataclass(frozen=True)
class Coverage:
    """How much of a pool some picks stand for, beside random picks of the same number.

    :param cells: number of K-means cells of the pool
    :param selected_cells: cells that hold a pick
    :param covering_radius: distance of the worst represented frame to the nearest pick or known frame
    """

    cells: int
    selected_cells: int
    random_cells_mean: float
    random_cells_std: float
    covering_radius: float
    random_covering_radius: float


class CoverageMeter:
    """Measures the coverage of a pool by picks together with what is known already.

    :param points: the pool, shape (n, d)
    :param occupied: points held already, shape (m, d); they count for the covering radius of all kinds of picks
    :param n_cells: number of K-means cells; no more than there are distinct points
    """

    def __init__(self, points: Floats, occupied: Floats, n_cells: int, seed: int):
        self._points, self._seed = points, seed
        self.n_cells = min(n_cells, len(np.unique(points, axis=0)))
        self._cells, _ = clusters(points, self.n_cells, seed)
        self._known = nearest_distances(points, occupied)

    def distances(self, picks: Integers) -> Floats:
        """Distance of every frame of the pool to the nearest pick or known frame, shape (n,)."""
        return np.asarray(np.minimum(self._known, nearest_distances(self._points, self._points[picks])))

    def cells(self, picks: Integers) -> int:
        """Count the cells that hold a pick."""
        return len(np.unique(self._cells[picks]))

    def radius(self, picks: Integers) -> float:
        """Distance of the worst represented frame."""
        return float(self.distances(picks).max())

    def measure(self, picks: Integers, n_random: int) -> Coverage:
        """Compare picks with random ones of the same number.

        :param picks: indices into the pool
        :param n_random: number of random sets
        """
        rng = np.random.default_rng(self._seed)
        draws = [rng.choice(len(self._points), size=len(picks), replace=False) for _ in range(n_random)]
        cells = [self.cells(draw) for draw in draws]
        return Coverage(
            cells=self.n_cells,
            selected_cells=self.cells(picks),
            random_cells_mean=float(np.mean(cells)),
            random_cells_std=float(np.std(cells)),
            covering_radius=self.radius(picks),
            random_covering_radius=float(np.mean([self.radius(draw) for draw in draws])),
        )
