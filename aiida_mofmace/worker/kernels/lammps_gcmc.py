"""LAMMPS as grand-canonical engine: ``fix gcmc`` chooses, counts and accepts, a potential in this process judges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_masses
from numpy.typing import NDArray

from .dynamics import MdState
from .exchange import MoveCounts, MoveRules, Species
from .lammps_engine import LammpsEngine
from .lammps_exchange import ExchangeJudge, LammpsTrial
from .lammps_molecule import molecule_file, types_with_gas
from .model import Configuration, Potential

__all__ = ["GrandCanonicalLammps", "LammpsTrial"]

Array = NDArray[np.float64]
_TEMPLATE = "gas.molecule"


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
        self._framework = state.numbers[: state.framework_atoms]
        self._counts, self._inspect = counts, inspect
        super().__init__(state, potential, temperature=rules.temperature, **dynamics)
        before = np.array([counts[0].attempted, counts[0].accepted, counts[1].attempted, counts[1].accepted])
        self._earlier = before - self._made()  # a restart brings LAMMPS's own counts back

    def _kinds(self, state: MdState) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Types of their own for the atoms of the molecule, so that LAMMPS knows them from the framework's."""
        return types_with_gas(self._framework, self._species.gas, state.loading)

    def _create(self, state: MdState) -> None:
        super()._create(state)
        n = len(state)
        tags = self._lammps.numpy.extract_atom("id")[:n]
        molecules = self._lammps.numpy.extract_atom("molecule")
        size = len(self._species.gas)
        molecules[:n] = np.maximum(0, (tags - len(self._framework) - 1) // size + 1)
        self._run(f"group gas type > {len(self._elements) - size}")

    def _add_moves(self) -> None:
        """Define the molecule and ``fix gcmc``; the thermostat's degrees of freedom follow the atoms."""
        gas = self._species.gas
        self.judge = ExchangeJudge(
            self._lammps,
            self._potential,
            self._framework,
            gas,
            self._species.reservoir,
            rules=self._rules,
            rng=self._rng,
            counts=self._counts,
            inspect=self._inspect,
            fix="potential",
        )
        Path(_TEMPLATE).write_text(molecule_file(gas, len(self._elements) - len(gas) + 1), encoding="utf-8")
        exchange = f"gcmc {self._every} {self._attempts} 0 0 {self._seed} {self._rules.temperature} 0 0 mol gas"
        self._run(
            f"molecule gas {_TEMPLATE}",
            f"fix exchange gas {exchange} pressure {self._species.fugacity / 1e5!r} full_energy",
            "compute_modify bath_temp dynamic/dof yes",
        )

    def _evaluate(self, step: int, tags: Array, x: Array, f: Array) -> None:
        self.judge.answer(step, tags.astype(np.int64), x, f)

    def take_holes(self) -> list[Configuration]:
        """Return the configurations with a hole of the model since the last call, oriented as the state is."""
        found, back = list(self.judge.holes), self._rotation.T
        self.judge.holes.clear()
        return [Configuration(numbers, positions @ back, cell @ back) for numbers, positions, cell in found]

    def read(self, state: MdState, steps: int) -> None:
        """Bring a state up to date, its molecules and the counts of moves included.

        :param state: changed in place
        :param steps: by which it went on
        """
        state.numbers = self.judge.present.numbers
        state.masses = np.asarray(atomic_masses[state.numbers], dtype=np.float64)
        state.counts = np.array([(len(state.numbers) - state.framework_atoms) // len(self._species.gas)])
        super().read(state, steps)
        state.atomic_energy = self.judge.found.atomic_energy
        numbers = (self._earlier + self._made()).tolist()
        for counts, (attempted, accepted) in zip(self._counts, (numbers[:2], numbers[2:]), strict=True):
            counts.attempted, counts.accepted = attempted, accepted

    @property
    def atoms(self) -> int:
        """Number of atoms now; a state has that of when it was last read."""
        return len(self.judge.present.numbers)

    def _made(self) -> NDArray[np.int64]:
        """Return how many insertions and deletions LAMMPS has attempted and accepted, shape (4,)."""
        return np.array([self._lammps.extract_fix("exchange", 0, 1, index) for index in range(2, 6)], dtype=np.int64)
