"""``fix gcmc`` in a script for LAMMPS with MACE: the command is read, its trials are answered, counts are told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from .errors import WorkerError
from .kernels.exchange import MoveCounts, MoveRules
from .kernels.frames import Frames
from .kernels.gases import Gas
from .kernels.ideal_gas import IdealGasReservoir, Molecule
from .kernels.lammps_exchange import ExchangeJudge, LammpsTrial
from .kernels.lammps_molecule import read_molecule
from .kernels.model import MaceEvaluator
from .kernels.referee import Referee
from .kernels.statistics import estimate_mean

__all__ = ["CANDIDATES", "ExchangeCommand", "Exchanges"]

CANDIDATES = "candidates.npz"  # frames in which the model has a hole
_FIX = re.compile(r"^[ \t]*fix[ \t]+\S+[ \t]+\S+[ \t]+gcmc[ \t]+(.*)$", re.MULTILINE)
_CUTOFF = re.compile(r"[ \t]+overlap_cutoff[ \t]+\S+")
_WORDS_AFTER = {"full_energy": 0, "grouptype": 2} | dict.fromkeys(
    ("mol", "region", "maxangle", "pressure", "fugacity_coeff", "group", "max", "min", "overlap_cutoff"), 1
)


@dataclass(frozen=True)
class ExchangeCommand:
    """What the answers depend on.

    :param template: path of the molecule file
    :param temperature: of insertions and deletions, in K
    :param seed: of geometries and momenta
    :param minimum_distance: in Å, the command's overlap_cutoff; trials of which atoms are closer are refused
    """

    template: str
    temperature: float
    seed: int
    minimum_distance: float

    @classmethod
    def find(cls, text: str) -> ExchangeCommand | None:
        """Read the command; None if the script has none.

        :param text: of the script
        :raises WorkerError: kind bad_input, if there are several, or one that cannot be answered rightly
        """
        commands = _FIX.findall(text)
        if not commands:
            return None
        words = commands[0].partition("#")[0].split()
        keywords = _keywords(words[8:])
        files = dict(re.findall(r"^[ \t]*molecule[ \t]+(\S+)[ \t]+(\S+)[ \t]*(?:#.*)?$", text, re.MULTILINE))
        refusals = {
            "one fix gcmc at most": len(commands) > 1,
            "its molecule by the keyword mol, from a command `molecule ID FILE`": keywords.get("mol") not in files,
            "the keyword full_energy": "full_energy" not in keywords,
            "no moves but exchanges (M = 0), which dynamics makes": words[2:3] != ["0"],
        }
        wanted = [what for what, is_missing in refusals.items() if is_missing]
        if wanted:
            raise WorkerError("bad_input", f"fix gcmc with MACE wants {'; '.join(wanted)}")
        try:
            return cls(files[keywords["mol"]], float(words[5]), int(words[4]), float(keywords.get("overlap_cutoff", 0)))
        except (ValueError, IndexError) as error:
            raise WorkerError("bad_input", "fix gcmc with MACE wants seed and temperature as numbers") from error

    @staticmethod
    def without_cutoff(text: str) -> str:
        """Return the script without overlap_cutoff, which LAMMPS applies to a molecule that is replaced."""
        return _FIX.sub(lambda match: _CUTOFF.sub("", match[0]), text)


def _keywords(words: list[str]) -> dict[str, str]:
    """Return keywords with what follows them.

    :raises WorkerError: kind bad_input for one that molecules of an ideal gas have no use of, such as rigid
    """
    found: dict[str, str] = {}
    while words:
        name = words.pop(0)
        if name not in _WORDS_AFTER:
            known = ", ".join(sorted(_WORDS_AFTER))
            raise WorkerError("bad_input", f"fix gcmc with MACE cannot have {name}; it can have {known}")
        found[name] = " ".join(words[: _WORDS_AFTER[name]])
        del words[: _WORDS_AFTER[name]]
    return found


class _Reservoir:
    """The ideal gas, made when the first molecule is asked for: by then LAMMPS knows its time step."""

    def __init__(self, gas: Gas, model: MaceEvaluator, temperature: float, rng: np.random.Generator, lammps: Any):
        self._gas, self._model, self._temperature, self._rng, self._lammps = gas, model, temperature, rng, lammps

    @property
    def is_made(self) -> bool:
        """Whether a molecule was asked for."""
        return "made" in vars(self)

    @cached_property
    def made(self) -> IdealGasReservoir:
        """Its molecules."""
        timestep = 1000.0 * units.fs * float(self._lammps.extract_global("dt"))
        return IdealGasReservoir(self._gas, self._model, self._temperature, timestep, self._rng)

    def draw(self) -> Molecule:
        """Return one molecule, not turned."""
        return self.made.draw()


class Exchanges:
    """Answers LAMMPS where a script has ``fix gcmc``; first frame and first trials are compared with a referee.

    :param lammps: the library, with atoms
    :param command: of the script
    :param model: energies and forces
    :param numbers: atomic number of each of LAMMPS's types, shape (types,)
    :param referee: a direct evaluation of the same model
    :param fix: name of the ``fix external``
    :param hole_bound: energy of insertion in eV below which the model is not believed
    :raises WorkerError: kind bad_input, if framework and molecules cannot be told apart
    """

    def __init__(
        self,
        lammps: Any,
        command: ExchangeCommand,
        model: MaceEvaluator,
        numbers: NDArray[np.int64],
        referee: Referee,
        *,
        fix: str,
        hole_bound: float,
    ):
        types, positions = read_molecule(Path(command.template).read_text(encoding="utf-8"))
        self._gas = Gas.of_atoms(numbers[types - 1], positions)
        framework = _framework(lammps, types)
        step = int(lammps.extract_global("ntimestep"))
        rng = np.random.default_rng([command.seed, step])  # a restart goes on with others
        self._reservoir = _Reservoir(self._gas, model, command.temperature, rng, lammps)
        self.counts = {"insertion": MoveCounts(), "deletion": MoveCounts()}
        self._trials: list[str] = []
        self._referee, self._is_compared = referee, False
        self._framework_atoms = len(framework)
        self._judge = ExchangeJudge(
            lammps,
            model,
            numbers[framework - 1],
            self._gas,
            self._reservoir,
            rules=MoveRules(command.temperature, command.minimum_distance, hole_bound),
            rng=rng,
            counts=(self.counts["insertion"], self.counts["deletion"]),
            inspect=self._compare_trial,
            fix=fix,
            whole=True,
        )

    def answer(self, step: int, tags: NDArray[np.int64], x: NDArray[np.float64], f: NDArray[np.float64]) -> None:
        """Answer one call; see :meth:`ExchangeJudge.answer`.

        :raises WorkerError: kind wrong_engine, if the first frame is not that of a direct evaluation
        """
        self._judge.answer(step, tags, x, f)
        if self._is_compared:
            return
        self._is_compared = True
        (numbers, positions, cell), found = self._judge.present, self._judge.found
        assert found.forces is not None
        self._referee.compare_frame(Atoms(numbers, positions, cell=cell, pbc=True), found.energy, found.forces)

    def _compare_trial(self, move: str, trial: LammpsTrial) -> None:
        found = self._referee.compare_trial(move, **vars(trial))
        self._trials.append(f"first trial {move}: {found['engine']:.9g} eV, direct evaluation {found['direct']:.9g} eV")

    def report(self) -> list[str]:
        """Return lines on what was compared, what became of the trials, and the ideal gas."""
        lines = list(self._trials)
        for move, counts in self.counts.items():
            lines.append(f"{move}: {counts.evaluated} evaluated, {counts.overlap} overlap, {counts.holes} holes")
        if not self._reservoir.is_made:
            return lines
        means = np.array(self._reservoir.made.mean_energies)
        energy = estimate_mean(means, detect_equilibration=False)
        value = energy.mean + self._judge.atomic_energy_of_molecule
        error = energy.error if np.isfinite(energy.error) else 0.0  # an atom alone has one energy
        return [*lines, f"ideal gas: {value:.9g} eV, error {error:.3g}, {len(means)} sweeps"]

    def save_candidates(self) -> None:
        """Write the frames in which the model has a hole, if there are any."""
        images = []
        for numbers, positions, cell in self._judge.holes:
            images.append(Atoms(numbers, positions, cell=cell, pbc=True))
            loading = (len(numbers) - self._framework_atoms) // len(self._gas)
            images[-1].info = {"framework_atoms": self._framework_atoms, "loading": loading, "group": "hole"}
        if images:
            Frames.from_atoms(images).save(CANDIDATES)


def _framework(lammps: Any, types: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the types of the framework's atoms in the order of their tags.

    :param types: of the atoms of one molecule
    :raises WorkerError: kind bad_input, if molecules are not made of these types alone or do not come last
    """
    n = int(lammps.extract_global("nlocal"))
    order = np.argsort(np.array(lammps.numpy.extract_atom("id")[:n]))
    present = np.array(lammps.numpy.extract_atom("type")[:n])[order]
    size = int((~np.isin(present, types)).sum())
    molecules = present[size:]
    whole = len(molecules) % len(types) == 0 and np.array_equal(molecules, np.tile(types, len(molecules) // len(types)))
    if not size or not whole:
        raise WorkerError(
            "bad_input",
            "fix gcmc with MACE wants a framework, then the molecules with higher IDs, whose atoms have types of their "
            "own in the order of the molecule file",
        )
    return present[:size]
