"""CP2K's standard output as a dictionary: text in, plain values out."""

from __future__ import annotations

import math
import re
from typing import Any

from ase import units

__all__ = ["parse_cp2k_output", "parse_stress"]

_VERSION = re.compile(r"CP2K\| version string:\s+CP2K version (\S+)")
_ENERGY = re.compile(r"^ ENERGY\| Total FORCE_EVAL .*\s(\S+)$", re.MULTILINE)
_FORCES = re.compile(r"^ ATOMIC FORCES in \[a\.u\.\]\s*\n\s*\n.*\n((?:\s+\d+ .*\n)*)", re.MULTILINE)
_FORCES_NEW = re.compile(r"^ FORCES\|\s+\d+\s+(\S+)\s+(\S+)\s+(\S+)(?:\s+\S+)?$", re.MULTILINE)
_STRESS = re.compile(
    r"^ STRESS\| Analytical stress tensor \[(\w+)\]\s*\n.*\n((?: STRESS\|\s+[xyz] .*\n){3})", re.MULTILINE
)
_SCF_STEPS = re.compile(r"Leaving inner SCF loop after reaching\s+(\d+) steps|SCF run converged in\s+(\d+) steps")
_SCF_STEP = re.compile(r"^\s+(\d+) \S+/\S+ .*?(\S+)\s+(-?\d+\.\d+)\s+\S+$", re.MULTILINE)
_GAP = re.compile(r"^ MO\|.* Band gap:\s+\S+ a\.u\.\s+(\S+) eV$", re.MULTILINE)
_WARNING = re.compile(r"\*\*\* WARNING in \S+ :: (.*?) ?\*\*\*$", re.MULTILINE)
_SPIN = re.compile(r"^\s*Integrated absolute spin density\s*:\s+(\S+)$", re.MULTILINE)
_ABORT = re.compile(r"\[ABORT\](.*?)\n \*{20,}", re.DOTALL)
_WALL_TIME = re.compile(r"^ CP2K\s+\d+\s+\S+\s+\S+\s+\S+\s+\S+\s+(\S+)$", re.MULTILINE)
_MEMORY = re.compile(r"MEMORY\| Estimated peak process memory \[MiB\]\s+(\d+)")
_PRESSURE_UNITS = {"GPa": units.GPa, "bar": 1e-4 * units.GPa}
_OUT_OF_MEMORY = (
    "out of memory",
    "oom-kill",
    "oom_kill",
    "cannot allocate memory",
    "error allocating",
    "memory allocation failed",
    "insufficient virtual memory",
)


def parse_cp2k_output(text: str) -> dict[str, Any]:
    """Read a single point from CP2K's standard output.

    The result has every key, whatever the text:

    ========================  ==========================================================================
    version                   CP2K's version, or None
    finished                  whether the output reaches its regular end
    energy                    total energy in eV; None if not printed, NaN if it is no number
    forces                    forces in eV/Å, one row of three per atom; None if not printed
    force_symbols             element of each row, or None where this version prints none
    stress                    3 by 3 stress in eV/Å³ with ASE's sign; None if not printed
    scf_converged             whether the self-consistent field converged; None if there was none
    scf_steps                 steps of the last self-consistent field, or None
    scf_convergence           convergence after each step of the last self-consistent field
    band_gap                  smallest gap between occupied and empty orbitals in eV, or None where it is not printed
    absolute_spin             integral of the absolute spin density in electrons, or None without unpaired electrons
    walltime_exceeded         whether CP2K stopped because of its own wall time
    out_of_memory             whether memory could not be had
    abort                     why CP2K aborted, or None
    warnings                  CP2K's warnings, each once
    wall_seconds              total time by CP2K's own clock in s, or None
    peak_memory_mib           peak memory of a process in MiB, or None
    ========================  ==========================================================================

    CP2K's pressure is positive for a compressed cell, ASE's stress negative: the sign is changed.

    :param text: standard output of one run, complete or not
    """
    steps = [first or second for first, second in _SCF_STEPS.findall(text)]
    forces, symbols = _forces(text)
    return {
        "version": _first(_VERSION, text),
        "finished": "PROGRAM ENDED AT" in text,
        "energy": _scaled(_last(_ENERGY, text), units.Hartree),
        "forces": forces,
        "force_symbols": symbols,
        "stress": parse_stress(text),
        "scf_converged": _scf_converged(text),
        "scf_steps": int(steps[-1]) if steps else None,
        "scf_convergence": _convergence(text),
        "band_gap": _gap(text),
        "absolute_spin": _scaled(_last(_SPIN, text), 1.0),
        "walltime_exceeded": "exceeded requested execution time" in text,
        "out_of_memory": any(sign in text.lower() for sign in _OUT_OF_MEMORY),
        "abort": _abort(text),
        "warnings": list(dict.fromkeys(" ".join(found.split()) for found in _WARNING.findall(text))),
        "wall_seconds": _scaled(_last(_WALL_TIME, text), 1.0),
        "peak_memory_mib": _scaled(_last(_MEMORY, text), 1.0),
    }


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text)
    return match.group(1) if match else None


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.findall(text)
    return str(found[-1]) if found else None


def _number(word: str) -> float:
    """Return a printed number; NaN for what Fortran prints where a number does not fit or is none."""
    try:
        return float(word.replace("D", "E"))
    except ValueError:
        return math.nan


def _scaled(word: str | None, unit: float) -> float | None:
    return None if word is None else _number(word) * unit


def _forces(text: str) -> tuple[list[list[float]] | None, list[str] | None]:
    """Return forces in eV/Å and, where they are printed, the elements."""
    unit = units.Hartree / units.Bohr
    tables = _FORCES.findall(text)
    if tables:
        rows = [line.split() for line in tables[-1].splitlines()]
        complete = [row for row in rows if len(row) == 6]
        return [[_number(word) * unit for word in row[3:]] for row in complete], [row[2] for row in complete]
    lines = _FORCES_NEW.findall(text.rpartition("FORCES| Atomic forces")[2])
    return ([[_number(word) * unit for word in line] for line in lines], None) if lines else (None, None)


def parse_stress(text: str) -> list[list[float]] | None:
    """Return the last stress of an output in eV/Å³ with ASE's sign."""
    tables = _STRESS.findall(text)
    if not tables or tables[-1][0] not in _PRESSURE_UNITS:
        return None
    unit = -_PRESSURE_UNITS[tables[-1][0]]
    return [[_number(word) * unit for word in line.split()[2:5]] for line in tables[-1][1].splitlines()]


def _scf_converged(text: str) -> bool | None:
    if "SCF run NOT converged" in text or "SCF run terminated" in text:
        return False
    return True if "SCF run converged in" in text else None


def _convergence(text: str) -> list[float]:
    """Return the convergence after each step of the last table."""
    table = text.rpartition("SCF WAVEFUNCTION OPTIMIZATION")[2]
    return [_number(word) for _, word, _ in _SCF_STEP.findall(table)]


def _gap(text: str) -> float | None:
    """Return the smallest gap of all spins and k-points; CP2K prints it only where the level's printing asks for it."""
    gaps = [_number(word) for word in _GAP.findall(text)]
    known = [gap for gap in gaps if math.isfinite(gap)]
    return min(known) if known else None


def _abort(text: str) -> str | None:
    """Return CP2K's message of an abort, taken out of its frame."""
    match = _ABORT.search(text)
    if match is None:
        return None
    words = [word for line in match.group(1).splitlines() for word in re.split(r"[ *]+", line)]
    return " ".join(word for word in words if word and not set(word) <= set("\\_/|O")) or "no reason given"
