"""From CP2K's output file to a label."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ExitCode

from aiida_mofmace.data.label import DftLabelData, nearest_distance
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.worker.results import to_plain

from .careful import CarefulParser
from .cp2k_output import parse_cp2k_output

__all__ = ["Cp2kLabelParser"]

#: Exit codes that AiiDA's scheduler plugins set before the parser is called.
_SCHEDULER_OUT_OF_MEMORY = 110
_SCHEDULER_OUT_OF_WALLTIME = 120


class Cp2kLabelParser(CarefulParser):
    """Make a :class:`DftLabelData` of a single point that is complete, converged and made of numbers."""

    def examine(self) -> ExitCode | None:
        """Attach the label, or CP2K's figures where there is none."""
        name = self.node.get_option("output_filename")
        if name not in self.retrieved.base.repository.list_object_names():
            return self._killed() or self.failure("ERROR_OUTPUT_MISSING")
        content = self.retrieved.base.repository.get_object_content(name, mode="rb").decode(errors="replace")
        if not content.strip():
            return self._killed() or self.failure("ERROR_OUTPUT_MISSING")
        parsed = parse_cp2k_output(content)
        inputs = self.node.base.links.get_incoming(link_type=LinkType.INPUT_CALC).nested()
        problem = self._problem_of_run(parsed) or self._problem_of_result(parsed, inputs)
        if problem is None:
            self.out("label", _label(parsed, inputs, _symbols(inputs["structure"])))
            return None
        arrays = ("forces", "stress", "force_symbols")
        self.out("output_parameters", orm.Dict(to_plain({k: v for k, v in parsed.items() if k not in arrays})))
        return problem

    def _problem_of_result(self, parsed: dict[str, Any], inputs: Mapping[str, Any]) -> ExitCode | None:
        """Return why what a complete run gave is no label of its structure at its level."""
        problem = self._problem_of_numbers(parsed, inputs["parameters"].get_dict(), _symbols(inputs["structure"]))
        if problem is None and _is_intermediate(inputs):
            return self.failure("ERROR_INTERMEDIATE_SETTINGS")
        return problem

    def _killed(self) -> ExitCode | None:
        """Return why the scheduler ended the job, if it said so."""
        if self.node.exit_status == _SCHEDULER_OUT_OF_MEMORY:
            return self.failure("ERROR_OUT_OF_MEMORY")
        if self.node.exit_status == _SCHEDULER_OUT_OF_WALLTIME:
            return self.failure("ERROR_OUT_OF_WALLTIME")
        return None

    def _problem_of_run(self, parsed: dict[str, Any]) -> ExitCode | None:
        """Return what kept CP2K from the end; the first cause comes first."""
        if parsed["out_of_memory"] and not parsed["finished"]:
            return self.failure("ERROR_OUT_OF_MEMORY")
        if parsed["walltime_exceeded"]:
            return self.failure("ERROR_OUT_OF_WALLTIME")
        if parsed["scf_converged"] is False:
            return self.failure("ERROR_SCF_NOT_CONVERGED", steps=parsed["scf_steps"])
        if parsed["abort"]:
            return self.failure("ERROR_OUTPUT_CONTAINS_ABORT", message=parsed["abort"])
        if not parsed["finished"]:
            return self._killed() or self.failure("ERROR_OUTPUT_INCOMPLETE")
        return None

    def _problem_of_numbers(
        self, parsed: dict[str, Any], parameters: dict[str, Any], symbols: list[str]
    ) -> ExitCode | None:
        """Return what is wrong with energy, forces or stress of a run that reached its end."""
        wanted = ["energy", "forces"]
        if "STRESS_TENSOR" in parameters["FORCE_EVAL"]:
            wanted.append("stress")
        for what in wanted:
            if parsed[what] is None:
                return self.failure("ERROR_FORCES_MISSING", what=what)
        if len(parsed["forces"]) != len(symbols):
            message = f"{len(parsed['forces'])} rows for {len(symbols)} atoms"
            return self.failure("ERROR_WRONG_ATOMS", message=message)
        if parsed["force_symbols"] not in (None, symbols):
            return self.failure("ERROR_WRONG_ATOMS", message="the elements stand in another order")
        for what in wanted:
            if not _is_finite(parsed[what]):
                return self.failure("ERROR_NOT_A_NUMBER", what=what)
        return None


def _label(parsed: dict[str, Any], inputs: Mapping[str, Any], symbols: list[str]) -> DftLabelData:
    return DftLabelData(
        energy=parsed["energy"],
        forces=parsed["forces"],
        stress=parsed["stress"],
        symbols=symbols,
        converged=True,
        level_of_theory=LevelOfTheory.from_dict(inputs["level"].get_dict()).summary,
        program_version=f"CP2K {parsed['version']}",
        warnings=parsed["warnings"],
        flags=_flags(inputs),
        minimum_distance=nearest_distance(inputs["structure"]),
        band_gap=to_plain(parsed["band_gap"]),
        absolute_spin=to_plain(parsed["absolute_spin"]),
        scf_steps=parsed["scf_steps"],
        scf_convergence=parsed["scf_convergence"],
        wall_seconds=to_plain(parsed["wall_seconds"]),
    )


def _is_intermediate(inputs: Mapping[str, Any]) -> bool:
    """Return whether the settings change energies, so that the result is none of this level of theory."""
    content = {key: value for key, value in inputs["level"].get_dict().items() if key != "hash"}
    level = LevelOfTheory.from_dict(content)
    used = inputs["parameters"].get_dict()
    scf = used["FORCE_EVAL"]["DFT"].get("SCF", {})
    content["cp2k_input"]["FORCE_EVAL"]["DFT"]["SCF"] = scf
    return LevelOfTheory.from_dict(content).hash != level.hash


def _flags(inputs: Mapping[str, Any]) -> list[str]:
    """Return how the label was rescued: from a wave function, and with what other settings before or in this run."""
    asked = inputs["level"].get_dict()["cp2k_input"]["FORCE_EVAL"]["DFT"].get("SCF", {})
    used = inputs["parameters"].get_dict()["FORCE_EVAL"]["DFT"].get("SCF", {})
    other = {key for key in {*asked, *used} if asked.get(key) != used.get(key)}
    restarted = ["restarted"] if "parent_calc_folder" in inputs else []
    tried = inputs["rescue"].get_list() if "rescue" in inputs else []
    named = [f"scf_remedy: {name}" for name in tried]
    return restarted + (named or (["scf_remedy"] if other - {"SCF_GUESS"} else []))


def _symbols(structure: orm.StructureData) -> list[str]:
    """Return the element of each atom, in order."""
    return [structure.get_kind(site.kind_name).symbol for site in structure.sites]


def _is_finite(value: Any) -> bool:
    return all(_is_finite(item) for item in value) if isinstance(value, list) else math.isfinite(value)
