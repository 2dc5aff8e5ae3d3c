"""What a MACE model needs of each edge, in few operations: radial functions, harmonics and pair repulsion."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import mace  # noqa: F401  (before e3nn: it prepares torch for loading constants)
import torch
from e3nn import o3

__all__ = ["Harmonics", "Lengths", "NoTableError", "RadialTable", "Repulsion", "keep_rows"]

_FEWEST, _MOST = 256, 8192  # intervals of a table
_TERMS = 6  # of the polynomial in each of them
#: How far a table may be from its function between its knots, in units of the function's largest value.
_TOLERANCE = {torch.float32: 2e-8, torch.float64: 1e-11}
_SHORTEST = 0.01  # Å, where a table begins; the basis divides by the distance


class NoTableError(Exception):
    """A function that no table of reasonable size describes."""


class RadialTable(torch.nn.Module):  # type: ignore[misc]
    """Functions of the distance, of fifth order in each interval: values, slopes and curvatures are exact at the knots.

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
            step = (cutoff - _SHORTEST) / intervals
            knots = _SHORTEST + torch.arange(intervals + 1, dtype=torch.float64)[:, None] * step
            coefficients = self._coefficients(function, knots, step)
            middle = 0.5 ** torch.arange(_TERMS, dtype=torch.float64)
            with torch.no_grad():
                exact = function(knots[:-1] + 0.5 * step)
            error = (torch.einsum("p,npw->nw", middle, coefficients) - exact).abs().max()
            if error <= _TOLERANCE[dtype] * exact.abs().max():
                break
            intervals *= 2
            if intervals > _MOST:
                raise NoTableError(f"{_MOST} intervals leave an error of {float(error):.1e}")
        self.per_length = 1.0 / step
        #: of the powers of the place in an interval, those of one interval one below the other
        self.register_buffer("coefficients", coefficients.flatten(0, 1))

    @staticmethod
    def _coefficients(function: Callable[[Any], Any], knots: Any, step: float) -> Any:
        """Return the coefficients of the powers of the place in each interval, shape (intervals, 6, width)."""
        lengths = knots.clone().requires_grad_()
        values = function(lengths)
        slopes = step * _derivative(values, lengths)
        orders = (x.detach() for x in (values, slopes, step * _derivative(slopes, lengths)))
        (v, v1), (s, s1), (c, c1) = ((x[:-1], x[1:]) for x in orders)
        rise, turn, bend = v1 - v - s - 0.5 * c, s1 - s - c, c1 - c
        third = 10.0 * rise - 4.0 * turn + 0.5 * bend
        fourth = -15.0 * rise + 7.0 * turn - bend
        fifth = 6.0 * rise - 3.0 * turn + 0.5 * bend
        return torch.stack([v, s, 0.5 * c, third, fourth, fifth], dim=1)

    def forward(self, lengths: Any) -> Any:
        """Return the functions at distances in Å, shape (n, 1)."""
        return _Interpolation.apply(lengths, self.coefficients, self.per_length)


def keep_rows(module: Any, name: str, indices: list[int], size: int) -> None:
    """Register which rows a module chooses, and the matrix that sends what comes back for them to where they were.

    :param module: of torch
    :param name: of the buffer; that of the matrix ends in ``_back``
    :param indices: of the rows
    :param size: how many rows there are
    """
    module.register_buffer(name, torch.tensor(indices))
    module.register_buffer(f"{name}_back", torch.eye(size, dtype=torch.float64)[:, indices])


def _derivative(values: Any, lengths: Any) -> Any:
    """Return what all values of a row change by with its length, by two ways back, of which the second is forward."""
    dummy = torch.ones_like(values, requires_grad=True)
    (along,) = torch.autograd.grad(values, lengths, dummy, create_graph=True)
    (derivative,) = torch.autograd.grad(along.sum(), dummy, create_graph=True)
    return derivative


