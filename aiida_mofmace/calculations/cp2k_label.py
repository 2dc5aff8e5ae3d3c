"""A label by CP2K: energy, forces and stress of one structure at one level of theory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from aiida import orm
from aiida.common import CalcInfo
from aiida.common.folders import Folder
from aiida.engine.processes.process_spec import CalcJobProcessSpec
from aiida_cp2k.calculations import Cp2kCalculation

from aiida_mofmace.data.label import DftLabelData
from aiida_mofmace.data.level import LevelOfTheory

from .base import WALL_FRACTION

__all__ = ["Cp2kLabelCalculation", "validate_cp2k_code", "validate_level", "validate_structure_at_level"]

_CP2K_PLUGINS = ("cp2k", "mofmace.cp2k_label")


def validate_cp2k_code(code: orm.AbstractCode | None, _: Any) -> str | None:
    """Refuse a code that is not CP2K."""
    plugin = code.default_calc_job_plugin if code is not None else None
    if code is None or plugin is None or plugin in _CP2K_PLUGINS:
        return None
    return f"code {code.label} is set up for {plugin}; give a code of CP2K, with the default plugin 'cp2k'"


def validate_level(level: orm.Dict | None, _: Any) -> str | None:
    """Refuse a level of theory that cannot be read or whose hash does not belong to its settings."""
    if level is None:
        return None
    try:
        LevelOfTheory.from_dict(level.get_dict())
    except (ValueError, TypeError, AttributeError) as error:
        return f"{error}; give LevelOfTheory.load(name).to_dict()"
    return None


def validate_structure_at_level(inputs: Mapping[str, Any], program: str) -> str | None:
    """Refuse a level of theory of another program and a structure that it cannot do."""
    if not {"structure", "level"} <= set(inputs):
        return None
    level = LevelOfTheory.from_dict(inputs["level"].get_dict())
    if level.program != program:
        return f"level {level.name} is computed by {level.program}, not by {program}; take a level of {program}"
    return level.refusal(inputs["structure"])


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse what CP2K cannot label at this level."""
    return validate_structure_at_level(inputs, "cp2k")


