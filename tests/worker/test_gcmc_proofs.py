"""The grand-canonical engine where the answer is known: briefly here, at length in the benchmark of the same name."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units

from aiida_mofmace.worker.kernels.dynamics import initial_state, velocity_verlet_step
from aiida_mofmace.worker.kernels.exchange import Exchange, MoveRules, Species
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.ideal_gas import RigidReservoir
from aiida_mofmace.worker.kernels.loading import place_molecules
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.worker.kernels.thermostats import NoThermostat

from .classical import ClassicalPotential
from .gcmc_proofs import MULTIPLE_TRY, STARTER, Figure, enumeration, henry, ideal_gas, langmuir, lennard_jones


def check(figures: list[Figure], **largest_errors: float) -> None:
    """Within three standard errors, and those small enough for the figure to say something."""
    for each in figures:
        assert abs(each.deviation) < 3, each
        limit = next((size for word, size in largest_errors.items() if word in each.name.replace(" ", "_")), 0.2)
        assert each.error < limit * abs(each.expected), each


@pytest.mark.parametrize("expected", [1.0, 4.0, 10.0])
def test_ideal_gas(expected: float) -> None:
    check(ideal_gas(expected, flexible=True))


@pytest.mark.parametrize("expected", [1.0, 4.0, 10.0])
def test_rigid_ideal_gas(expected: float) -> None:
    check(ideal_gas(expected, flexible=False))


@pytest.mark.parametrize("occupied", [0.1, 0.5, 0.85])
def test_langmuir(occupied: float) -> None:
    check(langmuir({"Ar": occupied}), langmuir=0.1)


def test_langmuir_of_two_components() -> None:
    check(langmuir({"Ar": 0.3, "Kr": 0.4}))


@pytest.mark.parametrize(("flexible", "thermostat"), [(True, "nose_hoover"), (False, "langevin")])
def test_dynamics_and_exchange_together_follow_henry(flexible: bool, thermostat: str) -> None:
    check(henry(flexible, thermostat))


@pytest.mark.parametrize("dynamics", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_lennard_jones_vapour(dynamics: bool) -> None:
    check(lennard_jones(0.80, dynamics))


@pytest.mark.parametrize("flexible", [True, False])
def test_ideal_gas_by_multiple_try(flexible: bool) -> None:
    check(ideal_gas(4.0, flexible, **MULTIPLE_TRY))


def test_langmuir_by_multiple_try() -> None:
    check(langmuir({"Ar": 0.3, "Kr": 0.4}, **MULTIPLE_TRY))


@pytest.mark.slow
def test_lennard_jones_vapour_by_multiple_try() -> None:
    check(lennard_jones(0.80, dynamics=False, **MULTIPLE_TRY))


@pytest.mark.parametrize(("trials", "surrogate"), [(1, True), (2, True), (3, True), (3, False)])
def test_detailed_balance_by_enumeration(trials: int, surrogate: bool) -> None:
    """Every transition between all states of a small system of two gases, by every set of trial places."""
    balance, stationarity = enumeration(trials, surrogate)
    assert balance < 1e-15
    assert stationarity < 1e-14


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("atoms_per_batch", [1, 60, 100, 10**6])
def test_trial_deletions_in_batches(dtype: str, atoms_per_batch: int, framework: Atoms, carbon_dioxide: Gas) -> None:
    """The energy of a trial deletion is that of the structure without the molecule, to 1e-6 eV, in any batch."""
    potential = MaceEvaluator(STARTER, dtype=dtype, atoms_per_batch=atoms_per_batch)
    rng = np.random.default_rng(3)
    loaded = place_molecules(framework, carbon_dioxide, 3, 2.0, rng)
    state = initial_state(loaded, potential, 300.0, rng, len(framework), counts=np.array([3]), sizes=np.array([3]))
    species = [Species(carbon_dioxide, 1e5, RigidReservoir(carbon_dioxide, potential))]
    exchange = Exchange(species, potential, MoveRules(300.0, 1.0, -10.0), rng)
    trials = [exchange.try_deletion(state, index) for index in range(3)]
    frames = [loaded[[i for i in range(49) if not 40 + 3 * gone <= i < 43 + 3 * gone]] for gone in range(3)]
    alone = MaceEvaluator(STARTER, dtype=dtype)
    expected = [alone.evaluate([frame], forces=False)[0].interaction_energy for frame in frames]
    together = [answer.interaction_energy for answer in potential.evaluate(frames, forces=True)]
    found = [trial.evaluation.interaction_energy for trial in trials if trial.evaluation is not None]
    assert found == pytest.approx(expected, abs=1e-6)
    assert together == pytest.approx(expected, abs=1e-6)
    assert np.ptp(expected) > 1e-3


def test_classical_potential_of_the_comparison(framework: Atoms, carbon_dioxide: Gas) -> None:
    """The Ewald sum does not depend on how it is split, and no energy on where the origin is; alone there is none."""
    large = framework.repeat(2)
    loaded = place_molecules(large, carbon_dioxide, 3, 2.2, np.random.default_rng(5))
    coarse, fine = (ClassicalPotential(large, 6.6, precision) for precision in (1e-7, 1e-10))
    energy = coarse.evaluate([loaded])[0].interaction_energy
    assert fine.evaluate([loaded])[0].interaction_energy == pytest.approx(energy, abs=2e-6)
    shift = np.array([1.3, -7.0, 2.9])
    large.positions += shift
    loaded.positions += shift
    moved = ClassicalPotential(large, 6.6).evaluate([loaded])[0].interaction_energy
    assert moved == pytest.approx(energy, abs=1e-8)
    assert abs(energy) > 0.1
    assert coarse.evaluate([loaded[-3:]])[0].interaction_energy == 0.0


def test_mace_conserves_energy(framework: Atoms, carbon_dioxide: Gas) -> None:
    """No drift in 200 steps of constant energy with the starter model in float32, molecules in the pores."""
    potential = MaceEvaluator(STARTER)
    rng = np.random.default_rng(4)
    state = initial_state(place_molecules(framework, carbon_dioxide, 2, 2.2, rng), potential, 150.0, rng)
    totals = []
    for _ in range(200):
        velocity_verlet_step(state, potential, NoThermostat(), 0.5 * units.fs)
        totals.append(state.energy + state.kinetic_energy)
    drift = np.polyfit(np.arange(200) * 0.5e-3, totals, 1)[0] / len(state)
    assert abs(drift) < 2e-3  # eV per atom and ps
    assert np.std(totals) / len(state) < 2e-4
