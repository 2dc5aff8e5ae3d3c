"""Pick few frames that stand for many: K-means, farthest point sampling, and how well the picks cover the pool."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import WorkerError

__all__ = [
    "Coverage",
    "Projection",
    "clusters",
    "coverage",
    "duplicates",
    "farthest_points",
    "kmeans_picks",
    "map_points",
    "nearest_members",
    "one_thread",
    "pick",
    "project",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_BLOCK = 256
_KMEANS_STARTS = 4
_GROWTH_ROUNDS = 8


def one_thread() -> AbstractContextManager[Any]:
    """Limit BLAS and OpenMP to one thread: sums in another order would make picks depend on the machine."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return cast(AbstractContextManager[Any], threadpool_limits(limits=1))


@dataclass(frozen=True)
class Projection:
    """Descriptors in the space of their principal components.

    :param points: shape (n_frames, n_components)
    :param explained_variance: fraction of the variance that the components hold
    """

    points: Floats
    explained_variance: float


def project(features: NDArray[np.float32], n_components: int, seed: int) -> Projection:
    """Centre the descriptors and keep their first principal components.

    Centring comes first, in double precision: distances of uncentred single precision vectors lose the digits that
    tell neighbouring frames apart.

    :param features: shape (n_frames, n_features); not changed
    """
    from sklearn.decomposition import PCA

    centred = features - features.mean(axis=0, dtype=np.float64).astype(np.float32)
    if not np.any(centred):
        return Projection(points=np.zeros((len(features), 1)), explained_variance=1.0)
    kept = max(1, min(n_components, len(features) - 1, features.shape[1]))
    model = PCA(n_components=kept, random_state=seed)
    points = model.fit_transform(centred).astype(np.float64)
    return Projection(points=points, explained_variance=float(model.explained_variance_ratio_.sum()))


def duplicates(features: NDArray[np.float32], points: Floats, tolerance: float, n_reference: int) -> NDArray[np.bool_]:
    """Mark frames that repeat an earlier one.

    Two frames are the same if their descriptors are no farther apart than the tolerance times the spread of all of
    them, the root mean square distance from their mean; the length of a descriptor says little, as most of it is common
    to all frames. The first ``n_reference`` rows are never marked, and later rows are compared with them as well.

    :param tolerance: fraction of the spread; 0 accepts everything
    :param features: descriptors, shape (n, n_features)
    :param points: their projection, shape (n, n_components); finds candidates, as it can only shorten distances
    :return: shape (n,)
    """
    from sklearn.neighbors import KDTree

    marked = np.zeros(len(features), dtype=np.bool_)
    if tolerance <= 0.0 or len(features) == 0:
        return marked
    spread = np.sqrt(features.var(axis=0, dtype=np.float64).sum())
    radius = tolerance * float(spread)
    tree = KDTree(points)
    for index, point in enumerate(points):
        if marked[index]:
            continue
        near = np.sort(tree.query_radius(point[None], radius * 1.01)[0]).astype(np.int64)
        later = near[near > max(index, n_reference - 1)]
        distances = np.linalg.norm((features[later] - features[index]).astype(np.float64), axis=1)
        marked[later[distances <= radius]] = True
    return marked


def _squared_distances(points: Floats, to: Floats) -> Floats:
    """Squared distance of every point to the nearest of the others, shape (n,); infinite if there is none."""
    nearest = np.full(len(points), np.inf)
    squares = (points**2).sum(axis=1)
    for start in range(0, len(to), _BLOCK):
        block = to[start : start + _BLOCK]
        distances = squares[:, None] + (block**2).sum(axis=1) - 2.0 * (points @ block.T)
        np.minimum(nearest, distances.min(axis=1), out=nearest)
    return np.asarray(np.maximum(nearest, 0.0))


def farthest_points(points: Floats, n_select: int, occupied: Floats | None = None) -> Integers:
    """Farthest point sampling: each pick is the point farthest from all that is held already.

    :param points: shape (n, d)
    :param occupied: points that are held from the start, shape (m, d); with none, the point nearest to the mean opens
    :return: indices in the order of picking, shape (min(n_select, n),)
    """
    n_select = min(n_select, len(points))
    picks: list[int] = []
    nearest = _squared_distances(points, points[:0] if occupied is None else occupied)
    while len(picks) < n_select:
        opening = not picks and (occupied is None or len(occupied) == 0)
        if opening:
            chosen = int(np.argmin(((points - points.mean(axis=0)) ** 2).sum(axis=1)))
        else:
            chosen = int(np.argmax(nearest))
        picks.append(chosen)
        np.minimum(nearest, ((points - points[chosen]) ** 2).sum(axis=1), out=nearest)
        nearest[picks] = -1.0
    return np.array(picks, dtype=np.int64)


def clusters(points: Floats, n_clusters: int, seed: int) -> tuple[Integers, Floats]:
    """K-means clusters.

    :return: cluster of each point, shape (n,), and centres, shape (n_clusters, d)
    """
    from sklearn.cluster import KMeans

    model = KMeans(n_clusters=n_clusters, n_init=_KMEANS_STARTS, random_state=seed).fit(points)
    return model.labels_.astype(np.int64), model.cluster_centers_


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


def coverage(points: Floats, picks: Integers, occupied: Floats, *, n_cells: int, n_random: int, seed: int) -> Coverage:
    """Measure the coverage of a pool by picks together with what is known already.

    :param points: the pool, shape (n, d)
    :param picks: indices into the pool
    :param occupied: points held already, shape (m, d); they count for the covering radius of both kinds of picks
    :param n_random: number of random sets to compare with
    """
    n_cells = min(n_cells, len(np.unique(points, axis=0)))
    labels, _ = clusters(points, n_cells, seed)
    known = _squared_distances(points, occupied)

    def radius(chosen: Integers) -> float:
        return float(np.sqrt(np.minimum(known, _squared_distances(points, points[chosen])).max()))

    rng = np.random.default_rng(seed)
    draws = [rng.choice(len(points), size=len(picks), replace=False) for _ in range(n_random)]
    cells = [len(np.unique(labels[draw])) for draw in draws]
    return Coverage(
        cells=n_cells,
        selected_cells=len(np.unique(labels[picks])),
        random_cells_mean=float(np.mean(cells)),
        random_cells_std=float(np.std(cells)),
        covering_radius=radius(picks),
        random_covering_radius=float(np.mean([radius(draw) for draw in draws])),
    )


def map_points(points: Floats, perplexity: float, seed: int) -> Floats:
    """Two-dimensional t-SNE map (van der Maaten & Hinton, 2008).

    :param points: shape (n, d)
    :param perplexity: clipped to a third of the number of points, above which it has no meaning
    :return: shape (n, 2); below four points, the first two components
    """
    if len(points) < 4:
        padded = np.zeros((len(points), 2))
        width = min(2, points.shape[1])
        padded[:, :width] = points[:, :width]
        return padded
    from sklearn.manifold import TSNE

    clipped = min(perplexity, (len(points) - 1) / 3.0)
    init = "pca" if points.shape[1] >= 2 else "random"
    model = TSNE(n_components=2, perplexity=clipped, init=init, random_state=seed)
    return model.fit_transform(points).astype(np.float64)  # type: ignore[no-any-return]
