"""Messages of a MACE layer: the sum over neighbours as products of small matrices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

__all__ = ["Convolution", "Path", "PlaceKeeper"]


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
    :param places_of: which the layers of a model share
    """

    def __init__(
        self,
        blocks: Sequence[tuple[int, int]],
        paths: Sequence[Path],
        couplings: Iterable[Any],
        places_of: PlaceKeeper,
    ):
        super().__init__()
        self._channels, self._dimensions, self._paths = blocks[0][0], [dimension for _, dimension in blocks], paths
        self._places_of = places_of
        self._factors = []
        for index, coupling in enumerate(couplings):
            self.register_buffer(f"coupling_{index}", coupling)
            self._factors.append(float(coupling[0, 0]))  # all that there is of it where the features are scalars

    def forward(self, features: Any, harmonics: Any, weights: Any, edges: Any) -> Any:
        """Return the messages, channels behind rows, shape (n, rows * channels).

        :param features: as e3nn orders them, shape (n, features)
        :param harmonics: of the edges, shape (edges, harmonics)
        :param weights: of the edges, shape (edges, paths * channels)
        :param edges: senders and receivers, shape (2, edges)
        """
        places, count = self._places_of(edges), len(features)
        if self._dimensions == [1]:
            message = _ConvolveScalars.apply(features, harmonics, weights, (self._paths, self._factors, places))
        else:
            sizes = [self._channels * dimension for dimension in self._dimensions]
            parts = zip(features.split(sizes, dim=1), self._dimensions, strict=True)
            rows = torch.cat([x.view(count, self._channels, d).transpose(1, 2) for x, d in parts], dim=1)
            couplings = [getattr(self, f"coupling_{index}") for index in range(len(self._paths))]
            message = _Convolve.apply(rows, harmonics, weights, (self._paths, couplings, places))
        if places.receivers < count:
            message = torch.cat([message, message.new_zeros(count - places.receivers, *message.shape[1:])])
        return message.flatten(1)


class _Places:
    """Where each edge stands among those of its receiver.

    :param edges: senders and receivers, shape (2, edges)
    """

    def __init__(self, edges: Any):
        self.senders, receivers = edges
        counts = torch.bincount(receivers)
        starts = counts.cumsum(0) - counts
        order = receivers.argsort(stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(len(order), device=order.device) - starts[receivers[order]]
        self.receivers, self.width = len(counts), int(counts.max()) if len(counts) else 0
        self._slots = receivers * self.width + rank

    def spread(self, values: Any) -> Any:
        """Put values of edges, shape (edges, k, w), side by side for each receiver, shape (receivers, width * k, w)."""
        wide = values.new_zeros(self.receivers * self.width, *values.shape[1:])
        wide.index_copy_(0, self._slots, values)
        return wide.view(self.receivers, self.width * values.shape[1], values.shape[2])

    def gather(self, wide: Any, k: int = 1) -> Any:
        """Undo :meth:`spread`; return values of edges, shape (edges, k * w)."""
        return wide.reshape(self.receivers * self.width, k * wide.shape[2]).index_select(0, self._slots)


class PlaceKeeper:
    """Finds the places of edges, and knows those of the last ones: all layers of a model have the same."""

    def __init__(self) -> None:
        self._last: tuple[Any, Any] = (None, None)

    def __call__(self, edges: Any) -> _Places:
        """Return the places of edges, senders and receivers, shape (2, edges)."""
        if edges is not self._last[0]:
            self._last = edges, _Places(edges)
        places: _Places = self._last[1]
        return places


class _Convolve(torch.autograd.Function):  # type: ignore[misc]
    """The sum over neighbours; for each path a product of matrices there, and two of them on the way back."""

    @staticmethod
    def forward(ctx: Any, rows: Any, harmonics: Any, weights: Any, plan: tuple[Any, ...]) -> Any:
        paths, couplings, places = ctx.plan = plan
        sent = rows.index_select(0, places.senders)
        message = rows.new_empty(places.receivers, max(path.rows.stop for path in paths), rows.shape[2])
        wide = []
        for path, coupling in zip(paths, couplings, strict=True):
            weighted = sent[:, path.features] * weights[:, None, path.weights]
            turned = (harmonics[:, path.harmonics] @ coupling).view(
                len(weighted), weighted.shape[1], path.rows.stop - path.rows.start
            )
            wide.append((places.spread(turned), places.spread(weighted)))
            message[:, path.rows] = torch.bmm(wide[-1][0].transpose(1, 2), wide[-1][1])
        ctx.count = len(rows)
        ctx.save_for_backward(sent, harmonics, weights, *(each for pair in wide for each in pair))
        return message

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, ...]:
        sent, harmonics, weights, *wide = ctx.saved_tensors
        (paths, couplings, places), needs_rows = ctx.plan, ctx.needs_input_grad[0]
        by_harmonics, by_weights = torch.zeros_like(harmonics), torch.empty_like(weights)
        by_sent = torch.zeros_like(sent) if needs_rows else None
        for index, (path, coupling) in enumerate(zip(paths, couplings, strict=True)):
            turned, weighted = wide[2 * index : 2 * index + 2]
            mine, own = gradient[:, path.rows], sent[:, path.features]
            by_turned = torch.bmm(weighted, mine.transpose(1, 2))
            by_harmonics[:, path.harmonics] += places.gather(by_turned, own.shape[1]) @ coupling.T
            by_weighted = places.gather(torch.bmm(turned, mine), own.shape[1]).view_as(own)
            by_weights[:, path.weights] = (by_weighted * own).sum(dim=1)
            if by_sent is not None:
                by_sent[:, path.features] += by_weighted * weights[:, None, path.weights]
        by_rows = None
        if by_sent is not None:
            by_rows = sent.new_zeros(ctx.count, *sent.shape[1:]).index_add_(0, places.senders, by_sent)
        return by_rows, by_harmonics, by_weights, None


