"""What LAMMPS printed and dumped, as plain values: text in, numbers out."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["DumpedFrame", "LammpsOutput", "parse_dump", "parse_output"]

Array = NDArray[np.float64]
_FIRST = re.compile(r"^first frame: energy (\S+) eV, forces off by (\S+) (\S+) (\S+) eV/Angstrom", re.MULTILINE)
_LAST = re.compile(r"^last step: (\d+)", re.MULTILINE)
_HALT = re.compile(r"Fix halt condition for fix-id (\w+) met on step (\d+) with value (\S+)")
_LOOP = re.compile(r"^Loop time of (\S+) on .* for ([1-9]\d*) steps", re.MULTILINE)
_ERROR = re.compile(r"^ERROR.*", re.MULTILINE)
_VERSION = re.compile(r"^LAMMPS \((.*)\)", re.MULTILINE)
_HEADER = 9  # lines before the atoms of a frame
_COLUMNS = ["Step", "Temp", "PotEng", "Econserve", "Volume", "c_closest"]
_WITH_EXCHANGES = [*_COLUMNS, "v_loading", *(f"f_exchange[{index}]" for index in range(3, 7))]
_LAUNCHER = re.compile(r"^model by mofmace-lmp: (.*)$", re.MULTILINE)
_TRIAL = re.compile(r"^first trial (\w+): (\S+) eV, direct evaluation (\S+) eV", re.MULTILINE)
_TRIALS = re.compile(r"^(insertion|deletion): (\d+) evaluated, (\d+) overlap, (\d+) holes", re.MULTILINE)
_EXCHANGES = re.compile(r"^exchanges attempted and accepted: (\d+) (\d+) (\d+) (\d+)", re.MULTILINE)
_IDEAL_GAS = re.compile(r"^ideal gas: (\S+) eV, error (\S+), (\d+) sweeps", re.MULTILINE)


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
        columns, shape (n, 6); where molecules are exchanged also their number, insertions attempted and accepted, and
        deletions attempted and accepted since the very first step, shape (n, 11)
    :param trials: energy in eV that the first trial of each kind was given, and that of a direct evaluation
    :param exchanges: insertions attempted and accepted, and deletions, since the very first step; None if the script
        did not get to its end
    :param counts: by kind of trial how many were evaluated, overlap and met a hole of the model, in this job
    :param launcher: versions of what mofmace-lmp evaluated the model with, None for another program
    :param ideal_gas: energy in eV of a molecule alone, its error, and the sweeps it is the mean of; None if no
        molecule was needed
    """

    first_energy: float | None = None
    first_force: float | None = None
    last_step: int | None = None
    halted: tuple[str, int, float] | None = None
    error: str = ""
    version: str = ""
    steps_per_second: float | None = None
    thermo: Array = field(default_factory=lambda: np.zeros((0, len(_COLUMNS))))
    trials: dict[str, tuple[float, float]] = field(default_factory=dict)
    exchanges: tuple[int, ...] | None = None
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    ideal_gas: tuple[float, float, int] | None = None
    launcher: dict[str, str] | None = None


def parse_output(text: str) -> LammpsOutput:
    """Read what LAMMPS printed; of a job that was killed, as far as it goes.

    :param text: of the screen or the log
    """
    first, last, halt = _FIRST.search(text), _LAST.search(text), _HALT.search(text)
    error, version, loops = _ERROR.search(text), _VERSION.search(text), _LOOP.findall(text)
    gas, launcher, exchanges = _IDEAL_GAS.search(text), _LAUNCHER.search(text), _EXCHANGES.search(text)
    return LammpsOutput(
        first_energy=float(first[1]) if first else None,
        first_force=float(np.max([float(value) for value in first.groups()[1:]])) if first else None,
        last_step=int(last[1]) if last else None,
        halted=(halt[1], int(halt[2]), float(halt[3])) if halt else None,
        error=error[0] if error else "",
        version=version[1] if version else "",
        steps_per_second=int(loops[-1][1]) / max(float(loops[-1][0]), 1e-9) if loops else None,
        thermo=_thermo(text.splitlines()),
        trials={move: (float(given), float(direct)) for move, given, direct in _TRIAL.findall(text)},
        exchanges=tuple(map(int, exchanges.groups())) if exchanges else None,
        counts={
            move: dict(zip(("evaluated", "overlap", "holes"), map(int, numbers), strict=True))
            for move, *numbers in _TRIALS.findall(text)
        },
        ideal_gas=(float(gas[1]), float(gas[2]), int(gas[3])) if gas else None,
        launcher=dict(re.findall(r"([^\s,]+) ([^\s,]+)", launcher[1])) if launcher else None,
    )


def _thermo(lines: list[str]) -> Array:
    rows: list[list[float]] = []
    columns, inside = len(_COLUMNS), False
    for words in (line.split() for line in lines):
        if words in (_COLUMNS, _WITH_EXCHANGES):
            columns, inside = len(words), True
        elif inside and len(words) == columns:
            try:
                rows.append([float(word) for word in words])
            except ValueError:
                continue
        elif words[:1] == ["Loop"]:
            inside = False
    return np.array(rows, dtype=np.float64).reshape(-1, columns)


@dataclass(frozen=True)
class DumpedFrame:
    """One frame, its atoms in the order of their tags.

    :param step: of LAMMPS
    :param cell: lattice vectors as rows in Å, shape (3, 3)
    :param types: of the atoms, counted from one, shape (n,)
    :param positions: in Å from the origin of the box, shape (n, 3)
    """

    step: int
    cell: Array
    types: NDArray[np.int64]
    positions: Array


def parse_dump(text: str) -> list[DumpedFrame]:
    """Read frames dumped as ``id type xu yu zu`` in the order of the tags; one cut off at the end is left out.

    :param text: of the dump
    """
    lines = text[: text.rfind("\n") + 1].splitlines()
    frames: list[DumpedFrame] = []
    first = 0
    while len(lines) > first + _HEADER and len(lines) >= (end := first + _HEADER + int(lines[first + 3])):
        block, first = lines[first:end], end
        cell, origin = _box(np.array([line.split() for line in block[5:8]], dtype=np.float64))
        rows = np.array(" ".join(block[_HEADER:]).split(), dtype=np.float64).reshape(-1, 5)
        frames.append(DumpedFrame(int(block[1]), cell, rows[:, 1].astype(np.int64), rows[:, 2:] - origin))
    return frames


def _box(bounds: Array) -> tuple[Array, Array]:
    """Return lattice vectors and origin from the bounding box (LAMMPS manual, Howto triclinic).

    :param bounds: low, high and tilt factor xy, xz, yz in rows, shape (3, 3)
    """
    xy, xz, yz = bounds[:, 2]
    low = bounds[:, 0] - [min(0.0, xy, xz, xy + xz), min(0.0, yz), 0.0]
    high = bounds[:, 1] - [max(0.0, xy, xz, xy + xz), max(0.0, yz), 0.0]
    x, y, z = high - low
    return np.array([[x, 0.0, 0.0], [xy, y, 0.0], [xz, yz, z]]), low
