"""Restart layer of molecular dynamics: one run, however many jobs it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import BaseRestartWorkChain, ExitCode, ProcessHandlerReport, process_handler, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_mofmace.calculations.base import WorkerCalculation
from aiida_mofmace.calculations.mace_md import MaceMdCalculation

from .fine_tune_base import last_lines
from .functions import join_trajectories

__all__ = ["MaceMdBaseWorkChain"]

_CODES = WorkerCalculation.exit_codes


class MaceMdBaseWorkChain(BaseRestartWorkChain):
    """Run molecular dynamics to its last step, each job from the checkpoint of the one before.

    A restart changes no bit of the trajectory. What a run that does not get to its end has sampled is kept.
    """

    _process_class: type[WorkerCalculation] = MaceMdCalculation
    #: Where the inputs of a job stand among those of the layer.
    _namespace: ClassVar[str] = "md"

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        spec.expose_inputs(cls._process_class, namespace=cls._namespace)
        spec.expose_outputs(cls._process_class)
        spec.outline(
            cls.setup,
            while_(cls.should_run_process)(cls.run_process, cls.inspect_process),
            cls.results,
        )
        spec.exit_code(312, "ERROR_KILLED_AGAIN", message="The job was killed twice and left no checkpoint. {log}")
        spec.exit_code(313, "ERROR_UNKNOWN_FAILURE", message="{message} {log}")
        spec.exit_code(
            701,
            "WARNING_TOO_SHORT",
            message="Only {done} of {total} steps after {jobs} jobs; their frames are kept; allow more wall time.",
        )

    def setup(self) -> None:
        """Take the inputs of the first job."""
        super().setup()
        self.ctx.inputs = AttributeDict(self.exposed_inputs(self._process_class, self._namespace))
        self.ctx.killed = False
        self.ctx.lost = False

    def get_outputs(self, node: orm.CalcJobNode) -> Mapping[str, orm.Node]:
        """Return the outputs of the last job, with the frames of all jobs in one trajectory."""
        return {**super().get_outputs(node), **self.joined("trajectory", join_trajectories)}

    def joined(self, label: str, join: Callable[..., orm.Data]) -> dict[str, orm.Data]:
        """Return what all jobs have put out under a label as one, if there is any."""
        parts = [child.outputs[label] for child in self.ctx.children if label in child.outputs]
        if len(parts) > 1:
            return {label: join(**{f"part_{i:02d}": part for i, part in enumerate(parts)})}
        return {label: parts[0]} if parts else {}

    def _go_on(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport:
        """Take the checkpoint for the next job; if there may be none, hand out what there is."""
        if not self._is_last():
            self.ctx.inputs.checkpoint = calculation.outputs.checkpoint
            self.report(f"{self._name(calculation)} ended early; going on from its checkpoint")
            return ProcessHandlerReport(True)
        results = calculation.outputs.results.get_dict() if "results" in calculation.outputs else {}
        code = self.exit_codes.WARNING_TOO_SHORT.format(
            done=results.get("steps_done", "some"),
            total=self.ctx.inputs.parameters["steps"],
            jobs=self.ctx.iteration,
        )
        return self._give_up(calculation, code)

    def _give_up(self, calculation: orm.CalcJobNode, code: ExitCode) -> ProcessHandlerReport:
        """End the run with what this job and those before it have left."""
        self._attach_outputs(calculation)
        self.ctx.is_finished = True
        return ProcessHandlerReport(True, code)

    def _is_last(self) -> bool:
        """Whether there may be no further job."""
        return bool(self.ctx.iteration >= self.inputs.max_iterations.value)

    @staticmethod
    def _name(calculation: orm.CalcJobNode) -> str:
        return f"{calculation.process_label} <{calculation.pk}>"

    @process_handler(priority=200, exit_codes=[_CODES.ERROR_STOPPED_EARLY])
    def handle_stopped_early(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Go on from the checkpoint; a job that was stopped before it had one will not do better a second time."""
        return self._go_on(calculation) if "checkpoint" in calculation.outputs else None

    @process_handler(priority=100, exit_codes=[_CODES.ERROR_NO_OUTPUT])
    def handle_killed(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Go on from the last checkpoint; begin once more if there is none."""
        if "checkpoint" in calculation.outputs:
            return self._go_on(calculation)
        if self.ctx.killed:
            code = self.exit_codes.ERROR_KILLED_AGAIN.format(log=last_lines(calculation))
            return self._give_up(calculation, code)
        if self._is_last():
            return None
        self.ctx.killed = True
        self.report(f"{self._name(calculation)} was killed before its first checkpoint; beginning again")
        return ProcessHandlerReport(True)

    @process_handler(
        priority=90,
        exit_codes=[_CODES.ERROR_OUTPUT_UNREADABLE, _CODES.ERROR_WORKER_FAILED, _CODES.ERROR_OUTPUT_MISSING],
    )
    def handle_lost_output(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Go on or begin again, once: what failed so may have been the machine."""
        if self.ctx.lost or self._is_last():
            return None
        self.ctx.lost = True
        if "checkpoint" in calculation.outputs:
            return self._go_on(calculation)
        self.report(f"{self._name(calculation)} is done once more: {calculation.exit_message}")
        return ProcessHandlerReport(True)

    @process_handler(priority=10)
    def handle_unknown_failure(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Stop, and say what the job said last; frames of earlier jobs are kept."""
        if calculation.is_finished_ok:
            return None
        message = calculation.exit_message or f"The job ended as {calculation.process_state}."
        code = self.exit_codes.ERROR_UNKNOWN_FAILURE.format(message=message, log=last_lines(calculation))
        return self._give_up(calculation, code)