class _ConvolveScalars(torch.autograd.Function):  # type: ignore[misc]
    """As :class:`_Convolve`, for features without a direction, shape (n, channels): harmonics are taken as they are."""

    @staticmethod
    def forward(ctx: Any, features: Any, harmonics: Any, weights: Any, plan: tuple[Any, ...]) -> Any:
        paths, factors, places = ctx.plan = plan
        sent = features.index_select(0, places.senders)[:, None]
        weights = weights.view(len(weights), len(paths), features.shape[1])
        turned, weighted = places.spread(harmonics[:, None]), places.spread((weights * sent).flatten(1)[:, None])
        message = features.new_empty(places.receivers, max(path.rows.stop for path in paths), features.shape[1])
        for path, factor in zip(paths, factors, strict=True):
            product = torch.bmm(turned[..., path.harmonics].transpose(1, 2), weighted[..., path.weights])
            torch.mul(product, factor, out=message[:, path.rows])
        ctx.count = len(features)
        ctx.save_for_backward(sent, weights, turned, weighted)
        return message

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, ...]:
        (paths, factors, places), (sent, weights, turned, weighted) = ctx.plan, ctx.saved_tensors
        by_turned, by_weighted = torch.zeros_like(turned), torch.empty_like(weighted)
        for path, factor in zip(paths, factors, strict=True):
            mine = factor * gradient[:, path.rows]
            by_turned[..., path.harmonics] += torch.bmm(weighted[..., path.weights], mine.transpose(1, 2))
            by_weighted[..., path.weights] = torch.bmm(turned[..., path.harmonics], mine)
        by_harmonics = places.gather(by_turned)
        by_weighted = places.gather(by_weighted).view_as(weights)
        by_features = None
        if ctx.needs_input_grad[0]:
            by_sent = (by_weighted * weights).sum(dim=1)
            by_features = sent.new_zeros(ctx.count, sent.shape[2]).index_add_(0, places.senders, by_sent)
        return by_features, by_harmonics, (by_weighted * sent).flatten(1), None
