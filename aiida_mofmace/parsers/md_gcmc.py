"""From the files of a hybrid MD-GCMC run to nodes."""

from __future__ import annotations

from typing import Any

from .base import WorkerParser

__all__ = ["MdGcmcParser"]


class MdGcmcParser(WorkerParser):
    """Attach trajectory, time series, checkpoint and, if a guard tripped, the frames that tripped it.

    A run that blew up leaves no checkpoint, for it must not go on.
    """

    def emit(self, results: dict[str, Any], finished: bool) -> None:
        """Attach the outputs of the program."""
        self.out_frames("trajectory", "frames.npz", required=False)
        self.out_arrays("timeseries", "timeseries.npz", required=finished)
        self.out_file("checkpoint", "checkpoint.npz", required=finished and not results.get("explosion"))
        self.out_frames("candidates", "candidates.npz", required=False)
