"""A committee: several models fine-tuned alike, from different seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine import ExitCode, while_
from aiida.engine.processes.builder import ProcessBuilder
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_mofmace.calculations.base import validate_worker_code
from aiida_mofmace.calculations.validators import check_elements, check_replay_files, check_training_size, first_message
from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.model import MaceModelData

from .fine_tune_base import FineTuneWorkChain, fine_tune_parameters
from .functions import calibrate_committee
from .harvest import reason
from .inputs import code_node, foundation_model
from .jobs import child_seed, worker_options
from .parameter_checks import validate_parameters
from .protocols import filled_builder, resolve
from .window import RollingWindow

__all__ = ["FineTuneCommitteeWorkChain"]


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse elements that the foundation model does not know, and multihead training without replay data."""
    if not {"dataset", "foundation", "parameters"} <= set(inputs):
        return None
    if inputs["parameters"].get_dict()["fine_tune"]["multihead"] and "replay_train" not in inputs:
        return "multihead replay needs replay data: give replay_train, or set fine_tune.multihead to false"
    if inputs["parameters"].get_dict()["fine_tune"]["e0s"] == "isolated_atoms":
        return (
            "fine_tune.e0s: give the energies of IsolatedAtomsWorkChain, which ActiveLearningWorkChain runs by itself"
        )
    return first_message(
        [
            check_training_size(inputs["dataset"].n_frames, inputs["parameters"].get_dict()["fine_tune"]),
            check_replay_files(inputs.get("replay_train"), inputs.get("replay_valid")),
            check_elements(inputs["dataset"].species, [inputs["foundation"]], "dataset"),
        ]
    )


class FineTuneCommitteeWorkChain(RollingWindow):
    """Fine-tune the members of a committee, each from its own seed and on its own draw of the training frames."""

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        spec.input("code", valid_type=orm.AbstractCode, validator=validate_worker_code, help="Python of the worker.")
        spec.input("dataset", valid_type=LabelledDatasetData, help="Labelled structures to train on.")
        spec.input("foundation", valid_type=MaceModelData, help="Model to start from.")
        spec.input("replay_train", valid_type=orm.SinglefileData, required=False, help="Replay data, extended XYZ.")
        spec.input(
            "replay_valid",
            valid_type=orm.SinglefileData,
            required=False,
            help="Replay data to validate with.",
        )
        spec.input("seed", valid_type=orm.Int, help="Seed from which those of the members are made.")
        spec.input(
            "parameters",
            valid_type=orm.Dict,
            validator=validate_parameters,
            help="Parameters of a protocol; the sections fine_tune, active_learning (committee_size) and resources.",
        )
        spec.inputs.validator = validate_inputs
        spec.output_namespace("models", dynamic=True, valid_type=MaceModelData, help="Members: model_0 and so on.")
        spec.output_namespace("results", dynamic=True, valid_type=orm.Dict, help="Errors of the members, in meV, Å.")
        spec.output_namespace("histories", dynamic=True, valid_type=orm.List, help="Errors by epoch of the members.")
        spec.output(
            "calibration",
            valid_type=orm.Dict,
            required=False,
            help="Error of the committee over its force deviation, on the test frames; none without test frames.",
        )
        spec.outline(cls.setup, while_(cls.should_run_members)(cls.run_members), cls.inspect_members)
        spec.exit_code(
            301,
            "ERROR_TOO_FEW_MEMBERS",
            message="Only {count} of {size} members were trained; see the report of {names}.",
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
    ) -> ProcessBuilder:
        """Return a builder with the parameters of a protocol; see :class:`FineTuneWorkChain`."""
        parameters = resolve(protocol, overrides)
        return filled_builder(
            cls,
            {
                "code": code_node(codes, "worker"),
                "dataset": dataset,
                "foundation": foundation_model(foundation, parameters),
                "replay_train": replay_train,
                "replay_valid": replay_valid,
                "seed": orm.Int(seed),
                "parameters": orm.Dict(parameters),
                "metadata": {"label": f"Committee trained on {dataset.n_frames} labels"},
            },
        )

    def setup(self) -> None:
        """Name the members."""
        self.ctx.parameters = self.inputs.parameters.get_dict()
        size = self.ctx.parameters["active_learning"]["committee_size"]
        self.open_window([f"seed_{index}" for index in range(size)], self.ctx.parameters["resources"]["max_concurrent"])

    def should_run_members(self) -> bool:
        """Whether a member is still to be trained."""
        return self.window_is_open()

    def run_members(self) -> dict[str, Any]:
        """Train as many members at a time as the resources allow."""
        return self.advance_window(self.submit_member)

    def submit_member(self, key: str) -> orm.ProcessNode:
        """Submit the training of one member."""
        parameters, name = self.ctx.parameters, key.replace("seed", "model")
        inputs: dict[str, Any] = {
            "code": self.inputs.code,
            "dataset": self.inputs.dataset,
            "foundation": self.inputs.foundation,
            "seed": child_seed(self.inputs.seed, key),
            "parameters": orm.Dict(fine_tune_parameters(parameters, name)),
            "metadata": {"options": worker_options(parameters), "label": f"Fine-tuning of {name}"},
        }
        inputs |= {port: self.inputs[port] for port in ("replay_train", "replay_valid") if port in self.inputs}
        return self.submit(
            FineTuneWorkChain,
            fine_tune=inputs,
            nan_learning_rate_factor=orm.Float(parameters["fine_tune"]["nan_learning_rate_factor"]),
            max_iterations=orm.Int(1 + parameters["fine_tune"]["max_restarts"]),
            metadata={"call_link_label": key, "label": f"Fine-tuning of {name}"},
        )

    def inspect_members(self) -> ExitCode | None:
        """Hand out what was trained; say which members failed, and give up if too few are left for a committee."""
        nodes = self.window_results()
        cut_short = FineTuneWorkChain.exit_codes.WARNING_TOO_SHORT.status
        trained = {
            k: node for k, node in nodes.items() if node.exit_status in (0, cut_short) and "model" in node.outputs
        }
        failed = [key for key in nodes if key not in trained]
        for key, node in nodes.items():
            if not node.is_finished_ok:
                said = "failed" if key in failed else "is taken as it is"
                self.report(f"{key} {said}: {reason(node)}")
        for output, namespace in (("model", "models"), ("results", "results"), ("history", "histories")):
            self.out_many(
                {f"{namespace}.{key.replace('seed', 'model')}": node.outputs[output] for key, node in trained.items()}
            )
        least = max(2, round(self.ctx.parameters["fine_tune"]["min_success_fraction"] * len(nodes)))
        if len(trained) < least:
            code: ExitCode = self.exit_codes.ERROR_TOO_FEW_MEMBERS
            return code.format(count=str(len(trained)), size=str(len(nodes)), names=", ".join(failed))
        self.report(f"{len(trained)} of {len(nodes)} members trained on {self.inputs.dataset.n_frames} labels")
        tested = {
            key: node.outputs.test_predictions for key, node in trained.items() if "test_predictions" in node.outputs
        }
        if len(tested) == len(trained):
            self.out("calibration", calibrate_committee(**tested))
        return None
