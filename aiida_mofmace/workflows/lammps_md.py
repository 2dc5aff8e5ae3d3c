"""Molecular dynamics by a LAMMPS that aiida-lammps runs: one run, however many jobs it takes."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import ExitCode, WorkChain, calcfunction, while_
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from numpy.typing import NDArray

from aiida_mofmace.calculations import lammps_script
from aiida_mofmace.calculations.base import WALL_FRACTION, worker_digest
from aiida_mofmace.calculations.mace_md import MaceMdCalculation
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.parsers.lammps_output import LammpsOutput, parse_dump
from aiida_mofmace.worker.kernels.dynamics import MdState
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.programs.md import md_averages
from aiida_mofmace.worker.programs.simulation import Guard, describe_explosion
from aiida_mofmace.worker.results import to_plain

from .fine_tune_base import last_lines
from .functions import join_trajectories
from .harvest import reason
from .lammps_jobs import (
    explosion_of,
    first_frame,
    has_wrong_frame,
    lammps_job,
    read_checkpoint,
    read_output,
    text_file,
)

__all__ = ["LammpsMdWorkChain", "read_lammps", "write_lammps"]

_OBSERVABLES = ("step", "kinetic_temperature", "potential_energy", "conserved_energy")


@calcfunction
def write_lammps(start: orm.SinglefileData, parameters: orm.Dict) -> dict[str, orm.SinglefileData]:
    """Return structure, script and restart_script for LAMMPS.

    :param start: checkpoint of the worker's program ``md``
    :param parameters: of the run, and pair_style, model and wall_seconds
    """
    (state, _, _), content = read_checkpoint(start), parameters.get_dict()
    texts = {
        "structure": lammps_script.structure_file(state),
        "script": lammps_script.first_script(content, state),
        "restart_script": lammps_script.restart_script(content, state),
    }
    names = {"structure": lammps_script.STRUCTURE}
    return {key: text_file(text, names.get(key, f"{key}.in")) for key, text in texts.items()}


@calcfunction
def read_lammps(
    retrieved: orm.FolderData, start: orm.SinglefileData, parameters: orm.Dict, **before: Any
) -> dict[str, Any]:
    """Return what a job has left: results, and trajectory, observables and restart where there are any.

    :param retrieved: files of the job
    :param start: checkpoint that the first job began with
    :param parameters: as given to :func:`write_lammps`
    :param before: results and observables of the job before, if there was one
    """
    p, (state, _, _), repository = parameters.get_dict(), read_checkpoint(start), retrieved.base.repository
    names, output = repository.list_object_names(), read_output(retrieved)
    earlier = before["results"].get_dict() if "results" in before else {}
    results = {"first_frame": earlier.get("first_frame") or first_frame(output, state)}
    atomic = state.atomic_energy if (results["first_frame"] or {}).get("from_isolated_atoms") else 0.0
    arrays = _observables(output, atomic, p.get("pressure") is not None, before.get("observables"))
    outputs: dict[str, Any] = {"observables": orm.ArrayData(arrays)} if len(arrays["step"]) else {}
    if lammps_script.DUMP in names:
        dump = repository.get_object_content(lammps_script.DUMP, mode="rb").decode(errors="replace")
        frames = _frames(dump, state, p, arrays)
        outputs |= {"trajectory": FramesData.from_frames(frames)} if len(frames) else {}
        results["n_frames"] = len(frames)
    if output.last_step is not None and output.halted is None and lammps_script.RESTART in names:
        content = repository.get_object_content(lammps_script.RESTART, mode="rb")
        outputs["restart"] = orm.SinglefileData(io.BytesIO(content), filename=lammps_script.RESTART)
    results |= _figures(output, p, state, arrays)
    return {**outputs, "results": orm.Dict(to_plain(results))}


def _observables(
    output: LammpsOutput, atomic: float, changes_cell: bool, before: orm.ArrayData | None
) -> dict[str, NDArray[Any]]:
    """Return what was recorded, that of earlier jobs included, each step once, without what is not a number.

    :param atomic: what is missing to total energies, in eV
    :param changes_cell: whether the volume is worth a record
    """
    step, temperature, potential, conserved, volume, _ = output.thermo[np.isfinite(output.thermo).all(axis=1)].T
    columns = (step.astype(np.int64), temperature, potential + atomic, conserved + atomic)
    arrays: dict[str, NDArray[Any]] = dict(zip(_OBSERVABLES, columns, strict=True))
    if changes_cell:
        arrays["volume"] = volume
    if before is not None:
        arrays = {name: np.concatenate([before.get_array(name), array]) for name, array in arrays.items()}
    _, first = np.unique(arrays["step"], return_index=True)
    return {name: array[first] for name, array in arrays.items()}


def _frames(dump: str, state: MdState, p: Mapping[str, Any], observables: Mapping[str, NDArray[Any]]) -> Frames:
    """Return the frames after the equilibration, turned back to the orientation of the framework."""
    energies = dict(zip(observables["step"].tolist(), observables["potential_energy"].tolist(), strict=True))
    back = lammps_script.rotation(state.cell).T
    images = []
    for dumped in parse_dump(dump):
        step = dumped.step
        if step > p["equilibration_steps"] and step % p["stride"] == 0 and step in energies:
            frame = replace(state, positions=dumped.positions @ back, cell=dumped.cell @ back, step=step)
            images.append(frame.atoms(loading=p["loading"], group=p["group"]))
            images[-1].info["energy"] = energies[step]
    return Frames.from_atoms(images)


def _figures(
    output: LammpsOutput, p: Mapping[str, Any], state: MdState, observables: Mapping[str, NDArray[Any]]
) -> dict[str, Any]:
    """Return the results of a run, named as those of the worker's program ``md``."""
    recorded = observables["step"]
    at_stride = {name: array[recorded % p["stride"] == 0] for name, array in observables.items()}
    results: dict[str, Any] = {
        "steps_done": output.last_step if output.last_step is not None else int(recorded.max(initial=0)),
        "steps_total": p["steps"],
        "steps_per_second": output.steps_per_second,
        "versions": {"lammps": output.version},
        "engine": f"lammps, pair_style {p['pair_style']}",
    }
    averages = md_averages(at_stride, p["equilibration_steps"], p["stride"], atoms=len(state))
    results |= averages
    guard = Guard(p["temperature"], p["max_temperature_factor"], p["minimum_distance"])
    explosion = explosion_of(output, guard, state, results["steps_done"])
    if explosion is not None:
        results["explosion"] = explosion | {"message": describe_explosion(explosion)}
    return results | ({"error": output.error} if output.error else {})


