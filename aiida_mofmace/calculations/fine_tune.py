"""Fine-tuning of a MACE model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.worker.training.settings import option_fault

from .base import JobFiles, WorkerCalculation
from .validators import (
    check_elements,
    check_integer,
    check_positive,
    check_replay_files,
    check_training_size,
    first_message,
)

__all__ = ["FineTuneCalculation"]


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse unknown elements, multihead training without replay data, and datasets that are too small to split."""
    if not {"dataset", "foundation", "parameters"} <= set(inputs):
        return None
    if inputs["parameters"].get_dict().get("multihead") and "replay_train" not in inputs:
        return "multihead training needs replay data: give replay_train, or set multihead to false"
    return first_message(
        [
            check_training_size(inputs["dataset"].n_frames, inputs["parameters"].get_dict()),
            check_elements(inputs["dataset"].species, [inputs["foundation"]], "dataset"),
            check_replay_files(inputs.get("replay_train"), inputs.get("replay_valid")),
        ]
    )


class FineTuneCalculation(WorkerCalculation):
    """Fine-tune one member of a committee, by multihead replay where replay data are given."""

    PROGRAM = "fine_tune"
    RETRIEVED = ("model.model", "model.json", "history.json", "split.json", "checkpoint.pt", "test_predictions.npz")

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare ports."""
        super().define(spec)
        spec.input("dataset", valid_type=LabelledDatasetData, help="Labelled structures to train on.")
        spec.input("foundation", valid_type=MaceModelData, help="Model to start from.")
        spec.input(
            "replay_train",
            valid_type=(LabelledDatasetData, orm.SinglefileData),
            required=False,
            help="Structures of the foundation model's training set (extended XYZ), trained on alongside.",
        )
        spec.input(
            "replay_valid",
            valid_type=(LabelledDatasetData, orm.SinglefileData),
            required=False,
            help="Structures like `replay_train` (extended XYZ) for validation.",
        )
        spec.input(
            "checkpoint",
            valid_type=orm.SinglefileData,
            required=False,
            help="State of a training with the same inputs that was stopped, to go on from.",
        )
        spec.inputs.validator = validate_inputs
        spec.output("model", valid_type=MaceModelData, required=False, help="Fine-tuned model.")
        spec.output("history", valid_type=orm.List, required=False, help="Losses and errors of every epoch and head.")
        spec.output(
            "test_predictions",
            valid_type=orm.ArrayData,
            required=False,
            help="Of the test frames: energies and reference_energies (frames,) in eV, forces and reference_forces "
            "(atoms of all frames, 3) in eV/Å, offsets (frames + 1,).",
        )
        spec.output(
            "checkpoint", valid_type=orm.SinglefileData, required=False, help="State of a training that was stopped."
        )

    @classmethod
    def check_parameters(cls, parameters: Mapping[str, Any]) -> str | None:
        """Return what is wrong with batch size, epochs, learning rate or fractions, or None."""
        if parameters.get("e0s") == "isolated_atoms":
            return (
                "e0s is 'isolated_atoms'; one training takes the energies themselves: run IsolatedAtomsWorkChain first"
            )
        for key in ("valid_fraction", "test_fraction"):
            fraction = parameters.get(key, 0)
            if not isinstance(fraction, (int, float)) or not 0 <= fraction < 1:
                return f"{key} is {fraction!r}; give a fraction from 0 to below 1"
        return first_message(
            [
                check_integer({"processes": 1, **parameters}, {"batch_size": 1, "max_epochs": 1, "processes": 1}),
                check_positive(parameters, {"learning_rate": ""}),
                *(option_fault(str(name)) for name in parameters.get("options") or {}),
            ]
        )

    def launcher(self, parameters: Mapping[str, Any]) -> list[str]:
        """Start as many processes as share the training."""
        processes = parameters.get("processes", 1)
        if processes == 1:
            return []
        return ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]

    def write_inputs(self, files: JobFiles, parameters: dict[str, Any]) -> dict[str, Any]:
        """Put model and datasets into files."""
        inputs = self.inputs
        checkpoint = {"checkpoint": files.copy(inputs.checkpoint, "checkpoint.pt")} if "checkpoint" in inputs else {}
        return {
            **checkpoint,
            "foundation": files.copy(inputs.foundation, "foundation.model"),
            "dataset": files.copy(inputs.dataset, "dataset.extxyz"),
            "replay_train": files.copy(inputs.replay_train, "replay_train.extxyz")
            if "replay_train" in inputs
            else None,
            "replay_valid": files.copy(inputs.replay_valid, "replay_valid.extxyz")
            if "replay_valid" in inputs
            else None,
        }
