"""A MACE model that has learned nothing yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_mofmace.data.model import MaceModelData

from .base import JobFiles, WorkerCalculation
from .validators import check_integer, check_positive, first_message

__all__ = ["BlankModelCalculation"]


class BlankModelCalculation(WorkerCalculation):
    """Make a model with random weights for the elements of a framework and a gas, to be trained from scratch.

    It takes the place of the foundation model: what is called fine-tuning then is a training from nothing.
    """

    PROGRAM = "blank_model"
    RETRIEVED = ("model.model", "model.json")

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare ports."""
        super().define(spec)
        spec.input("structure", valid_type=orm.StructureData, help="Framework, whose elements and neighbours count.")
        spec.input("gas", valid_type=orm.Dict, help="Gas molecule, whose elements are added.")
        spec.output("model", valid_type=MaceModelData, required=False, help="Model with random weights.")

    @classmethod
    def check_parameters(cls, parameters: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the size of the model, or None."""
        return first_message(
            [
                check_positive(parameters, {"r_max": "Å", "scale": "eV"}),
                check_integer(parameters, {"channels": 1, "max_l": 0, "max_ell": 1, "layers": 1, "correlation": 1}),
            ]
        )

    def write_inputs(self, files: JobFiles, parameters: dict[str, Any]) -> dict[str, Any]:
        """Put the framework into a file; the gas adds its elements."""
        parameters["elements"] = sorted(set(self.inputs.gas["symbols"]))
        return {"structure": files.structure(self.inputs.structure)}
