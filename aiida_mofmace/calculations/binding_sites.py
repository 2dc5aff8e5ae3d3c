"""Binding energies of a gas molecule at given sites."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.worker.kernels.sites import SiteDefinition

from .base import JobFiles, WorkerCalculation
from .validators import check_elements, check_integer, check_positive, first_message, gas_elements

__all__ = ["BindingSitesCalculation"]


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse elements that the model does not know, and units that are not defined."""
    if not {"structure", "gas", "model", "sites", "parameters"} <= set(inputs):
        return None
    elements = [*inputs["structure"].get_symbols_set(), *gas_elements(inputs["gas"])]
    return check_elements(elements, [inputs["model"]], "structure and gas") or _check_units(
        inputs["sites"].get_dict(), inputs["parameters"].get_dict().get("units", [])
    )


def _check_units(sites: Mapping[str, Any], units: list[str]) -> str | None:
    try:
        definition = SiteDefinition.from_dict(sites)
    except (ValueError, TypeError) as error:
        return str(error)
    unknown = sorted(set(units) - set(definition.units))
    if unknown or not units or not definition.guests:
        return f"units {unknown} are not among {sorted(definition.units)}, or there is no unit or no guest site"
    return None


class BindingSitesCalculation(WorkerCalculation):
    """Relax the framework in each structural unit, the molecule, and the molecule at each site of each unit."""

    PROGRAM = "binding"
    RETRIEVED = ("frames.npz",)

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare ports."""
        super().define(spec)
        spec.input("model", valid_type=MaceModelData, help="Model that gives energies and forces.")
        spec.input("structure", valid_type=orm.StructureData, help="Framework without gas, positions and cell in Å.")
        spec.input("gas", valid_type=orm.Dict, help="Gas molecule: name, symbols, positions in Å, linear, constants.")
        spec.input("sites", valid_type=orm.Dict, help="Hydroxyl sites, structural units and guest sites.")
        spec.inputs.validator = validate_inputs
        spec.output(
            "trajectory",
            valid_type=FramesData,
            required=False,
            help="Relaxed structures; groups are molecule, framework_UNIT and UNIT_GUEST.",
        )

    @classmethod
    def check_parameters(cls, parameters: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the limits of the relaxation, or None."""
        return first_message(
            [
                check_positive(parameters, {"largest_force": "eV/Å", "minimum_distance": "Å", "gas_phase_box": "Å"}),
                check_integer(parameters, {"max_steps": 1}),
            ]
        )

    def write_inputs(self, files: JobFiles, parameters: dict[str, Any]) -> dict[str, Any]:
        """Put model and framework into files; gas and sites go into the parameters."""
        parameters["gas"], parameters["sites"] = self.inputs.gas.get_dict(), self.inputs.sites.get_dict()
        return {
            "model": files.copy(self.inputs.model, "model.model"),
            "structure": files.structure(self.inputs.structure),
        }
