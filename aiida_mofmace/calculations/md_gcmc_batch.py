"""Several simulations of hybrid MD-GCMC in one job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.data.model import MaceModelData

from .base import JobFiles, WorkerCalculation
from .md_gcmc import MdGcmcCalculation, validate_inputs
from .validators import check_integer, first_message

__all__ = ["MdGcmcBatchCalculation"]


def _check_system(name: str, parameters: Mapping[str, Any]) -> str | None:
    """Refuse a name that cannot stand in a link, and parameters that a job by itself would refuse."""
    if not name.isidentifier() or name.startswith("_") or "__" in name:
        return f"system {name!r} needs another name: letters, digits and single underscores, a letter first"
    wrong = first_message(
        [
            MdGcmcCalculation.check_parameters(parameters),
            check_integer(parameters, {"seed": 0}) if "seed" in parameters else None,
        ]
    )
    return f"system {name}: {wrong}" if wrong else None


class MdGcmcBatchCalculation(WorkerCalculation):
    """Hybrid MD-GCMC of several systems at once, pressures or replicas, which may share the calls of the model."""

    PROGRAM = "md_gcmc_batch"
    RETRIEVED = tuple((f"*/{name}.npz", ".", 2) for name in ("frames", "timeseries", "checkpoint", "candidates"))

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare ports and exit codes."""
        super().define(spec)
        spec.inputs["parameters"].help = (
            "Parameters as of MdGcmcCalculation, and `systems`: by name, what is different in each, such as pressure "
            "(Pa), fugacity (Pa), steps and seed; without a seed of its own a system has one made of `seed` and name. "
            "`share_calls` (false): whether they share calls of the model on a CPU, as they always do on a GPU."
        )
        spec.input("model", valid_type=MaceModelData, help="Model that gives energies and forces.")
        spec.input("structure", valid_type=orm.StructureData, help="Framework without gas, positions and cell in Å.")
        spec.input("gas", valid_type=orm.Dict, help="Gas molecule or mixture, as of MdGcmcCalculation.")
        spec.input_namespace(
            "checkpoints",
            dynamic=True,
            required=False,
            valid_type=orm.SinglefileData,
            help="States of earlier chunks to go on from, by name of the system.",
        )
        spec.inputs.validator = validate_inputs
        outputs = {
            "systems": (
                orm.Dict,
                "Figures of each system as of MdGcmcCalculation; `status` is finished, stopped or "
                "failed, with `message` if it failed.",
            ),
            "trajectories": (FramesData, "Frames of each system, every `stride` steps."),
            "timeseries": (orm.ArrayData, "Time series of each system, as of MdGcmcCalculation."),
            "checkpoints": (orm.SinglefileData, "State of each system at its last step; none of one that blew up."),
            "candidates": (FramesData, "Frames of each system that tripped a guard."),
        }
        for name, (kind, text) in outputs.items():
            spec.output_namespace(name, dynamic=True, required=False, valid_type=kind, help=text)
        spec.exit_code(
            701,
            "WARNING_SYSTEMS_FAILED",
            message="Some systems failed, the others did not: {message}",
            invalidates_cache=True,
        )

    @classmethod
    def check_parameters(cls, parameters: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the parameters of any system, or None."""
        systems = parameters.get("systems")
        if not isinstance(systems, Mapping) or not systems:
            return "systems is missing; give the parameters of each system by its name"
        misplaced = [name for name, system in systems.items() if "share_calls" in system]
        if misplaced:
            return f"share_calls stands in system {misplaced[0]}; it is for all of them, give it beside systems"
        if not isinstance(parameters.get("share_calls", False), bool):
            return f"share_calls is {parameters['share_calls']!r}; give true or false"
        return first_message(_check_system(name, {**parameters, **own}) for name, own in systems.items())

    def write_inputs(self, files: JobFiles, parameters: dict[str, Any]) -> dict[str, Any]:
        """Put model, framework and checkpoints into files; the gas goes into the parameters."""
        parameters["gas"] = self.inputs.gas.get_dict()
        checkpoints = self.inputs.get("checkpoints", {})
        return {
            "model": files.copy(self.inputs.model, "model.model"),
            "structure": files.structure(self.inputs.structure),
            "checkpoints": {name: files.copy(node, f"checkpoint_{name}.npz") for name, node in checkpoints.items()},
        }