class Cp2kLabelCalculation(Cp2kCalculation):  # type: ignore[misc]
    """A single point of CP2K whose energy, forces and stress are one label.

    ``parameters`` is CP2K's input, from :meth:`LevelOfTheory.cp2k_parameters`; ``level`` says what the label counts as.
    """

    CACHE_VERSION = 1
    _DEFAULT_PARSER = "mofmace.cp2k_label"

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare ports and exit codes."""
        super().define(spec)
        spec.inputs["code"].validator = validate_cp2k_code
        spec.inputs["code"].help = "CP2K."
        spec.inputs["structure"].required = True
        spec.inputs["structure"].help = "Periodic structure, positions and cell in Å, kinds named as their elements."
        spec.input(
            "level",
            valid_type=orm.Dict,
            validator=validate_level,
            help="Level of theory as given by LevelOfTheory.load(name).to_dict().",
        )
        spec.input(
            "rescue",
            valid_type=orm.List,
            required=False,
            help="Names of the remedies that were tried for this label up to this run; the label's flags say them.",
        )
        spec.inputs.validator = validate_inputs
        spec.inputs["metadata"]["options"]["withmpi"].default = False
        spec.inputs["metadata"]["options"]["resources"].default = lambda: {
            "num_machines": 1,
            "num_mpiprocs_per_machine": 1,
            "num_cores_per_mpiproc": 1,
        }
        spec.outputs["output_parameters"].required = False
        spec.outputs["output_parameters"].help = "CP2K's figures of a run that gave no label; a label holds its own."
        spec.output(
            "label",
            valid_type=DftLabelData,
            required=False,
            help="Energy (eV), forces (n, 3) in eV/Å, stress (3, 3) in eV/Å³ with ASE's sign.",
        )
        codes = (
            (210, "ERROR_OUTPUT_MISSING", "CP2K left no output file; see the scheduler's messages.", True),
            (303, "ERROR_OUTPUT_INCOMPLETE", "CP2K's output stops before its end: the job was killed.", True),
            (304, "ERROR_OUTPUT_CONTAINS_ABORT", "CP2K aborted, its input needs a change: {message}", True),
            (305, "ERROR_FORCES_MISSING", "CP2K's output has no {what}; its printing must be ON in the level.", False),
            (306, "ERROR_WRONG_ATOMS", "CP2K's forces are not those of the structure's atoms: {message}", False),
            (307, "ERROR_NOT_A_NUMBER", "The {what} of CP2K's output hold a value that is not a number.", False),
            (350, "ERROR_UNEXPECTED_PARSER_EXCEPTION", "The parser failed, please report this: {message}", True),
            (400, "ERROR_OUT_OF_WALLTIME", "CP2K ran out of wall time; restart it with more.", True),
            (401, "ERROR_OUT_OF_MEMORY", "CP2K ran out of memory; give the job more or use fewer processes.", True),
            (402, "ERROR_INTERMEDIATE_SETTINGS", "Converged with settings that change the energy: no label.", False),
            (450, "ERROR_SCF_NOT_CONVERGED", "The self-consistent field did not converge in {steps} steps.", False),
        )
        for status, label, message, invalidates_cache in codes:
            spec.exit_code(status, label, message=message, invalidates_cache=invalidates_cache)

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write CP2K's input and coordinates; of what it leaves only the output file is needed."""
        calcinfo: CalcInfo = super().prepare_for_submission(folder)
        calcinfo.retrieve_list = [self._DEFAULT_OUTPUT_FILE]
        self._limit_wall_time(Path(folder.get_abs_path(self._DEFAULT_INPUT_FILE)))
        level = LevelOfTheory.from_dict(self.inputs.level.get_dict())
        if level.magnetization:
            atoms = self.inputs.structure.get_ase()
            names = level.kind_names(self.inputs.structure)
            rows = [
                f"{name} {x:.16f} {y:.16f} {z:.16f}" for name, (x, y, z) in zip(names, atoms.positions, strict=True)
            ]
            text = "\n".join([str(len(atoms)), "kinds by their magnetization", *rows])
            Path(folder.get_abs_path(self._DEFAULT_COORDS_FILE_NAME)).write_text(f"{text}\n", encoding="utf-8")
        calcinfo.prepend_text = f"export OMP_NUM_THREADS={self._threads()}"
        return calcinfo

    def _threads(self) -> int:
        """Return the threads of each process; a CP2K without MPI is a single one and has all cores of the job."""
        options, code = self.inputs.metadata.options, self.inputs.code
        has_mpi = options.withmpi if code.with_mpi is None else code.with_mpi
        processes = 1 if has_mpi else options.resources.get("num_mpiprocs_per_machine") or 1
        return int(processes) * int(options.resources.get("num_cores_per_mpiproc") or 1)

    def _limit_wall_time(self, path: Path) -> None:
        """Let CP2K end by itself before the scheduler ends it, and write what it has.

        This is no input node, for a label is the same with more wall time and should then come from the cache.
        """
        seconds = self.inputs.metadata.options.get("max_wallclock_seconds")
        if seconds and "WALLTIME" not in self.inputs.parameters.get_dict().get("GLOBAL", {}):
            text, line = path.read_text(encoding="utf-8"), f"   WALLTIME {int(WALL_FRACTION * seconds)}"
            path.write_text(text.replace("&GLOBAL\n", f"&GLOBAL\n{line}\n", 1), encoding="utf-8")

    def encode_input_args(self, inputs: Mapping[str, Any]) -> str:
        """Return inputs for a checkpoint; AiiDA saves them as given and with defaults, the nodes once is enough."""
        if inputs is self.raw_inputs:
            inputs = {name: value for name, value in inputs.items() if not isinstance(value, orm.Node)}
        return cast(str, super().encode_input_args(inputs))

    def update_outputs(self) -> None:
        """Link new outputs, if any: AiiDA asks the database for the known ones at every change of state."""
        if self.outputs:
            super().update_outputs()