class _Interpolation(torch.autograd.Function):  # type: ignore[misc]
    """Sums of rows of a table, weighted by powers of the place in the interval; slopes are such sums, too."""

    @staticmethod
    def forward(ctx: Any, lengths: Any, coefficients: Any, per_length: float) -> Any:
        place = (lengths - _SHORTEST) * per_length
        interval = place.long().clamp(0, len(coefficients) // _TERMS - 1)
        t = place - interval
        powers = torch.cat([torch.ones_like(t), t.expand(-1, _TERMS - 1).cumprod(dim=1)], dim=1)
        degrees = torch.arange(_TERMS, device=lengths.device)
        rows = interval * _TERMS + degrees
        if ctx.needs_input_grad[0]:
            slope = _weighted_sums(coefficients, rows[:, 1:], powers[:, :-1] * degrees[1:])
            ctx.save_for_backward(slope)
            ctx.per_length = per_length
        return _weighted_sums(coefficients, rows, powers)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, None, None]:
        (slope,) = ctx.saved_tensors
        return torch.linalg.vecdot(gradient, slope)[:, None] * ctx.per_length, None, None


def _weighted_sums(table: Any, rows: Any, weights: Any) -> Any:
    return torch.nn.functional.embedding_bag(rows, table, per_sample_weights=weights, mode="sum")


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


class Harmonics(torch.nn.Module):  # type: ignore[misc]
    """Real spherical harmonics as polynomials of the direction.

    :param harmonics: of e3nn, all degrees from 0 on, of vectors that it normalizes itself
    """

    def __init__(self, harmonics: Any):
        super().__init__()
        self._degree = max(ir.l for _, ir in harmonics.irreps_out)
        rows: list[list[tuple[int, ...]]] = [[(axis,) for axis in range(3)]]
        for degree in range(2, self._degree + 1):
            before, now = rows[-1], list(itertools.combinations_with_replacement(range(3), degree))
            keep_rows(self, f"before_{degree}", [before.index(each[:-1]) for each in now], len(before))
            keep_rows(self, f"axis_{degree}", [each[-1] for each in now], 3)
            rows.append(now)
        direction = torch.tensor([[0.0, 1.0, 0.0], [0.48, 0.6, 0.64]], dtype=torch.float64)
        values = harmonics(direction)
        self.register_buffer("constant", values[0, :1].clone())
        coefficients = torch.eye(3, dtype=torch.float64)
        for degree, monomials in enumerate(rows, start=1):
            if degree > 1:
                coefficients = _coupled(coefficients, rows[degree - 2], monomials)
            powers = torch.stack([direction[:, list(each)].prod(dim=1) for each in monomials], dim=1)
            found, wanted = powers @ coefficients, values[:, degree**2 : (degree + 1) ** 2]
            # e3nn's own values tell the sign alone: they are rounded one way or the other.
            scale = ((2 * degree + 1) / found[0].square().sum()).sqrt() * (found[1] @ wanted[1]).sign()
            coefficients = scale * coefficients
            self.register_buffer(f"coefficients_{degree}", coefficients)

    def forward(self, vectors: Any) -> Any:
        """Return the harmonics of vectors, shape (n, 3), as e3nn orders them."""
        coefficients = [getattr(self, f"coefficients_{degree}") for degree in range(1, self._degree + 1)]
        names = ("before", "before", "axis", "axis"), ("", "_back", "", "_back")
        steps = [
            tuple(getattr(self, f"{name}_{degree}{end}") for name, end in zip(*names, strict=True))
            for degree in range(2, self._degree + 1)
        ]
        return _HarmonicsOf.apply(vectors, self.constant, coefficients, steps)


def _coupled(coefficients: Any, monomials: list[tuple[int, ...]], products: list[tuple[int, ...]]) -> Any:
    """Return the coefficients of the next degree, up to a factor: those before, coupled with the direction.

    :param coefficients: shape (monomials, harmonics)
    :param monomials: that they belong to
    :param products: monomials of the next degree
    """
    degree = len(products[0])
    coupling = o3.wigner_3j(1, degree - 1, degree, dtype=torch.float64)
    after = torch.zeros(len(products), 2 * degree + 1, dtype=torch.float64)
    for row, monomial in enumerate(monomials):
        for axis in range(3):
            after[products.index(tuple(sorted((*monomial, axis))))] += coefficients[row] @ coupling[axis]
    return after


