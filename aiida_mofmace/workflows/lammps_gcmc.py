"""Hybrid MD-GCMC by a LAMMPS that aiida-lammps runs: one chunk of a run, from one job."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import ExitCode, WorkChain, calcfunction, if_
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_mofmace.calculations import lammps_script
from aiida_mofmace.calculations.base import WALL_FRACTION, worker_digest
from aiida_mofmace.calculations.md_gcmc import MdGcmcCalculation
from aiida_mofmace.calculations.validators import check_lammps_exchange, check_lammps_gas, first_message
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.lammps_molecule import molecule_file
from aiida_mofmace.worker.lmp_gcmc import CANDIDATES
from aiida_mofmace.worker.results import to_plain

from .checks import check_launcher
from .fine_tune_base import last_lines
from .harvest import reason
from .lammps_gcmc_reading import GcmcReading
from .lammps_jobs import (
    lammps_job,
    read_checkpoint,
    text_file,
)

__all__ = ["LammpsGcmcWorkChain", "read_gcmc", "write_gcmc"]


_OUT_OF_MEMORY = 110  # what AiiDA's scheduler plugins say of such a job


def validate_inputs(inputs: Mapping[str, Any], _: Any) -> str | None:
    """Refuse what LAMMPS cannot do, a program that nobody puts right, and the state of another engine."""
    if not {"gcmc", "lammps_code"} <= set(inputs) or not {"parameters", "gas"} <= set(inputs["gcmc"]):
        return None
    job = inputs["gcmc"]
    parameters = {**job["parameters"].get_dict(), "engine": "lammps"}
    return first_message(
        [
            check_launcher(inputs["lammps_code"]),
            check_lammps_exchange(parameters),
            check_lammps_gas(parameters, job["gas"]),
            _check_state(job["checkpoint"]) if "checkpoint" in job else None,
        ]
    )


def _check_state(checkpoint: orm.SinglefileData) -> str | None:
    try:
        _, arrays, _ = read_checkpoint(checkpoint)
    except WorkerError as error:
        return str(error)
    return None if "lammps_restart" in arrays else "the checkpoint is of another engine; begin without one"


@calcfunction
def write_gcmc(checkpoint: orm.SinglefileData, parameters: orm.Dict) -> dict[str, orm.SinglefileData]:
    """Return script and molecule, and the structure or the restart file to begin with.

    :param checkpoint: of the worker's program ``md_gcmc``, or of :func:`read_gcmc`
    :param parameters: of the run, and gas, pair_style, model, wall_seconds and lammps_seed
    """
    (state, arrays, _), content = read_checkpoint(checkpoint), parameters.get_dict()
    gas = Gas.from_dict(content["gas"])
    first = len(np.unique(state.numbers[: state.framework_atoms])) + 1
    files = {"molecule": text_file(molecule_file(gas, first), lammps_script.MOLECULE)}
    if "lammps_restart" in arrays:
        restart = io.BytesIO(arrays["lammps_restart"].tobytes())
        files["restart"] = orm.SinglefileData(restart, filename=lammps_script.RESTART)
        script = lammps_script.restart_script(content, state, gas)
    else:
        files["structure"] = text_file(lammps_script.structure_file(state, gas), lammps_script.STRUCTURE)
        script = lammps_script.first_script(content, state, gas)
    return {**files, "script": text_file(script, "script.in")}


@calcfunction
def read_gcmc(retrieved: orm.FolderData, checkpoint: orm.SinglefileData, parameters: orm.Dict) -> dict[str, Any]:
    """Return results, and trajectory, timeseries, candidates and checkpoint where there are any.

    The time series and all averages are those of the whole run, the frames those of this job.

    :param retrieved: files of the job
    :param checkpoint: that it began with
    :param parameters: as given to :func:`write_gcmc`
    """
    reading = GcmcReading(retrieved, checkpoint, parameters.get_dict())
    outputs: dict[str, Any] = {"results": orm.Dict(to_plain(reading.results()))}
    if len(reading.series["step"]):
        outputs["timeseries"] = orm.ArrayData(reading.series)
    for name, images in (("trajectory", reading.images), ("candidates", reading.candidates)):
        if images:
            outputs[name] = FramesData.from_frames(Frames.from_atoms(images))
    if reading.is_sound and reading.restart is not None:
        outputs["checkpoint"] = reading.checkpoint()
    return outputs


class LammpsGcmcWorkChain(WorkChain):
    """Hybrid MD-GCMC as :class:`MdGcmcCalculation` does it, by ``fix gcmc`` in a LAMMPS that aiida-lammps runs.

    Without a checkpoint the worker loads the pores, draws momenta and makes one step; LAMMPS goes on from there once
    its energy and forces are those that the worker has found. One job; one that the wall time stops leaves a
    checkpoint to go on from.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        spec.expose_inputs(MdGcmcCalculation, namespace="gcmc")
        spec.input("lammps_code", valid_type=orm.AbstractCode, help="mofmace-lmp, set up for `lammps.raw`.")
        spec.inputs.validator = validate_inputs
        outputs = ("trajectory", "timeseries", "results", "checkpoint", "candidates")
        spec.expose_outputs(MdGcmcCalculation, include=outputs)
        spec.outputs["results"].required = False
        spec.outline(
            cls.setup, if_(cls.should_run_start)(cls.run_start, cls.inspect_start), cls.run_lammps, cls.inspect_lammps
        )
        spec.exit_code(301, "ERROR_NO_OUTPUT", message="LAMMPS was killed before its end: {message}")
        spec.exit_code(306, "ERROR_EXPLOSION", message="The simulation blew up before its first block: {message}")
        spec.exit_code(307, "ERROR_WRONG_ENGINE", message="The engine and a direct evaluation disagree: {message}")
        spec.exit_code(308, "ERROR_START_FAILED", message="The worker made no first frame: {message}")
        spec.exit_code(313, "ERROR_LAMMPS_FAILED", message="{message} {log}")
        spec.exit_code(400, "ERROR_STOPPED_EARLY", message="Stopped before the end; restart from the checkpoint.")

    def setup(self) -> None:
        """Take the parameters of the run."""
        inputs = self.inputs.gcmc
        self.ctx.options = dict(inputs.metadata.options)
        content = {
            **inputs.parameters.get_dict(),
            "gas": inputs.gas.get_dict(),
            "pair_style": "mliap unified",
            "model": lammps_script.model_name(inputs.model.filename),
            "wall_seconds": WALL_FRACTION * self.ctx.options["max_wallclock_seconds"],
            "check_first_frame": True,
            "worker": worker_digest(),
            "lammps_seed": 1 + inputs.seed.value % (2**31 - 2),
        }
        content["fugacity"] = content.get("fugacity") or content["pressure"]
        self.ctx.parameters = orm.Dict(content).store()  # or no checkpoint of this process could be written
        self.ctx.checkpoint = inputs.checkpoint if "checkpoint" in inputs else None

    def should_run_start(self) -> bool:
        """Whether there is no state yet to go on from."""
        return self.ctx.checkpoint is None

    def run_start(self) -> dict[str, Any]:
        """Have the worker make the frame that LAMMPS begins with, and its energy and forces in double precision."""
        inputs = dict(self.exposed_inputs(MdGcmcCalculation, "gcmc"))
        single = {"engine": "native", "dtype": "float64", "steps": 1, "stride": 2, "md_steps_per_attempt": 2}
        inputs["parameters"] = orm.Dict({**inputs["parameters"].get_dict(), **single})
        inputs["metadata"] = {**inputs["metadata"], "call_link_label": "start", "label": "First step"}
        return {"start": self.submit(MdGcmcCalculation, **inputs)}

    def inspect_start(self) -> ExitCode | None:
        """Take the first frame."""
        node = self.ctx.start
        if not node.is_finished_ok or "checkpoint" not in node.outputs:
            codes = MdGcmcCalculation.exit_codes
            was_killed = node.exit_status in (codes.ERROR_NO_OUTPUT.status, codes.ERROR_STOPPED_EARLY.status)
            return self._exit("ERROR_NO_OUTPUT" if was_killed else "ERROR_START_FAILED", message=reason(node))
        self.ctx.checkpoint = node.outputs.checkpoint
        return None

    def run_lammps(self) -> dict[str, Any]:
        """Begin, or go on from the restart file in the checkpoint."""
        files = dict(write_gcmc(self.ctx.checkpoint, self.ctx.parameters))
        script = files.pop("script")
        job, inputs = lammps_job(
            self.inputs.lammps_code,
            "lammps",
            self.inputs.gcmc.metadata.get("label") or "MD-GCMC by LAMMPS",
            script=script,
            files={"model": self.inputs.gcmc.model, **files},
            names={"model": self.ctx.parameters["model"]},
            options=self.ctx.options,
            pair_style=self.ctx.parameters["pair_style"],
            retrieve=[lammps_script.DUMP, lammps_script.LAST, lammps_script.RESTART, CANDIDATES],
        )
        return {"lammps": self.submit(job, **inputs)}

    def inspect_lammps(self) -> ExitCode | None:
        """Hand out what the job has left; say whether it came to its end, was stopped or went wrong."""
        node = self.ctx.lammps
        if "retrieved" not in node.outputs:
            return self._exit("ERROR_NO_OUTPUT", message=reason(node))
        read = read_gcmc(node.outputs.retrieved, self.ctx.checkpoint, self.ctx.parameters)
        results = read["results"].get_dict()
        if "mistake" in results:
            return self._exit("ERROR_WRONG_ENGINE", message=results["mistake"])
        explosion = results.get("explosion")
        if not explosion and "checkpoint" not in read:
            return self._broken_off(node, results.get("error", ""))
        self.out_many(read)
        if explosion:
            empty = "timeseries" not in read
            return self._exit("ERROR_EXPLOSION", message=explosion["message"]) if empty else None
        return None if results["steps_done"] >= results["steps_total"] else self._exit("ERROR_STOPPED_EARLY")

    def _broken_off(self, node: orm.CalcJobNode, error: str) -> ExitCode:
        """Say that the chunk is to be repeated, or why that would be in vain."""
        if error or node.exit_status == _OUT_OF_MEMORY:
            return self._exit("ERROR_LAMMPS_FAILED", message=error or reason(node), log=last_lines(node))
        return self._exit("ERROR_NO_OUTPUT", message=f"{reason(node)}. {last_lines(node)}")

    def _exit(self, label: str, **values: str) -> ExitCode:
        code: ExitCode = getattr(self.exit_codes, label)
        return code.format(**values)
