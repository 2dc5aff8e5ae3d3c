"""What fine-tuning has brought and what it has cost: each member of the last committee, and warnings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm

from aiida_mofmace.report.provenance import output
from aiida_mofmace.report.tree import ProcessRecord, ProcessTree

__all__ = ["members", "warnings"]

_REPLAY_HEAD = "pt_head"
_QUANTITIES = {"energy_mae_mev_per_atom": ("energies", "meV/atom"), "force_mae_mev_per_ang": ("forces", "meV/Å")}


def members(tree: ProcessTree) -> list[dict[str, Any]]:
    """List the members of the committee that was trained last.

    :return: name, pk, epochs, best_epoch, stopped_by; ``test``, ``replay_before`` and ``replay_after``: errors in meV
        and Å, None where they were not measured
    """
    committees = tree.labelled("FineTuneCommitteeWorkChain")
    last = committees[-1] if committees else tree.root
    rows = []
    for record in tree.labelled("FineTuneCalculation"):
        callers = list(tree.callers(record))
        node = output(record, "results")
        if (last in callers or last is record) and record.is_well and isinstance(node, orm.Dict):
            names = [caller.name for caller in callers if caller.label == "FineTuneWorkChain"]
            rows.append(_member(record, names[0] if names else record.name, node.get_dict()))
    return rows


def _member(record: ProcessRecord, name: str, results: Mapping[str, Any]) -> dict[str, Any]:
    errors = results.get("errors") or {}
    heads = [head for head in errors if head != _REPLAY_HEAD]
    tuned = errors[heads[0]] if heads else {}
    return {
        "name": name,
        "pk": record.pk,
        "test": tuned.get("test") or tuned.get("valid"),
        **{key: results.get(key) for key in ("epochs", "best_epoch", "stopped_by", "replay_before", "replay_after")},
    }


def warnings(parity: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Say in which respect the fine-tuned committee is worse than the model it was made from.

    :param parity: errors ``before`` and ``after`` on the same frames, which no model was trained on
    """
    if not {"before", "after"} <= set(parity):
        return []
    return [
        f"Fine-tuning has made the {name} worse: {parity['before'][key]:.2f} -> {parity['after'][key]:.2f} {unit}"
        for key, (name, unit) in _QUANTITIES.items()
        if parity["after"][key] > parity["before"][key]
    ]
