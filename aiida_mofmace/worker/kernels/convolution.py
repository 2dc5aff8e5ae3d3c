"""Messages of a MACE layer: radial functions from a table, and the sum over neighbours as products of small matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

__all__ = ["Convolution", "Lengths", "NoTableError", "Path", "RadialTable"]

_FEWEST, _MOST = 512, 16384  # intervals of a table
#: How far a table may be from its function between its knots, in units of the function's largest value.
_TOLERANCE = {torch.float32: 1e-8, torch.float64: 1e-12}
_SHORTEST = 1e-6  # Å; the basis divides by the distance


class NoTableError(Exception):
    """A function that no table of reasonable size describes."""


class RadialTable(torch.nn.Module):  # type: ignore[misc]
    """Functions of the distance, cubic in each interval: values and slopes are exact at the knots.

    Energies are those of the interpolated functions, and forces their exact derivatives, so a simulation conserves
    energy as with the functions themselves.

    :param function: distances in Å, shape (n, 1), to values, shape (n, width); in float64
    :param cutoff: where the table ends, in Å
    :param dtype: in which it will be used; how fine it is depends on it
    :raises NoTableError: if the function is too rough
    """

    def __init__(self, function: Callable[[Any], Any], cutoff: float, dtype: Any):
        super().__init__()
        intervals = _FEWEST
        while True:
            coefficients = self._coefficients(function, cutoff, intervals)
            middles = (torch.arange(intervals, dtype=torch.float64)[:, None] + 0.5) * (cutoff / intervals)
            powers = torch.tensor([1.0, 0.5, 0.25, 0.125], dtype=torch.float64)
            error = (torch.einsum("p,npw->nw", powers, coefficients) - function(middles)).abs().max()
            if error <= _TOLERANCE[dtype] * coefficients[:, 0].abs().max():
                break
            intervals *= 2
            if intervals > _MOST:
                raise NoTableError(f"{_MOST} intervals leave an error of {float(error):.1e}")
        self.per_length = intervals / cutoff
        self.register_buffer("coefficients", coefficients)

    @staticmethod
    def _coefficients(function: Callable[[Any], Any], cutoff: float, intervals: int) -> Any:
        """Return the coefficients of 1, t, t² and t³ in each interval, shape (intervals, 4, width)."""
        step = cutoff / intervals
        knots = (torch.arange(intervals + 1, dtype=torch.float64)[:, None] * step).clamp(min=_SHORTEST)
        values, slopes = torch.func.jvp(function, (knots,), (torch.ones_like(knots),))
        values, slopes = values.detach(), step * slopes.detach()
        rise = values[1:] - values[:-1]
        square = 3.0 * rise - 2.0 * slopes[:-1] - slopes[1:]
        cube = slopes[:-1] + slopes[1:] - 2.0 * rise
        return torch.stack([values[:-1], slopes[:-1], square, cube], dim=1)

    def forward(self, lengths: Any) -> Any:
        """Return the functions at distances in Å, shape (n, 1)."""
        return _Interpolation.apply(lengths, self.coefficients, self.per_length)


class _Interpolation(torch.autograd.Function):  # type: ignore[misc]
    """Cubics of a table, with their slope kept for the way back."""

    @staticmethod
    def forward(ctx: Any, lengths: Any, coefficients: Any, per_length: float) -> Any:
        place = lengths * per_length
        interval = place[:, 0].long().clamp(max=len(coefficients) - 1)
        t = place - interval[:, None]
        c0, c1, c2, c3 = coefficients.index_select(0, interval).unbind(1)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(torch.addcmul(c1, t, torch.addcmul(2.0 * c2, 3.0 * t, c3)))
            ctx.per_length = per_length
        return torch.addcmul(c0, t, torch.addcmul(c1, t, torch.addcmul(c2, t, c3)))

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, None, None]:
        (slope,) = ctx.saved_tensors
        return torch.linalg.vecdot(gradient, slope)[:, None] * ctx.per_length, None, None


class Lengths(torch.nn.Module):  # type: ignore[misc]
    """In the place of a radial embedding: hands on the distances, which the tables begin with.

    :param embedding: of the model
    """

    def __init__(self, embedding: Any):
        super().__init__()
        self.cutoff_fn, self.applies_cutoff = embedding.cutoff_fn, bool(getattr(embedding, "apply_cutoff", True))

    def forward(self, lengths: Any, *_: Any) -> tuple[Any, Any]:
        """Return the distances, and the envelope where the model multiplies by it later on."""
        return lengths, None if self.applies_cutoff else self.cutoff_fn(lengths)


@dataclass(frozen=True)
class Path:
    """One product of features and harmonics.

    :param features: which rows of the features
    :param harmonics: which harmonics
    :param weights: which radial functions
    :param rows: which rows of the message
    """

    features: slice
    harmonics: slice
    weights: slice
    rows: slice


class Convolution(torch.nn.Module):  # type: ignore[misc]
    """Messages: products of senders' features, harmonics and radial functions, summed for each receiver.

    For each receiver and path it is one product of two matrices, the harmonics and the weighted features of the
    neighbours; receivers with fewer neighbours than others are filled up with zeros.

    :param blocks: number and dimension of each irreducible representation in the features, the same number for all
    :param paths: see :class:`Path`
    :param couplings: of each path, shape (harmonics, rows of features times rows of message)
    """

    def __init__(self, blocks: Sequence[tuple[int, int]], paths: Sequence[Path], couplings: Iterable[Any]):
        super().__init__()
        self._channels, self._dimensions, self._paths = blocks[0][0], [dimension for _, dimension in blocks], paths
        self._rows = max(path.rows.stop for path in paths)
        self._last: tuple[Any, Any] = (None, None)
        for index, coupling in enumerate(couplings):
            self.register_buffer(f"coupling_{index}", coupling)

    def forward(self, features: Any, harmonics: Any, weights: Any, edges: Any) -> Any:
        """Return the messages, channels behind rows, shape (n, rows * channels).

        :param features: as e3nn orders them, shape (n, features)
        :param harmonics: of the edges, shape (edges, harmonics)
        :param weights: of the edges, shape (edges, paths * channels)
        :param edges: senders and receivers, shape (2, edges)
        """
        if edges is not self._last[0]:
            self._last = edges, _Places(edges)
        places, count = self._last[1], len(features)
        if self._dimensions == [1]:
            rows = features[:, None, :]
        else:
            sizes = [self._channels * dimension for dimension in self._dimensions]
            parts = zip(features.split(sizes, dim=1), self._dimensions, strict=True)
            rows = torch.cat([x.view(count, self._channels, d).transpose(1, 2) for x, d in parts], dim=1)
        couplings = [getattr(self, f"coupling_{index}") for index in range(len(self._paths))]
        message = _Convolve.apply(rows, harmonics, weights, self._paths, couplings, places)
        if places.receivers < count:
            message = torch.cat([message, message.new_zeros(count - places.receivers, *message.shape[1:])])
        return message.flatten(1)


class _Places:
    """Where each edge stands among those of its receiver.

    :param edges: senders and receivers, shape (2, edges)
    """

    def __init__(self, edges: Any):
        self.senders = edges[0]
        receivers = edges[1].numpy()
        counts = np.bincount(receivers)
        order = np.argsort(receivers, kind="stable")
        starts = np.cumsum(counts) - counts
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order)) - np.repeat(starts, counts)
        self.receivers, self.width = len(counts), int(counts.max(initial=0))
        self._slots = torch.from_numpy(receivers * self.width + rank)

    def spread(self, values: Any) -> Any:
        """Put values of edges, shape (edges, k, w), beside those of their receivers, shape (receivers, width * k, w)."""
        wide = values.new_zeros(self.receivers * self.width, *values.shape[1:])
        wide.index_copy_(0, self._slots, values)
        return wide.view(self.receivers, -1, values.shape[2])

    def gather(self, wide: Any, like: Any) -> Any:
        """Undo :meth:`spread`, for values of the shape of others."""
        return wide.reshape(self.receivers * self.width, *like.shape[1:]).index_select(0, self._slots)


class _Convolve(torch.autograd.Function):  # type: ignore[misc]
    """The sum over neighbours; for each path a product of matrices there, and two of them on the way back."""

    @staticmethod
    def forward(
        ctx: Any, rows: Any, harmonics: Any, weights: Any, paths: Sequence[Path], couplings: list[Any], places: _Places
    ) -> Any:
        sent = rows.index_select(0, places.senders)
        message = rows.new_empty(places.receivers, max(path.rows.stop for path in paths), rows.shape[2])
        wide = []
        for path, coupling in zip(paths, couplings, strict=True):
            weighted = sent[:, path.features] * weights[:, None, path.weights]
            turned = (harmonics[:, path.harmonics] @ coupling).view(len(weighted), weighted.shape[1], -1)
            wide.append((places.spread(turned), places.spread(weighted)))
            message[:, path.rows] = torch.bmm(wide[-1][0].transpose(1, 2), wide[-1][1])
        ctx.paths, ctx.couplings, ctx.places, ctx.count = paths, couplings, places, len(rows)
        ctx.save_for_backward(sent, harmonics, weights, *(each for pair in wide for each in pair))
        return message

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, ...]:
        sent, harmonics, weights, *wide = ctx.saved_tensors
        places, needs_rows = ctx.places, ctx.needs_input_grad[0]
        by_harmonics, by_weights = torch.zeros_like(harmonics), torch.empty_like(weights)
        by_sent = torch.zeros_like(sent) if needs_rows else None
        for index, (path, coupling) in enumerate(zip(ctx.paths, ctx.couplings, strict=True)):
            turned, weighted = wide[2 * index : 2 * index + 2]
            mine, own = gradient[:, path.rows], sent[:, path.features]
            by_turned = torch.bmm(weighted, mine.transpose(1, 2))
            shape = harmonics.new_empty(len(sent), own.shape[1], mine.shape[1])
            by_harmonics[:, path.harmonics] += places.gather(by_turned, shape).flatten(1) @ coupling.T
            by_weighted = places.gather(torch.bmm(turned, mine), own)
            by_weights[:, path.weights] = (by_weighted * own).sum(dim=1)
            if by_sent is not None:
                by_sent[:, path.features] += by_weighted * weights[:, None, path.weights]
        by_rows = None
        if by_sent is not None:
            by_rows = sent.new_zeros(ctx.count, *sent.shape[1:]).index_add_(0, places.senders, by_sent)
        return by_rows, by_harmonics, by_weights, None, None, None
