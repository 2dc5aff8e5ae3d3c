"""Selection of diverse structures from trajectories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from aiida import orm
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.worker.kernels.descriptors import Environments
from aiida_mofmace.worker.kernels.diversity import METHODS

from .base import JobFiles, WorkerCalculation
from .validators import check_integer

__all__ = ["DiversitySelectCalculation"]

_ENVIRONMENTS = get_args(Environments)


class DiversitySelectCalculation(WorkerCalculation):
    """Pick structures that differ from one another and from those of a dataset, by their SOAP descriptors."""

    PROGRAM = "select"
    RETRIEVED = ("selected.npz", "map.npz", "fates.npz")

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
        spec.output(
            "fates",
            valid_type=orm.ArrayData,
            help="What became of each frame, shape (n,) each: trajectory (position in the list `trajectories` of the "
            "results), index in it, fate (position in the list `fates` of the results), distance to the nearest "
            "selected or known frame, picked_by_kmeans, picked_by_fps.",
        )
        spec.exit_code(320, "ERROR_NOTHING_NEW", message="There is nothing to select: {message}")

    @classmethod
    def check_parameters(cls, parameters: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the number of structures or the method, or None."""
        if parameters.get("method") not in METHODS:
            return f"method is {parameters.get('method')!r}; it must be one of {', '.join(METHODS)}"
        if parameters.get("environments", "all") not in _ENVIRONMENTS:
            return f"environments is {parameters['environments']!r}; it must be one of {', '.join(_ENVIRONMENTS)}"
        if sum((parameters.get("quotas") or {}).values()) > parameters.get("n_select", 0):
            return f"the quotas {parameters['quotas']} add up to more than n_select = {parameters.get('n_select')}"
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
