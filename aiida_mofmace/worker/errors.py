"""The one exception that a worker program raises on purpose."""

from __future__ import annotations

__all__ = ["WorkerError"]


class WorkerError(Exception):
    """A failure whose kind the parser turns into an exit code.

    :param kind: one of bad_input, nan, out_of_memory, explosion, does_not_fit, no_model, nothing_new, training_failed
    :param message: what failed and what to do, one sentence a person can act on
    """

    def __init__(self, kind: str, message: str):
        super().__init__(message)
        self.kind = kind
