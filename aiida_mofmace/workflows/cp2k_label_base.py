"""The restart layer of a CP2K label: what goes wrong now and then is put right here."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from aiida import orm
from aiida.common import AttributeDict
from aiida.engine import BaseRestartWorkChain, ProcessHandlerReport, if_, process_handler, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_mofmace.calculations.cp2k_label import (
    Cp2kLabelCalculation,
    validate_cp2k_code,
    validate_level,
    validate_structure_at_level,
)
from aiida_mofmace.data.level import LevelOfTheory

__all__ = ["Cp2kLabelBaseWorkChain", "apply_scf_remedy", "cp2k_label_inputs", "scf_remedies"]

_REMEDIES = Path(__file__).parent.parent / "protocols" / "remedies" / "cp2k_scf.yaml"
_CODES = Cp2kLabelCalculation.exit_codes


def scf_remedies(parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what to try, in order, where the self-consistent field of this CP2K input did not converge."""
    settings = parameters["FORCE_EVAL"]["DFT"]
    method = str(settings.get("QS", {}).get("METHOD", "GPW"))
    known: dict[str, list[dict[str, Any]]] = yaml.safe_load(_REMEDIES.read_text(encoding="utf-8"))
    remedies = known["xTB" if method.upper() == "XTB" else "GPW"]
    return [remedy for remedy in remedies if "KPOINTS" not in settings or remedy.get("k_points", True)]


def apply_scf_remedy(parameters: Mapping[str, Any], remedy: Mapping[str, Any]) -> dict[str, Any]:
    """Return CP2K's input with a remedy in its section &SCF.

    :param parameters: CP2K's input
    :param remedy: entry of :func:`scf_remedies`
    """
    changed = copy.deepcopy(dict(parameters))
    scf = changed["FORCE_EVAL"]["DFT"]["SCF"]
    for section in remedy.get("remove", ()):
        scf.pop(section, None)
    scf.update(copy.deepcopy(dict(remedy["scf"])))
    if "OUTER_SCF" in scf and "EPS_SCF" in scf:
        scf["OUTER_SCF"].setdefault("EPS_SCF", scf["EPS_SCF"])
    return changed


