"""Moves of molecules in the cell: the ensemble of reinsertion, refusals, and how far a move goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from aiida_mofmace.worker.kernels.displacement import Displacement
from aiida_mofmace.worker.kernels.dynamics import MdState, initial_state
from aiida_mofmace.worker.kernels.exchange import MoveRules, Species
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.ideal_gas import Molecule, RigidReservoir
from aiida_mofmace.worker.kernels.model import Evaluation

from .engine_fixtures import CO2, Array, NoPotential
from .gcmc_proofs import ARGON, TEMPERATURE, figure
from .stretching import N2, Stretching

EDGE = 20.0


class ExactReservoir:
    """Diatomics whose bond lengths are drawn from their exact distribution in the ideal gas."""

    mean_energies: Sequence[float] = ()

    def __init__(self, potential: Stretching, rng: np.random.Generator):
        self._potential, self._rng = potential, rng
        self._lengths, weights = potential.length_distribution(TEMPERATURE, adsorbed=False)
        self._up_to = np.cumsum(weights)

    def draw(self) -> Molecule:
        length = np.interp(self._rng.random(), self._up_to, self._lengths)
        own, _ = self._potential.energies(length)
        return Molecule(np.array([[0.0, 0.0, -0.5 * length], [0.0, 0.0, 0.5 * length]]), float(own))

    def to_arrays(self) -> dict[str, Any]:
        return {}

    def restore(self, arrays: Mapping[str, Any]) -> None:
        """Nothing is kept."""


def displacement(
    gas: Gas,
    potential: Any,
    reservoir: Any = None,
    *,
    translation_step: float = EDGE / 2,
    rotation_step: float = 0.0,
    **rules: float,
) -> Displacement:
    rng = np.random.default_rng(3)
    defaults = {"minimum_distance": 0.0, "hole_bound": -10.0}
    species = [Species(gas, 1e5, reservoir or RigidReservoir(gas, potential))]
    judged = MoveRules(TEMPERATURE, **(defaults | rules))
    return Displacement(species, potential, judged, rng, translation_step, rotation_step)


def state_of(gas: Gas, potential: Any, *places: Sequence[float]) -> MdState:
    """A cell with one atom of the framework and molecules at the places."""
    atoms = Atoms("Al", cell=[EDGE] * 3, pbc=True)
    for place in places:
        atoms += Atoms(gas.numbers, gas.positions + np.array(place))
    counts, sizes = np.array([len(places)]), np.array([len(gas)])
    return initial_state(atoms, potential, TEMPERATURE, np.random.default_rng(1), 1, counts=counts, sizes=sizes)


def test_reinsertion_keeps_the_ensemble_of_a_strained_molecule() -> None:
    """Mean energy and mean bond length of a bond that the framework pulls apart, against quadrature."""
    gas, potential = Gas.from_dict(N2), Stretching(spring=2.0, pull=0.15, depth=0.1)
    moves = displacement(gas, potential, ExactReservoir(potential, np.random.default_rng(5)))
    state = state_of(gas, potential, [5.0, 5.0, 5.0])
    energies, bonds = [], []
    for _ in range(4000):
        moves.attempt(state, "reinsertion")
        energies.append(state.energy)
        bonds.append(np.linalg.norm(state.positions[2] - state.positions[1]))
    lengths, weights = potential.length_distribution(TEMPERATURE, adsorbed=True)
    energy = figure("energy", energies, float(sum(potential.energies(lengths)) @ weights))
    bond = figure("bond", bonds, float(lengths @ weights))
    alone = float(lengths @ potential.length_distribution(TEMPERATURE, adsorbed=False)[1])
    assert abs(energy.deviation) < 3 and abs(bond.deviation) < 3
    assert energy.error < 0.02 * abs(energy.expected)
    assert bond.error < 0.1 * (bond.expected - alone)


def test_a_molecule_that_is_too_near_does_not_move_away() -> None:
    """Nothing could bring it back, for none moves to where it would be too near."""
    gas, potential = Gas.from_dict(ARGON), NoPotential()
    moves = displacement(gas, potential, translation_step=1.0, minimum_distance=2.0)
    state = state_of(gas, potential, [9.0, 9.0, 9.0], [10.0, 9.0, 9.0])
    assert not any(moves.attempt(state, "translation") for _ in range(60))
    counts = moves.counts["translation"]
    assert (counts.overlap, counts.evaluated) == (60, 0)
    for _ in range(60):
        state.positions[1:] = [[9.0, 9.0, 9.0], [11.2, 9.0, 9.0]]
        moves.attempt(state, "translation")
        assert np.linalg.norm(state.positions[2] - state.positions[1]) >= 2.0
    assert 5 < counts.overlap - 60 < 55
    assert counts.accepted == counts.evaluated == counts.attempted - counts.overlap


class Step:
    """Argon in one half of the cell has an energy of its own.

    :param energy: in eV
    """

    r_max = 3.0

    def __init__(self, energy: float):
        self.energy = energy

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        return [
            Evaluation(self.energy * self._inside(c.numbers, c.positions), forces=np.zeros((len(c.positions), 3)))
            for c in configurations
        ]

    def _inside(self, numbers: Any, positions: Any) -> int:
        return int(np.count_nonzero((np.asarray(numbers) == 18) & (np.asarray(positions)[:, 0] % EDGE < EDGE / 2)))


def crossings(potential: Step, start: Array) -> tuple[int, int]:
    """Accepted moves into the other half of the cell, and holes, of 100 translations from the same place."""
    gas, crossed = Gas.from_dict(ARGON), 0
    moves = displacement(gas, potential, hole_bound=-0.02)
    state = state_of(gas, potential, start)
    for _ in range(100):
        moves.attempt(state, "translation")
        crossed += (state.positions[1, 0] % EDGE < EDGE / 2) != (start[0] < EDGE / 2)
        state.positions[1] = start
        state.energy = potential.evaluate([state.atoms()])[0].interaction_energy
    counts = moves.counts["translation"]
    assert counts.evaluated == 100
    assert 30 < counts.accepted < 70 + crossed
    return crossed, counts.holes


def test_a_hole_is_refused_both_ways_and_counted_where_it_lies_ahead() -> None:
    """Where 20 meV are a hole, one of 30 takes in nobody and lets nobody out; a well of 10 is none."""
    outside, inside = np.array([15.0, 10.0, 10.0]), np.array([5.0, 10.0, 10.0])
    crossed, holes = crossings(Step(-0.03), outside)
    assert crossed == 0 and holes > 30
    assert crossings(Step(-0.03), inside) == (0, 0)
    crossed, holes = crossings(Step(-0.01), outside)
    assert crossed > 30 and holes == 0
    crossed, holes = crossings(Step(-0.01), inside)
    assert crossed > 15 and holes == 0


def test_angles_of_rotations_go_up_to_the_step() -> None:
    gas, potential = Gas.from_dict(CO2), NoPotential()
    moves = displacement(gas, potential, rotation_step=1.0)
    state, angles = state_of(gas, potential, [5.0, 5.0, 5.0]), []
    for _ in range(300):
        before = state.positions[1:] - state.positions[1]
        assert moves.attempt(state, "rotation")
        after = state.positions[1:] - state.positions[1]
        sine = np.linalg.norm(np.cross(before[1], after[1])) / np.linalg.norm(before[1]) ** 2
        angles.append(np.degrees(np.arcsin(sine)))
    assert 0.9 < max(angles) <= 1.0
    np.testing.assert_allclose(state.positions[1], [5.0, 5.0, 5.0], atol=1e-9)
