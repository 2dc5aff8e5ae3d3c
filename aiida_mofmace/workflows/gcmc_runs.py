"""Points of an isotherm in jobs of their own or several in one: the inputs, and what a job has left of a point."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from aiida import orm

from aiida_mofmace.calculations.md_gcmc import MdGcmcCalculation
from aiida_mofmace.calculations.md_gcmc_batch import MdGcmcBatchCalculation

from .harvest import handle, reason
from .lammps_gcmc import LammpsGcmcWorkChain

__all__ = ["Remains", "batch_inputs", "chunk_process", "gets_on", "remains_of", "run_names", "was_stopped"]

#: Name in a job of one point of what a batch holds by name of the point.
_SINGULAR = {
    "systems": "results",
    "trajectories": "trajectory",
    "timeseries": "timeseries",
    "checkpoints": "checkpoint",
    "candidates": "candidates",
}


def run_names(point: str, replicas: int) -> list[str]:
    """Return the names of the runs of a point: its own for a single one."""
    return [point] if replicas == 1 else [f"{point}_replica_{index:02d}" for index in range(replicas)]


class Remains(NamedTuple):
    """What a job has left of one point.

    :param outputs: nodes named as the outputs of MdGcmcCalculation
    :param results: content of the results, empty if there are none
    :param stopped: whether it was stopped before its end and can go on
    :param failure: why it cannot be made use of; empty if it can
    """

    outputs: Mapping[str, orm.Data]
    results: dict[str, Any]
    stopped: bool
    failure: str

    @property
    def has_loading(self) -> bool:
        """Whether there is a mean loading; a job that was stopped early may have none yet."""
        return self.results.get("mean_loading") is not None


def was_stopped(node: orm.ProcessNode) -> bool:
    """Whether a job was ended from outside, by the wall time, by hand or by a machine that failed, and can go on."""
    codes = MdGcmcCalculation.exit_codes
    return node.exit_status in (codes.ERROR_STOPPED_EARLY.status, codes.ERROR_NO_OUTPUT.status)


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
    status = results.get("status") if is_batch else None  # without one, that of the whole job counts
    stopped = status == "stopped" if status else was_stopped(node)
    failed = status == "failed" if status else not (node.is_finished_ok or stopped)
    remains = Remains(outputs, results, stopped, "")
    if stopped or (remains.has_loading and not failed):
        return remains
    return remains._replace(failure=f"<{handle(node)}> {results['message']}" if "message" in results else reason(node))


def gets_on(
    run: dict[str, Any], job: orm.ProcessNode, outputs: Mapping[str, orm.Data], results: Mapping[str, Any]
) -> bool:
    """Write down how far a run has come; whether a job has brought it further, which one that was killed need not have.

    A job that was killed leaves no results, but perhaps a checkpoint, which it writes only after some steps.

    :param run: ``steps``, ``state`` (PK of the job whose checkpoint the next one begins from, None for none) and
        ``stalled`` (jobs in a row that brought nothing); changed in place
    :param job: one that has ended
    :param outputs: of the run in this job
    :param results: of the run in this job, empty if it left none
    """
    has_state = "checkpoint" in outputs
    done = results.get("steps_done")
    advanced = has_state if done is None else done > run["steps"]
    run["steps"] = max(run["steps"], done or 0)
    run["stalled"] = 0 if advanced else run["stalled"] + 1
    if has_state:
        run["state"] = job.pk
    return advanced


def chunk_process(
    inputs: Mapping[str, Any], lammps: orm.AbstractCode | None
) -> tuple[type[MdGcmcCalculation | LammpsGcmcWorkChain], dict[str, Any]]:
    """Return process and inputs of one chunk of a run.

    :param inputs: of a MdGcmcCalculation
    :param lammps: code of a LAMMPS that is to do it in its place; None for the worker
    """
    if lammps is None:
        return MdGcmcCalculation, dict(inputs)
    metadata = inputs["metadata"]
    job = {**inputs, "metadata": {"options": metadata["options"], "label": metadata["label"]}}
    shown = {"call_link_label": metadata["call_link_label"], "label": metadata["label"]}
    return LammpsGcmcWorkChain, {"gcmc": job, "lammps_code": lammps, "metadata": shown}


def batch_inputs(key: str, label: str, runs: Mapping[str, Mapping[str, Any]], share_calls: bool) -> dict[str, Any]:
    """Return the inputs of one job for what would else be one job for each run.

    :param key: of the job in its work chain
    :param label: of the job
    :param runs: inputs of a MdGcmcCalculation by name; all but parameters and checkpoints are those of the first,
        its seed included, for each system has its own among its parameters
    :param share_calls: whether they share calls of the model on a CPU, too
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
        "parameters": orm.Dict({**common, "systems": systems, "share_calls": share_calls}),
        "checkpoints": {name: run["checkpoint"] for name, run in runs.items() if "checkpoint" in run},
        "metadata": {**first["metadata"], "call_link_label": key, "label": label},
    }
