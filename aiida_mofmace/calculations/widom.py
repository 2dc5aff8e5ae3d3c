"""Henry coefficient of a gas in a framework by test-particle insertion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.data.model import MaceModelData

from .base import JobFiles, WorkerCalculation
from .validators import check_elements, check_integer, check_positive, first_message, gas_elements

__all__ = ["WidomCalculation"]


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse elements that the model does not know."""
    if not {"structure", "gas", "model"} <= set(inputs):
        return None
    elements = [*inputs["structure"].get_symbols_set(), *gas_elements(inputs["gas"])]
    return check_elements(elements, [inputs["model"]], "structure and gas")


class WidomCalculation(WorkerCalculation):
    """Insertions on trial into the empty framework, flexible or rigid: the slope of the isotherm at low pressure."""

    PROGRAM = "widom"
    RETRIEVED = ("timeseries.npz", "checkpoint.npz", "candidates.npz")

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare ports."""
        super().define(spec)
        spec.input("model", valid_type=MaceModelData, help="Model that gives energies and forces.")
        spec.input("structure", valid_type=orm.StructureData, help="Framework without gas, positions and cell in Å.")
        spec.input(
            "gas",
            valid_type=orm.Dict,
            help="Gas molecule: name, symbols, positions in Å, linear, critical constants in K and Pa.",
        )
        spec.input(
            "checkpoint", valid_type=orm.SinglefileData, required=False, help="State of an earlier run to go on from."
        )
        spec.inputs.validator = validate_inputs
        spec.output(
            "timeseries",
            valid_type=orm.ArrayData,
            required=False,
            help="step, boltzmann_factor, weighted_energy (eV), potential_energy (eV); shape (n,) each.",
        )
        spec.output("checkpoint", valid_type=orm.SinglefileData, required=False, help="State at the last step.")
        spec.output(
            "candidates", valid_type=FramesData, required=False, help="Frames that tripped a guard; none if none did."
        )

    @classmethod
    def check_parameters(cls, parameters: Mapping[str, Any]) -> str | None:
        """Return what is wrong with temperature, time step or numbers of steps and insertions, or None."""
        return first_message(
            [
                check_positive(parameters, {"temperature": "K", "timestep_fs": "fs"}),
                check_integer(parameters, {"steps": 1, "stride": 1, "insertions": 1, "equilibration_steps": 0}),
            ]
        )

    def write_inputs(self, files: JobFiles, parameters: dict[str, Any]) -> dict[str, Any]:
        """Put model, framework and checkpoint into files; the gas goes into the parameters."""
        inputs = self.inputs
        parameters["gas"] = inputs.gas.get_dict()
        return {
            "model": files.copy(inputs.model, "model.model"),
            "structure": files.structure(inputs.structure),
            **({"checkpoint": files.copy(inputs.checkpoint, "checkpoint_in.npz")} if "checkpoint" in inputs else {}),
        }
