"""Hybrid molecular dynamics and grand-canonical Monte Carlo at one temperature and pressure."""

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
    check_flexible_cell,
    check_integer,
    check_lammps_exchange,
    check_lammps_gas,
    check_moves,
    check_positive,
    first_message,
    gas_elements,
)

__all__ = ["MdGcmcCalculation"]


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse elements that the model does not know, and a mixture for an engine that takes none."""
    if not {"structure", "gas", "model"} <= set(inputs):
        return None
    parameters = inputs["parameters"].get_dict() if "parameters" in inputs else {}
    message = check_lammps_gas(parameters, inputs["gas"])
    if message:
        return message
    elements = [*inputs["structure"].get_symbols_set(), *gas_elements(inputs["gas"])]
    return check_elements(elements, [inputs["model"]], "structure and gas")


def _check_initial(given: Any) -> list[str | None]:
    """Refuse a number of molecules, or one of a component, that is negative or not whole."""
    loadings = given if isinstance(given, Mapping) else {"initial_loading": given}
    return [check_integer({f"{name}": value}, {f"{name}": 0}) for name, value in loadings.items()]


class MdGcmcCalculation(WorkerCalculation):
    """Insertions and deletions of gas molecules between short pieces of molecular dynamics, with a MACE model."""

    PROGRAM = "md_gcmc"
    RETRIEVED = ("frames.npz", "timeseries.npz", "checkpoint.npz", "candidates.npz")

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare ports."""
        super().define(spec)
        spec.input("model", valid_type=MaceModelData, help="Model that gives energies and forces.")
        spec.input("structure", valid_type=orm.StructureData, help="Framework without gas, positions and cell in Å.")
        spec.input(
            "gas",
            valid_type=orm.Dict,
            help="Gas molecule: name, symbols, positions in Å, linear, critical constants in K and Pa; or a mixture: "
            "name and components, each such a description with its mole_fraction.",
        )
        spec.input(
            "checkpoint", valid_type=orm.SinglefileData, required=False, help="State of an earlier chunk to go on from."
        )
        spec.inputs.validator = validate_inputs
        spec.output("trajectory", valid_type=FramesData, required=False, help="Frames, every `stride` steps.")
        spec.output(
            "timeseries",
            valid_type=orm.ArrayData,
            required=False,
            help="step, loading (molecules), potential_energy (eV), temperature (K); of a mixture also loading_NAME of "
            "each component, of a flexible cell also volume (Å³); shape (n,) each.",
        )
        spec.output("checkpoint", valid_type=orm.SinglefileData, required=False, help="State at the last step.")
        spec.output(
            "candidates", valid_type=FramesData, required=False, help="Frames that tripped a guard; none if none did."
        )

    @classmethod
    def check_parameters(cls, parameters: Mapping[str, Any]) -> str | None:
        """Return what is wrong with temperature, pressure, time step or lengths, or None."""
        return first_message(
            [
                check_positive(parameters, {"temperature": "K", "pressure": "Pa", "timestep_fs": "fs"}),
                check_integer(
                    parameters, {"steps": 1, "stride": 1, "md_steps_per_attempt": 1, "attempts_per_block": 1}
                ),
                check_integer({"trial_places": parameters.get("trial_places", 1)}, {"trial_places": 1}),
                *_check_initial(parameters.get("initial_loading", 0)),
                check_moves(parameters.get("moves", {"exchange": 1.0})),
                check_engine(parameters),
                check_lammps_exchange(parameters),
                check_flexible_cell(parameters),
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
