"""Symmetric products of features (Batatia et al., NeurIPS 2022, eq. 10 and 11), each monomial computed once."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from .edge_functions import keep_rows

__all__ = ["Contraction"]


class Contraction(torch.nn.Module):  # type: ignore[misc]
    """Symmetric products of features, weighted by element and channel.

    :param contractions: of mace; their weights and coupling coefficients
    """

    def __init__(self, contractions: Any):
        super().__init__()
        parts = [_Polynomial(each) for each in contractions.contractions]
        self._orders = max(part.order for part in parts)
        kept: list[list[tuple[int, ...]]] = [[] for _ in range(self._orders)]
        for degree in range(self._orders, 0, -1):
            prefixes = {m[:-1] for m in kept[degree]} if degree < self._orders else set()
            kept[degree - 1] = sorted(prefixes.union(*(part.monomials(degree) for part in parts)))
        for degree, monomials in enumerate(kept, start=1):
            keep_rows(self, f"last_{degree}", [m[-1] for m in monomials], parts[0].rows)
            if degree > 1:
                prefix = {m: i for i, m in enumerate(kept[degree - 2])}
                keep_rows(self, f"before_{degree}", [prefix[m[:-1]] for m in monomials], len(prefix))
        self._monomials = list(itertools.chain(*kept))
        self._parts, self._components = parts, [part.components for part in parts]
        #: of each element that has occurred, shape (channels, components of all outputs, monomials)
        self._weights: dict[int, Any] = {}

    def forward(self, x: Any, elements: Any) -> Any:
        """Return the products as e3nn orders them, shape (n, features).

        :param x: features, shape (n, rows, channels)
        :param elements: one-hot, shape (n, elements)
        """
        count, _, channels = x.shape
        monomials = _Monomials.apply(x.permute(2, 1, 0).contiguous(), self._plan())
        present = elements.any(dim=0).nonzero()[:, 0]
        weights = torch.cat([self._weights_of(element, x) for element in present.tolist()], dim=1)
        products = torch.bmm(weights, monomials).view(channels, len(present), -1, count)
        chosen = (products * elements.index_select(1, present).T[:, None]).sum(dim=1)
        parts = chosen.split(self._components, dim=1)
        return torch.cat([part.permute(2, 0, 1).flatten(1) for part in parts], dim=1)

    def _plan(self) -> list[tuple[Any, ...]]:
        """Return, for each degree, rows and matrix of the last factors, and of the monomials they are multiplied to."""
        names = [("last_1",), *((f"last_{d}", f"before_{d}") for d in range(2, self._orders + 1))]
        return [tuple(getattr(self, f"{name}{end}") for name in each for end in ("", "_back")) for each in names]

    def _weights_of(self, element: int, like: Any) -> Any:
        if element not in self._weights:
            parts = [part.weights(self._monomials, element) for part in self._parts]
            self._weights[element] = torch.cat(parts, dim=1).to(like)
        return self._weights[element]


class _Monomials(torch.autograd.Function):  # type: ignore[misc]
    """Monomials of all degrees, each from one of the degree before, shape (channels, monomials, n).

    What comes back is summed by products of matrices, which are faster than sums by index.
    """

    @staticmethod
    def forward(ctx: Any, x: Any, plan: list[tuple[Any, ...]]) -> Any:
        powers = [x.index_select(1, plan[0][0])]
        for last, _, before, _ in plan[1:]:
            powers.append(powers[-1].index_select(1, before).mul_(x.index_select(1, last)))
        ctx.plan, ctx.sizes = plan, [power.shape[1] for power in powers]
        ctx.save_for_backward(x, *powers[:-1])
        return torch.cat(powers, dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, None]:
        x, *powers = ctx.saved_tensors
        by_powers = list(gradient.split(ctx.sizes, dim=1))
        by_x = torch.zeros_like(x)
        for degree in range(len(powers), 0, -1):
            last, last_back, before, before_back = ctx.plan[degree]
            by_x += torch.matmul(last_back, by_powers[degree] * powers[degree - 1].index_select(1, before))
            by_before = torch.matmul(before_back, by_powers[degree] * x.index_select(1, last))
            by_powers[degree - 1] = by_powers[degree - 1] + by_before
        return by_x + torch.matmul(ctx.plan[0][1], by_powers[0]), None


class _Polynomial:
    """What one of mace's contractions computes, as a polynomial in the features of a channel.

    :param contraction: of mace
    """

    def __init__(self, contraction: Any):
        self.order = int(contraction.correlation)
        self._factors: dict[int, tuple[Any, Any]] = {}
        weights = [*reversed(list(contraction.weights)), contraction.weights_max]
        for degree, weight in enumerate(weights, start=1):
            coupling = contraction.U_tensors(degree).detach().double()
            coupling = coupling if coupling.dim() == degree + 2 else coupling[None]
            self._factors[degree] = (coupling, weight.detach().double())
        self.components, self.rows = self._factors[1][0].shape[:2]

    def _coupling(self, monomial: tuple[int, ...]) -> Any:
        """Return the coefficients of a monomial, summed over all orders of its factors, shape (components, paths)."""
        coupling = self._factors[len(monomial)][0].movedim(0, -2)
        return sum(coupling[order] for order in sorted(set(itertools.permutations(monomial))))

    def monomials(self, degree: int) -> list[tuple[int, ...]]:
        """Return the monomials of a degree that have a coefficient other than zero, as ascending rows."""
        largest = self._factors[degree][0].abs().max()
        every = itertools.combinations_with_replacement(range(self.rows), degree) if largest > 0.0 else ()
        return [each for each in every if self._coupling(each).abs().max() > 1e-9 * largest]

    def weights(self, monomials: list[tuple[int, ...]], element: int) -> Any:
        """Return the weights of monomials for an element, shape (channels, components, monomials)."""
        rows = [(self._coupling(each) @ self._factors[len(each)][1][element]).T for each in monomials]
        return torch.stack(rows, dim=2)
