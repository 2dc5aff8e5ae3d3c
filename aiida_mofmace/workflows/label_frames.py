"""Labels out of the frames of ab initio dynamics, which has computed them on the way."""

from __future__ import annotations

from typing import Any

from aiida import orm
from aiida.engine import calcfunction
from ase import Atoms

from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.data.label import DftLabelData, nearest_distance
from aiida_mofmace.data.level import LevelOfTheory

__all__ = ["labels_of_frames"]


@calcfunction
def labels_of_frames(
    trajectory: FramesData, forces: orm.ArrayData, level: orm.Dict, indices: orm.List
) -> dict[str, Any]:
    """Return structures and labels of chosen frames of a :class:`Cp2kMdCalculation`.

    :param trajectory: its frames, with energies
    :param forces: its forces, array ``forces``
    :param level: its level of theory
    :param indices: of the frames that are wanted; those between are too much alike to be worth a node each
    :return: ``structures`` and ``labels``, each frame_0000 and so on by their index
    """
    frames, vectors = trajectory.get_frames(), forces.get_array("forces")
    summary = LevelOfTheory.from_dict(level.get_dict()).summary
    structures: dict[str, orm.StructureData] = {}
    labels: dict[str, DftLabelData] = {}
    for index in indices.get_list():
        atoms = frames.atoms(index)
        structure = orm.StructureData(ase=Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True))
        name = f"frame_{index:04d}"
        structures[name] = structure
        labels[name] = DftLabelData(
            energy=float(frames.energies[index]),
            forces=vectors[index],
            symbols=atoms.get_chemical_symbols(),
            level_of_theory=summary,
            flags=["aimd"],
            minimum_distance=nearest_distance(structure),
        )
    return {"structures": structures, "labels": labels}
