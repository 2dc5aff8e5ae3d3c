"""Points of an isotherm in jobs of their own or several in one: the inputs, and what a job has left of a point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from aiida import orm

from aiida_mofmace.calculations.md_gcmc import MdGcmcCalculation
from aiida_mofmace.calculations.md_gcmc_batch import MdGcmcBatchCalculation

from .harvest import reason

__all__ = ["Remains", "batch_inputs", "remains_of", "was_stopped"]

#: Name in a job of one point of what a batch holds by name of the point.
_SINGULAR = {
    "systems": "results",
    "trajectories": "trajectory",
    "timeseries": "timeseries",
    "checkpoints": "checkpoint",
    "candidates": "candidates",
}


class Remains(NamedTuple):
    """What a job has left of one point.

    :param outputs: nodes named as the outputs of MdGcmcCalculation
    :param results: content of the results, empty if there are none
    :param stopped: whether it was stopped before its end and can go on
    :param failure: why nothing has come of it; empty if something has
    """

    outputs: Mapping[str, orm.Data]
    results: dict[str, Any]
    stopped: bool
    failure: str


def was_stopped(node: orm.ProcessNode) -> bool:
    """Whether a job was stopped before its end, by the wall time or by hand, and can go on."""
    return bool(node.exit_status == MdGcmcCalculation.exit_codes.ERROR_STOPPED_EARLY.status)


def remains_of(job: int | orm.ProcessNode, name: str) -> Remains:
    """Return what a job has left of one point.

    :param job: of one point or of several, or its PK
    :param name: of the point
    """
    node = cast(orm.ProcessNode, orm.load_node(job)) if isinstance(job, int) else job
    is_batch = node.process_label == MdGcmcBatchCalculation.__name__
    given = node.outputs
    if is_batch:
        spaces = {many: given[many] for many in _SINGULAR if many in given}
        outputs = {_SINGULAR[many]: space[name] for many, space in spaces.items() if name in space}
    else:
        outputs = {label: given[label] for label in _SINGULAR.values() if label in given}
    results = outputs["results"].get_dict() if "results" in outputs else {}
    stopped = results.get("status") == "stopped" if is_batch else was_stopped(node)
    failed = results.get("status") == "failed" if is_batch else not (node.is_finished_ok or stopped)
    if not failed and results.get("mean_loading") is not None:
        return Remains(outputs, results, stopped, "")
    failure = f"<{node.pk}> {results['message']}" if "message" in results else reason(node)
    return Remains(outputs, results, stopped, failure)


def batch_inputs(key: str, label: str, runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the inputs of one job for what would else be one job for each run.

    :param key: of the job in its work chain
    :param label: of the job
    :param runs: inputs of a MdGcmcCalculation by name; all but parameters and checkpoints are those of the first,
        its seed included, for each system has its own among its parameters
    """
    first = next(iter(runs.values()))
    contents = {name: {**run["parameters"].get_dict(), "seed": run["seed"].value} for name, run in runs.items()}
    systems: dict[str, dict[str, Any]] = {name: {} for name in contents}
    common = {}
    for item, value in next(iter(contents.values())).items():
        if item != "seed" and all(content[item] == value for content in contents.values()):
            common[item] = value
        else:
            for name, content in contents.items():
                systems[name][item] = content[item]
    return {
        **{port: first[port] for port in ("code", "structure", "gas", "model", "seed")},
        "parameters": orm.Dict({**common, "systems": systems}),
        "checkpoints": {name: run["checkpoint"] for name, run in runs.items() if "checkpoint" in run},
        "metadata": {**first["metadata"], "call_link_label": key, "label": label},
    }
