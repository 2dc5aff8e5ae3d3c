"""What LAMMPS printed and dumped, as plain values: text in, numbers out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["LammpsOutput", "parse_dump", "parse_output"]

Array = NDArray[np.float64]
_FIRST = re.compile(r"^first frame: energy (\S+) eV, forces off by (\S+) (\S+) (\S+) eV/Angstrom", re.MULTILINE)
_LAST = re.compile(r"^last step: (\d+)", re.MULTILINE)
_HALT = re.compile(r"Fix halt condition for fix-id (\w+) met on step (\d+) with value (\S+)")
_LOOP = re.compile(r"^Loop time of (\S+) on .* for ([1-9]\d*) steps", re.MULTILINE)
_ERROR = re.compile(r"^ERROR.*", re.MULTILINE)
_VERSION = re.compile(r"^LAMMPS \((.*)\)", re.MULTILINE)
_COLUMNS = ["Step", "Temp", "PotEng", "Econserve", "Volume", "c_closest"]


@dataclass(frozen=True)
class LammpsOutput:
    """What a job that ran a script of :mod:`aiida_mofmace.calculations.lammps_script` says of itself.

    :param first_energy: energy of the first frame in eV, None if it was not compared
    :param first_force: largest difference of a component of the forces in that frame, in eV/Å
    :param last_step: step at which the script ended, None if it did not get there
    :param halted: guard that ended the run, its step and its value; None if none did
    :param error: what LAMMPS complained of, empty if of nothing
    :param version: of LAMMPS
    :param steps_per_second: of the run, None if it made no step
    :param thermo: step, temperature (K), potential and conserved energy (eV), volume (Å³) and nearest distance (Å) in
        columns, shape (n, 6)
    """

    first_energy: float | None = None
    first_force: float | None = None
    last_step: int | None = None
    halted: tuple[str, int, float] | None = None
    error: str = ""
    version: str = ""
    steps_per_second: float | None = None
    thermo: Array = field(default_factory=lambda: np.zeros((0, len(_COLUMNS))))


def parse_output(text: str) -> LammpsOutput:
    """Read what LAMMPS printed; of a job that was killed, as far as it goes.

    :param text: of the screen or the log
    """
    first, last, halt = _FIRST.search(text), _LAST.search(text), _HALT.search(text)
    error, version, loops = _ERROR.search(text), _VERSION.search(text), _LOOP.findall(text)
    return LammpsOutput(
        first_energy=float(first[1]) if first else None,
        first_force=float(np.max([float(value) for value in first.groups()[1:]])) if first else None,
        last_step=int(last[1]) if last else None,
        halted=(halt[1], int(halt[2]), float(halt[3])) if halt else None,
        error=error[0] if error else "",
        version=version[1] if version else "",
        steps_per_second=int(loops[-1][1]) / max(float(loops[-1][0]), 1e-9) if loops else None,
        thermo=_thermo(text.splitlines()),
    )


def _thermo(lines: list[str]) -> Array:
    rows: list[list[float]] = []
    inside = False
    for words in (line.split() for line in lines):
        if words == _COLUMNS:
            inside = True
        elif inside and len(words) == len(_COLUMNS):
            try:
                rows.append([float(word) for word in words])
            except ValueError:
                inside = False
        elif words[:1] == ["Loop"]:
            inside = False
    return np.array(rows, dtype=np.float64).reshape(-1, len(_COLUMNS))


def parse_dump(text: str) -> tuple[NDArray[np.int64], Array, Array]:
    """Read frames dumped as ``id type xu yu zu`` in the order of the tags; one cut off at the end is left out.

    :param text: of the dump
    :return: steps, shape (n,); lattice vectors as rows in Å, shape (n, 3, 3); positions in Å from the origin of the
        box, shape (n, atoms, 3)
    """
    lines = text[: text.rfind("\n") + 1].splitlines()
    atoms = int(lines[3]) if len(lines) > 3 else 0
    size = 9 + atoms
    blocks = [lines[first : first + size] for first in range(0, len(lines) - size + 1, size)]
    steps = np.array([int(block[1]) for block in blocks], dtype=np.int64)
    boxes = [_box(np.array([line.split() for line in block[5:8]], dtype=np.float64)) for block in blocks]
    rows = [np.array(" ".join(block[9:]).split(), dtype=np.float64).reshape(atoms, 5)[:, 2:] for block in blocks]
    cells = np.array([cell for cell, _ in boxes]).reshape(-1, 3, 3)
    positions = [row - origin for row, (_, origin) in zip(rows, boxes, strict=True)]
    return steps, cells, np.array(positions).reshape(len(steps), atoms, 3)


def _box(bounds: Array) -> tuple[Array, Array]:
    """Return lattice vectors and origin from the bounding box (LAMMPS manual, Howto triclinic).

    :param bounds: low, high and tilt factor xy, xz, yz in rows, shape (3, 3)
    """
    xy, xz, yz = bounds[:, 2]
    low = bounds[:, 0] - [min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0]
    high = bounds[:, 1] - [max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0]
    x, y, z = high - low
    return np.array([[x, 0.0, 0.0], [xy, y, 0.0], [xz, yz, z]]), low