def cp2k_label_inputs(
    code: orm.AbstractCode, structure: orm.StructureData, level: orm.Dict, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the inputs of a first :class:`Cp2kLabelCalculation`.

    :param level: level of theory
    :param options: options of the job for the scheduler
    """
    theory = LevelOfTheory.from_dict(level.get_dict())
    return {
        "code": code,
        "structure": structure,
        "level": level,
        "parameters": orm.Dict(theory.cp2k_parameters(structure)),
        "metadata": {"options": dict(options), "label": f"{theory.name} of {structure.get_formula()}"},
    }


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse what CP2K cannot label at this level, and a folder that no label's job left."""
    creator = inputs["failed_run"].creator if "failed_run" in inputs else None
    if "failed_run" in inputs and (creator is None or not creator.is_failed):
        return "failed_run is not the folder of a job that failed; leave it out to start from the beginning"
    return validate_structure_at_level(inputs, "cp2k")


class Cp2kLabelBaseWorkChain(BaseRestartWorkChain):
    """Label one structure with CP2K, with restarts.

    A self-consistent field that does not converge gets other mixing, then orbital transformation, then smearing to
    begin with; a run that met its wall time goes on from its wave function; what was lost is computed once more. Wrong
    input is not tried again.
    """

    _process_class = Cp2kLabelCalculation

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        spec.input("code", valid_type=orm.AbstractCode, validator=validate_cp2k_code, help="CP2K.")
        spec.input("structure", valid_type=orm.StructureData, help="Periodic structure, positions and cell in Å.")
        spec.input(
            "level",
            valid_type=orm.Dict,
            validator=validate_level,
            help="Level of theory as given by LevelOfTheory.load(name).to_dict().",
        )
        spec.input(
            "options",
            valid_type=orm.Dict,
            required=False,
            help="Options of the job for the scheduler, e.g. resources and max_wallclock_seconds (s).",
        )
        spec.input(
            "failed_run",
            valid_type=orm.RemoteData,
            required=False,
            help="Folder of a job for this label that failed: it counts as the first try, and is put right.",
        )
        # Remedies, lost output and wall time each have an end of their own; one must not use up the tries of another.
        spec.inputs["max_iterations"].default = lambda: orm.Int(10)
        spec.inputs.validator = validate_inputs
        spec.outline(
            cls.setup,
            if_(cls.was_tried)(cls.inspect_process),
            while_(cls.should_run_process)(cls.run_process, cls.inspect_process),
            cls.results,
        )
        spec.expose_outputs(Cp2kLabelCalculation, include=("label", "output_parameters"))
        spec.exit_code(310, "ERROR_LABEL_IMPOSSIBLE", message="CP2K cannot label this structure as asked: {reason}")
        spec.exit_code(311, "ERROR_OUTPUT_LOST", message="The output was lost twice, look at the computer: {reason}")
        spec.exit_code(
            410,
            "ERROR_NO_PROGRESS",
            message="Out of wall time before the first SCF step; give a longer max_wallclock_seconds.",
        )
        spec.exit_code(
            501,
            "ERROR_SCF_NOT_CONVERGED",
            message="The self-consistent field converged with none of {n} remedies; look at the structure.",
        )

    def setup(self) -> None:
        """Make CP2K's input from structure and level."""
        super().setup()
        self.ctx.scf_remedies_tried = 0
        self.ctx.outputs_lost = 0
        options = self.inputs.options.get_dict() if "options" in self.inputs else {}
        self.ctx.inputs = AttributeDict(
            cp2k_label_inputs(self.inputs.code, self.inputs.structure, self.inputs.level, options)
        )
        self.ctx.level_parameters = self.ctx.inputs.parameters.get_dict()
        if self.was_tried():
            self.ctx.children = [self.inputs.failed_run.creator]
            self.ctx.iteration = 1

    def was_tried(self) -> bool:
        """Whether the first try has been made before."""
        return "failed_run" in self.inputs

    @process_handler(
        priority=600,
        exit_codes=[
            _CODES.ERROR_OUTPUT_CONTAINS_ABORT,
            _CODES.ERROR_FORCES_MISSING,
            _CODES.ERROR_WRONG_ATOMS,
            _CODES.ERROR_NOT_A_NUMBER,
            _CODES.ERROR_OUT_OF_MEMORY,
            _CODES.ERROR_UNEXPECTED_PARSER_EXCEPTION,
        ],
    )
    def handle_impossible(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport:
        """Give up where the same input would fail again, and say why."""
        return ProcessHandlerReport(
            True, self.exit_codes.ERROR_LABEL_IMPOSSIBLE.format(reason=calculation.exit_message)
        )

    @process_handler(priority=590, exit_codes=[_CODES.ERROR_OUT_OF_WALLTIME])
    def handle_out_of_walltime(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport:
        """Go on from the wave function of the run that met its wall time."""
        steps = (
            calculation.outputs.output_parameters.get("scf_steps") if "output_parameters" in calculation.outputs else 0
        )
        if not steps:
            return ProcessHandlerReport(True, self.exit_codes.ERROR_NO_PROGRESS)
        self._go_on_from(calculation, self.ctx.inputs.parameters.get_dict())
        self.report(f"out of wall time after {steps} steps, going on from the wave function")
        return ProcessHandlerReport(True)

    @process_handler(priority=410, exit_codes=[_CODES.ERROR_SCF_NOT_CONVERGED])
    def handle_scf_not_converged(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport:
        """Start again with the next remedy: other mixing, then orbital transformation where the method has it."""
        remedies = scf_remedies(self.ctx.inputs.parameters.get_dict())
        tried = self.ctx.scf_remedies_tried
        if tried >= len(remedies):
            return ProcessHandlerReport(True, self.exit_codes.ERROR_SCF_NOT_CONVERGED.format(n=len(remedies)))
        self.ctx.scf_remedies_tried += 1
        remedy = remedies[tried]
        parameters = apply_scf_remedy(self.ctx.level_parameters, remedy)
        if remedy.get("from_wave_function") and "remote_folder" in calculation.outputs:
            self._go_on_from(calculation, parameters)
        else:
            self.ctx.inputs.parameters = orm.Dict(parameters)
            self.ctx.inputs.pop("parent_calc_folder", None)
        self.ctx.inputs.rescue = orm.List([*self._rescued_by(), remedy["name"]])
        self.report(f"the self-consistent field did not converge, next try: {remedy['name']}")
        return ProcessHandlerReport(True)

    @process_handler(priority=420, exit_codes=[_CODES.ERROR_INTERMEDIATE_SETTINGS])
    def handle_intermediate_settings(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport:
        """Go back to the level's own settings, from the wave function that the helping ones converged to."""
        self._go_on_from(calculation, copy.deepcopy(self.ctx.level_parameters))
        self.report("converged with settings that change the energy, going on with those of the level")
        return ProcessHandlerReport(True)

    def _go_on_from(self, calculation: orm.CalcJobNode, parameters: dict[str, Any]) -> None:
        """Let the next run begin with the wave function that a run left."""
        method = parameters["FORCE_EVAL"]["DFT"]
        method["SCF"]["SCF_GUESS"] = "RESTART"
        method["RESTART_FILE_NAME"] = f"./parent_calc/aiida-RESTART.{'kp' if 'KPOINTS' in method else 'wfn'}"
        self.ctx.inputs.parameters = orm.Dict(parameters)
        self.ctx.inputs.parent_calc_folder = calculation.outputs.remote_folder

    def _rescued_by(self) -> list[str]:
        """Return the names of the remedies tried so far."""
        return list(self.ctx.inputs.rescue.get_list()) if "rescue" in self.ctx.inputs else []

    @process_handler(priority=400, exit_codes=[_CODES.ERROR_OUTPUT_MISSING, _CODES.ERROR_OUTPUT_INCOMPLETE])
    def handle_lost_output(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport:
        """Compute once more what was lost; a second loss is not by chance."""
        self.ctx.outputs_lost += 1
        if self.ctx.outputs_lost > 1:
            return ProcessHandlerReport(True, self.exit_codes.ERROR_OUTPUT_LOST.format(reason=calculation.exit_message))
        self.report("the output was lost, computing it once more")
        return ProcessHandlerReport(True)