class LammpsMdWorkChain(WorkChain):
    """Molecular dynamics as :class:`MaceMdBaseWorkChain` does it, each step made by a LAMMPS of the user's choice.

    The worker loads the pores, draws momenta and makes one step; LAMMPS goes on from its checkpoint, once its energy
    and forces there are those that the worker has found. A job that the wall time stops is followed by another.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports, outline and exit codes."""
        super().define(spec)
        spec.expose_inputs(MaceMdCalculation, namespace="md", exclude=("checkpoint",))
        spec.input("lammps_code", valid_type=orm.AbstractCode, help="LAMMPS with MACE, set up for `lammps.raw`.")
        spec.input(
            "lammps_model",
            valid_type=orm.SinglefileData,
            required=False,
            help="The model as this LAMMPS reads it; without it, the model itself, which mofmace-lmp reads.",
        )
        spec.input("max_iterations", valid_type=orm.Int, help="Most jobs of LAMMPS.")
        spec.expose_outputs(MaceMdCalculation, include=("trajectory", "observables", "results"))
        spec.outline(
            cls.setup,
            cls.run_start,
            cls.inspect_start,
            while_(cls.should_run_lammps)(cls.run_lammps, cls.inspect_lammps),
            cls.results,
        )
        spec.exit_code(301, "ERROR_START_FAILED", message="The worker made no first frame: {message}")
        spec.exit_code(306, "ERROR_EXPLOSION", message="The simulation blew up before a frame was kept: {message}")
        spec.exit_code(
            307,
            "ERROR_WRONG_ENGINE",
            message="The first frame differs from a direct evaluation of the model by {energy} eV/atom and {force} "
            "eV/Å, and LAMMPS made no step; is its file made from this model, for this pair_style?",
        )
        spec.exit_code(313, "ERROR_LAMMPS_FAILED", message="{message} {log}")
        spec.exit_code(
            701,
            "WARNING_TOO_SHORT",
            message="Only {done} of {total} steps after {jobs} jobs; their frames are kept; allow more wall time.",
        )

    def setup(self) -> None:
        """Take the parameters of all jobs."""
        content = self.inputs.md.parameters.get_dict()
        self.ctx.options = dict(self.inputs.md.metadata.options)
        self.ctx.model = self.inputs.lammps_model if "lammps_model" in self.inputs else self.inputs.md.model
        content["model"] = lammps_script.model_name(self.ctx.model.filename)
        content["wall_seconds"] = WALL_FRACTION * self.ctx.options["max_wallclock_seconds"]
        content["worker"] = worker_digest()
        content["check_first_frame"] = bool(content.get("check_first_frame"))
        self.ctx.content = content
        self.ctx.parts, self.ctx.jobs, self.ctx.is_finished = {}, 0, False

    def run_start(self) -> dict[str, Any]:
        """Have the worker make the frame that LAMMPS begins with, and its energy and forces in double precision."""
        inputs = dict(self.exposed_inputs(MaceMdCalculation, "md"))
        single = {"engine": "native", "pressure": None, "dtype": "float64"}
        short = {"steps": 1, "equilibration_steps": 0, "stride": 1}
        inputs["parameters"] = orm.Dict({**inputs["parameters"].get_dict(), **single, **short})
        inputs["metadata"] = {**inputs["metadata"], "call_link_label": "start", "label": "First step"}
        return {"start": self.submit(MaceMdCalculation, **inputs)}

    def inspect_start(self) -> ExitCode | None:
        """Write the input of LAMMPS."""
        node = self.ctx.start
        if not node.is_finished_ok or "checkpoint" not in node.outputs:
            code: ExitCode = self.exit_codes.ERROR_START_FAILED
            return code.format(message=reason(node))
        self.ctx.parameters = orm.Dict(self.ctx.content)
        self.ctx.files = write_lammps(node.outputs.checkpoint, self.ctx.parameters)
        return None

    def should_run_lammps(self) -> bool:
        """Whether there are steps left to make and jobs to make them."""
        return not self.ctx.is_finished and self.ctx.jobs < self.inputs.max_iterations.value

    def run_lammps(self) -> dict[str, Any]:
        """Begin, or go on from the restart file of the job before."""
        restart = self.ctx.read["restart"] if self.ctx.jobs else None
        files = {"model": self.ctx.model}
        files |= {"structure": self.ctx.files["structure"]} if restart is None else {"restart": restart}
        names = {"model": self.ctx.content["model"]}
        self.ctx.jobs += 1
        key = f"lammps_{self.ctx.jobs:02d}"
        job, inputs = lammps_job(
            self.inputs.lammps_code,
            key,
            f"LAMMPS {self.ctx.jobs}",
            script=self.ctx.files["script" if restart is None else "restart_script"],
            files=files,
            names=names,
            options=self.ctx.options,
            pair_style=self.ctx.content["pair_style"],
            retrieve=[lammps_script.DUMP, lammps_script.RESTART],
        )
        return {"lammps": self.submit(job, **inputs)}

    def inspect_lammps(self) -> ExitCode | None:
        """Read what came back; say whether the run is over, goes on or has failed."""
        node = self.ctx.lammps
        if "retrieved" not in node.outputs:
            return self._failed(node, f"LAMMPS {reason(node)}")
        former = {key: self.ctx.read[key] for key in ("results", "observables") if key in self.ctx.get("read", {})}
        self.ctx.read = read_lammps(
            node.outputs.retrieved, self.ctx.start.outputs.checkpoint, self.ctx.parameters, **former
        )
        if "trajectory" in self.ctx.read:
            self.ctx.parts[f"part_{self.ctx.jobs:02d}"] = self.ctx.read["trajectory"]
        results = self.ctx.read["results"].get_dict()
        if has_wrong_frame(results["first_frame"]):
            return self._wrong_engine(results["first_frame"])
        self.ctx.is_finished = bool(results.get("explosion")) or results["steps_done"] >= results["steps_total"]
        if not self.ctx.is_finished and "restart" not in self.ctx.read:
            return self._failed(node, results.get("error") or f"LAMMPS was killed: {reason(node)}.")
        if not self.ctx.is_finished:
            self.report(f"LAMMPS <{node.pk}> was stopped at step {results['steps_done']}; going on from there")
        return None

    def _wrong_engine(self, first_frame: Mapping[str, Any]) -> ExitCode:
        self._hand_out()
        values = (first_frame[key] for key in ("energy_per_atom", "force"))
        energy, force = ("nan" if value is None else f"{value:.2e}" for value in values)
        code: ExitCode = self.exit_codes.ERROR_WRONG_ENGINE
        return code.format(energy=energy, force=force)

    def _failed(self, node: orm.CalcJobNode, message: str) -> ExitCode:
        """Keep what there is and say what LAMMPS said last."""
        self._hand_out()
        code: ExitCode = self.exit_codes.ERROR_LAMMPS_FAILED
        return code.format(message=message, log=last_lines(node))

    def _hand_out(self) -> None:
        """Attach the frames of all jobs in one trajectory, and observables and results of the last."""
        if len(self.ctx.parts) > 1:
            self.out("trajectory", join_trajectories(**self.ctx.parts))
        elif self.ctx.parts:
            self.out("trajectory", next(iter(self.ctx.parts.values())))
        for name in ("observables", "results"):
            if name in self.ctx.get("read", {}):
                self.out(name, self.ctx.read[name])

    def results(self) -> ExitCode | None:
        """Hand out frames and figures; say so if there are too few of them."""
        self._hand_out()
        results = self.ctx.read["results"].get_dict()
        explosion = results.get("explosion")
        if explosion and not self.ctx.parts:
            code: ExitCode = self.exit_codes.ERROR_EXPLOSION
            return code.format(message=explosion["message"])
        if not self.ctx.is_finished:
            code = self.exit_codes.WARNING_TOO_SHORT
            return code.format(done=results["steps_done"], total=results["steps_total"], jobs=self.ctx.jobs)
        return None
