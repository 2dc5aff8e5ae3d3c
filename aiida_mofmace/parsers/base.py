"""What the parsers of all worker programs have in common."""

from __future__ import annotations

import io
from typing import Any
from zipfile import BadZipFile

import numpy as np
from aiida import orm
from aiida.engine import ExitCode

from aiida_mofmace.data.frames import FramesData

from .careful import CarefulParser
from .worker_output import ERROR_LABELS, parse_worker_output

__all__ = ["MissingOutput", "WorkerParser"]

#: Exit codes that AiiDA's scheduler plugins set before the parser is called.
_SCHEDULER_CODES = {110: "ERROR_OUT_OF_MEMORY", 120: "ERROR_STOPPED_EARLY"}


#: Failures of a run that was sound before: what it has written by then is worth keeping.
_BROKEN_OFF = ("ERROR_WORKER_FAILED", "ERROR_OUT_OF_MEMORY")


class MissingOutput(Exception):  # noqa: N818
    """A file that a finished program must have left is not there; the argument is its name."""


class WorkerParser(CarefulParser):
    """Read ``output.json``, hand its results on, and turn a failure into an exit code.

    A subclass turns the program's own files into nodes in :meth:`emit`. What a stopped program has left is handed on as
    well, so that the next job can go on from it.
    """

    def emit(self, results: dict[str, Any], finished: bool) -> None:
        """Attach the outputs of the program.

        :param results: figures of the run; may be added to, they become the output ``results``
        :param finished: False if the program was stopped before its end
        :raises MissingOutput: if a file is missing
        """

    def examine(self) -> ExitCode | None:
        """Read ``output.json`` and attach what the program left."""
        if not self.has("output.json"):
            self._emit_remains()
            label = _SCHEDULER_CODES.get(self.node.exit_status or 0, "ERROR_NO_OUTPUT")
            return self.failure(label, reason="the scheduler", message="killed by the scheduler")
        try:
            output = parse_worker_output(self.content("output.json").decode())
        except ValueError as invalid:
            self._emit_remains()
            return self.failure("ERROR_OUTPUT_UNREADABLE", message=str(invalid))
        return self._take(output)

    def _take(self, output: dict[str, Any]) -> ExitCode | None:
        """Attach what goes with a readable ``output.json``."""
        try:
            if output["error"] is not None:
                return self._failed(output)
            self.emit(output["results"], output["status"] == "finished")
        except MissingOutput as missing:
            return self.failure("ERROR_OUTPUT_MISSING", file=str(missing))
        except ValueError as invalid:
            return self.failure("ERROR_OUTPUT_UNREADABLE", message=str(invalid))
        self._out_results(output)
        if output["status"] == "stopped":
            return self.failure("ERROR_STOPPED_EARLY", reason=output["reason"] or "a signal")
        return self.check(output["results"])

    def _emit_remains(self) -> None:
        """Attach what a program that was killed or broke off has left, a checkpoint above all."""
        try:
            self.emit({}, False)
        except (MissingOutput, ValueError) as error:
            self.logger.warning(f"what the job left cannot be read: {error}")

    def _failed(self, output: dict[str, Any]) -> ExitCode:
        """Return the exit code of the error that the program named."""
        self._out_results(output)
        error = output["error"]
        label = ERROR_LABELS.get(str(error.get("type")), "ERROR_WORKER_FAILED")
        if label in _BROKEN_OFF:
            self._emit_remains()
        return self.failure(label, message=f"{error.get('message')} ({error.get('type')})")

    def check(self, results: dict[str, Any]) -> ExitCode | None:
        """Return an exit code for results that are whole but not good enough; None if they are."""
        return None

    def _out_results(self, output: dict[str, Any]) -> None:
        extra = {key: output[key] for key in ("versions", "wall_seconds", "status", "reason")}
        self.out("results", orm.Dict({**output["results"], **extra}))

    def has(self, name: str) -> bool:
        """Whether a file came back, in the job's folder or in one below it."""
        folder, _, file = name.rpartition("/")
        repository = self.retrieved.base.repository
        has_folder = not folder or folder in repository.list_object_names()
        return has_folder and file in repository.list_object_names(folder or None)

    def content(self, name: str) -> bytes:
        """Return the content of a file.

        :raises MissingOutput: if it did not come back
        """
        if not self.has(name):
            raise MissingOutput(name)
        return self.retrieved.base.repository.get_object_content(name, mode="rb")

    def arrays(self, name: str) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        """Return the arrays of an ``npz`` file; pickled ones are refused.

        :raises ValueError: if the file cannot be read
        """
        try:
            with np.load(io.BytesIO(self.content(name)), allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
            raise ValueError(f"{name} cannot be read: {error}") from error

    def out_arrays(self, label: str, name: str, required: bool = True) -> None:
        """Attach the arrays of an ``npz`` file as an output."""
        if required or self.has(name):
            self.out(label, orm.ArrayData(self.arrays(name)))

    def out_frames(self, label: str, name: str, required: bool = True) -> None:
        """Attach a file of frames as an output; one that may be missing may also be empty."""
        if required or (self.has(name) and len(self.arrays(name).get("offsets", ())) > 1):
            self.out(label, FramesData.from_bytes_of_file(self.content(name)))

    def out_file(self, label: str, name: str, required: bool = True) -> None:
        """Attach a file as it is as an output."""
        if required or self.has(name):
            self.out(label, orm.SinglefileData(io.BytesIO(self.content(name)), filename=name.rpartition("/")[2]))
