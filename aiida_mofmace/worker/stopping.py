"""Graceful stops: a program asks at every step whether it should write what it has and leave."""

from __future__ import annotations

import signal
import time
from types import FrameType

__all__ = ["StopRequest"]


class StopRequest:
    """Knows whether the scheduler has asked for an end or the wall time is nearly used up.

    :param max_wall_seconds: seconds after construction at which to stop; None for no limit
    """

    def __init__(self, max_wall_seconds: float | None = None):
        self._end = None if max_wall_seconds is None else time.monotonic() + max_wall_seconds
        self._reason: str | None = None

    def listen(self) -> None:
        """Turn SIGTERM and SIGUSR1 (what schedulers send ahead of a kill) into a stop request."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGUSR1, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._reason = "SIGTERM"

    def ask(self, reason: str) -> None:
        """Ask for an end from within, as where another process of the same job has been told to stop."""
        self._reason = reason

    def reason(self) -> str | None:
        """Why to stop now ("SIGTERM", "walltime"), or None to go on."""
        if self._reason is not None:
            return self._reason
        if self._end is not None and time.monotonic() >= self._end:
            return "walltime"
        return None
