"""Restart layer of fine-tuning: one committee member, whatever it takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import BaseRestartWorkChain, ProcessHandlerReport, process_handler, while_
from aiida.engine.processes.builder import ProcessBuilder
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_mofmace.calculations.fine_tune import FineTuneCalculation
from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.model import MaceModelData

from .inputs import code_node, foundation_model
from .jobs import worker_options
from .protocols import filled_builder, resolve

__all__ = ["FineTuneWorkChain", "fine_tune_parameters", "last_lines"]

_LOGS = ("worker.err", "worker.out", "_scheduler-stderr.txt", "lammps.out")
_LOG_LINES = 5

#: Keys of the section fine_tune that are meant for the work chains and not for the job.
_OF_THE_WORK_CHAINS = ("max_restarts", "min_success_fraction", "nan_learning_rate_factor", "isolated_atom_box")


def fine_tune_parameters(parameters: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the parameters of a fine-tuning job from those of a protocol.

    :param name: of the model, e.g. model_0
    """
    section = {key: value for key, value in parameters["fine_tune"].items() if key not in _OF_THE_WORK_CHAINS}
    return {**section, "name": name}


def last_lines(calculation: orm.CalcJobNode) -> str:
    """Return the end of the log of a job in one line; empty if it left none."""
    if "retrieved" not in calculation.outputs:
        return ""
    repository = calculation.outputs.retrieved.base.repository
    names = [name for name in _LOGS if name in repository.list_object_names()]
    # The log of a job that was killed may end within a character.
    logs = (repository.get_object_content(name, mode="rb").decode(errors="replace") for name in names)
    log: str = next((log for log in logs if log.strip()), "")
    lines = [line.strip() for line in log.strip().splitlines()[-_LOG_LINES:]]
    return f"Its log ends: {' | '.join(lines)}" if lines else ""


