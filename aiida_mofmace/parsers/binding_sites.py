"""From the files of the relaxation of binding sites to nodes."""

from __future__ import annotations

from typing import Any

from .base import WorkerParser

__all__ = ["BindingSitesParser"]


class BindingSitesParser(WorkerParser):
    """Attach the relaxed structures."""

    def emit(self, results: dict[str, Any], finished: bool) -> None:
        """Attach the outputs of the program."""
        self.out_frames("trajectory", "frames.npz", required=finished)
