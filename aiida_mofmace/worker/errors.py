"""The one exception that a worker program raises on purpose, and how any exception is reported."""

from __future__ import annotations

__all__ = ["WorkerError", "describe_error", "is_out_of_memory"]

#: What numpy, torch, cuBLAS and the operating system say of it, in lower case.
_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate",
    "cublas_status_alloc_failed",
)


class WorkerError(Exception):
    """A failure whose kind the parser turns into an exit code.

    :param kind: one of bad_input, nan, out_of_memory, explosion, does_not_fit, no_model, nothing_new, training_failed,
        wrong_engine, engine_failed
    :param message: what failed and what to do, one sentence a person can act on
    """

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory could not be had, of the machine or of a GPU."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)


def describe_error(error: Exception) -> dict[str, str]:
    """Return type and message of an exception in the form of ``output.json``."""
    if isinstance(error, WorkerError):
        return {"type": error.kind, "message": str(error)}
    kind = "out_of_memory" if is_out_of_memory(error) else type(error).__name__
    return {"type": kind, "message": str(error) or type(error).__name__}
