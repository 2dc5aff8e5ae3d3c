"""Selection of diverse structures from trajectories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.frames import FramesData

from .base import JobFiles, WorkerCalculation
from .validators import check_integer

__all__ = ["DiversitySelectCalculation"]

_METHODS = ("kmeans", "fps")


class DiversitySelectCalculation(WorkerCalculation):
    """Pick structures that differ from one another and from those of a dataset, by their SOAP descriptors."""

    PROGRAM = "select"
    RETRIEVED = ("selected.npz", "map.npz")

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare ports."""
        super().define(spec)
        spec.input_namespace(
            "trajectories", dynamic=True, valid_type=FramesData, help="Trajectories to select from, by name."
        )
        spec.input(
            "dataset",
            valid_type=LabelledDatasetData,
            required=False,
            help="Structures that are there already; the selection keeps away from them.",
        )
        spec.output_namespace(
            "structures",
            dynamic=True,
            valid_type=orm.StructureData,
            help="Selected structures, frame_0000 and so on, in the order of their selection.",
        )
        spec.output("selected", valid_type=FramesData, help="Selected frames, in the same order.")
        spec.output(
            "map",
            valid_type=orm.ArrayData,
            help="t-SNE map: xy of shape (m, 2), kind of shape (m,) (0 pool, 1 dataset, 2 selected), group (m,).",
        )

        spec.exit_code(320, "ERROR_NOTHING_NEW", message="There is nothing to select: {message}")

    @classmethod
    def check_parameters(cls, parameters: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the number of structures or the method, or None."""
        if parameters.get("method") not in _METHODS:
            return f"method is {parameters.get('method')!r}; it must be one of {', '.join(_METHODS)}"
        return check_integer(parameters, {"n_select": 1})

    def write_inputs(self, files: JobFiles, parameters: dict[str, Any]) -> dict[str, Any]:
        """Put trajectories, sorted by name, and dataset into files."""
        trajectories = self.inputs.trajectories
        return {
            "frames": [
                files.copy(trajectories[key], f"trajectory_{index:03d}.npz")
                for index, key in enumerate(sorted(trajectories))
            ],
            **({"dataset": files.copy(self.inputs.dataset, "dataset.extxyz")} if "dataset" in self.inputs else {}),
        }
