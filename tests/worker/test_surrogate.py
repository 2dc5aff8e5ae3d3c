"""The surrogate of trial moves: its distances and energies against a direct sum, its use in a choice of places."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.neighborlist import neighbor_list

from aiida_mofmace.protocols import load_force_field
from aiida_mofmace.worker.kernels.dynamics import initial_state
from aiida_mofmace.worker.kernels.exchange import Exchange, MoveRules, Species
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.geometry import closest_distance
from aiida_mofmace.worker.kernels.ideal_gas import RigidReservoir
from aiida_mofmace.worker.kernels.multiple_try import MultipleTry, log_bias
from aiida_mofmace.worker.kernels.surrogate import LennardJonesSurrogate, Surroundings

from .engine_fixtures import Array, NoPotential

CUTOFF = 9.0  # Å, more than a height of the cell: several images of the same atom count
UFF = load_force_field("uff")["parameters"]
THERMAL = 0.2  # eV; so hot that no free place has next to no weight
SURROGATE = LennardJonesSurrogate.from_dict(
    {"cutoff": CUTOFF, "ceiling": np.inf, "diameter_scale": 0.9, "parameters": UFF}
)
LOW = LennardJonesSurrogate(SURROGATE.depths, SURROGATE.diameters, 5.0, 0.1)


def make_try(surrogate: LennardJonesSurrogate | None, trials: int = 64) -> MultipleTry:
    return MultipleTry(trials, surrogate, THERMAL, 1.8, np.random.default_rng(2))


def direct_energy(framework: Atoms, gas: Gas, place: Array) -> float:
    """The same sum over ASE's list of neighbours."""
    atoms = framework + Atoms(gas.numbers, place)
    first, second, distance = neighbor_list("ijd", atoms, CUTOFF)
    wanted = (first >= len(framework)) & (second < len(framework))
    symbols = np.array(atoms.get_chemical_symbols())
    own, around = (np.array([UFF[s] for s in symbols[each[wanted]]]) for each in (first, second))
    sixth = (0.9 * (own[:, 1] + around[:, 1]) / 2 / distance[wanted]) ** 6
    return float((4 * units.kB * np.sqrt(own[:, 0] * around[:, 0]) * (sixth**2 - sixth)).sum())


def test_energies_and_distances(framework: Atoms, carbon_dioxide: Gas) -> None:
    framework.positions += framework.cell.array[0] * 7.3  # not wrapped
    surroundings = Surroundings(framework.numbers, framework.positions, framework.cell.array, CUTOFF)
    places = make_try(None).places(60, carbon_dioxide.positions, framework.cell.array) + framework.cell.array[2] * 3
    closest = closest_distance(places, framework.positions, framework.cell.array)
    expected = np.where(closest < 2.0, closest, np.inf)
    assert surroundings.closest(places, 2.0) == pytest.approx(expected, abs=1e-9)
    assert 2 < np.isinf(expected).sum() < 58
    energies = SURROGATE.energies(carbon_dioxide.numbers, places, surroundings)
    assert energies == pytest.approx([direct_energy(framework, carbon_dioxide, place) for place in places], rel=1e-9)


def test_a_ceiling_bounds_the_energy(framework: Atoms, carbon_dioxide: Gas) -> None:
    surroundings = Surroundings(framework.numbers, framework.positions, framework.cell.array, 5.0)
    inside = framework.positions[:1, None] + carbon_dioxide.positions + 0.3
    assert LOW.energies(carbon_dioxide.numbers, inside, surroundings).tolist() == [0.1]


