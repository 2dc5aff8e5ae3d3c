"""From the files of a molecular-dynamics run to nodes."""

from __future__ import annotations

from typing import Any

from .base import WorkerParser

__all__ = ["MaceMdParser"]


class MaceMdParser(WorkerParser):
    """Attach trajectory, observables and checkpoint.

    A run that was stopped may have no frames yet, and one that blew up leaves no checkpoint, for it must not go on.
    """

    def emit(self, results: dict[str, Any], finished: bool) -> None:
        """Attach the outputs of the program."""
        exploded = bool(results.get("explosion"))
        self.out_frames("trajectory", "frames.npz", required=finished and not exploded)
        self.out_arrays("observables", "observables.npz", required=finished)
        self.out_file("checkpoint", "checkpoint.npz", required=finished and not exploded)
