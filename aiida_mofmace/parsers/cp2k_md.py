"""From CP2K's trajectory files to frames with energies and forces."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ExitCode
from ase import Atoms, units
from numpy.typing import NDArray

from aiida_mofmace.calculations.cp2k_md import FORCES_FILE, POSITIONS_FILE, RESTART_FILE
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.worker.kernels.frames import Frames

from .cp2k_label import Cp2kLabelParser
from .cp2k_output import parse_cp2k_output, parse_stress

__all__ = ["Cp2kMdParser", "parse_cp2k_xyz", "parse_steps"]

_HEADER = re.compile(r"i =\s+(\d+), time =.*?E =\s+(\S+)")
_STEP = re.compile(r"^ MD_INI\| MD initialization|^ MD\| Step number\s+(\d+)", re.MULTILINE)
_LAST_STEP = re.compile(r"^\s+STEP_START_VAL\s+(\d+)", re.MULTILINE)
_Table = tuple[list[int], list[float], list[str], NDArray[np.float64]]


def parse_cp2k_xyz(text: str) -> _Table:
    """Read the complete frames of a trajectory file of CP2K, of positions or of forces, in the file's own unit.

    :param text: content, perhaps cut off in the last frame
    :return: steps, energies in hartree, elements, and vectors of shape (frames, atoms, 3)
    :raises ValueError: if what stands there is no number
    """
    lines = text[: text.rfind("\n") + 1].splitlines()  # a line without its end may be cut in a number
    size = int(lines[0]) if lines else 0
    steps, energies, vectors = [], [], []
    symbols: list[str] = []
    for first in range(0, len(lines) - size - 1, size + 2):
        header = _HEADER.search(lines[first + 1])
        rows = [line.split() for line in lines[first + 2 : first + 2 + size]]
        if header is None or any(len(row) != 4 for row in rows):
            break
        steps.append(int(header.group(1)))
        energies.append(float(header.group(2)))
        symbols = [row[0] for row in rows]
        vectors.append([[float(word) for word in row[1:]] for row in rows])
    return steps, energies, symbols, np.array(vectors, dtype=np.float64).reshape(len(steps), size, 3)


def parse_steps(text: str) -> tuple[list[int], dict[int, Any]]:
    """Read what CP2K's standard output says of the steps of the dynamics, the start being step 0.

    :return: steps whose self-consistent field did not converge, which to CP2K is only a warning; and the stress by
        step, three rows in eV/Å³ with ASE's sign
    """
    unconverged, stresses = [], {}
    begin = 0
    for event in _STEP.finditer(text):
        step, report = int(event.group(1) or 0), text[begin : event.start()]
        begin = event.end()
        if "SCF run NOT converged" in report:
            unconverged.append(step)
        stress = parse_stress(report)
        if stress is not None:
            stresses[step] = stress
    return unconverged, stresses


class Cp2kMdParser(Cp2kLabelParser):
    """Attach the frames of a run; one that met its wall time or was killed gives those it has."""

    def examine(self) -> ExitCode | None:
        """Attach frames, forces and CP2K's figures."""
        names = self.retrieved.base.repository.list_object_names()
        output = self.node.get_option("output_filename")
        if output not in names:
            return self._killed() or self.failure("ERROR_OUTPUT_MISSING")
        text = self._text(output)
        parsed = parse_cp2k_output(text)
        kept = ("version", "finished", "warnings", "walltime_exceeded", "wall_seconds", "peak_memory_mib")
        restart = _LAST_STEP.search(self._text(RESTART_FILE)) if RESTART_FILE in names else None
        unconverged, stresses = parse_steps(text)
        figures = {"last_step": int(restart.group(1)) if restart else 0, "unconverged_steps": unconverged}
        self.out("output_parameters", orm.Dict({key: parsed[key] for key in kept} | figures))
        problem = self._problem_of_run(parsed | {"scf_converged": None})
        if problem is not None and problem.status not in self._stops:
            return problem
        missing = {POSITIONS_FILE, FORCES_FILE} - set(names)
        if missing:
            return problem or self.failure("ERROR_FRAMES_MISSING", message=f"no {', '.join(sorted(missing))}")
        positions, forces = parse_cp2k_xyz(self._text(POSITIONS_FILE)), parse_cp2k_xyz(self._text(FORCES_FILE))
        if problem is not None and not positions[0]:
            return problem
        return self._attach(positions, forces, unconverged, stresses) or problem

    @property
    def _stops(self) -> tuple[int, int]:
        """Exit statuses of a run that did well up to where it was stopped."""
        return self.exit_codes.ERROR_OUT_OF_WALLTIME.status, self.exit_codes.ERROR_OUTPUT_INCOMPLETE.status

    def _text(self, name: str) -> str:
        """Return the content of a retrieved file."""
        return self.retrieved.base.repository.get_object_content(name, mode="rb").decode(errors="replace")

    def _attach(
        self, positions: _Table, forces: _Table, unconverged: list[int], stresses: dict[int, Any]
    ) -> ExitCode | None:
        """Attach the frames of which both files are complete, those that are not converged without an energy."""
        inputs: dict[str, Any] = self.node.base.links.get_incoming(link_type=LinkType.INPUT_CALC).nested()
        atoms = inputs["structure"].get_ase()
        if not positions[0] or positions[2] != atoms.get_chemical_symbols() or forces[2] != positions[2]:
            return self.failure("ERROR_FRAMES_MISSING", message="no frame, or one of other atoms")
        count = min(len(positions[0]), len(forces[0]))
        if positions[0][:count] != forces[0][:count]:
            return self.failure("ERROR_FRAMES_MISSING", message="positions and forces are of other steps")
        numbers = forces[3][:count] * (units.Hartree / units.Bohr)
        if not (np.isfinite(numbers).all() and np.isfinite(positions[1][:count]).all()):
            return self.failure("ERROR_NOT_A_NUMBER", what="energies or forces")
        info = {
            "framework_atoms": inputs["framework_atoms"].value if "framework_atoms" in inputs else len(atoms),
            "loading": inputs["loading"].value if "loading" in inputs else 0,
            "group": inputs["group"].value if "group" in inputs else "aimd",
        }
        images = []
        for index in range(count):
            image = Atoms(atoms.numbers, positions[3][index], cell=atoms.cell, pbc=True)
            step = positions[0][index]
            energy = math.nan if step in unconverged else positions[1][index] * units.Hartree
            image.info = info | {"step": step, "energy": energy}
            images.append(image)
        self.out("trajectory", FramesData.from_frames(Frames.from_atoms(images)))
        arrays = {"forces": numbers}
        if stresses:
            missing = np.full((3, 3), np.nan)
            arrays["stress"] = np.array([stresses.get(step, missing) for step in positions[0][:count]])
        self.out("forces", orm.ArrayData(arrays))
        return None
