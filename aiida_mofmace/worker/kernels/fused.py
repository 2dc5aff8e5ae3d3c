"""MACE in fewer operations: the model's own layers, their parts replaced by ones that do the same in large ones.

The messages are made as :mod:`convolution` says; the products of features up to the correlation order (Batatia et al.,
NeurIPS 2022, eq. 9 to 11) are sums over the monomials that symmetry leaves, each computed once, as Kovács et al.
(J. Chem. Phys. 159, 044118 (2023)) and Witt et al. do for the atomic cluster expansion.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import mace  # noqa: F401  (before e3nn: it prepares torch for loading constants)
import torch
from e3nn import o3

from .contraction import Contraction
from .convolution import Convolution, Path, PlaceKeeper
from .edge_functions import Harmonics, Lengths, NoTableError, RadialTable, Repulsion

__all__ = ["fuse"]


def fuse(model: Any, dtype: Any) -> None:
    """Replace parts of a model, in place; the model takes and gives what it did before.

    :param model: a MACE of the blocks that ``mace_kinds.why_not`` has nothing against, on a CPU
    :param dtype: of torch, in which it will be evaluated
    """
    model.double()
    _tabulate(model, dtype)
    model.spherical_harmonics = Harmonics(model.spherical_harmonics)
    if hasattr(model, "pair_repulsion_fn"):
        model.pair_repulsion_fn = Repulsion(model.pair_repulsion_fn, model.atomic_numbers)
    places_of = PlaceKeeper()
    for interaction in model.interactions:
        _replace_interaction(interaction, places_of)
    for product in model.products:
        product.symmetric_contractions = Contraction(product.symmetric_contractions)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, o3.Linear):
                setattr(parent, name, BlockLinear(child, by_rows=False))


def _tabulate(model: Any, dtype: Any) -> None:
    """Have the radial functions looked up where they depend on nothing but the distance."""
    embedding, cutoff = model.radial_embedding, float(model.r_max)
    if hasattr(embedding, "distance_transform"):
        return
    basis, tables = copy.deepcopy(embedding).double(), []
    for interaction in model.interactions:
        for name in ("conv_tp_weights", "density_fn"):
            if hasattr(interaction, name):
                network = copy.deepcopy(getattr(interaction, name)).double()

                def function(lengths: Any, network: Any = network) -> Any:
                    return network(basis(lengths, None, None, None)[0])

                try:
                    tables.append((interaction, name, RadialTable(function, cutoff, dtype)))
                except NoTableError:
                    return
    for interaction, name, table in tables:
        setattr(interaction, name, table)
    model.radial_embedding = Lengths(embedding)


def _replace_interaction(interaction: Any, places_of: PlaceKeeper) -> None:
    """Have a layer make its messages by a :class:`Convolution`, and treat them with channels behind rows."""
    product = interaction.conv_tp
    paths, couplings = [], []
    places = [0, *itertools.accumulate(ir.dim for _, ir in product.irreps_out)]
    features = [0, *itertools.accumulate(ir.dim for _, ir in product.irreps_in1)]
    harmonics, channels = product.irreps_in2.slices(), product.irreps_in1[0].mul
    for number, each in enumerate(product.instructions):
        first, second, out = (irreps[i].ir for irreps, i in zip(_irreps(product), each[:3], strict=True))
        weights = slice(number * channels, (number + 1) * channels)
        rows = (slice(starts[i], starts[i + 1]) for starts, i in ((features, each.i_in1), (places, each.i_out)))
        paths.append(Path(next(rows), harmonics[each.i_in2], weights, next(rows)))
        coupling = each.path_weight * o3.wigner_3j(first.l, second.l, out.l, dtype=torch.float64)
        couplings.append(coupling.transpose(0, 1).reshape(second.dim, -1))
    blocks = [(mul, ir.dim) for mul, ir in product.irreps_in1]
    interaction.conv_tp, interaction.conv_fusion = Convolution(blocks, paths, couplings, places_of), True
    interaction.linear = BlockLinear(interaction.linear, by_rows=True)
    interaction.reshape = _Rows(channels)
    is_residual = "Residual" in type(interaction).__name__
    interaction.skip_tp = ElementLinear(interaction.skip_tp, by_rows=not is_residual)


def _irreps(product: Any) -> tuple[Any, Any, Any]:
    return product.irreps_in1, product.irreps_in2, product.irreps_out


class _Rows(torch.nn.Module):  # type: ignore[misc]
    """Messages with an axis for their channels, shape (n, rows, channels)."""

    def __init__(self, channels: int):
        super().__init__()
        self._channels = channels

    def forward(self, message: Any) -> Any:
        return message.view(len(message), -1, self._channels)


class BlockLinear(torch.nn.Module):  # type: ignore[misc]
    """A linear layer that mixes the channels of each irreducible representation.

    :param layer: of e3nn
    :param by_rows: whether channels come behind rows, or before them as in e3nn
    """

    def __init__(self, layer: Any, by_rows: bool):
        super().__init__()
        self._by_rows, self._outputs = by_rows, len(layer.irreps_out)
        self._paths: list[tuple[slice, int, int]] = []
        inputs = layer.irreps_in.slices()
        for number, (_, each, weight) in enumerate(layer.weight_views(yield_instruction=True)):
            self._paths.append((inputs[each.i_in], each.i_out, layer.irreps_out[each.i_out].ir.dim))
            self.register_buffer(f"weight_{number}", (each.path_weight * weight.detach().double()).contiguous())

    def forward(self, x: Any) -> Any:
        """Return the mixed features, in the order of the input."""
        parts: list[Any] = [None] * self._outputs
        for number, (columns, out, dimension) in enumerate(self._paths):
            mixed = _mix(x[:, columns], getattr(self, f"weight_{number}"), dimension, self._by_rows)
            parts[out] = mixed if parts[out] is None else parts[out] + mixed
        return parts[0] if self._outputs == 1 else torch.cat(parts, dim=1)


def _mix(x: Any, weight: Any, dimension: int, by_rows: bool) -> Any:
    """Multiply the channels of one representation by a matrix."""
    if dimension == 1:
        return x @ weight
    if by_rows:
        return (x.reshape(len(x), dimension, -1) @ weight).flatten(1)
    return torch.matmul(weight.T, x.reshape(len(x), -1, dimension)).flatten(1)


class ElementLinear(torch.nn.Module):  # type: ignore[misc]
    """A linear layer of its own for each element.

    :param product: of e3nn, with the elements one-hot as its second factor
    :param by_rows: whether channels come behind rows, or before them as in e3nn
    """

    def __init__(self, product: Any, by_rows: bool):
        super().__init__()
        self._by_rows, self._paths = by_rows, []
        inputs = product.irreps_in1.slices()
        views = list(product.weight_views(yield_instruction=True))
        for number, (_, each, weight) in enumerate(sorted(views, key=lambda view: view[1].i_out)):
            dimension = product.irreps_out[each.i_out].ir.dim
            self._paths.append((inputs[each.i_in1], dimension))
            scaled = each.path_weight / dimension**0.5 * weight.detach().double()
            self.register_buffer(f"weight_{number}", scaled.transpose(0, 1).contiguous())

    def forward(self, x: Any, elements: Any) -> Any:
        """Return the mixed features, in the order of the input.

        :param x: features, shape (n, features)
        :param elements: one-hot, shape (n, elements)
        """
        index = elements.argmax(dim=1)
        parts = []
        for number, (columns, dimension) in enumerate(self._paths):
            weight = getattr(self, f"weight_{number}")[index]
            part = x[:, columns]
            if self._by_rows:
                parts.append(torch.bmm(part.reshape(len(x), dimension, -1), weight).flatten(1))
            else:
                parts.append(torch.bmm(weight.transpose(1, 2), part.reshape(len(x), -1, dimension)).flatten(1))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
