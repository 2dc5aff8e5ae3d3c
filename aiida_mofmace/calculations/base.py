"""What all jobs that run a worker program have in common: the worker is shipped with the job."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from aiida import orm
from aiida.common import CalcInfo, CodeInfo
from aiida.common.folders import Folder
from aiida.engine import CalcJob
from aiida.engine.processes.process_spec import CalcJobProcessSpec
from ase.io import write

from .validators import check_code, check_options, first_message

__all__ = ["WALL_FRACTION", "WORKER_FOLDER", "JobFiles", "WorkerCalculation", "worker_digest", "worker_sources"]

WORKER_FOLDER = "mofmace_worker"
_WORKER_SOURCE = Path(__file__).parent.parent / "worker"
#: Part of the scheduler's wall time after which a program stops by itself and still writes what it has.
WALL_FRACTION = 0.9


def worker_sources(folder: Path = _WORKER_SOURCE) -> dict[str, bytes]:
    """Return the source files of the worker by their path inside its package."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.py"))}


#: A daemon ships the worker that it began with. An upgrade of the package below it would send a new one, whose output
#: the old parser reads and whose results are kept under the old version.
_SOURCES = worker_sources()


def worker_digest(sources: Mapping[str, bytes] = _SOURCES) -> int:
    """Return a number that changes with any source file of the worker: the version under which results are cached."""
    digest = hashlib.sha256()
    for name, content in sources.items():
        digest.update(name.encode() + b"\0" + content + b"\0")
    return int.from_bytes(digest.digest()[:6], "big")


class JobFiles:
    """The input files of one job: contents to write and files of nodes to copy."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self.copies: list[tuple[str, str, str]] = []

    def write(self, name: str, content: str | bytes) -> str:
        """Write a file into the job's folder and return its name."""
        data = content.encode() if isinstance(content, str) else content
        self._folder.create_file_from_filelike(io.BytesIO(data), name, mode="wb")
        return name

    def copy(self, node: orm.SinglefileData, name: str) -> str:
        """Have the file of a node copied to where the job runs, and return its name there."""
        self.copies.append((node.uuid, node.filename, name))
        return name

    def structure(self, node: orm.StructureData, name: str = "structure.extxyz") -> str:
        """Write a structure as extended XYZ and return the name of the file."""
        atoms = node.get_ase()
        atoms.set_tags(None)
        text = io.StringIO()
        write(text, atoms, format="extxyz", columns=["symbols", "positions"])
        return self.write(name, text.getvalue())


def validate_worker_code(code: orm.AbstractCode | None, _: Any) -> str | None:
    """Refuse a code that is no Python interpreter for the worker."""
    if code is not None and code.default_calc_job_plugin == "mofmace.cp2k_label":
        return f"code {code.label} is CP2K; give the code of the Python interpreter that runs the worker"
    return check_code(code, "mofmace.")


