"""Restart layer of ab initio dynamics: one run, however many jobs it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import BaseRestartWorkChain, ExitCode, ProcessHandlerReport, process_handler, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_mofmace.calculations.cp2k_md import Cp2kMdCalculation, continued_parameters

from .label_frames import join_runs

__all__ = ["Cp2kMdBaseWorkChain"]

_CODES = Cp2kMdCalculation.exit_codes


class Cp2kMdBaseWorkChain(BaseRestartWorkChain):
    """Run ab initio dynamics to its last step, each job from the restart file of the one before.

    What a run that does not get to its end has sampled is kept.
    """

    _process_class = Cp2kMdCalculation

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        spec.expose_inputs(Cp2kMdCalculation, namespace="md")
        spec.expose_outputs(Cp2kMdCalculation, include=("trajectory", "forces", "output_parameters"))
        spec.outline(
            cls.setup,
            while_(cls.should_run_process)(cls.run_process, cls.inspect_process),
            cls.results,
        )
        spec.exit_code(311, "ERROR_NO_PROGRESS", message="Two jobs in a row left no restart file: {message}")
        spec.exit_code(312, "ERROR_IMPOSSIBLE", message="CP2K cannot do this run: {message}")
        spec.exit_code(
            701,
            "WARNING_TOO_SHORT",
            message="Only {done} of {total} steps after {jobs} jobs; their frames are kept; allow more wall time.",
        )

    def setup(self) -> None:
        """Take the inputs of the first job."""
        super().setup()
        self.ctx.inputs = AttributeDict(self.exposed_inputs(Cp2kMdCalculation, "md"))
        self.ctx.last_step = 0
        self.ctx.fruitless = 0

    def get_outputs(self, node: orm.CalcJobNode) -> Mapping[str, orm.Node]:
        """Return the outputs of the last job, with the frames of all jobs in one trajectory."""
        outputs: dict[str, Any] = dict(super().get_outputs(node))
        parts = {f"part_{i:02d}": child for i, child in enumerate(self.ctx.children) if "trajectory" in child.outputs}
        trajectories = {key: child.outputs.trajectory for key, child in parts.items()}
        forces = {key: child.outputs.forces for key, child in parts.items()}
        if len(parts) > 1:
            outputs |= join_runs(trajectories=trajectories, forces=forces)
        elif parts:
            outputs |= {"trajectory": trajectories.popitem()[1], "forces": forces.popitem()[1]}
        return outputs

    @process_handler(priority=200, exit_codes=[_CODES.ERROR_OUT_OF_WALLTIME, _CODES.ERROR_OUTPUT_INCOMPLETE])
    def handle_stopped(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport:
        """Go on from the restart file of a job that met its wall time or was killed, once more if it left none."""
        total = self.inputs.md.parameters["MOTION"]["MD"]["STEPS"]
        # A job that was killed before CP2K began left nothing at all.
        found = calculation.outputs.output_parameters if "output_parameters" in calculation.outputs else {}
        last_step = found.get("last_step", 0)
        if last_step > self.ctx.last_step:
            self.ctx.last_step, self.ctx.fruitless = last_step, 0
            self.ctx.inputs.parent_calc_folder = calculation.outputs.remote_folder
        else:
            self.ctx.fruitless += 1
        if self.ctx.last_step >= total:
            self.ctx.is_finished = True
            return ProcessHandlerReport(True)
        if self.ctx.fruitless > 1:
            return self._give_up(
                calculation, self.exit_codes.ERROR_NO_PROGRESS.format(message=calculation.exit_message)
            )
        if self.ctx.iteration >= self.inputs.max_iterations.value:
            code = self.exit_codes.WARNING_TOO_SHORT.format(
                done=self.ctx.last_step, total=total, jobs=self.ctx.iteration
            )
            return self._give_up(calculation, code)
        if self.ctx.last_step:
            parameters = continued_parameters(self.inputs.md.parameters.get_dict(), self.ctx.last_step)
            self.ctx.inputs.parameters = orm.Dict(parameters)
        self.report(f"stopped, going on from step {self.ctx.last_step} of {total}")
        return ProcessHandlerReport(True)

    @process_handler(priority=10)
    def handle_impossible(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Give up where the same input would fail again; the frames of earlier jobs are kept."""
        if calculation.is_finished_ok:
            return None
        message = calculation.exit_message or f"the job ended as {calculation.process_state}"
        return self._give_up(calculation, self.exit_codes.ERROR_IMPOSSIBLE.format(message=message))

    def _give_up(self, calculation: orm.CalcJobNode, exit_code: ExitCode) -> ProcessHandlerReport:
        """Hand out what there is and end."""
        self._attach_outputs(calculation)
        self.ctx.is_finished = True
        return ProcessHandlerReport(True, exit_code)
