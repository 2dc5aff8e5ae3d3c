"""From the files of several hybrid MD-GCMC runs in one job to nodes of each."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.engine import ExitCode

from .base import WorkerParser

__all__ = ["MdGcmcBatchParser"]


class MdGcmcBatchParser(WorkerParser):
    """Attach what each system has left, whatever became of the others."""

    def emit(self, results: dict[str, Any], finished: bool) -> None:
        """Attach the outputs of all systems; of the results only how each ended stays with the job."""
        outcomes = results.get("systems", {})
        for name in self.node.inputs.parameters["systems"]:
            outcome = outcomes.get(name, {"status": "unknown", "results": {}, "error": None})
            self._emit_system(name, outcome["results"], outcome["status"] == "finished")
            if name in outcomes:
                message = {"message": outcome["error"]["message"]} if outcome["error"] else {}
                self.out(f"systems.{name}", orm.Dict({**outcome["results"], "status": outcome["status"], **message}))
        results["systems"] = {
            name: {"status": outcome["status"], "error": outcome["error"]} for name, outcome in outcomes.items()
        }

    def _emit_system(self, name: str, results: dict[str, Any], finished: bool) -> None:
        self.out_frames(f"trajectories.{name}", f"{name}/frames.npz", required=False)
        self.out_arrays(f"timeseries.{name}", f"{name}/timeseries.npz", required=finished)
        has_state = finished and not results.get("explosion")
        self.out_file(f"checkpoints.{name}", f"{name}/checkpoint.npz", required=has_state)
        self.out_frames(f"candidates.{name}", f"{name}/candidates.npz", required=False)

    def check(self, results: dict[str, Any]) -> ExitCode | None:
        """Return a warning if some systems have failed."""
        failed = {name: entry["error"] for name, entry in results["systems"].items() if entry["error"]}
        message = "; ".join(f"{name}: {error['message']}" for name, error in failed.items())
        return self.failure("WARNING_SYSTEMS_FAILED", message=message) if failed else None