class WorkerCalculation(CalcJob):
    """A job that runs one program of the worker: ``python -m mofmace_worker PROGRAM input.json``.

    The worker's sources are written into the job's folder, so the machine needs public packages only and the code that
    ran is stored with the job. A subclass names its program and what comes back, and puts its inputs into files.
    """

    CACHE_VERSION = worker_digest()
    PROGRAM: ClassVar[str]
    RETRIEVED: ClassVar[tuple[str | tuple[str, str, int], ...]] = ()

    @classmethod
    def define(cls, spec: CalcJobProcessSpec) -> None:
        """Declare ports and exit codes."""
        super().define(spec)
        spec.inputs["code"].validator = validate_worker_code
        spec.inputs["code"].help = "Python interpreter with the packages of the extra `worker`."
        spec.input("seed", valid_type=orm.Int, help="Seed of every random number of the job.")
        spec.input(
            "parameters",
            valid_type=orm.Dict,
            validator=cls.validate_parameters,
            help="Parameters of the program, and `device` (auto, cpu, cuda) and `dtype` (float32, float64).",
        )
        spec.output("results", valid_type=orm.Dict, help="Figures of the run, versions of packages, wall time in s.")
        spec.default_output_node = "results"
        spec.inputs["metadata"]["options"]["resources"].default = lambda: {
            "num_machines": 1,
            "num_mpiprocs_per_machine": 1,
            "num_cores_per_mpiproc": 1,
        }
        spec.inputs["metadata"]["options"]["max_wallclock_seconds"].default = 3600
        spec.inputs["metadata"]["options"]["withmpi"].default = False
        spec.inputs["metadata"]["options"]["parser_name"].default = f"mofmace.{cls.entry_point_name()}"
        spec.inputs["metadata"]["options"]["input_filename"].default = "input.json"
        spec.inputs["metadata"]["options"]["output_filename"].default = "output.json"
        cls.define_exit_codes(spec)

    @classmethod
    def define_exit_codes(cls, spec: CalcJobProcessSpec) -> None:
        """Declare the exit codes that all worker programs share.

        Those that the machine may be to blame for are not cached: what was put right there has to be tried.
        """
        codes = (
            (301, "ERROR_NO_OUTPUT", "The job left no output.json: it was killed; see the scheduler's messages.", True),
            (302, "ERROR_OUTPUT_UNREADABLE", "The output cannot be read: {message}", True),
            (303, "ERROR_WORKER_FAILED", "The program failed: {message}", True),
            (304, "ERROR_BAD_INPUT", "The program refused its input: {message}", True),
            (305, "ERROR_NOT_A_NUMBER", "A result is not a number: {message}", False),
            (306, "ERROR_EXPLOSION", "The simulation blew up, look at its last frames: {message}", False),
            (307, "ERROR_WRONG_ENGINE", "The engine and a direct evaluation disagree: {message}", True),
            (310, "ERROR_OUTPUT_MISSING", "The job left no {file}, though it says that it finished.", True),
            (350, "ERROR_UNEXPECTED_PARSER_EXCEPTION", "The parser failed, please report this: {message}", True),
            (400, "ERROR_STOPPED_EARLY", "Stopped by {reason} before the end; restart from the checkpoint.", True),
            (401, "ERROR_OUT_OF_MEMORY", "Out of memory; give the job more or make it smaller: {message}", True),
        )
        for status, label, message, invalidates_cache in codes:
            spec.exit_code(status, label, message=message, invalidates_cache=invalidates_cache)

    @classmethod
    def entry_point_name(cls) -> str:
        """Return the name of the calculation and its parser without the prefix, which is the name of its module."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def validate_parameters(cls, parameters: orm.Dict | None, _: Any) -> str | None:
        """Return what is wrong with the parameters, or None."""
        if parameters is None:
            return None
        content = parameters.get_dict()
        return first_message([check_options(content), cls.check_parameters(content)])

    @classmethod
    def check_parameters(cls, parameters: Mapping[str, Any]) -> str | None:
        """Return what is wrong with the parameters of this program, or None."""
        return None

    def write_inputs(self, files: JobFiles, parameters: dict[str, Any]) -> dict[str, Any]:
        """Put the inputs into files; may add to the parameters.

        :return: the entry `files` of input.json: names of the files by purpose
        """
        raise NotImplementedError

    def prepare_for_submission(self, folder: Folder) -> CalcInfo:
        """Write the worker, its inputs and input.json into the folder of the job."""
        files = JobFiles(folder)
        for name, source in _SOURCES.items():
            folder.get_subfolder(str(Path(WORKER_FOLDER, name).parent), create=True)
            files.write(f"{WORKER_FOLDER}/{name}", source)
        parameters: dict[str, Any] = self.inputs.parameters.get_dict()
        options = self.inputs.metadata.options
        content = {
            "program": self.PROGRAM,
            "seed": self.inputs.seed.value,
            "device": parameters.pop("device", "auto"),
            "dtype": parameters.pop("dtype", "float64"),
            "max_wall_seconds": WALL_FRACTION * options.max_wallclock_seconds,
            "files": self.write_inputs(files, parameters),
            "parameters": parameters,
        }
        files.write("input.json", json.dumps(content, indent=1, sort_keys=True, allow_nan=False))
        codeinfo = CodeInfo()
        codeinfo.code_uuid = self.inputs.code.uuid
        codeinfo.cmdline_params = [*self.launcher(parameters), "-m", WORKER_FOLDER, self.PROGRAM, "input.json"]
        codeinfo.stdout_name = "worker.out"
        codeinfo.stderr_name = "worker.err"
        calcinfo = CalcInfo()
        calcinfo.codes_info = [codeinfo]
        calcinfo.local_copy_list = files.copies
        calcinfo.retrieve_list = ["output.json", "worker.out", "worker.err", *self.RETRIEVED]
        calcinfo.prepend_text = self._environment(options.resources.get("num_cores_per_mpiproc") or 1)
        return calcinfo

    def launcher(self, parameters: Mapping[str, Any]) -> list[str]:
        """Return the arguments of the interpreter that start the worker, none for a single process."""
        return []

    @staticmethod
    def _environment(cores: int) -> str:
        """Return shell lines that keep every library to the cores of the job, and the folder to the files it needs."""
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
        return "\n".join([*(f"export {name}={cores}" for name in names), "export PYTHONDONTWRITEBYTECODE=1"])
