"""Energies and forces of a committee of models, and how far its members disagree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.data.model import MaceModelData

from .base import JobFiles, WorkerCalculation
from .validators import check_elements, check_positive, check_window, first_message

__all__ = ["CommitteeCalculation"]


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse both or none of trajectories and dataset, and elements that a model does not know."""
    trajectories, dataset = inputs.get("trajectories") or {}, inputs.get("dataset")
    models = list((inputs.get("models") or {}).values())
    if not models:
        return "no model: give at least one in the namespace models"
    if bool(trajectories) == (dataset is not None):
        return "give either trajectories or a dataset"
    sources = [*trajectories.values(), *([dataset] if dataset is not None else [])]
    return first_message(check_elements(source.species, models, "frames") for source in sources)


def validate_calibration(calibration: orm.Dict | None, _: Any) -> str | None:
    """Refuse a calibration without a ratio of error and deviation."""
    return None if calibration is None else check_positive(calibration.get_dict(), {"ratio": ""})


class CommitteeCalculation(WorkerCalculation):
    """Evaluate frames with every member of a committee.

    For trajectories the frames whose force deviation lies in the window come back as candidates; for a dataset, whose
    labels are known, the errors of the members come back.
    """

    PROGRAM = "committee"
    RETRIEVED = ("predictions.npz", "candidates.npz")

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare ports."""
        super().define(spec)
        spec.inputs["seed"].required = False
        spec.inputs["seed"].default = lambda: orm.Int(0)
        spec.input_namespace(
            "models", dynamic=True, valid_type=MaceModelData, help="Members of the committee, by name."
        )
        spec.input_namespace(
            "trajectories",
            dynamic=True,
            required=False,
            valid_type=FramesData,
            help="Frames to evaluate, by name.",
        )
        spec.input("dataset", valid_type=LabelledDatasetData, required=False, help="Labelled frames to compare with.")
        spec.input(
            "calibration",
            valid_type=orm.Dict,
            required=False,
            validator=validate_calibration,
            help="Calibration of this committee: its `ratio` times the force deviation is held against the window.",
        )
        spec.inputs.validator = validate_inputs
        spec.output(
            "predictions",
            valid_type=orm.ArrayData,
            help="energies (models, frames) in eV, forces (models, atoms of all frames, 3) in eV/Å, offsets (n + 1,), "
            "sigma_max (n,) in eV/Å, loadings and groups (n,); of a dataset also reference_energies, reference_forces.",
        )
        spec.output(
            "candidates", valid_type=FramesData, required=False, help="Frames inside the window; none if none is."
        )

    @classmethod
    def check_parameters(cls, parameters: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the window, or None."""
        return check_window(parameters.get("window"))

    def write_inputs(self, files: JobFiles, parameters: dict[str, Any]) -> dict[str, Any]:
        """Put models and frames, sorted by name, into files."""
        models, trajectories = self.inputs.models, self.inputs.get("trajectories", {})
        parameters.setdefault("window", None)
        if "calibration" in self.inputs:
            parameters["deviation_scale"] = self.inputs.calibration["ratio"]
        names: dict[str, Any] = {
            "models": [files.copy(models[key], f"model_{index}.model") for index, key in enumerate(sorted(models))]
        }
        if "dataset" in self.inputs:
            return names | {"dataset": files.copy(self.inputs.dataset, "dataset.extxyz")}
        frames = [
            files.copy(trajectories[key], f"trajectory_{index:03d}.npz")
            for index, key in enumerate(sorted(trajectories))
        ]
        return names | {"frames": frames}
