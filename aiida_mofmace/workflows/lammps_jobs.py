"""Jobs of aiida-lammps: their inputs, and what their output says, for dynamics and for MD-GCMC alike."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any

from aiida import orm
from aiida.engine import CalcJob
from aiida.plugins import CalculationFactory

from aiida_mofmace.calculations import lammps_script
from aiida_mofmace.parsers.lammps_output import LammpsOutput, parse_output
from aiida_mofmace.worker.kernels.checkpoint import load_checkpoint
from aiida_mofmace.worker.kernels.dynamics import MdState
from aiida_mofmace.worker.programs.simulation import Guard
from aiida_mofmace.worker.results import to_plain

__all__ = [
    "explosion_of",
    "first_frame",
    "has_wrong_frame",
    "lammps_job",
    "read_checkpoint",
    "read_output",
    "text_file",
]

_OUTPUT = "lammps.out"
# The file of ML-IAP holds the classes of mace, which PyTorch 2.6 and later refuse unless LAMMPS asks for them or this
# is set; LAMMPS of February 2025 does not ask.
_LOAD_MODEL = "export TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1"
_LOST = ("Lost atoms", "Non-numeric", "Out of range atoms")


def text_file(text: str, name: str) -> orm.SinglefileData:
    """Return a text as a file."""
    return orm.SinglefileData(io.BytesIO(text.encode()), filename=name)


def lammps_job(
    code: orm.AbstractCode,
    key: str,
    label: str,
    *,
    script: orm.SinglefileData,
    files: Mapping[str, orm.SinglefileData],
    names: Mapping[str, str],
    options: Mapping[str, Any],
    pair_style: str,
    retrieve: list[str],
) -> tuple[type[CalcJob], dict[str, Any]]:
    """Return process and inputs of a job of ``lammps.raw``.

    :param key: call link of the job
    :param files: beside the script
    :param names: that some of the files have in the job
    :param options: scheduler options of the worker's jobs; those of its program are left out
    :param pair_style: of the script
    :param retrieve: files to bring back beside the output
    """
    own = ("parser_name", "input_filename", "output_filename")
    kept = {option: value for option, value in options.items() if option not in own}
    lines = [f"export OMP_NUM_THREADS={kept['resources'].get('num_cores_per_mpiproc') or 1}"]
    lines += [_LOAD_MODEL] if pair_style == "mliap unified" else []
    kept["prepend_text"] = "\n".join([*lines, kept.get("prepend_text", "")])
    inputs = {
        "code": code,
        "script": script,
        "files": dict(files),
        "filenames": orm.Dict(dict(names)),
        "settings": orm.Dict({"additional_retrieve_list": retrieve}),
        "metadata": {"options": kept, "call_link_label": key, "label": label},
    }
    job: Any = CalculationFactory("lammps.raw")
    return job, inputs


def read_checkpoint(file: orm.SinglefileData) -> tuple[MdState, dict[str, Any], dict[str, Any]]:
    """Return state, arrays and values of a checkpoint."""
    with file.as_path() as path:
        arrays, values = load_checkpoint(path)
    return MdState.from_arrays(arrays), arrays, values


def read_output(retrieved: orm.FolderData) -> LammpsOutput:
    """Return what LAMMPS printed; nothing if it did not come back."""
    repository = retrieved.base.repository
    if _OUTPUT not in repository.list_object_names():
        return LammpsOutput()
    return parse_output(repository.get_object_content(_OUTPUT, mode="rb").decode(errors="replace"))


def first_frame(output: LammpsOutput, state: MdState) -> dict[str, Any] | None:
    """Return how far the first frame was from the direct evaluation; None if it was not compared.

    A build may give the energy from the isolated atoms or the total energy; the nearer of the two is meant.
    """
    if output.first_energy is None or output.first_force is None:
        return None
    total, interaction = (
        abs(output.first_energy - energy) / len(state) for energy in (state.energy + state.atomic_energy, state.energy)
    )
    nearest, is_interaction = min((total, False), (interaction, True))
    frame = {"energy_per_atom": nearest, "force": output.first_force, "from_isolated_atoms": is_interaction}
    return dict(to_plain(frame))


def has_wrong_frame(frame: Mapping[str, Any] | None) -> bool:
    """Whether the first frame was compared and is not that of the model."""
    if frame is None:
        return False
    pairs = zip((frame["energy_per_atom"], frame["force"]), lammps_script.TOLERANCES, strict=True)
    return not all(value is not None and value <= limit for value, limit in pairs)


def explosion_of(output: LammpsOutput, guard: Guard, state: MdState, steps_done: int) -> dict[str, Any] | None:
    """Return what a guard has found, or LAMMPS where numbers were none any more or atoms flew away; None if nothing.

    :param guard: that the script was made with
    :param state: that the script was made for
    """
    if output.halted is None:
        lost = any(words in output.error for words in _LOST)
        return {"reason": "not_finite", "step": steps_done, "value": None, "limit": None} if lost else None
    name, step, value = output.halted
    limit = guard.highest_temperature(state.degrees_of_freedom) if name == "temperature" else guard.minimum_distance
    if not math.isfinite(value):
        return {"reason": "not_finite", "step": step, "value": None, "limit": None}
    return {"reason": name, "step": step, "value": value, "limit": limit}
