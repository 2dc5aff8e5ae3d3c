"""From the files of a single point by tblite to a label."""

from __future__ import annotations

from typing import Any

from aiida.engine import ExitCode

from aiida_mofmace.data.label import DftLabelData, nearest_distance
from aiida_mofmace.data.level import LevelOfTheory

from .base import WorkerParser

__all__ = ["TbliteLabelParser"]


class TbliteLabelParser(WorkerParser):
    """Make a :class:`DftLabelData` of energy, forces and stress."""

    def emit(self, results: dict[str, Any], finished: bool) -> None:
        """Attach the label of a converged single point."""
        if not results.get("converged"):
            return
        arrays = self.arrays("label.npz")
        structure = self.node.inputs.structure
        label = DftLabelData(
            energy=float(arrays["energy"]),
            forces=arrays["forces"],
            stress=arrays.get("stress"),
            symbols=[structure.get_kind(site.kind_name).symbol for site in structure.sites],
            converged=True,
            level_of_theory=LevelOfTheory.from_dict(self.node.inputs.level.get_dict()).summary,
            program_version="tblite",
            minimum_distance=nearest_distance(structure),
        )
        self.out("label", label)

    def check(self, results: dict[str, Any]) -> ExitCode | None:
        """Return an exit code where the self-consistent field did not converge."""
        if results.get("converged"):
            return None
        return self.failure("ERROR_SCF_NOT_CONVERGED", message="tblite gave up")
