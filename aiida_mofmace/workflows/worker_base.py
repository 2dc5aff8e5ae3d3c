"""The restart layer of jobs without a checkpoint: what the machine may be to blame for is done once more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import BaseRestartWorkChain, ProcessHandlerReport, process_handler, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_mofmace.calculations.base import WorkerCalculation

__all__ = ["WorkerBaseWorkChain", "layer_inputs"]

_CODES = WorkerCalculation.exit_codes
#: Statuses of AiiDA's own exit codes of a restart layer, whose usual ones a job has, too.
_OWN_STATUSES = {
    "ERROR_SUB_PROCESS_EXCEPTED": 391,
    "ERROR_SUB_PROCESS_KILLED": 392,
    "ERROR_MAXIMUM_ITERATIONS_EXCEEDED": 491,
    "ERROR_UNHANDLED_FAILURE": 492,
}


def layer_inputs(job: Mapping[str, Any], namespace: str = "job", max_restarts: int | None = None) -> dict[str, Any]:
    """Return the inputs of a restart layer, which bears name and label in place of its job.

    :param job: inputs of the job, with ``call_link_label`` and ``label`` in its metadata
    :param namespace: of the layer, for the inputs of the job
    :param max_restarts: None for the layer's own limit
    """
    shown = {key: job["metadata"][key] for key in ("call_link_label", "label")}
    kept = {key: value for key, value in job["metadata"].items() if key not in shown}
    limit = {} if max_restarts is None else {"max_iterations": orm.Int(1 + max_restarts)}
    return {namespace: {**job, "metadata": kept}, "metadata": shown, **limit}


class WorkerBaseWorkChain(BaseRestartWorkChain):
    """Run a job of the worker; once more if it was killed or its output lost, and once with twice the wall time.

    Outputs are those of the last job, and so is the exit code where that one failed as well. A subclass names the job.
    """

    _process_class: type[WorkerCalculation] = WorkerCalculation

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        spec.expose_inputs(cls._process_class, namespace="job")
        spec.expose_outputs(cls._process_class)
        spec.outline(
            cls.setup,
            while_(cls.should_run_process)(cls.run_process, cls.inspect_process),
            cls.results,
        )
        for label, status in _OWN_STATUSES.items():
            spec.exit_code(status, label, message=spec.exit_codes[label].message)
        for label, code in cls._process_class.spec().exit_codes.items():
            spec.exit_code(code.status, label, message=code.message)

    def setup(self) -> None:
        """Take the inputs of the first job."""
        super().setup()
        self.ctx.inputs = AttributeDict(self.exposed_inputs(self._process_class, "job"))
        self.ctx.inputs.metadata = AttributeDict(self.ctx.inputs.metadata)
        self.ctx.lost = False
        self.ctx.stopped = False

    @process_handler(priority=200, exit_codes=[_CODES.ERROR_STOPPED_EARLY])
    def handle_stopped_early(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Begin again with twice the wall time; only once, for how much the queue allows is not known."""
        if self.ctx.stopped:
            return None
        self.ctx.stopped = True
        options = dict(self.ctx.inputs.metadata.options)
        options["max_wallclock_seconds"] *= 2
        self.ctx.inputs.metadata.options = options
        seconds = options["max_wallclock_seconds"]
        self.report(f"{calculation.process_label} <{calculation.pk}> was stopped; again with {seconds} s of wall time")
        return ProcessHandlerReport(True)

    @process_handler(
        priority=100,
        exit_codes=[
            _CODES.ERROR_NO_OUTPUT,
            _CODES.ERROR_OUTPUT_UNREADABLE,
            _CODES.ERROR_WORKER_FAILED,
            _CODES.ERROR_OUTPUT_MISSING,
            _CODES.ERROR_SCHEDULER_NODE_FAILURE,
        ],
    )
    def handle_lost_output(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Do it once more; a second time is no chance."""
        if self.ctx.lost:
            return None
        self.ctx.lost = True
        self.report(f"{calculation.process_label} <{calculation.pk}> is done once more: {calculation.exit_message}")
        return ProcessHandlerReport(True)

    @process_handler(priority=10)
    def handle_failure(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """End as the job did, with what it left: no other handler knew what to do."""
        if calculation.is_finished_ok:
            return None
        self._attach_outputs(calculation)
        self.ctx.is_finished = True
        return ProcessHandlerReport(True, calculation.exit_code or self.exit_codes.ERROR_UNHANDLED_FAILURE)
