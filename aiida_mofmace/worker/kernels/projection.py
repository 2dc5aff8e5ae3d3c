"""From long descriptors to few coordinates, so that distances between very many frames fit into memory."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

__all__ = ["Projection", "duplicates", "map_points", "one_thread"]

Floats = NDArray[np.float64]


def one_thread() -> AbstractContextManager[Any]:
    """Limit BLAS and OpenMP to one thread: sums in another order would make picks depend on the machine."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return cast(AbstractContextManager[Any], threadpool_limits(limits=1))


@dataclass(frozen=True)
class Projection:
    """Principal components of a sample of descriptors, and the length of what they leave out as one more coordinate.

    That last coordinate keeps a frame which is unlike all of the sample apart from the others. No distance is longer
    than that of the full descriptors.

    :param mean: shape (n_features,)
    :param components: orthonormal rows, shape (n_components, n_features)
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]

    @classmethod
    def fit(cls, features: NDArray[np.float32], n_components: int, seed: int) -> Projection:
        """Find the components of a sample.

        Centring comes first: distances of uncentred single precision vectors lose the digits that tell neighbouring
        frames apart.

        :param features: shape (n_sample, n_features); not changed
        """
        from sklearn.decomposition import PCA

        mean = features.mean(axis=0, dtype=np.float64).astype(np.float32)
        centred = features - mean
        if not np.any(centred):
            return cls(mean, np.zeros((0, len(mean)), dtype=np.float32))
        kept = max(1, min(n_components, len(features) - 1, features.shape[1]))
        return cls(mean, PCA(n_components=kept, random_state=seed).fit(centred).components_.astype(np.float32))

    @property
    def width(self) -> int:
        """Number of coordinates."""
        return len(self.components) + 1

    def __call__(self, features: NDArray[np.float32]) -> Floats:
        """Return the coordinates of descriptors, shape (n, width)."""
        centred = features - self.mean
        inside = centred @ self.components.T
        outside = np.linalg.norm((centred - inside @ self.components).astype(np.float64), axis=1)
        return np.column_stack([inside.astype(np.float64), outside])


def duplicates(points: Floats, tolerance: float, n_reference: int) -> NDArray[np.bool_]:
    """Mark frames that repeat an earlier one.

    Two frames are the same if they are no farther apart than the tolerance times the spread of all of them, the root
    mean square distance from their mean. The first ``n_reference`` rows are never marked, and later rows are compared
    with them as well.

    :param points: coordinates, shape (n, d)
    :param tolerance: fraction of the spread; 0 accepts everything
    :return: shape (n,)
    """
    from sklearn.neighbors import KDTree

    marked = np.zeros(len(points), dtype=np.bool_)
    if tolerance <= 0.0 or len(points) == 0:
        return marked
    radius = tolerance * float(np.sqrt(points.var(axis=0).sum()))
    tree = KDTree(points)
    for index, point in enumerate(points):
        if not marked[index]:
            near = tree.query_radius(point[None], radius)[0]
            marked[near[near > max(index, n_reference - 1)]] = True
    return marked


def map_points(points: Floats, perplexity: float, seed: int) -> Floats:
    """Two-dimensional t-SNE map (van der Maaten & Hinton, 2008).

    :param points: shape (n, d)
    :param perplexity: clipped to a third of the number of points, above which it has no meaning
    :return: shape (n, 2); below four points, the first two coordinates
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
