"""The one exception that a worker program raises on purpose, and how any exception is reported."""

from __future__ import annotations

__all__ = ["WorkerError", "describe_error"]


class WorkerError(Exception):
    """A failure whose kind the parser turns into an exit code.

    :param kind: one of bad_input, nan, out_of_memory, explosion, does_not_fit, no_model, nothing_new, training_failed
    :param message: what failed and what to do, one sentence a person can act on
    """

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def describe_error(error: Exception) -> dict[str, str]:
    """Return type and message of an exception in the form of ``output.json``."""
    if isinstance(error, WorkerError):
        return {"type": error.kind, "message": str(error)}
    kind = "out_of_memory" if "out of memory" in str(error).lower() else type(error).__name__
    return {"type": kind, "message": str(error) or type(error).__name__}
