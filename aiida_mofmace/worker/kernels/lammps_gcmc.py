"""LAMMPS as grand-canonical engine: ``fix gcmc`` chooses, counts and accepts, a potential in this process judges.

``fix gcmc ... full_energy`` asks for the energy of each trial through ``fix external``. Three of its ways are wrong for
a flexible molecule in a model without bonds, and are put right here (docs/topics/lammps.md): the atoms of a trial
deletion stay among LAMMPS's atoms and only lose a bit of their mask; a molecule's own energy is to be left out; an
inserted molecule has always the same geometry, not all orientations with the same probability, no motion within.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses
from numpy.typing import NDArray

from .dynamics import MdState, draw_momenta, remove_drift
from .exchange import MoveCounts, MoveRules, Species
from .gases import Gas
from .geometry import closest_distance, random_rotation
from .ideal_gas import isolated
from .lammps_engine import VELOCITY, LammpsEngine
from .model import Configuration, Evaluation, Potential

__all__ = ["GrandCanonicalLammps", "LammpsTrial"]

Array = NDArray[np.float64]
_ALL = 1  # the bit of the group "all" in the mask of an atom
_REFUSED = 1e60  # eV; LAMMPS accepts no trial of such an energy
_TEMPLATE = "gas.molecule"


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
        """What LAMMPS is told, in eV: differences of it are those that the acceptance rule asks for."""
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


class GrandCanonicalLammps(LammpsEngine):
    """A framework with one kind of flexible molecules in LAMMPS, moved by dynamics and exchanged by ``fix gcmc``.

    :param state: to begin with, or to go on from
    :param potential: energies and forces
    :param species: the molecule, its fugacity and its reservoir
    :param rules: what a trial is judged by
    :param rng: of geometries and momenta
    :param seed: of LAMMPS's own random numbers; of no meaning when a run goes on from a restart
    :param every: steps of dynamics between two blocks of attempts
    :param attempts: in a block
    :param counts: of insertions and deletions so far
    :param inspect: is shown the first trial of each kind before LAMMPS has the answer
    :param dynamics: further arguments of :class:`LammpsEngine`
    """

    _ATOM_STYLE = "full"
    _CONTRIBUTES = "energy yes"

    def __init__(
        self,
        state: MdState,
        potential: Potential,
        species: Species,
        rules: MoveRules,
        rng: np.random.Generator,
        *,
        seed: int,
        every: int,
        attempts: int,
        counts: tuple[MoveCounts, MoveCounts],
        inspect: Callable[[str, LammpsTrial], None],
        **dynamics: Any,
    ):
        self._species, self._rules, self._rng = species, rules, rng
        self._seed, self._every, self._attempts = seed, every, attempts
        self._framework_atoms, self._framework_numbers = state.framework_atoms, state.numbers[: state.framework_atoms]
        self._insertions, self._deletions = counts
        self.holes: list[Configuration] = []
        self._inspect, self._inspected = inspect, set[str]()
        self._step = -1
        self._known: list[_Known] = []
        super().__init__(state, potential, temperature=rules.temperature, **dynamics)
        before = np.array([counts[0].attempted, counts[0].accepted, counts[1].attempted, counts[1].accepted])
        self._earlier = before - self._made()  # a restart brings LAMMPS's own counts back

    @property
    def _gas(self) -> Gas:
        return self._species.gas

    def _kinds(self, state: MdState) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Types of their own for the atoms of the molecule, so that LAMMPS knows them from the framework's."""
        framework, types = np.unique(self._framework_numbers, return_inverse=True)
        gas = len(framework) + np.arange(len(self._gas))
        return np.concatenate([framework, self._gas.numbers]), np.concatenate([types, np.tile(gas, state.loading)])

    def _create(self, state: MdState) -> None:
        super()._create(state)
        n = len(state)
        tags = self._lammps.numpy.extract_atom("id")[:n]
        molecules = self._lammps.numpy.extract_atom("molecule")
        molecules[:n] = np.maximum(0, (tags - self._framework_atoms - 1) // len(self._gas) + 1)
        self._run(f"group gas type > {len(self._elements) - len(self._gas)}")

    def _add_moves(self) -> None:
        """Define the molecule and ``fix gcmc``; the thermostat's degrees of freedom follow the atoms."""
        gas = self._gas
        first = len(self._elements) - len(gas) + 1
        lines = ["# one molecule of the gas", "", f"{len(gas)} atoms", "", "Coords", ""]
        lines += [f"{i} " + " ".join(repr(float(v)) for v in x) for i, x in enumerate(gas.positions, start=1)]
        lines += ["", "Types", "", *(f"{i + 1} {first + i}" for i in range(len(gas)))]
        Path(_TEMPLATE).write_text("\n".join(lines) + "\n", encoding="utf-8")
        exchange = f"gcmc {self._every} {self._attempts} 0 0 {self._seed} {self._rules.temperature} 0 0 mol gas"
        self._run(
            f"molecule gas {_TEMPLATE}",
            f"fix exchange gas {exchange} pressure {self._species.fugacity / 1e5!r} full_energy",
            "compute_modify bath_temp dynamic/dof yes",
        )

    def _evaluate(self, step: int, tags: Array, x: Array, f: Array) -> None:
        """Answer with the energy of a trial, or with the forces of what it left.

        The first call of a step is the state that dynamics has reached; each further one is a trial, unless it shows a
        frame that this step has seen: that is the last call, whose forces the dynamics goes on with.
        """
        order = np.argsort(tags)
        flags, mask = self._image_flags(len(tags)), self._lammps.numpy.extract_atom("mask")[: len(tags)]
        frame = _Frame(np.asarray(tags[order]), (x + flags @ self._box())[order])
        if step != self._step and not any(known.frame.is_same(frame) for known in self._known):
            self._known = [_Known(frame, self._energies(frame, forces=True))]
        self._step = step
        deleted = frame.tags[(mask[order] & _ALL) == 0]
        known = next((known for known in self._known if known.frame.is_same(frame)), None)
        if len(deleted):
            assert known is not None
            energy = self._judge_deletion(known, deleted)
        elif known is None:
            energy = self._judge_insertion(frame, x, order, flags)
        else:
            energy = self._give_forces(known, f, order)
        self._lammps.fix_external_set_energy_global("potential", energy)

    def _energies(self, frame: _Frame, forces: bool = False) -> Evaluation:
        return self._potential.evaluate([self._configuration(frame)], forces=forces)[0]

    def _configuration(self, frame: _Frame) -> Configuration:
        molecules = (len(frame.tags) - self._framework_atoms) // len(self._gas)
        numbers = np.concatenate([self._framework_numbers, np.tile(self._gas.numbers, molecules)])
        return Configuration(numbers, frame.x, self._box())

    def _judge_deletion(self, before: _Known, deleted: NDArray[np.int64]) -> float:
        """Return the energy without a molecule, whose atoms are dropped before it is evaluated."""
        molecule, left = before.frame.of(deleted), self._remaining(before.frame, deleted)
        if closest_distance(molecule, before.frame.without(deleted).x, self._box()) < self._rules.minimum_distance:
            self._deletions.overlap += 1
            return _REFUSED
        self._deletions.evaluated += 1
        offset = before.offset - self._own_energy(molecule)
        after = _Known(left, self._energies(left), offset, before.new - set(deleted.tolist()))
        energy = before.energy - after.energy
        self._show("deletion", before.frame, deleted, energy)
        if not energy >= self._rules.hole_bound:
            return self._refuse_hole(self._deletions, before.frame)
        self._known.append(after)
        return after.energy

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
        if full is not None and len(frame.tags) - self._framework_atoms > full * len(self._gas):
            return _REFUSED
        molecule = self._species.reservoir.draw()
        centre = self._gas.masses @ frame.of(new) / self._gas.mass
        positions = molecule.positions @ random_rotation(self._rng).T + centre
        x[order[-len(new) :]] = positions - flags[order[-len(new) :]] @ self._box()
        if closest_distance(positions, before.frame.x, self._box()) < self._rules.minimum_distance:
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
        return after.energy

    def _refuse_hole(self, counts: MoveCounts, loaded: _Frame) -> float:
        counts.holes += 1
        numbers, positions, cell = self._configuration(loaded)
        back = self._rotation.T
        self.holes.append(Configuration(numbers, positions @ back, cell @ back))
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
        if known is not self._known[0]:
            self._renew_momenta(known, order)
            known.offset = 0.0
            self._known = [known]
        return known.found.interaction_energy

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

    def read(self, state: MdState, steps: int) -> None:
        """Bring a state up to date, its molecules and the counts of moves included.

        :param state: changed in place
        :param steps: by which it went on
        """
        present = self._known[0]
        configuration = self._configuration(present.frame)
        state.numbers, state.masses = configuration.numbers, self._masses(present.frame)
        state.counts = np.array([(len(state.numbers) - self._framework_atoms) // len(self._gas)])
        super().read(state, steps)
        state.atomic_energy = present.found.atomic_energy
        numbers = (self._earlier + self._made()).tolist()
        self._insertions.attempted, self._insertions.accepted = numbers[:2]
        self._deletions.attempted, self._deletions.accepted = numbers[2:]

    def _made(self) -> NDArray[np.int64]:
        """Return how many insertions and deletions LAMMPS has attempted and accepted, shape (4,)."""
        return np.array([self._lammps.extract_fix("exchange", 0, 1, index) for index in range(2, 6)], dtype=np.int64)
