"""Labels that somebody else computed, out of an extended-XYZ file into nodes."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from aiida import orm
from aiida.engine import calcfunction
from ase import Atoms
from ase.io import read
from numpy.typing import NDArray

from aiida_mofmace.data.label import DftLabelData, nearest_distance
from aiida_mofmace.data.level import LevelOfTheory

__all__ = ["BATCH", "Frame", "check_frames", "foreign_level", "frames_known", "import_labels", "levels_stated"]

#: Frames that one call takes: the time AiiDA needs to link the outputs of one process grows with their square.
BATCH = 50
#: Keys that ASE takes out of the frame and hands to a calculator.
_OF_CALCULATOR = ("energy", "forces", "stress")
_VOIGT = 6
#: Digits that a file keeps of an energy in eV and of a force in eV/Å.
_DIGITS_ENERGY, _DIGITS_FORCE = 6, 4


class Frame(NamedTuple):
    """What is taken of a frame: atoms without anything else, energy in eV, forces in eV/Å, stress in eV/Å³.

    :param level: name and hash of the level of theory, as far as the frame states them
    """

    atoms: Atoms
    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64] | None
    level: tuple[str | None, str | None]


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


def check_frames(content: bytes, keys: Mapping[str, str]) -> list[Frame]:
    """Return the labelled frames of a file.

    :param content: of an extended-XYZ file
    :param keys: names of ``energy``, ``forces`` and perhaps ``stress`` in the file
    :raises ValueError: if it cannot be read, or a frame lacks energy, forces or a periodic cell
    """
    return _read(content, keys)


def frames_known(frames: Sequence[Frame], level: Mapping[str, str]) -> dict[int, str]:
    """Return the UUIDs of the labels that are here already, by the index of the frame that has the same numbers.

    The same are formula, energy and greatest force, at the same level of theory.

    :param level: from :func:`foreign_level`
    """
    columns = ["uuid", "attributes.formula", "attributes.energy", "attributes.max_force"]
    builder = orm.QueryBuilder().append(
        DftLabelData, filters={"attributes.level_of_theory.hash": level["hash"]}, project=columns
    )
    known = {_numbers(*row): uuid for uuid, *row in builder.iterall()}
    found = {}
    for index, frame in enumerate(frames):
        force = float(np.linalg.norm(frame.forces, axis=1).max())
        numbers = _numbers(frame.atoms.get_chemical_formula("hill"), frame.energy, force)
        if numbers in known:
            found[index] = known[numbers]
    return found


def _numbers(formula: str, energy: float, force: float) -> tuple[str, float, float]:
    return formula, round(energy, _DIGITS_ENERGY), round(force, _DIGITS_FORCE)


def levels_stated(frames: Sequence[Frame], level: Mapping[str, str]) -> dict[str, int]:
    """Count the frames that state another level of theory than this one, by what they state."""
    other: Counter[str] = Counter()
    for name, digest in (frame.level for frame in frames):
        if name is not None and name.lower() != level["name"].lower():
            other[name] += 1
        elif digest is not None and digest != level["hash"]:
            other[f"{name or ''} {digest}".strip()] += 1
    return dict(other)


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
    for index, (atoms, energy, forces, stress, _) in enumerate(frames, start=first):
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


def _read(content: bytes, keys: Mapping[str, str], wanted: slice = slice(None)) -> list[Frame]:
    try:
        images = cast("list[Atoms]", read(io.StringIO(content.decode()), index=wanted, format="extxyz"))
    except Exception as error:  # ase raises whatever its parser stumbles over
        raise ValueError(f"the file is no extended XYZ: {error}") from error
    if not images:
        raise ValueError("the file holds no frame")
    return [_frame(index, atoms, keys) for index, atoms in enumerate(images)]


def _frame(index: int, atoms: Atoms, keys: Mapping[str, str]) -> Frame:
    if not all(atoms.pbc) or atoms.cell.rank < 3:
        raise ValueError(f"frame {index} is not periodic in x, y and z; give it a cell and pbc")
    energy, forces = _value(atoms, keys["energy"]), _value(atoms, keys["forces"])
    if energy is None or forces is None or np.shape(forces) != (len(atoms), 3):
        raise ValueError(f"frame {index} lacks {keys['energy']} or {keys['forces']}; name the keys of this file")
    try:
        numbers = float(energy), np.asarray(forces, dtype=float)
    except (TypeError, ValueError):
        numbers = float("nan"), np.zeros(0)
    if not (np.isfinite(numbers[0]) and np.isfinite(numbers[1]).all()):
        raise ValueError(f"frame {index} has an energy or a force that is not a number; leave it out")
    stress = _value(atoms, keys["stress"]) if keys.get("stress") else None
    plain = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    # A hash of digits alone is a number to ase, and is not to be relied on any more.
    name, digest = (atoms.info.get(key) for key in ("level_of_theory", "level_of_theory_hash"))
    level = str(name) if name is not None else None, digest if isinstance(digest, str) else None
    return Frame(plain, *numbers, None if stress is None else _matrix(index, stress), level)


def _value(atoms: Atoms, key: str) -> Any:
    """Return what a frame has under a key: in info, in the arrays, or handed to the calculator by ASE."""
    for place in (atoms.info, atoms.arrays):
        if key in place:
            return place[key]
    results = getattr(atoms.calc, "results", {}) if key in _OF_CALCULATOR else {}
    return results.get(key)


def _matrix(index: int, stress: Any) -> NDArray[np.float64]:
    """Return a stress of 3 by 3, of 9, or of Voigt's 6 numbers (xx, yy, zz, yz, xz, xy) as a matrix."""
    try:
        values = np.asarray(stress, dtype=float)
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.size == _VOIGT:
        xx, yy, zz, yz, xz, xy = values.ravel()
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    if values.size != 9 or not np.isfinite(values).all():
        raise ValueError(f"frame {index} has a stress that is not made of 9 or 6 numbers")
    return values.reshape(3, 3)
