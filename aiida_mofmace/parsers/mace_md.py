"""From the files of a molecular-dynamics run to nodes."""

from __future__ import annotations

from typing import Any

from .base import WorkerParser

__all__ = ["MaceMdParser"]


class MaceMdParser(WorkerParser):
    """Attach trajectory, observables and checkpoint; a run that was stopped in time may have no frames yet."""

    def emit(self, results: dict[str, Any], finished: bool) -> None:
        """Attach the outputs of the program."""
        self.out_frames("trajectory", "frames.npz", required=finished)
        self.out_arrays("observables", "observables.npz", required=finished)
        self.out_file("checkpoint", "checkpoint.npz", required=finished)
