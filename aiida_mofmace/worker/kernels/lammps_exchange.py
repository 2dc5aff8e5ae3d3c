"""Trial moves of LAMMPS's ``fix gcmc ... full_energy``, answered rightly through ``fix external``.

``fix gcmc`` chooses, counts and accepts, and asks LAMMPS's forces for the energy of each trial. Some of its ways are
wrong for a flexible molecule in a model without bonds, and are put right here (docs/topics/lammps.md): the atoms of a
trial deletion stay among LAMMPS's atoms and only lose a bit of their mask; a molecule's own energy is to be left out;
an inserted molecule has always the same geometry, not all orientations with the same probability, no motion within.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from ase.data import atomic_masses
from numpy.typing import NDArray

from ..errors import WorkerError
from .dynamics import draw_momenta, remove_drift
from .exchange import MOST_CANDIDATES, MoveCounts, MoveRules
from .gases import Gas
from .geometry import closest_distance, random_rotation
from .ideal_gas import Molecule, isolated
from .lammps_engine import VELOCITY, box_of, image_flags, set_virial
from .model import Configuration, Evaluation, MaceEvaluator, Potential

__all__ = ["GROUP_ALL", "ExchangeJudge", "LammpsTrial", "Source"]

Array = NDArray[np.float64]
GROUP_ALL = 1  # the bit of the group "all" in the mask of an atom, which those of a trial deletion lack
_REFUSED = 1e60  # eV; LAMMPS accepts no trial of such an energy


@dataclass(frozen=True)
class _Frame:
    """Atoms in the order of their tags: the framework, then the molecules; x are unwrapped positions in Å."""

    tags: NDArray[np.int64]
    x: Array

    def without(self, tags: NDArray[np.int64]) -> _Frame:
        kept = ~np.isin(self.tags, tags)
        return _Frame(self.tags[kept], self.x[kept])

    def of(self, tags: NDArray[np.int64]) -> Array:
        return self.x[np.isin(self.tags, tags)]

    def is_same(self, other: _Frame) -> bool:
        return np.array_equal(self.tags, other.tags) and bool(np.abs(self.x - other.x).max() < 1e-6)


@dataclass
class _Known:
    """A frame of the present step with its energies.

    ``offset`` is the own energy in eV of the molecules that this step has inserted, less that of those it has deleted;
    ``new`` are the tags of the atoms that it has inserted.
    """

    frame: _Frame
    found: Evaluation
    offset: float = 0.0
    new: frozenset[int] = frozenset()

    @property
    def energy(self) -> float:
        """In eV: differences of it are those that the acceptance rule asks for."""
        return self.found.interaction_energy - self.offset


@dataclass(frozen=True)
class LammpsTrial:
    """A trial as LAMMPS was answered.

    :param loaded: configuration with the molecule, which has the last atoms
    :param empty: configuration without it
    :param alone: the molecule in a box of its own
    :param energy: of the molecule's interaction with the rest, as LAMMPS was told, in eV
    """

    loaded: Configuration
    empty: Configuration
    alone: Configuration
    energy: float


class Source(Protocol):
    """Where the geometries of inserted molecules come from."""

    def draw(self) -> Molecule:
        """Return one molecule, not turned."""
        ...


class ExchangeJudge:
    """Answers for one ``fix gcmc`` with one kind of molecule in one framework.

    The framework's atoms have the smallest tags; those of the molecules follow, molecule by molecule.

    :param lammps: the library
    :param potential: energies and forces
    :param framework: atomic numbers of its atoms in the order of their tags, shape (n,)
    :param gas: the molecule
    :param reservoir: geometries of inserted molecules
    :param rules: what a trial is judged by
    :param rng: of orientations and momenta
    :param counts: of insertions and deletions so far
    :param inspect: is shown the first trial of each kind before LAMMPS has the answer
    :param fix: name of the ``fix external``
    :param whole: whether LAMMPS is told the virial and total energies, for a script may print them; the potential must
        give stresses. Else it is told energies of the interaction, which count from the atoms
    """

    def __init__(
        self,
        lammps: Any,
        potential: Potential,
        framework: NDArray[np.int64],
        gas: Gas,
        reservoir: Source,
        *,
        rules: MoveRules,
        rng: np.random.Generator,
        counts: tuple[MoveCounts, MoveCounts],
        inspect: Callable[[str, LammpsTrial], None],
        fix: str,
        whole: bool = False,
    ):
        self._fix, self._whole = fix, whole
        self._lammps, self._potential, self._framework_numbers = lammps, potential, framework
        self._gas, self._reservoir, self._rules, self._rng = gas, reservoir, rules, rng
        self._insertions, self._deletions = counts
        self.holes: list[Configuration] = []
        self._inspect, self._inspected = inspect, set[str]()
        self._step = -1
        self._known: list[_Known] = []

    @property
    def present(self) -> Configuration:
        """The configuration that the last forces were given for."""
        return self._configuration(self._known[0].frame)

    @property
    def found(self) -> Evaluation:
        """Its energies and forces."""
        return self._known[0].found

    @property
    def atomic_energy_of_molecule(self) -> float:
        """Energy of the isolated atoms of one molecule in eV."""
        alone = isolated(self._gas, self._gas.positions, self._potential.r_max)
        return self._potential.evaluate([alone], forces=False)[0].atomic_energy

    def answer(self, step: int, tags: NDArray[np.int64], x: Array, f: Array) -> None:
        """Answer with the energy of a trial, or with the forces of what it left.

        The first call of a step is the state that dynamics has reached; each further one is a trial, unless it shows a
        frame that this step has seen: that is the last call, whose forces the dynamics goes on with.

        :param step: that LAMMPS is at
        :param tags: of its atoms, shape (n,)
        :param x: positions in Å, shape (n, 3); those of a molecule that it tries to insert are changed in place
        :param f: forces in eV/Å, shape (n, 3); changed in place
        :raises WorkerError: kind nan
        """
        if not np.all(np.isfinite(x)):
            raise WorkerError("nan", f"positions at step {step} are no numbers")
        order = np.argsort(tags)
        flags, mask = image_flags(self._lammps, len(tags)), self._lammps.numpy.extract_atom("mask")[: len(tags)]
        frame = _Frame(np.asarray(tags[order]), (x + flags @ box_of(self._lammps))[order])
        if step != self._step and not any(known.frame.is_same(frame) for known in self._known):
            self._known = [_Known(frame, self._energies(frame, forces=True))]
        self._step = step
        deleted = frame.tags[(mask[order] & GROUP_ALL) == 0]
        known = next((known for known in self._known if known.frame.is_same(frame)), None)
        if len(deleted):
            assert known is not None
            energy = self._judge_deletion(known, deleted)
        elif known is None:
            energy = self._judge_insertion(frame, x, order, flags)
        else:
            energy = self._give_forces(known, f, order)
        self._lammps.fix_external_set_energy_global(self._fix, energy)

    def _energies(self, frame: _Frame, forces: bool = False) -> Evaluation:
        if forces and self._whole:
            assert isinstance(self._potential, MaceEvaluator), "the virial needs a potential with stresses"
            return self._potential.evaluate([self._configuration(frame)], stress=True)[0]
        return self._potential.evaluate([self._configuration(frame)], forces=forces)[0]

    def _told(self, known: _Known) -> float:
        """Energy in eV of a trial for LAMMPS, whose differences are those that the acceptance rule asks for."""
        first = self._known[0].found.atomic_energy if self._whole else 0.0
        return known.energy + first

    def _configuration(self, frame: _Frame) -> Configuration:
        molecules = (len(frame.tags) - len(self._framework_numbers)) // len(self._gas)
        numbers = np.concatenate([self._framework_numbers, np.tile(self._gas.numbers, molecules)])
        return Configuration(numbers, frame.x, box_of(self._lammps))

    def _judge_deletion(self, before: _Known, deleted: NDArray[np.int64]) -> float:
        """Return the energy without a molecule, whose atoms are dropped before it is evaluated."""
        molecule, left = before.frame.of(deleted), self._remaining(before.frame, deleted)
        cell, rest = box_of(self._lammps), before.frame.without(deleted).x
        offset = before.offset - self._own_energy(molecule)
        after = _Known(left, self._energies(left), offset, before.new - set(deleted.tolist()))
        energy = before.energy - after.energy
        self._show("deletion", before.frame, deleted, energy)
        is_hole = not energy >= self._rules.hole_bound
        if not is_hole and closest_distance(molecule, rest, cell) < self._rules.minimum_distance:
            self._deletions.overlap += 1
            return _REFUSED
        self._deletions.evaluated += 1
        if is_hole:
            return self._refuse_hole(self._deletions, before.frame)
        self._known.append(after)
        return self._told(after)

    def _own_energy(self, molecule: Array) -> float:
        """Energy in eV that a molecule has alone, in the geometry that it has here."""
        alone = isolated(self._gas, molecule, self._potential.r_max)
        return self._potential.evaluate([alone], forces=False)[0].interaction_energy

    def _remaining(self, frame: _Frame, deleted: NDArray[np.int64]) -> _Frame:
        """Return the atoms that a trial deletion is evaluated with."""
        return frame.without(deleted)

    def _judge_insertion(self, frame: _Frame, x: Array, order: NDArray[np.int64], flags: NDArray[np.int64]) -> float:
        """Replace what LAMMPS has put in by a molecule of the ideal gas, turned at random, and return the energy."""
        new = frame.tags[-len(self._gas) :]
        before = next(known for known in self._known if known.frame.is_same(frame.without(new)))
        full = self._rules.max_loading
        if full is not None and len(frame.tags) - len(self._framework_numbers) > full * len(self._gas):
            return _REFUSED
        molecule = self._reservoir.draw()
        centre = self._gas.centre_of_mass(frame.of(new))
        positions = molecule.positions @ random_rotation(self._rng).T + centre
        x[order[-len(new) :]] = positions - flags[order[-len(new) :]] @ box_of(self._lammps)
        if closest_distance(positions, before.frame.x, box_of(self._lammps)) < self._rules.minimum_distance:
            self._insertions.overlap += 1
            return _REFUSED
        self._insertions.evaluated += 1
        placed = _Frame(frame.tags, np.concatenate([before.frame.x, positions]))
        offset = before.offset + molecule.energy
        after = _Known(placed, self._energies(placed), offset, before.new | set(new.tolist()))
        energy = after.energy - before.energy
        self._show("insertion", placed, new, energy)
        if not energy >= self._rules.hole_bound:
            return self._refuse_hole(self._insertions, placed)
        self._known.append(after)
        return self._told(after)

    def _refuse_hole(self, counts: MoveCounts, loaded: _Frame) -> float:
        counts.holes += 1
        if len(self.holes) < MOST_CANDIDATES:
            self.holes.append(self._configuration(loaded))
        return _REFUSED

    def _show(self, move: str, loaded: _Frame, molecule: NDArray[np.int64], energy: float) -> None:
        """Have the first trial of each kind inspected."""
        if move in self._inspected:
            return
        self._inspected.add(move)
        rest, own = loaded.without(molecule), loaded.of(molecule)
        whole = _Frame(np.append(rest.tags, molecule), np.concatenate([rest.x, own]))
        alone = isolated(self._gas, own, self._potential.r_max)
        self._inspect(move, LammpsTrial(self._configuration(whole), self._configuration(rest), alone, energy))

    def _give_forces(self, known: _Known, f: Array, order: NDArray[np.int64]) -> float:
        """Hand out the forces of a frame; if exchanges led to it, momenta of the grand-canonical ensemble as well."""
        if known.found.forces is None:
            known.found = self._energies(known.frame, forces=True)
        assert known.found.forces is not None
        f[order] = known.found.forces
        if known.found.stress is not None:
            set_virial(self._lammps, self._fix, known.found.stress, box_of(self._lammps))
        if known is not self._known[0]:
            self._renew_momenta(known, order)
            known.offset = 0.0
            self._known = [known]
        return known.found.energy if self._whole else known.found.interaction_energy

    def _renew_momenta(self, after: _Known, order: NDArray[np.int64]) -> None:
        """Draw the momenta of new atoms; the centre of mass is let go and brought to rest again, as in exchange.py."""
        v = self._lammps.numpy.extract_atom("v")
        masses = self._masses(after.frame)
        momenta = masses[:, None] * v[order] / VELOCITY
        before = self._masses(self._known[0].frame).sum()
        momenta += masses[:, None] * self._rng.standard_normal(3) * math.sqrt(self._rules.thermal / before)
        new = np.isin(after.frame.tags, list(after.new))
        momenta[new] = draw_momenta(masses[new], self._rules.temperature, self._rng)
        v[order] = remove_drift(momenta, masses) / masses[:, None] * VELOCITY

    def _masses(self, frame: _Frame) -> Array:
        return np.asarray(atomic_masses[self._configuration(frame).numbers], dtype=np.float64)
