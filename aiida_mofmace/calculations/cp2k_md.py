"""Molecular dynamics with CP2K: frames that are labels already, at the level of theory of all others."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common import CalcInfo
from aiida.common.folders import Folder
from aiida.engine.processes.process_spec import CalcJobProcessSpec

from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.data.level import LevelOfTheory

from .cp2k_label import Cp2kLabelCalculation, validate_structure_at_level

__all__ = [
    "FORCES_FILE",
    "POSITIONS_FILE",
    "RESTART_FILE",
    "Cp2kMdCalculation",
    "continued_parameters",
    "md_parameters",
]

POSITIONS_FILE, FORCES_FILE, RESTART_FILE = "aiida-pos-1.xyz", "aiida-frc-1.xyz", "aiida-1.restart"
_SETTINGS = {"temperature", "timestep_fs", "steps", "stride", "thermostat_time_fs"}


def md_parameters(
    level: LevelOfTheory, structure: orm.StructureData, settings: Mapping[str, float], seed: int
) -> dict[str, Any]:
    """Return CP2K's input for dynamics at constant temperature with a chain of Nosé-Hoover thermostats.

    :param level: level of theory of CP2K
    :param structure: where it begins
    :param settings: ``temperature`` (K), ``timestep_fs``, ``steps``, ``stride`` (steps between two frames) and
        ``thermostat_time_fs``
    :param seed: of the velocities
    :raises ValueError: if the level cannot do the structure, or settings are missing or unknown
    """
    if set(settings) != _SETTINGS:
        raise ValueError(f"settings of the dynamics: {', '.join(sorted(_SETTINGS))}, not {', '.join(sorted(settings))}")
    parameters = level.cp2k_parameters(structure)
    parameters["GLOBAL"] |= {"RUN_TYPE": "MD", "PRINT_LEVEL": "LOW", "SEED": int(seed)}
    evaluation = parameters["FORCE_EVAL"]
    every = {"EACH": {"MD": int(settings["stride"])}}
    # The stress in the output is that of the positions; the one of a trajectory file has the ideal gas's part in it.
    evaluation["PRINT"] = {"FORCES": {"_": "OFF"}, "STRESS_TENSOR": {"_": "ON", **every}}
    evaluation["DFT"].pop("PRINT", None)
    # Each step begins with what CP2K extrapolates from those before, not with the guess of a single point.
    evaluation["DFT"].get("QS", {}).pop("EXTRAPOLATION", None)
    parameters["MOTION"] = {
        "MD": {
            "ENSEMBLE": "NVT",
            "STEPS": int(settings["steps"]),
            "TIMESTEP": float(settings["timestep_fs"]),
            "TEMPERATURE": float(settings["temperature"]),
            "THERMOSTAT": {"TYPE": "NOSE", "NOSE": {"LENGTH": 3, "TIMECON": float(settings["thermostat_time_fs"])}},
        },
        "PRINT": {
            "TRAJECTORY": {"FORMAT": "XYZ", "UNIT": "angstrom", **every},
            "FORCES": {"_": "ON", "FORMAT": "XYZ", **every},
            "RESTART": {"BACKUP_COPIES": 1, **every},
            "RESTART_HISTORY": {"_": "OFF"},
        },
    }
    return parameters


def continued_parameters(parameters: Mapping[str, Any], last_step: int) -> dict[str, Any]:
    """Return the input that goes on where a run of these parameters left its restart file.

    Positions, velocities, thermostat and the count of the steps come from the restart file in the folder of that run,
    the first guess of the density from its wave function.

    :param parameters: CP2K's input of the whole run, from :func:`md_parameters`
    :param last_step: step of the restart file
    """
    changed = copy.deepcopy(dict(parameters))
    changed["MOTION"]["MD"]["STEPS"] -= last_step
    changed["EXT_RESTART"] = {"RESTART_FILE_NAME": f"./parent_calc/{RESTART_FILE}"}
    method = changed["FORCE_EVAL"]["DFT"]
    method["RESTART_FILE_NAME"] = f"./parent_calc/aiida-RESTART.{'kp' if 'KPOINTS' in method else 'wfn'}"
    method.setdefault("SCF", {})["SCF_GUESS"] = "RESTART"
    return changed


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse what CP2K cannot do at this level, and input without dynamics."""
    message = validate_structure_at_level(inputs, "cp2k")
    if message or "parameters" not in inputs:
        return message
    if "MD" not in inputs["parameters"].get_dict().get("MOTION", {}):
        return "the parameters ask for no dynamics; make them with md_parameters(level, structure, settings, seed)"
    framework = inputs.get("framework_atoms")
    if framework is not None and not 0 <= framework.value <= len(inputs["structure"].sites):
        return f"framework_atoms is {framework.value}, more than the structure has"
    return None


class Cp2kMdCalculation(Cp2kLabelCalculation):
    """Dynamics with CP2K whose frames come back as a trajectory with their energies and forces.

    ``parameters`` is CP2K's input, from :func:`md_parameters`. A run that meets its wall time or is killed gives the
    frames so far. A frame whose self-consistent field did not converge has no energy.
    """

    _DEFAULT_PARSER = "mofmace.cp2k_md"

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare ports and exit codes."""
        super().define(spec)
        spec.inputs.validator = validate_inputs
        spec.input(
            "framework_atoms",
            valid_type=orm.Int,
            required=False,
            help="Number of the first atoms that are the framework; all of them if not given.",
        )
        spec.input("loading", valid_type=orm.Int, required=False, help="Number of gas molecules; none if not given.")
        spec.input("group", valid_type=orm.Str, required=False, help="Name of the run in its frames, e.g. aimd_300K.")
        del spec.outputs["label"]
        spec.output(
            "trajectory",
            valid_type=FramesData,
            required=False,
            help="Frames with their energies in eV, the first one being the structure that the run began with.",
        )
        spec.output(
            "forces",
            valid_type=orm.ArrayData,
            required=False,
            help="Array `forces` in eV/Å, shape (frames, atoms, 3); array `stress` in eV/Å³ with ASE's sign, shape "
            "(frames, 3, 3), if the level has one.",
        )
        spec.exit_code(309, "ERROR_FRAMES_MISSING", message="CP2K left no complete frame: {message}")

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write CP2K's input; of what it leaves frames and restart file are needed besides the output file."""
        calcinfo = super().prepare_for_submission(folder)
        calcinfo.retrieve_list = [self._DEFAULT_OUTPUT_FILE, POSITIONS_FILE, FORCES_FILE, RESTART_FILE]
        return calcinfo
