"""From CP2K's trajectory files to frames with energies and forces."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from aiida import orm
from aiida.common.links import LinkType
from aiida.engine import ExitCode
from ase import Atoms, units
from numpy.typing import NDArray

from aiida_mofmace.calculations.cp2k_md import FORCES_FILE, POSITIONS_FILE
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.worker.kernels.frames import Frames

from .cp2k_label import Cp2kLabelParser
from .cp2k_output import parse_cp2k_output

__all__ = ["Cp2kMdParser", "parse_cp2k_xyz"]

_HEADER = re.compile(r"i =\s+(\d+), time =.*?E =\s+(\S+)")
_Table = tuple[list[int], list[float], list[str], NDArray[np.float64]]


def parse_cp2k_xyz(text: str) -> _Table:
    """Read the complete frames of a trajectory file of CP2K, of positions or of forces, in the file's own unit.

    :param text: content, perhaps cut off in the last frame
    :return: steps, energies in hartree, elements, and vectors of shape (frames, atoms, 3)
    :raises ValueError: if what stands there is no number
    """
    lines = text.splitlines()
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


class Cp2kMdParser(Cp2kLabelParser):
    """Attach the frames of a run; one that met its wall time gives those it has."""

    def examine(self) -> ExitCode | None:
        """Attach frames, forces and CP2K's figures."""
        names = self.retrieved.base.repository.list_object_names()
        output = self.node.get_option("output_filename")
        if output not in names:
            return self._killed() or self.failure("ERROR_OUTPUT_MISSING")
        parsed = parse_cp2k_output(self._text(output))
        kept = ("version", "finished", "warnings", "walltime_exceeded", "wall_seconds", "peak_memory_mib")
        self.out("output_parameters", orm.Dict({key: parsed[key] for key in kept}))
        problem = self._problem_of_run(parsed)
        stopped = problem is not None and problem.status == self.exit_codes.ERROR_OUT_OF_WALLTIME.status
        if problem is not None and not stopped:
            return problem
        missing = {POSITIONS_FILE, FORCES_FILE} - set(names)
        if missing:
            return self.failure("ERROR_FRAMES_MISSING", message=f"no {', '.join(sorted(missing))}")
        return (
            self._attach(parse_cp2k_xyz(self._text(POSITIONS_FILE)), parse_cp2k_xyz(self._text(FORCES_FILE))) or problem
        )

    def _text(self, name: str) -> str:
        """Return the content of a retrieved file."""
        return self.retrieved.base.repository.get_object_content(name, mode="rb").decode(errors="replace")

    def _attach(self, positions: _Table, forces: _Table) -> ExitCode | None:
        """Attach the frames of which both files are complete."""
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
            image.info = info | {"step": positions[0][index], "energy": positions[1][index] * units.Hartree}
            images.append(image)
        self.out("trajectory", FramesData.from_frames(Frames.from_atoms(images)))
        self.out("forces", orm.ArrayData({"forces": numbers}))
        return None
