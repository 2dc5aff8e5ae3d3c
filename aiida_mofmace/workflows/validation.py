"""Validation: labels of random frames of MD with the new model, compared with both models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.engine import ExitCode, while_
from aiida.engine.processes.builder import ProcessBuilder
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_mofmace.calculations.validators import first_message
from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.data.model import MaceModelData

from .checks import check_code_for_level, check_loadings, check_model
from .committee_base import CommitteeBaseWorkChain
from .functions import compare_with_labels, draw_frames, with_labels
from .harvest import reason, runs_with_frames
from .inputs import common_inputs, foundation_model
from .jobs import child_seed, committee_inputs, label_inputs, md_inputs, md_key
from .label import LabelWorkChain
from .mace_md_base import MaceMdBaseWorkChain
from .ports import define_code, define_label_ports, define_system_ports, given
from .protocols import filled_builder, resolve
from .window import RollingWindow
from .worker_base import layer_inputs

__all__ = ["ValidationWorkChain"]


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse unknown elements, loadings that do not fit, an empty committee, and a level without its program."""
    if not {"structure", "gas", "foundation", "level", "parameters", "seed"} <= set(inputs):
        return None
    structure, gas, level = inputs["structure"], inputs["gas"], LevelOfTheory.from_dict(inputs["level"].get_dict())
    parameters = inputs["parameters"].get_dict()
    loadings, distance = parameters["validation"]["loadings"], parameters["md"]["insertion_minimum_distance"]
    models = dict(inputs.get("models") or {})
    return first_message(
        [
            None if models else "no model to validate: give at least one in the namespace models",
            check_code_for_level(level, inputs.get("cp2k_code")),
            *(check_model(model, structure, gas) for model in (inputs["foundation"], *models.values())),
            check_loadings(structure, gas, loadings, distance, inputs["seed"].value),
        ]
    )


