"""From the files of test-particle insertions to nodes."""

from __future__ import annotations

from typing import Any

from .base import WorkerParser

__all__ = ["WidomParser"]


class WidomParser(WorkerParser):
    """Attach time series, checkpoint and, if a guard tripped, the frames that tripped it."""

    def emit(self, results: dict[str, Any], finished: bool) -> None:
        """Attach the outputs of the program."""
        self.out_arrays("timeseries", "timeseries.npz", required=finished)
        self.out_file("checkpoint", "checkpoint.npz", required=finished)
        self.out_frames("candidates", "candidates.npz", required=False)
