"""Charges of a framework's atoms by CP2K: fitted to the electrostatic potential in the pores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from aiida import orm
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_mofmace.data.level import LevelOfTheory

from .cp2k_label import Cp2kLabelCalculation, validate_structure_at_level

__all__ = ["Cp2kChargesCalculation", "charges_parameters", "fit_of_charges"]

_SETTINGS = Path(__file__).parent.parent / "protocols" / "charges" / "repeat.yaml"


def fit_of_charges() -> dict[str, Any]:
    """Return CP2K's section &PROPERTIES that asks for charges by REPEAT."""
    return {"RESP": yaml.safe_load(_SETTINGS.read_text(encoding="utf-8"))}


def charges_parameters(level: LevelOfTheory, structure: orm.StructureData) -> dict[str, Any]:
    """Return CP2K's input for a single point with a fit of charges by REPEAT.

    :param level: of a density functional; a tight-binding method has no potential to fit
    :raises ValueError: if the level cannot do it
    """
    parameters = level.cp2k_parameters(structure)
    parameters["FORCE_EVAL"]["PROPERTIES"] = fit_of_charges()
    return parameters


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse what CP2K cannot do at this level, and input without a fit of charges."""
    message = validate_structure_at_level(inputs, "cp2k")
    if message or "parameters" not in inputs:
        return message
    section = inputs["parameters"].get_dict().get("FORCE_EVAL", {})
    if str(section.get("DFT", {}).get("QS", {}).get("METHOD", "GPW")).upper() == "XTB":
        return "tight binding has no electrostatic potential to fit; take a level of a density functional, e.g. pbe-d3"
    if "RESP" not in section.get("PROPERTIES", {}):
        return "the parameters ask for no charges; make them with charges_parameters(level, structure)"
    return None


class Cp2kChargesCalculation(Cp2kLabelCalculation):
    """A single point of CP2K that also fits charges by REPEAT and writes them into a CIF that RASPA reads.

    ``parameters`` is CP2K's input, from :func:`charges_parameters`.
    """

    _DEFAULT_PARSER = "mofmace.cp2k_charges"

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare ports and exit codes."""
        super().define(spec)
        spec.inputs.validator = validate_inputs
        spec.output(
            "charges", valid_type=orm.List, required=False, help="Charge of each atom in e, in the structure's order."
        )
        spec.output(
            "cif", valid_type=orm.CifData, required=False, help="The structure without symmetry, with its charges in e."
        )
        spec.exit_code(308, "ERROR_CHARGES_MISSING", message="CP2K's output has no charges: {message}")