class _HarmonicsOf(torch.autograd.Function):  # type: ignore[misc]
    """Monomials of the direction, each degree from the one before, and what they add up to."""

    @staticmethod
    def forward(ctx: Any, vectors: Any, constant: Any, coefficients: list[Any], steps: list[Any]) -> Any:
        lengths = torch.linalg.vector_norm(vectors, dim=1)
        powers = [(vectors / lengths[:, None]).T.contiguous()]
        for before, _, axis, _ in steps:
            powers.append(powers[-1].index_select(0, before) * powers[0].index_select(0, axis))
        ctx.coefficients, ctx.steps = coefficients, steps
        ctx.save_for_backward(lengths, *powers)
        parts = [power.T @ coefficient for power, coefficient in zip(powers, coefficients, strict=True)]
        return torch.cat([constant.expand(len(vectors), 1), *parts], dim=1)

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, None, None, None]:
        lengths, *powers = ctx.saved_tensors
        by_powers = [
            coefficient @ gradient[:, degree**2 : (degree + 1) ** 2].T
            for degree, coefficient in enumerate(ctx.coefficients, start=1)
        ]
        for degree in range(len(powers) - 1, 0, -1):
            before, before_back, axis, axis_back = ctx.steps[degree - 1]
            by_powers[0] += axis_back @ (by_powers[degree] * powers[degree - 1].index_select(0, before))
            by_powers[degree - 1] += before_back @ (by_powers[degree] * powers[0].index_select(0, axis))
        direction, by_direction = powers[0], by_powers[0]
        along = (direction * by_direction).sum(dim=0)
        return ((by_direction - direction * along) / lengths).T, None, None, None


class Repulsion(torch.nn.Module):  # type: ignore[misc]
    """Screened nuclear repulsion (Ziegler, Biersack and Littmark) of the pairs that are near enough to feel it.

    :param repulsion: of mace
    :param numbers: atomic numbers of the model's elements
    """

    def __init__(self, repulsion: Any, numbers: Any):
        super().__init__()
        charges, exponent = numbers.double(), repulsion.a_exp.double()
        power, radii = charges**exponent, repulsion.covalent_radii.double()[numbers]
        lengths = repulsion.a_prefactor.double() * 0.529 / (power[:, None] + power)
        self.register_buffer("inverse_lengths", 1.0 / lengths)
        self.register_buffer("strengths", 0.5 * 14.3996 * charges[:, None] * charges)
        self.register_buffer("ends", radii[:, None] + radii)
        self.register_buffer("shares", repulsion.c.double())
        self.register_buffer("decays", torch.tensor([3.2, 0.9423, 0.4028, 0.2016], dtype=torch.float64))
        self._reach, self._power = float(self.ends.max()), int(repulsion.p)

    def forward(self, lengths: Any, elements: Any, edges: Any, _: Any) -> Any:
        """Return the energies of the atoms in eV, shape (n,).

        :param lengths: of the edges in Å, shape (edges, 1)
        :param elements: one-hot, shape (n, elements)
        :param edges: senders and receivers, shape (2, edges)
        """
        near = (lengths.detach()[:, 0] < self._reach).nonzero()[:, 0]
        senders, receivers = edges.index_select(1, near)
        species = elements.argmax(dim=1)
        pair = species[senders], species[receivers]
        constants = self.strengths[pair], self.inverse_lengths[pair], self.ends[pair], self.shares, self.decays
        energies = _RepulsionOf.apply(lengths.index_select(0, near)[:, 0], constants, self._power)
        return energies.new_zeros(len(elements)).index_add(0, receivers, energies)


class _RepulsionOf(torch.autograd.Function):  # type: ignore[misc]
    """Energies of pairs, with their slope kept for the way back."""

    @staticmethod
    def forward(ctx: Any, x: Any, constants: tuple[Any, ...], p: int) -> Any:
        strength, inverse, end, shares, decays = constants
        terms = shares * torch.exp(-(x * inverse)[:, None] * decays)
        screening, falling = terms.sum(dim=1), inverse * (terms @ decays)
        ratio = (x / end).clamp(max=1.0)
        smaller = ratio ** (p - 1)
        inner = p * (p + 2) - 0.5 * p * (p + 1) * ratio
        envelope = 1.0 - smaller * ratio * (0.5 * (p + 1) * (p + 2) - ratio * inner)
        fading = 0.5 * p * (p + 1) * (p + 2) * smaller * (1.0 - ratio) ** 2 / end
        bare = strength / x
        ctx.save_for_backward(-bare * ((screening / x + falling) * envelope + screening * fading))
        return bare * screening * envelope

    @staticmethod
    def backward(ctx: Any, gradient: Any) -> tuple[Any, None, None]:
        (slope,) = ctx.saved_tensors
        return gradient * slope, None, None
