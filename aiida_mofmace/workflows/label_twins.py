"""Equal structures among those to be labelled: one of them is computed, the others share its label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from aiida import orm
from aiida.engine import calcfunction

from aiida_mofmace.data.label import DftLabelData

__all__ = ["label_twin", "twins"]


def twins(structures: Mapping[str, orm.StructureData]) -> dict[str, str]:
    """Return for each structure that equals one before it the name of that one.

    Equal means the same cell, elements and positions in the same order, to 14 digits: the hash of the node.

    :param structures: stored structures by name, compared in alphabetical order of the names
    """
    first: dict[str, str] = {}
    found: dict[str, str] = {}
    for name in sorted(structures):
        digest = structures[name].base.caching.compute_hash()
        if digest is None or first.setdefault(digest, name) == name:
            continue
        found[name] = first[digest]
    return found


@calcfunction
def label_twin(label: DftLabelData, structure: orm.StructureData) -> DftLabelData:
    """Return the label of an equal structure as one of this structure.

    :param label: of a structure with the same cell, elements and positions
    :param structure: what the new label belongs to
    """
    same = [structure.get_kind(site.kind_name).symbol for site in structure.sites]
    if same != label.symbols:
        raise ValueError(f"the label of {label.formula} does not fit the atoms of {structure.get_formula()}")
    return cast(DftLabelData, label.clone())  # type: ignore[no-untyped-call]
