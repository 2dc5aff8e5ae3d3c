"""Labels that somebody else computed, out of an extended-XYZ file into nodes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from aiida import orm
from aiida.engine import calcfunction
from ase import Atoms
from ase.io import read
from numpy.typing import NDArray

from aiida_mofmace.data.label import DftLabelData, nearest_distance
from aiida_mofmace.data.level import LevelOfTheory

__all__ = ["BATCH", "check_frames", "foreign_level", "import_labels"]

#: Frames that one call takes: the time AiiDA needs to link the outputs of one process grows with their square.
BATCH = 50
#: Keys that ASE takes out of the frame and hands to a calculator.
_OF_CALCULATOR = ("energy", "forces", "stress")
_VOIGT = 6


def foreign_level(name: str, program: str | None = None) -> dict[str, str]:
    """Return name, program and hash of the level of theory that labels from elsewhere are stated to have.

    :param name: of a level that comes with the package, whose hash the labels then get; or any other, e.g.
        "PBE-D3/PAW/500eV", which gets a hash of its own and is never mixed with the package's levels
    :param program: what computed the labels; needed for a name that is not known
    :raises ValueError: if the name is not known and there is no program
    """
    if name in LevelOfTheory.names():
        return LevelOfTheory.load(name).summary
    if not program:
        known = ", ".join(LevelOfTheory.names())
        raise ValueError(f"level {name!r} is none of {known}; for a level of another program name the program, too")
    digest = hashlib.sha256(f"elsewhere/{program}/{name}".encode()).hexdigest()[:16]
    return {"name": name, "program": program, "hash": digest}


def check_frames(content: bytes, keys: Mapping[str, str]) -> int:
    """Return the number of labelled frames of a file.

    :param content: of an extended-XYZ file
    :param keys: names of ``energy``, ``forces`` and perhaps ``stress`` in the file
    :raises ValueError: if it cannot be read, or a frame lacks energy, forces or a periodic cell
    """
    return len(_read(content, keys))


@calcfunction
def import_labels(file: orm.SinglefileData, level: orm.Dict, origin: orm.Dict) -> dict[str, Any]:
    """Return structures and labels of a file that somebody else labelled.

    :param file: extended-XYZ, energies in eV, forces in eV/Å, stresses in eV/Å³ with ASE's sign
    :param level: from :func:`foreign_level`
    :param origin: ``statement``, where the labels come from in a person's words, ``keys``, see :func:`check_frames`,
        and ``frames``, the first one to take and the one to stop before
    :return: ``structures`` and ``labels``, each frame_0000 and so on, as they stand in the file
    """
    statement = origin.get_dict()
    first, stop = statement["frames"]
    structures: dict[str, orm.StructureData] = {}
    labels: dict[str, DftLabelData] = {}
    frames = _read(file.get_content("rb"), statement["keys"], slice(first, stop))
    for index, (atoms, energy, forces, stress) in enumerate(frames, start=first):
        name = f"frame_{index:04d}"
        structure = orm.StructureData(ase=atoms)
        structures[name] = structure
        labels[name] = DftLabelData(
            energy=energy,
            forces=forces,
            stress=stress,
            symbols=atoms.get_chemical_symbols(),
            level_of_theory=level.get_dict(),
            program_version=level["program"],
            flags=["imported"],
            minimum_distance=nearest_distance(structure),
            origin=statement["statement"],
        )
    return {"structures": structures, "labels": labels}


_Frame = tuple[Atoms, float, NDArray[np.float64], "NDArray[np.float64] | None"]


def _read(content: bytes, keys: Mapping[str, str], wanted: slice = slice(None)) -> list[_Frame]:
    try:
        images = cast("list[Atoms]", read(io.StringIO(content.decode()), index=wanted, format="extxyz"))
    except Exception as error:  # ase raises whatever its parser stumbles over
        raise ValueError(f"the file is no extended XYZ: {error}") from error
    if not images:
        raise ValueError("the file holds no frame")
    return [_frame(index, atoms, keys) for index, atoms in enumerate(images)]


def _frame(index: int, atoms: Atoms, keys: Mapping[str, str]) -> _Frame:
    """Return atoms without anything else, energy, forces and stress of one frame."""
    if not all(atoms.pbc) or atoms.cell.rank < 3:
        raise ValueError(f"frame {index} is not periodic in x, y and z; give it a cell and pbc")
    energy, forces = _value(atoms, keys["energy"]), _value(atoms, keys["forces"])
    if energy is None or forces is None or np.shape(forces) != (len(atoms), 3):
        raise ValueError(f"frame {index} lacks {keys['energy']} or {keys['forces']}; name the keys of this file")
    if not (np.isfinite(energy) and np.isfinite(forces).all()):
        raise ValueError(f"frame {index} has an energy or a force that is not a number; leave it out")
    stress = _value(atoms, keys["stress"]) if keys.get("stress") else None
    plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    return plain, float(energy), np.asarray(forces, dtype=float), None if stress is None else _matrix(index, stress)


def _value(atoms: Atoms, key: str) -> Any:
    """Return what a frame has under a key: in info, in the arrays, or handed to the calculator by ASE."""
    for place in (atoms.info, atoms.arrays):
        if key in place:
            return place[key]
    results = getattr(atoms.calc, "results", {}) if key in _OF_CALCULATOR else {}
    return results.get(key)


def _matrix(index: int, stress: Any) -> NDArray[np.float64]:
    """Return a stress of 3 by 3, of 9, or of Voigt's 6 numbers (xx, yy, zz, yz, xz, xy) as a matrix."""
    values = np.asarray(stress, dtype=float)
    if values.size == _VOIGT:
        xx, yy, zz, yz, xz, xy = values.ravel()
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    if values.size != 9 or not np.isfinite(values).all():
        raise ValueError(f"frame {index} has a stress that is not made of 9 or 6 numbers")
    return values.reshape(3, 3)
