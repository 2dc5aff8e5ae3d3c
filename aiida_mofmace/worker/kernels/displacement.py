"""Monte Carlo moves of molecules that are in the cell: translation, rotation, reinsertion elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .dynamics import MdState
from .exchange import MoveCounts, MoveRules, Species, place_at_random
from .geometry import closest_distance
from .ideal_gas import isolated
from .model import Configuration, Potential

__all__ = ["DISPLACEMENTS", "Displacement"]

Array = NDArray[np.float64]
DISPLACEMENTS = ("translation", "rotation", "reinsertion")


@dataclass
class Displacement:
    """Attempts moves of one molecule drawn at random, by Metropolis' rule.

    A molecule is moved neither to nor from a place where it is closer than the minimum distance to another atom, nor by
    a step that changes the energy by more than the bound for holes in either direction, so that each refusal has its
    reverse and detailed balance is kept.

    :param species: kinds of molecules, in the order of the state
    :param potential: energies, the one of the dynamics
    :param rules: what a trial is judged by
    :param rng: source of random numbers
    :param translation_step: largest displacement in Å along each axis
    :param rotation_step: largest angle in degrees
    :param counts: what became of the trials of each kind of move
    """

    species: Sequence[Species]
    potential: Potential
    rules: MoveRules
    rng: np.random.Generator
    translation_step: float
    rotation_step: float
    counts: dict[str, MoveCounts] = field(default_factory=lambda: {name: MoveCounts() for name in DISPLACEMENTS})

    def attempt(self, state: MdState, move: str) -> bool:
        """Attempt one move; if it is accepted, the forces of the state are still to be evaluated.

        :param move: one of translation, rotation and reinsertion
        :return: whether it was accepted
        """
        counts = self.counts[move]
        counts.attempted += 1
        if state.loading == 0:
            return False
        kind, atoms = self._choose(state)
        old = state.positions[atoms]
        new, own_change = self._propose(state, move, kind, old)
        others = np.delete(state.positions, atoms, axis=0)
        if closest_distance(np.stack([old, new]), others, state.cell).min() < self.rules.minimum_distance:
            counts.overlap += 1
            return False
        counts.evaluated += 1
        positions = state.positions.copy()
        positions[atoms] = new
        evaluation = self.potential.evaluate([Configuration(state.numbers, positions, state.cell)], forces=False)[0]
        change = evaluation.interaction_energy - state.energy - own_change
        if change > -self.rules.hole_bound:
            return False  # the way back would lead into a hole
        if not change >= self.rules.hole_bound:
            counts.holes += 1
            return False
        if self.rng.random() >= math.exp(-max(change, 0.0) / self.rules.thermal):
            return False
        counts.accepted += 1
        state.positions, state.energy = positions, evaluation.interaction_energy
        return True

    def _choose(self, state: MdState) -> tuple[int, slice]:
        """Draw one of all molecules; return its kind and its atoms."""
        index = int(self.rng.integers(state.loading))
        ends = np.cumsum(state.counts)
        kind = int(np.searchsorted(ends, index, side="right"))
        return kind, state.atoms_of(kind, index - int(ends[kind] - state.counts[kind]))

    def _propose(self, state: MdState, move: str, kind: int, old: Array) -> tuple[Array, float]:
        """Return new positions in Å and the change of the molecule's own energy that does not count, in eV."""
        if move == "translation":
            return old + self.rng.uniform(-1.0, 1.0, 3) * self.translation_step, 0.0
        gas = self.species[kind].gas
        if move == "rotation":
            return self._turned(old, gas.centre_of_mass(old)), 0.0
        molecule = place_at_random(self.species[kind].reservoir, state.cell, self.rng)
        alone = self.potential.evaluate([isolated(gas, old, self.potential.r_max)], forces=False)[0]
        return molecule.positions, molecule.energy - alone.interaction_energy

    def _turned(self, positions: Array, centre: Array) -> Array:
        """Turn about an axis drawn at random by an angle drawn uniformly up to the largest."""
        from scipy.spatial.transform import Rotation

        axis = self.rng.standard_normal(3)
        angle = math.radians(self.rotation_step) * self.rng.uniform(-1.0, 1.0)
        rotation = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis))
        return np.asarray(rotation.apply(positions - centre) + centre)
