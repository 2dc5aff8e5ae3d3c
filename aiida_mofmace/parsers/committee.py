"""From the files of a committee evaluation to nodes."""

from __future__ import annotations

from typing import Any

from .base import WorkerParser

__all__ = ["CommitteeParser"]


class CommitteeParser(WorkerParser):
    """Attach predictions and, if any frame lies in the window, the candidates."""

    def emit(self, results: dict[str, Any], finished: bool) -> None:
        """Attach the outputs of the program."""
        self.out_arrays("predictions", "predictions.npz", required=finished)
        self.out_frames("candidates", "candidates.npz", required=False)
