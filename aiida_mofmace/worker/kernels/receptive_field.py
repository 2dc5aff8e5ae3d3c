"""Energies of trial moves from the part of a system that a message-passing model lets see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .model import Configuration, Evaluation, MaceEvaluator, default_dtype
from .neighbour_search import wrapped
from .neighbourhood import Change, ChangedGraph, NeighbourTable, Part, difference

__all__ = ["LayerRecord", "LocalPotential"]

_LARGEST_CHANGE = 40  # atoms that go and come; more is no trial move
_SMALLEST = 100  # atoms from which on it pays, see benchmarks/receptive_field.py


class LayerRecord:
    """Makes a model leave the outputs of its parts, of the last call of its evaluator.

    :param evaluator: of a model that :func:`mace_kinds.why_not` has nothing against
    """

    def __init__(self, evaluator: MaceEvaluator):
        self.evaluator = evaluator
        self._outputs: dict[str, Any] = {}
        model = evaluator.model
        parts = {f"layer_{index}": part for index, part in enumerate(model.products)}
        parts |= {f"readout_{index}": part for index, part in enumerate(model.readouts)}
        parts |= {"harmonics": model.spherical_harmonics, "radial": model.radial_embedding}
        parts |= {"pair": model.pair_repulsion_fn} if hasattr(model, "pair_repulsion_fn") else {}
        for name, part in parts.items():
            part.register_forward_hook(partial(self._record, name))

    def _record(self, name: str, _part: Any, inputs: tuple[Any, ...], output: Any) -> None:
        several = output if isinstance(output, tuple) else (output,)
        self._outputs[name] = [None if each is None else each.detach() for each in several]
        if name == "radial":
            self._outputs["lengths"], self._outputs["edges"] = [inputs[0].detach()], [inputs[2]]

    def take(self) -> dict[str, Any]:
        """Return the outputs of the last call, in lists, and forget them."""
        outputs, self._outputs = self._outputs, {}
        return outputs


class _Reference:
    """A configuration whose features are known.

    :param configuration: as it was evaluated
    :param energy: interaction energy in eV
    :param outputs: what the parts of the model left
    :param head: index of the model's head
    :param cutoff: of the model in Å
    """

    def __init__(
        self, configuration: Configuration, energy: float, outputs: Mapping[str, Any], *, head: int, cutoff: float
    ):
        self.configuration, self.energy, self._cutoff = configuration, energy, cutoff
        self._edges = outputs["edges"][0]
        self.lengths, self.harmonics = outputs["lengths"][0], outputs["harmonics"][0]
        self.radial, self.envelope = outputs["radial"]
        count = sum(name.startswith("layer_") for name in outputs)
        self.features = [outputs[f"layer_{index}"][0] for index in range(count)]
        readouts = sum(name.startswith("readout_") for name in outputs)
        #: energies of the atoms in eV from each readout, shape (n,) each
        self.readouts = [outputs[f"readout_{index}"][0][:, head] for index in range(readouts)]
        self.pair = outputs["pair"][0] if "pair" in outputs else None

    @cached_property
    def table(self) -> NeighbourTable:
        """Edges by receiver; sorted when the first trial asks for them, for most configurations see none."""
        positions = wrapped(self.configuration.positions, self.configuration.cell)
        return NeighbourTable(self._edges.cpu().numpy(), positions, self.configuration.cell, self._cutoff)

    def change(self, new: Any) -> Change | None:
        """Return what a configuration differs by; None if that is too much for a trial move."""
        old = self.configuration
        if not np.array_equal(old.cell, np.asarray(new.cell)):
            return None
        change = difference(old.numbers, old.positions, np.asarray(new.numbers), np.asarray(new.positions))
        size = change.last - change.first + len(change.numbers)
        return change if size <= _LARGEST_CHANGE else None


class LocalPotential:
    """Evaluates a trial move by what it changes, anything else in full; the :class:`Potential` of one simulation.

    An atom's energy depends on the atoms within as many cut-offs as the model has layers. The features of all atoms
    behind each layer are kept from the last evaluation of one configuration with forces, where they come for nothing. A
    configuration without forces that differs from that one by a few atoms, as after an insertion, a deletion or a
    displacement, is evaluated layer by layer: behind layer l, only atoms within l cut-offs of the change have other
    features than before. They are computed from all edges into them, with the kept features of whoever is unchanged, by
    the model's own blocks. The energy is that of the kept configuration, plus what the readouts of these atoms have
    changed by, less the energies of atoms that are gone.

    Every block sees all neighbours of the atoms it is asked for, so nothing is left out: the result differs from that
    of a full evaluation by rounding alone.

    :param record: of the model; several simulations may share it
    :param smallest: atoms a configuration must have to be kept; for smaller ones a full evaluation costs no more
    """

    keeps_last = True

    def __init__(self, record: LayerRecord, smallest: int = _SMALLEST):
        self._smallest = smallest
        self._record, self._evaluator = record, record.evaluator
        self.r_max = self._evaluator.r_max
        self._reference: _Reference | None = None

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        """Evaluate configurations, independent of each other."""
        if forces or self._reference is None:
            return self._evaluate_fully(configurations, forces)
        changes = [self._reference.change(each) for each in configurations]
        rest = [each for each, change in zip(configurations, changes, strict=True) if change is None]
        others = iter(self._evaluate_fully(rest, forces=False))
        return [
            next(others) if change is None else self._evaluate_change(self._reference, each, change)
            for each, change in zip(configurations, changes, strict=True)
        ]

    def _evaluate_fully(self, configurations: Sequence[Any], forces: bool) -> list[Evaluation]:
        answers = self._evaluator.evaluate(configurations, forces=forces)
        outputs = self._record.take()
        if outputs and forces and len(configurations) == 1 and len(configurations[0].numbers) >= self._smallest:
            given, head = configurations[0], self._evaluator.head_index
            arrays = (given.numbers, given.positions, given.cell)
            kept = Configuration(*(np.array(array) for array in arrays))
            energy = answers[0].interaction_energy
            self._reference = _Reference(kept, energy, outputs, head=head, cutoff=self.r_max)
        return answers

    def _evaluate_change(self, kept: _Reference, new: Any, change: Change) -> Evaluation:
        import torch

        evaluator = self._evaluator
        graph = ChangedGraph(kept.table, change)
        first = graph.part()
        if first.edge_index.size == 0:  # nobody sees the change: its blocks cannot do without edges
            return self._evaluate_fully([new], forces=False)[0]
        atomic = evaluator.atomic_energy(evaluator.species(np.asarray(new.numbers, dtype=np.int64)))
        species = evaluator.species(np.concatenate([kept.configuration.numbers, change.numbers]))
        with torch.no_grad(), default_dtype(evaluator.dtype):
            attrs = torch.eye(len(evaluator.numbers), dtype=evaluator.dtype, device=evaluator.device)
            attrs = attrs[torch.as_tensor(species, device=evaluator.device)]
            local = _LocalPass(evaluator.model, evaluator.head_index, kept, graph, attrs)
            energy = kept.energy + local.energy_change(first)
        self._record.take()
        return Evaluation(energy, atomic)


class _LocalPass:
    """One pass through the layers of a model, with no more atoms than see the change.

    :param model: the MACE model
    :param head: index of its head
    :param kept: the old configuration
    :param graph: the new one, seen from the change
    :param attrs: species of the old atoms and of those that come, one-hot, shape (n + m, species)
    """

    def __init__(self, model: Any, head: int, kept: _Reference, graph: ChangedGraph, attrs: Any):
        self._model, self._head, self._kept, self._graph, self._attrs = model, head, kept, graph, attrs
        self._gone = self._tensor(graph.gone)
        vectors = self._tensor(graph.new_vectors).to(attrs.dtype)
        self._lengths = vectors.norm(dim=1, keepdim=True)
        self._harmonics = model.spherical_harmonics(vectors)
        self._radial, self._envelope = model.radial_embedding(
            self._lengths, attrs, self._tensor(graph.new_edges), model.atomic_numbers
        )

    def _tensor(self, array: NDArray[Any]) -> Any:
        import torch

        return torch.as_tensor(array, device=self._attrs.device)

    def energy_change(self, part: Part) -> float:
        """Return the change of the interaction energy in eV.

        :param part: what the atoms next to the change need
        """
        import torch

        model, layers = self._model, len(self._model.interactions)
        change, before, fresh = 0.0, None, None
        for layer in range(layers):
            if layer > 0:
                self._graph.grow()
                before, part = part, self._graph.part()
            fresh = self._layer(layer, part, before, fresh)
            readout = layer if len(model.readouts) == layers else (0 if layer == layers - 1 else None)
            if readout is not None:
                heads = torch.full((len(part.atoms),), self._head, device=fresh.device)
                energies = model.readouts[readout](fresh, heads)[:, self._head]
                change += self._less_kept(energies, part, self._kept.readouts[readout])
            if layer == 0 and self._kept.pair is not None:
                change += self._less_kept(self._pair_energies(part), part, self._kept.pair)
        if not hasattr(model, "scale_shift"):
            return change
        scale = torch.atleast_1d(model.scale_shift.scale).double()[self._head]
        shift = torch.atleast_1d(model.scale_shift.shift).double()[self._head]
        return float(scale * change + shift * self._graph.more_atoms)

    def _layer(self, layer: int, part: Part, before: Part | None, fresh: Any) -> Any:
        """Return the features, behind a layer, of the atoms that see the change there.

        :param part: what they need
        :param before: the part of the layer before
        :param fresh: features of its atoms
        """
        attrs, edges, count = self._attrs[self._tensor(part.nodes)], self._tensor(part.old_edges), len(part.atoms)
        message, skip = self._model.interactions[layer](
            node_attrs=attrs,
            node_feats=self._model.node_embedding(attrs) if before is None else self._mixed(layer, part, before, fresh),
            edge_attrs=self._with_new(self._kept.harmonics, edges, self._harmonics),
            edge_feats=self._with_new(self._kept.radial, edges, self._radial),
            edge_index=self._tensor(part.edge_index),
            cutoff=None if self._envelope is None else self._with_new(self._kept.envelope, edges, self._envelope),
            first_layer=before is None,
        )
        skip = None if skip is None else skip[:count]
        return self._model.products[layer](node_feats=message[:count], sc=skip, node_attrs=attrs[:count])

    @staticmethod
    def _with_new(kept: Any, edges: Any, new: Any) -> Any:
        import torch

        return torch.cat([kept[edges], new])

    def _mixed(self, layer: int, part: Part, before: Part, fresh: Any) -> Any:
        """Features of the nodes of a part: those just computed where there are such, the kept ones elsewhere."""
        kept = self._kept.features[layer - 1]
        place = np.full(len(self._attrs), -1)
        place[before.atoms] = np.arange(len(before.atoms))
        is_fresh = place[part.nodes] >= 0
        features = kept.new_empty((len(part.nodes), kept.shape[1]))
        features[self._tensor(is_fresh)] = fresh[self._tensor(place[part.nodes[is_fresh]])]
        features[self._tensor(~is_fresh)] = kept[self._tensor(part.nodes[~is_fresh])]
        return features

    def _pair_energies(self, part: Part) -> Any:
        """Pair repulsion of the atoms next to the change."""
        lengths = self._with_new(self._kept.lengths, self._tensor(part.old_edges), self._lengths)
        attrs, index = self._attrs[self._tensor(part.nodes)], self._tensor(part.edge_index)
        return self._model.pair_repulsion_fn(lengths, attrs, index, self._model.atomic_numbers)[: len(part.atoms)]

    def _less_kept(self, energies: Any, part: Part, kept: Any) -> float:
        """Sum of new energies less what the same atoms and those that are gone had before, in eV."""
        before = self._tensor(part.atoms[part.atoms < len(kept)])
        return float(energies.double().sum() - kept[before].double().sum() - kept[self._gone].double().sum())
