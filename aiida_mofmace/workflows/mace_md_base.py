"""Restart layer of molecular dynamics: one run, however many jobs it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import BaseRestartWorkChain, ProcessHandlerReport, process_handler, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_mofmace.calculations.mace_md import MaceMdCalculation

from .fine_tune_base import last_lines
from .functions import join_trajectories

__all__ = ["MaceMdBaseWorkChain"]


class MaceMdBaseWorkChain(BaseRestartWorkChain):
    """Run molecular dynamics to its last step, each job from the checkpoint of the one before.

    A restart changes no bit of the trajectory. What a run that does not get to its end has sampled is kept.
    """

    _process_class = MaceMdCalculation

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        spec.expose_inputs(MaceMdCalculation, namespace="md")
        spec.expose_outputs(MaceMdCalculation)
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
        self.ctx.inputs = AttributeDict(self.exposed_inputs(MaceMdCalculation, "md"))
        self.ctx.killed = False

    def get_outputs(self, node: orm.CalcJobNode) -> Mapping[str, orm.Node]:
        """Return the outputs of the last job, with the frames of all jobs in one trajectory."""
        outputs: dict[str, Any] = dict(super().get_outputs(node))
        parts = [child.outputs.trajectory for child in self.ctx.children if "trajectory" in child.outputs]
        if len(parts) > 1:
            outputs["trajectory"] = join_trajectories(**{f"part_{i:02d}": part for i, part in enumerate(parts)})
        elif parts:
            outputs["trajectory"] = parts[0]
        return outputs

    def _go_on(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport:
        """Take the checkpoint for the next job; if there may be none, hand out what there is."""
        if self.ctx.iteration < self.inputs.max_iterations.value:
            self.ctx.inputs.checkpoint = calculation.outputs.checkpoint
            self.report(f"MD <{calculation.pk}> was stopped; going on from its checkpoint")
            return ProcessHandlerReport(True)
        self._attach_outputs(calculation)
        self.ctx.is_finished = True
        results = calculation.outputs.results.get_dict() if "results" in calculation.outputs else {}
        code = self.exit_codes.WARNING_TOO_SHORT.format(
            done=results.get("steps_done", "some"),
            total=self.ctx.inputs.parameters["steps"],
            jobs=self.ctx.iteration,
        )
        return ProcessHandlerReport(True, code)

    @process_handler(priority=200, exit_codes=[MaceMdCalculation.exit_codes.ERROR_STOPPED_EARLY])
    def handle_stopped_early(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Go on from the checkpoint; a job that was stopped before it had one will not do better a second time."""
        return self._go_on(calculation) if "checkpoint" in calculation.outputs else None

    @process_handler(priority=100, exit_codes=[MaceMdCalculation.exit_codes.ERROR_NO_OUTPUT])
    def handle_killed(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport:
        """Go on from the last checkpoint; begin once more if there is none."""
        if "checkpoint" in calculation.outputs:
            return self._go_on(calculation)
        if self.ctx.killed:
            return ProcessHandlerReport(True, self.exit_codes.ERROR_KILLED_AGAIN.format(log=last_lines(calculation)))
        self.ctx.killed = True
        self.report(f"MD <{calculation.pk}> was killed before its first checkpoint; beginning again")
        return ProcessHandlerReport(True)

    @process_handler(priority=10)
    def handle_unknown_failure(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Stop, and say what the job said last; frames of earlier jobs are kept."""
        if calculation.is_finished_ok:
            return None
        self._attach_outputs(calculation)
        self.ctx.is_finished = True
        message = calculation.exit_message or f"The job ended as {calculation.process_state}."
        code = self.exit_codes.ERROR_UNKNOWN_FAILURE.format(message=message, log=last_lines(calculation))
        return ProcessHandlerReport(True, code)
