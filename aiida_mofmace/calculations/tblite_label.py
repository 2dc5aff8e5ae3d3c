"""A label by tblite, for machines without CP2K."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_mofmace.data.label import DftLabelData

from .base import JobFiles, WorkerCalculation
from .cp2k_label import validate_level, validate_structure_at_level

__all__ = ["TbliteLabelCalculation"]


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse a level of theory of another program and a structure it cannot do."""
    return validate_structure_at_level(inputs, "tblite")


class TbliteLabelCalculation(WorkerCalculation):
    """Energy, forces and stress of one structure by tblite."""

    PROGRAM = "label_tblite"
    RETRIEVED = ("label.npz",)

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare ports."""
        super().define(spec)
        spec.inputs["seed"].required = False
        spec.inputs["seed"].default = lambda: orm.Int(0)
        spec.inputs["parameters"].required = False
        spec.inputs["parameters"].default = lambda: orm.Dict({"device": "cpu"})
        spec.input("structure", valid_type=orm.StructureData, help="Periodic structure, positions and cell in Å.")
        spec.input(
            "level",
            valid_type=orm.Dict,
            validator=validate_level,
            help="Level of theory as given by LevelOfTheory.load(name).to_dict().",
        )
        spec.inputs.validator = validate_inputs
        spec.output(
            "label", valid_type=DftLabelData, required=False, help="Energy (eV), forces (eV/Å), stress (eV/Å³)."
        )
        spec.exit_code(450, "ERROR_SCF_NOT_CONVERGED", message="The self-consistent field did not converge: {message}.")

    def write_inputs(self, files: JobFiles, parameters: dict[str, Any]) -> dict[str, Any]:
        """Put the structure into a file; method and accuracy come from the level."""
        parameters.update(self.inputs.level.get_dict()["tblite"])
        return {"structure": files.structure(self.inputs.structure)}