class FineTuneWorkChain(BaseRestartWorkChain):
    """Fine-tune one model; go on after a walltime stop, halve the batch when memory runs out, calm down after a NaN."""

    _process_class = FineTuneCalculation

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        spec.expose_inputs(FineTuneCalculation, namespace="fine_tune")
        spec.input(
            "nan_learning_rate_factor",
            valid_type=orm.Float,
            help="Factor on the learning rates in the one repetition after a NaN.",
        )
        spec.expose_outputs(FineTuneCalculation)
        spec.outline(
            cls.setup,
            while_(cls.should_run_process)(cls.run_process, cls.inspect_process),
            cls.results,
        )
        spec.exit_code(
            310,
            "ERROR_NOT_A_NUMBER",
            message="The loss is no number at a lower learning rate either; look at the labels.",
        )
        spec.exit_code(
            311, "ERROR_OUT_OF_MEMORY", message="Out of memory with one structure in a batch; ask for more memory."
        )
        spec.exit_code(312, "ERROR_KILLED_AGAIN", message="The job was killed twice and came no further. {log}")
        spec.exit_code(313, "ERROR_UNKNOWN_FAILURE", message="{message} {log}")
        spec.exit_code(
            701,
            "WARNING_TOO_SHORT",
            message="Training did not come to its end in {jobs} jobs; the best model so far is handed out, if there is "
            "one; allow more wall time.",
        )

    @classmethod
    def get_builder_from_protocol(
        cls,
        codes: Mapping[str, Any],
        dataset: LabelledDatasetData,
        foundation: MaceModelData | str | None = None,
        *,
        replay_train: orm.SinglefileData | None = None,
        replay_valid: orm.SinglefileData | None = None,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        seed: int = 0,
        name: str = "model_0",
    ) -> ProcessBuilder:
        """Return a builder with the parameters of a protocol.

        :param codes: code or label of one by key; "worker" is needed
        :param dataset: labelled structures
        :param foundation: model to start from; None for the protocol's own
        :param replay_train: needed for multihead replay
        :param name: of the model
        """
        parameters = resolve(protocol, overrides)
        inputs = {
            "code": code_node(codes, "worker"),
            "dataset": dataset,
            "foundation": foundation_model(foundation, parameters),
            "replay_train": replay_train,
            "replay_valid": replay_valid,
            "seed": orm.Int(seed),
            "parameters": orm.Dict(fine_tune_parameters(parameters, name)),
            "metadata": {"options": worker_options(parameters)},
        }
        factor, restarts = (parameters["fine_tune"][key] for key in ("nan_learning_rate_factor", "max_restarts"))
        return filled_builder(
            cls,
            {
                "fine_tune": inputs,
                "nan_learning_rate_factor": orm.Float(factor),
                "max_iterations": orm.Int(1 + restarts),
                "metadata": {"label": f"Fine-tuning of {name}"},
            },
        )

    def setup(self) -> None:
        """Take the inputs of the first attempt."""
        super().setup()
        self.ctx.inputs = AttributeDict(self.exposed_inputs(FineTuneCalculation, "fine_tune"))
        self.ctx.inputs.metadata = AttributeDict(self.ctx.inputs.metadata)
        self.ctx.calmed = False
        self.ctx.killed = False
        self.ctx.lengthened = False

    def _change_parameters(self, **changes: Any) -> None:
        self.ctx.inputs.parameters = orm.Dict({**self.ctx.inputs.parameters.get_dict(), **changes})
        # A checkpoint belongs to the parameters it was written with.
        self.ctx.inputs.pop("checkpoint", None)

    @process_handler(priority=400, exit_codes=[FineTuneCalculation.exit_codes.ERROR_OUT_OF_MEMORY])
    def handle_out_of_memory(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport:
        """Halve the batch."""
        batch_size = int(self.ctx.inputs.parameters["batch_size"])
        if batch_size == 1:
            return ProcessHandlerReport(True, self.exit_codes.ERROR_OUT_OF_MEMORY)
        self._change_parameters(batch_size=batch_size // 2)
        self.report(f"fine-tuning <{calculation.pk}> ran out of memory; again with a batch of {batch_size // 2}")
        return ProcessHandlerReport(True)

    @process_handler(priority=300, exit_codes=[FineTuneCalculation.exit_codes.ERROR_NOT_A_NUMBER])
    def handle_not_a_number(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport:
        """Lower the learning rates, once."""
        if self.ctx.calmed:
            return ProcessHandlerReport(True, self.exit_codes.ERROR_NOT_A_NUMBER)
        self.ctx.calmed = True
        factor = self.inputs.nan_learning_rate_factor.value
        old = self.ctx.inputs.parameters.get_dict()
        rates = {key: old[key] for key in ("learning_rate", "stage_two_learning_rate") if old.get(key)}
        self._change_parameters(**{key: rate * factor for key, rate in rates.items()})
        lower = self.ctx.inputs.parameters["learning_rate"]
        self.report(f"the loss of fine-tuning <{calculation.pk}> is no number; again with a learning rate of {lower:g}")
        return ProcessHandlerReport(True)

    @process_handler(priority=200, exit_codes=[FineTuneCalculation.exit_codes.ERROR_STOPPED_EARLY])
    def handle_stopped_early(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Go on from the checkpoint; without one, begin once more with twice the wall time."""
        if "checkpoint" in calculation.outputs:
            return self._go_on(calculation)
        if self.ctx.lengthened:
            return None  # a queue may not allow four times the time, and a job that it refuses would wait for ever
        self.ctx.lengthened = True
        options = dict(self.ctx.inputs.metadata.options)
        options["max_wallclock_seconds"] *= 2
        self.ctx.inputs.metadata.options = options
        seconds = options["max_wallclock_seconds"]
        self.report(f"fine-tuning <{calculation.pk}> was stopped; again with {seconds} s of wall time")
        return ProcessHandlerReport(True)

    def _go_on(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport:
        """Take the checkpoint for the next job; if there may be none, hand out the best model so far."""
        if self.ctx.iteration < self.inputs.max_iterations.value:
            self.ctx.inputs.checkpoint = calculation.outputs.checkpoint
            self.report(f"fine-tuning <{calculation.pk}> was stopped; going on from its checkpoint")
            return ProcessHandlerReport(True)
        self._attach_outputs(calculation)
        self.ctx.is_finished = True
        return ProcessHandlerReport(True, self.exit_codes.WARNING_TOO_SHORT.format(jobs=self.ctx.iteration))

    def _came_further(self, calculation: orm.CalcJobNode) -> bool:
        """Whether a job left a checkpoint other than the one it began with."""
        if "checkpoint" not in calculation.outputs:
            return False
        left, began = calculation.outputs.checkpoint, self.ctx.inputs.get("checkpoint")
        return began is None or left.base.repository.hash() != began.base.repository.hash()

    @process_handler(
        priority=110,
        exit_codes=[FineTuneCalculation.exit_codes.ERROR_NO_OUTPUT, FineTuneCalculation.exit_codes.ERROR_WORKER_FAILED],
    )
    def handle_broken_off(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Go on from the checkpoint of a job that was killed or broke off on its way: its machine failed, not it."""
        return self._go_on(calculation) if self._came_further(calculation) else None

    @process_handler(priority=100, exit_codes=[FineTuneCalculation.exit_codes.ERROR_NO_OUTPUT])
    def handle_killed(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport:
        """Try once more with half the batch: what kills a job without a word is most often a lack of memory."""
        if self.ctx.killed:
            return ProcessHandlerReport(True, self.exit_codes.ERROR_KILLED_AGAIN.format(log=last_lines(calculation)))
        self.ctx.killed = True
        batch_size = max(1, int(self.ctx.inputs.parameters["batch_size"]) // 2)
        self._change_parameters(batch_size=batch_size)
        self.report(f"fine-tuning <{calculation.pk}> was killed; again with a batch of {batch_size}")
        return ProcessHandlerReport(True)

    @process_handler(priority=10)
    def handle_unknown_failure(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport | None:
        """Stop, and say what the job said last: no other handler knew what to do."""
        if calculation.is_finished_ok:
            return None
        message = calculation.exit_message or f"The job ended as {calculation.process_state}."
        code = self.exit_codes.ERROR_UNKNOWN_FAILURE.format(message=message, log=last_lines(calculation))
        return ProcessHandlerReport(True, code)