class ValidationWorkChain(RollingWindow):
    """Errors of foundation model and committee on frames that neither was trained on.

    MD with the committee's first model at each loading, random frames of it, labels, and both models' predictions.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        define_code(spec, "worker_code")
        define_label_ports(spec)
        define_system_ports(spec, "validation, labels, md, evaluation and resources")
        spec.input("foundation", valid_type=MaceModelData, help="Model before fine-tuning.")
        spec.input_namespace("models", dynamic=True, valid_type=MaceModelData, help="Committee after fine-tuning.")
        spec.inputs.validator = validate_inputs
        spec.output("dataset", valid_type=LabelledDatasetData, help="The labelled frames.")
        spec.output(
            "parity_before", valid_type=orm.ArrayData, help="Predictions of the foundation model and references."
        )
        spec.output("parity_after", valid_type=orm.ArrayData, help="Predictions of the committee, and references.")
        spec.output("errors", valid_type=orm.Dict, help="Errors before and after in meV/atom and meV/Å.")
        spec.output("failures", valid_type=orm.Dict, help="Labels that could not be had, with reason.")
        spec.outline(
            cls.setup,
            while_(cls.should_run_md)(cls.run_md),
            cls.inspect_md,
            cls.run_labels,
            cls.inspect_labels,
            while_(cls.should_run_predictions)(cls.run_predictions),
            cls.inspect_predictions,
        )
        spec.exit_code(301, "ERROR_MD_FAILED", message="MD with the new model gave no frames at: {names}.")
        spec.exit_code(302, "ERROR_LABELS_FAILED", message="The labels failed: {message}")
        spec.exit_code(303, "ERROR_PREDICTIONS_FAILED", message="The predictions failed: {message}")

    @classmethod
    def get_builder_from_protocol(
        cls,
        codes: Mapping[str, Any],
        structure: orm.StructureData,
        models: Mapping[str, MaceModelData],
        gas: str | orm.Dict = "CO2",
        foundation: MaceModelData | str | Path | None = None,
        *,
        protocol: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> ProcessBuilder:
        """Return a builder with the parameters of a protocol.

        :param codes: code or label of one by key: "worker", and "cp2k" unless the level is one of tblite
        :param structure: framework without gas
        :param models: fine-tuned committee; MD is done with the first
        :param gas: name of a known gas, or the description of one
        :param foundation: model before fine-tuning: node, path or name; None for the protocol's own
        :raises ValueError: if an input is refused; the message says what to do
        """
        parameters = resolve(protocol, overrides)
        inputs = common_inputs(codes, structure, gas, parameters, seed)
        inputs |= {"foundation": foundation_model(foundation, parameters), "models": dict(models)}
        inputs["metadata"] = {"label": f"Validation for {structure.get_formula()}"}
        return filled_builder(cls, inputs)

    def setup(self) -> None:
        """Name the runs, one for each loading."""
        self.ctx.parameters = self.inputs.parameters.get_dict()
        section = self.ctx.parameters["validation"]
        self.ctx.runs = {md_key(section["temperature"], loading): loading for loading in section["loadings"]}
        self.open_window(list(self.ctx.runs), self.ctx.parameters["resources"]["max_concurrent"])

    def should_run_md(self) -> bool:
        """Whether a run is still to be done."""
        return self.window_is_open()

    def run_md(self) -> dict[str, Any]:
        """Do as many runs at a time as the resources allow."""
        return self.advance_window(self.submit_md)

    def submit_md(self, key: str) -> orm.ProcessNode:
        """Submit MD with the committee's first model."""
        parameters, section = self.ctx.parameters, self.ctx.parameters["validation"]
        inputs = md_inputs(
            key,
            {"code": self.inputs.worker_code, **given(self.inputs, "structure", "gas", "seed")},
            parameters,
            run=section,
            model=self.inputs.models[min(self.inputs.models)],
            temperature=section["temperature"],
            loading=self.ctx.runs[key],
        )
        return self.submit(MaceMdBaseWorkChain, layer_inputs(inputs, "md", section["max_restarts"]))

    def inspect_md(self) -> ExitCode | None:
        """Draw random frames of every run; each loading must have some."""
        nodes = self.window_results()
        sampled = runs_with_frames(self, nodes)
        if len(sampled) < len(nodes):
            code: ExitCode = self.exit_codes.ERROR_MD_FAILED
            return code.format(names=", ".join(sorted(set(nodes) - set(sampled))))
        self.ctx.drawn = draw_frames(
            child_seed(self.inputs.seed, "frames"),
            orm.Int(self.ctx.parameters["validation"]["n_frames"]),
            **{key: node.outputs.trajectory for key, node in sampled.items()},
        )
        return None

    def run_labels(self) -> dict[str, Any]:
        """Label the drawn frames."""
        inputs = label_inputs("labels", self.inputs, self.ctx.parameters, dict(self.ctx.drawn["structures"]))
        return {"labels": self.submit(LabelWorkChain, inputs)}

    def inspect_labels(self) -> ExitCode | None:
        """Put the labels into a dataset of their own, which nothing is trained on."""
        node = self.ctx.labels
        self.out_many(given(node.outputs, "failures"))
        self.ctx.dataset = with_labels(
            None, self.ctx.drawn["selection"], dict(self.ctx.drawn["structures"]), node.outputs
        )
        self.out_many({"dataset": self.ctx.dataset} if self.ctx.dataset else {})
        if not node.is_finished_ok:
            code: ExitCode = self.exit_codes.ERROR_LABELS_FAILED
            return code.format(message=reason(node))
        self.open_window(["before", "after"], self.ctx.parameters["resources"]["max_concurrent"])
        return None

    def should_run_predictions(self) -> bool:
        """Whether a model is still to be asked."""
        return self.window_is_open()

    def run_predictions(self) -> dict[str, Any]:
        """Ask the foundation model and the committee."""
        return self.advance_window(self.submit_predictions)

    def submit_predictions(self, key: str) -> orm.ProcessNode:
        """Submit the predictions of the foundation model or of the committee."""
        models = {"foundation": self.inputs.foundation} if key == "before" else dict(self.inputs.models)
        inputs = committee_inputs(
            key, self.inputs.worker_code, self.ctx.parameters, models=models, frames=self.ctx.dataset
        )
        return self.submit(CommitteeBaseWorkChain, layer_inputs(inputs))

    def inspect_predictions(self) -> ExitCode | None:
        """Compare predictions and labels."""
        nodes = self.window_results()
        failed = {key: node for key, node in nodes.items() if not node.is_finished_ok}
        if failed:
            code: ExitCode = self.exit_codes.ERROR_PREDICTIONS_FAILED
            return code.format(message="; ".join(f"{key} {reason(node)}" for key, node in failed.items()))
        parity = {key: nodes[key].outputs.predictions for key in nodes}
        self.out_many({f"parity_{key}": predictions for key, predictions in parity.items()})
        errors = compare_with_labels(**parity)
        self.out("errors", errors)
        for key in ("before", "after"):
            row = errors[key]["all"]
            self.report(
                f"{key} fine-tuning: {row['energy_mae_mev_per_atom']:.2f} meV/atom and "
                f"{row['force_mae_mev_per_ang']:.1f} meV/Å on {row['n_frames']} frames"
            )
        for quantity in errors["worse"]:
            self.report(f"WARNING: fine-tuning has made the model worse: {quantity} has risen")
        return None