@pytest.mark.parametrize("surrogate", [LOW, None])
def test_places_are_chosen_by_their_weights(
    surrogate: LennardJonesSurrogate | None, framework: Atoms, carbon_dioxide: Gas
) -> None:
    """The mean of exp(bias) f over choices is the mean of f over uniform places, f that of free places only."""
    cell, multiple_try = framework.cell.array, make_try(surrogate)
    surroundings = Surroundings(framework.numbers, framework.positions, cell, multiple_try.reach)
    found = []
    for _ in range(300):
        chosen = multiple_try.choose(carbon_dioxide.numbers, carbon_dioxide.positions, surroundings, cell)
        if chosen is not None:
            assert closest_distance(chosen[0], framework.positions, cell) >= 1.8 - 1e-9
        found.append(0.0 if chosen is None else np.exp(chosen[1]))
    uniform = multiple_try.places(20000, carbon_dioxide.positions, cell)
    share = float((surroundings.closest(uniform, 1.8) >= 1.8).mean())
    error = np.hypot(np.std(found) / np.sqrt(len(found)), np.sqrt(share / 20000))
    assert abs(np.mean(found) - share) < 3 * error
    assert error < 0.2 * share


def test_an_overlapping_place_is_never_chosen(framework: Atoms, carbon_dioxide: Gas) -> None:
    """Nor would it have been, so that its bias is without bound and its deletion refused."""
    cell, multiple_try = framework.cell.array, make_try(SURROGATE, 3)
    surroundings = Surroundings(framework.numbers, framework.positions, cell, CUTOFF)
    shape = carbon_dioxide.positions
    inside = framework.positions[0] + shape
    assert multiple_try.bias_of(carbon_dioxide.numbers, inside, shape, surroundings, cell) == np.inf
    assert log_bias(np.full(4, -np.inf), 0) == np.inf
    assert log_bias(np.array([-np.inf, 700.0, 800.0]), 2) == pytest.approx(-np.log(3))


def test_places_are_turned_uniformly() -> None:
    """Elements of uniform rotations have mean 0 and variance 1/3, their trace mean 0 and variance 1."""
    turns = make_try(None).places(4000, np.eye(3), np.zeros((3, 3)))
    assert np.linalg.det(turns) == pytest.approx(np.ones(4000))
    error = 1 / np.sqrt(4000)
    assert np.all(np.abs(turns.mean(axis=0)) < 4 * error / np.sqrt(3))
    assert turns.var(axis=0) == pytest.approx(np.full((3, 3), 1 / 3), abs=0.03)
    traces = np.trace(turns, axis1=1, axis2=2)
    assert abs(traces.mean()) < 4 * error and traces.var() == pytest.approx(1.0, abs=0.1)


def test_the_bias_of_a_deletion_is_that_of_the_whole_molecule(carbon_dioxide: Gas) -> None:
    """The free share of places of CO2 beside one atom: three spheres less two lenses; the third lies in the second."""
    nearest, bond, edge, trials = 2.0, 1.16, 8.0, 100
    rng = np.random.default_rng(8)
    multiple_try = MultipleTry(trials, None, THERMAL, nearest, rng)
    potential = NoPotential()
    species = [Species(carbon_dioxide, 1e5, RigidReservoir(carbon_dioxide, potential))]
    exchange = Exchange(species, potential, MoveRules(300.0, nearest, -10.0), rng, multiple_try)
    atoms = Atoms("AlCO2", np.concatenate([[[4.0] * 3], carbon_dioxide.positions]), cell=[edge] * 3, pbc=True)
    state = initial_state(atoms, potential, 300.0, rng, 1, counts=np.array([1]), sizes=np.array([3]))
    found = np.exp([exchange._bias_of(state, 0, 0) for _ in range(300)])
    lens = np.pi * (4 * nearest + bond) * (2 * nearest - bond) ** 2 / 12
    free = 1.0 - (3 * 4 / 3 * np.pi * nearest**3 - 2 * lens) / edge**3
    # Its own place is one of the k and free.
    error = np.std(found) / np.sqrt(len(found))
    assert abs(found.mean() - (1 + (trials - 1) * free) / trials) < 3 * error
    assert error < 0.003


def test_force_fields_by_name() -> None:
    assert len(UFF) == 103
    assert UFF["C"] == [52.8435, 3.4309]
    with pytest.raises(ValueError, match="unknown force field 'ufo'; known are uff"):
        load_force_field("ufo")
