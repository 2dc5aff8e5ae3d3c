"""Labels out of the frames of ab initio dynamics, which has computed them on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import calcfunction
from ase import Atoms
from numpy.typing import NDArray

from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.data.label import DftLabelData, nearest_distance
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.worker.kernels.frames import Frames

__all__ = ["join_runs", "labels_of_frames", "labels_of_runs"]


@calcfunction
def labels_of_frames(
    trajectory: FramesData, forces: orm.ArrayData, level: orm.Dict, indices: orm.List
) -> dict[str, Any]:
    """Return structures and labels of chosen frames of a :class:`Cp2kMdCalculation`.

    :param trajectory: its frames, with energies
    :param forces: its forces and stresses
    :param level: its level of theory
    :param indices: of the frames that are wanted; those between are too much alike to be worth a node each
    :return: ``structures`` and ``labels``, each frame_0000 and so on by their index
    """
    frames, arrays = trajectory.get_frames(), _arrays(forces)
    structures: dict[str, orm.StructureData] = {}
    labels: dict[str, DftLabelData] = {}
    for index in indices.get_list():
        name = f"frame_{index:04d}"
        structures[name], labels[name] = _label(frames, index, arrays, level)
    return {"structures": structures, "labels": labels}


@calcfunction
def join_runs(**parts: Any) -> dict[str, Any]:
    """Return the frames and the forces of consecutive jobs of one run, each from the restart file of the one before.

    :param parts: ``trajectories`` and ``forces`` by job; what a job did beyond the restart file the next one did again
    :return: ``trajectory`` and ``forces``; a stress that a killed job had not written yet is not a number
    """
    names = sorted(parts["trajectories"])
    frames = [parts["trajectories"][name].get_frames() for name in names]
    ends = [int(later.steps[0]) for later in frames[1:]] + [np.inf]
    kept = [np.flatnonzero(part.steps < end) for part, end in zip(frames, ends, strict=True)]
    joined = Frames.concatenate(part.select(indices) for part, indices in zip(frames, kept, strict=True))
    arrays = [_arrays(parts["forces"][name]) for name in names]
    if any("stress" in part for part in arrays):
        arrays = [{"stress": np.full((len(part["forces"]), 3, 3), np.nan), **part} for part in arrays]
    forces = {
        key: np.concatenate([part[key][indices] for part, indices in zip(arrays, kept, strict=True)])
        for key in arrays[0]
    }
    return {"trajectory": FramesData.from_frames(joined), "forces": orm.ArrayData(forces)}


@calcfunction
def labels_of_runs(level: orm.Dict, equilibration_steps: orm.Int, count: orm.Int, **runs: Any) -> dict[str, Any]:
    """Return structures and labels of frames at equal distances in each run, after its equilibration.

    A frame whose self-consistent field did not converge has no energy and makes no label.

    :param level: level of theory of the runs
    :param equilibration_steps: steps whose frames are left out
    :param count: the most labels of each run
    :param runs: ``trajectories`` and ``forces`` by run
    :return: ``structures`` and ``labels``, frame_0000 and so on through all runs, and ``selection``, whose list
        ``selected`` says trajectory, index, group, loading and framework_atoms of each
    """
    structures: dict[str, orm.StructureData] = {}
    labels: dict[str, DftLabelData] = {}
    selected: list[dict[str, Any]] = []
    for run in sorted(runs["trajectories"]):
        frames, arrays = runs["trajectories"][run].get_frames(), _arrays(runs["forces"][run])
        good = np.flatnonzero((frames.steps >= equilibration_steps.value) & np.isfinite(frames.energies))
        for place in np.unique(np.linspace(0, len(good) - 1, min(count.value, len(good))).round().astype(int)):
            index, name = int(good[place]), f"frame_{len(selected):04d}"
            structures[name], labels[name] = _label(frames, index, arrays, level)
            info = frames.atoms(index).info
            row = {"group": info["group"], "loading": info["loading"], "framework_atoms": info["framework_atoms"]}
            selected.append({"trajectory": run, "index": index, **row})
    return {"structures": structures, "labels": labels, "selection": orm.Dict({"selected": selected})}


def _arrays(node: orm.ArrayData) -> dict[str, NDArray[np.float64]]:
    """Return the arrays of a node, by name."""
    return {name: node.get_array(name) for name in node.get_arraynames()}


def _label(
    frames: Frames, index: int, arrays: dict[str, NDArray[np.float64]], level: orm.Dict
) -> tuple[orm.StructureData, DftLabelData]:
    """Return structure and label of one frame.

    :param arrays: ``forces`` in eV/Å, shape (frames, atoms, 3), and perhaps ``stress`` in eV/Å³, shape (frames, 3, 3)
    """
    atoms = frames.atoms(index)
    structure = orm.StructureData(ase=Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True))
    stress = arrays["stress"][index] if "stress" in arrays else None
    label = DftLabelData(
        energy=float(frames.energies[index]),
        forces=arrays["forces"][index],
        stress=stress if stress is not None and np.isfinite(stress).all() else None,
        symbols=atoms.get_chemical_symbols(),
        level_of_theory=LevelOfTheory.from_dict(level.get_dict()).summary,
        flags=["aimd"],
        minimum_distance=nearest_distance(structure),
    )
    return structure, label
