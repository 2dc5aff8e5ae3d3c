"""Molecular dynamics with a MACE model at one temperature and loading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.data.model import MaceModelData

from .base import JobFiles, WorkerCalculation
from .validators import (
    check_elements,
    check_engine,
    check_integer,
    check_positive,
    check_pressure,
    first_message,
    gas_elements,
)

__all__ = ["MaceMdCalculation"]


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse elements that the model does not know and a run without anything to move."""
    structure, gas, model = inputs.get("structure"), inputs.get("gas"), inputs.get("model")
    if model is None:
        return None
    if structure is None and gas is None:
        return "neither structure nor gas: give a framework, a gas for its gas-phase average, or both"
    parameters = inputs["parameters"].get_dict() if "parameters" in inputs else {}
    if structure is None and not parameters.get("gas_phase_box"):
        return "a gas without a framework needs the parameter gas_phase_box, the length of the box in Å"
    if gas is None and parameters.get("loading"):
        return f"loading is {parameters['loading']}, but no gas is given"
    if structure is None and parameters.get("pressure") is not None:
        return "a molecule alone has no pressure; set pressure to null"
    framework = [] if structure is None else structure.get_symbols_set()
    return check_elements([*framework, *gas_elements(gas)], [model], "structure and gas")


class MaceMdCalculation(WorkerCalculation):
    """Molecular dynamics (NVT, NPT) of a framework with a number of gas molecules, or of the gas molecule alone."""

    PROGRAM = "md"
    RETRIEVED = ("frames.npz", "observables.npz", "checkpoint.npz")

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare ports."""
        super().define(spec)
        spec.input("model", valid_type=MaceModelData, help="Model that gives energies and forces.")
        spec.input(
            "structure",
            valid_type=orm.StructureData,
            required=False,
            help="Framework without gas, positions and cell in Å; without it the gas molecule runs alone in a box.",
        )
        spec.input(
            "gas",
            valid_type=orm.Dict,
            required=False,
            help="Gas molecule: name, symbols, positions in Å, linear, critical constants in K and Pa.",
        )
        spec.input(
            "checkpoint", valid_type=orm.SinglefileData, required=False, help="State of an earlier run to go on from."
        )
        spec.inputs.validator = validate_inputs
        spec.output("trajectory", valid_type=FramesData, required=False, help="Frames after equilibration.")
        spec.output(
            "observables",
            valid_type=orm.ArrayData,
            required=False,
            help="step, potential_energy (eV), kinetic_temperature (K), conserved_energy (eV); volume (Å³) at constant "
            "pressure; shape (n,) each.",
        )
        spec.output("checkpoint", valid_type=orm.SinglefileData, required=False, help="State at the last step.")

    @classmethod
    def check_parameters(cls, parameters: Mapping[str, Any]) -> str | None:
        """Return what is wrong with temperature, time step, lengths or loading, or None."""
        return first_message(
            [
                check_positive(parameters, {"temperature": "K", "timestep_fs": "fs"}),
                check_integer(parameters, {"steps": 1, "stride": 1}),
                check_engine(parameters),
                check_pressure(parameters),
                check_integer({"loading": parameters.get("loading", 0)}, {"loading": 0}),
            ]
        )

    def write_inputs(self, files: JobFiles, parameters: dict[str, Any]) -> dict[str, Any]:
        """Put model, framework and checkpoint into files; the gas goes into the parameters."""
        inputs = self.inputs
        parameters.setdefault("loading", 0)
        parameters["gas"] = inputs.gas.get_dict() if "gas" in inputs else None
        return {
            "model": files.copy(inputs.model, "model.model"),
            "structure": files.structure(inputs.structure) if "structure" in inputs else None,
            **({"checkpoint": files.copy(inputs.checkpoint, "checkpoint_in.npz")} if "checkpoint" in inputs else {}),
        }
