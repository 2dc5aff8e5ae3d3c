"""Exchange with the reservoir: exact limits, detailed balance, energies of trial moves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units

from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.dynamics import MdState, initial_state
from aiida_mofmace.worker.kernels.exchange import (
    Exchange,
    MoveRules,
    Species,
    deletion_acceptance,
    insertion_acceptance,
)
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.ideal_gas import IdealGasReservoir, Molecule
from aiida_mofmace.worker.kernels.loading import place_molecules
from aiida_mofmace.worker.kernels.model import Evaluation, MaceEvaluator
from aiida_mofmace.worker.kernels.statistics import estimate_mean
from aiida_mofmace.worker.kernels.thermodynamics import ideal_gas_number
from aiida_mofmace.worker.kernels.thermostats import NoseHooverChain
from aiida_mofmace.worker.programs.hybrid import HybridSimulation
from aiida_mofmace.worker.programs.simulation import describe_explosion
from aiida_mofmace.worker.stopping import StopRequest

from .engine_fixtures import CO2, Array, BondedMolecules, LennardJones, thermal
from .gcmc_proofs import MONTE_CARLO, parameters, simulate

TEMPERATURE = 300.0


def make_exchange(
    gas: Gas, potential: Any, seed: int = 0, equilibrate: bool = False, fugacity: float = 1e6, **rules: Any
) -> Exchange:
    rng = np.random.default_rng(seed)
    reservoir = IdealGasReservoir(gas, potential, TEMPERATURE, 0.5 * units.fs, rng, equilibrate=equilibrate)
    defaults = {"minimum_distance": 0.0, "hole_bound": -10.0}
    species = [Species(gas, fugacity, reservoir)]
    return Exchange(species, potential, MoveRules(TEMPERATURE, **(defaults | rules)), rng)


def make_initial(atoms: Atoms, potential: Any, gas: Gas, framework_atoms: int) -> MdState:
    counts, sizes = np.array([(len(atoms) - framework_atoms) // len(gas)]), np.array([len(gas)])
    rng = np.random.default_rng(7)
    return initial_state(atoms, potential, TEMPERATURE, rng, framework_atoms, counts=counts, sizes=sizes)


def make_state(potential: Any, gas: Gas, loading: int, edge: float = 20.0, seed: int = 1) -> MdState:
    rng = np.random.default_rng(seed)
    atoms = place_molecules(Atoms("Al", cell=[edge] * 3, pbc=True), gas, loading, 1.0, rng)
    counts, sizes = np.array([loading]), np.array([len(gas)])
    return initial_state(atoms, potential, TEMPERATURE, rng, 1, counts=counts, sizes=sizes)


def test_detailed_balance(carbon_dioxide: Gas) -> None:
    """π(x) P(insertion) = π(x') P(deletion) for one pair of configurations, energies enumerated by hand."""
    potential = LennardJones()
    fugacity, edge = 5e7, 20.0
    exchange = make_exchange(carbon_dioxide, potential, fugacity=fugacity, minimum_distance=1.0)
    state = make_state(potential, carbon_dioxide, loading=3, edge=edge)
    positions = state.positions[1:4] + np.array([0.0, 3.6, 0.4])
    alone = potential.evaluate([Atoms(carbon_dioxide.numbers, positions, cell=np.eye(3) * 30)])[0].interaction_energy
    insertion = exchange.try_insertion(state, Molecule(positions, alone))
    full = Atoms(insertion.configuration.numbers, insertion.configuration.positions, cell=state.cell, pbc=True)
    loaded = make_initial(full, potential, carbon_dioxide, 1)
    deletion = exchange.try_deletion(loaded, 3)
    beta = 1 / thermal(TEMPERATURE)
    energy_before, energy_after = (potential.evaluate([s.atoms()])[0].interaction_energy for s in (state, loaded))
    # Weights in the space of molecules that are told apart by nothing: (f β)^N exp(-β (U - N u)) / N!
    number = ideal_gas_number(fugacity, edge**3, TEMPERATURE)
    log_ratio = np.log(number / 4) - beta * (energy_after - energy_before - alone)
    assert 0 < min(insertion.acceptance, deletion.acceptance) < 1
    assert np.log(insertion.acceptance / deletion.acceptance) == pytest.approx(log_ratio, abs=1e-7)
    assert abs(beta * (energy_after - energy_before - alone)) > 0.1


@pytest.mark.parametrize("loading", [0, 1, 7])
@pytest.mark.parametrize("reduced", [-3.0, 0.0, 2.0])
def test_acceptance_is_reversible(loading: int, reduced: float) -> None:
    forward = insertion_acceptance(2.5, loading, reduced)
    backward = deletion_acceptance(2.5, loading + 1, -reduced)
    assert max(forward, backward) == 1.0
    assert forward / backward == pytest.approx(2.5 / (loading + 1) * np.exp(-reduced))


def test_trial_energies_of_mace(tiny_model: Path, framework: Atoms, carbon_dioxide: Gas) -> None:
    """A trial deletion is the structure without the molecule; the insertion of the same one gains what it costs."""
    potential = MaceEvaluator(tiny_model, dtype="float32")
    rng = np.random.default_rng(3)
    loaded = place_molecules(framework, carbon_dioxide, 2, 1.8, rng)
    state = make_initial(loaded, potential, carbon_dioxide, len(framework))
    crowded, thin = (
        make_exchange(carbon_dioxide, potential, fugacity=fugacity, minimum_distance=1.0) for fugacity in (1e12, 1e2)
    )
    trial = crowded.try_deletion(state, 0)
    without = loaded[[*range(40), *range(43, 46)]]
    expected = potential.evaluate([without])[0]
    assert trial.evaluation is not None
    assert trial.evaluation.interaction_energy == pytest.approx(expected.interaction_energy, abs=1e-6)
    assert trial.evaluation.atomic_energy == pytest.approx(expected.atomic_energy, abs=1e-9)
    smaller = make_initial(without, potential, carbon_dioxide, len(framework))
    alone = loaded[40:43]
    alone.cell = np.eye(3) * 30
    own = potential.evaluate([alone])[0].interaction_energy
    back = thin.try_insertion(smaller, Molecule(loaded.positions[40:43], own))
    # What the acceptances say of the energy; each at a fugacity at which it is below one.
    found = [
        thermal(TEMPERATURE) * np.log(trial.acceptance * crowded.ideal_number(state) / 2),
        -thermal(TEMPERATURE) * np.log(back.acceptance * 2 / thin.ideal_number(state)),
    ]
    assert max(trial.acceptance, back.acceptance) < 1.0
    double = MaceEvaluator(tiny_model, dtype="float64")
    exact = double.evaluate([loaded, without, alone], forces=False)
    gain = exact[0].interaction_energy - exact[1].interaction_energy - exact[2].interaction_energy
    assert found == pytest.approx([gain, gain], abs=2e-5)
    assert abs(gain) > 1e-3


def test_overlap_refused_both_ways(carbon_dioxide: Gas) -> None:
    potential = BondedMolecules(carbon_dioxide)
    exchange = make_exchange(carbon_dioxide, potential, minimum_distance=2.0)
    state = make_state(potential, carbon_dioxide, loading=2)
    close = Molecule(state.positions[1:4] + np.array([1.9, 0.0, 0.0]), 0.0)
    inserted = exchange.try_insertion(state, close)
    assert (inserted.refusal, inserted.acceptance, inserted.evaluation) == ("overlap", 0.0, None)
    state.positions[4:7] = close.positions
    assert {exchange.try_deletion(state, index).refusal for index in (0, 1)} == {"overlap"}
    state.positions[4:7] += np.array([5.0, 0.0, 0.0])
    assert exchange.try_deletion(state, 1).refusal is None


class _Hole(BondedMolecules):
    """Every molecule gains 3 eV in the cell of the framework."""

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        answers = super().evaluate(configurations, forces)
        loaded = [len(c.numbers) // 3 if 13 in np.asarray(c.numbers) else 0 for c in configurations]
        return [
            Evaluation(a.interaction_energy - 3.0 * n, forces=a.forces) for a, n in zip(answers, loaded, strict=True)
        ]


def test_holes_refused_both_ways(carbon_dioxide: Gas) -> None:
    """A model hole is counted, its frame kept with the molecule in it, and no molecule leaves one either."""
    potential = _Hole(carbon_dioxide)
    exchange = make_exchange(carbon_dioxide, potential, hole_bound=-2.0)
    state = make_state(potential, carbon_dioxide, loading=1)
    assert not any(exchange.attempt(state) for _ in range(40))
    assert state.loading == 1
    assert exchange.insertions.holes == exchange.insertions.attempted > 5
    assert exchange.deletions.holes == exchange.deletions.attempted > 5
    assert sorted({(len(a), a.info["loading"]) for a in exchange.candidates}) == [(4, 1), (7, 2)]
    inserted = next(a for a in exchange.candidates if len(a) == 7)
    assert inserted.info["energy"] < state.energy - 2.5
    allowed = make_exchange(carbon_dioxide, potential, hole_bound=-4.0)
    assert allowed.try_deletion(state, 0).refusal is None


def test_a_hole_nearer_than_anything_is_allowed(carbon_dioxide: Gas) -> None:
    """Nothing gets there by exchange and nothing leaves, so the deletions have to tell of it."""
    potential = _Hole(carbon_dioxide)
    exchange = make_exchange(carbon_dioxide, potential, hole_bound=-2.0, minimum_distance=20.0)
    state = make_state(potential, carbon_dioxide, loading=1)
    assert not any(exchange.attempt(state) for _ in range(40))
    assert exchange.insertions.overlap == exchange.insertions.attempted > 5
    assert exchange.deletions.holes == exchange.deletions.attempted > 5
    assert exchange.deletions.overlap == 0
    assert len(exchange.candidates) == exchange.deletions.holes


def test_momenta_after_exchange(carbon_dioxide: Gas) -> None:
    """Inserted and remaining atoms follow Maxwell and Boltzmann, in the frame of the resting centre of mass."""
    potential = BondedMolecules(carbon_dioxide)
    exchange = make_exchange(carbon_dioxide, potential, fugacity=1e12)
    samples: dict[str, list[Array]] = {"inserted": [], "old": []}
    for seed in range(1500):
        state = make_state(potential, carbon_dioxide, loading=1, seed=seed)
        while not exchange._attempt_insertion(state, 0):
            pass
        assert np.allclose(state.momenta.sum(axis=0), 0.0, atol=1e-12)
        samples["old"].append(state.momenta[1:4])
        samples["inserted"].append(state.momenta[4:7])
    masses = carbon_dioxide.masses
    total = state.masses.sum()
    expected = masses * (1 - masses / total) * thermal(TEMPERATURE)
    for name, momenta in samples.items():
        variance = np.mean(np.array(momenta) ** 2, axis=(0, 2))
        error = expected * np.sqrt(2 / (3 * len(momenta)))
        assert np.all(np.abs(variance - expected) < 4 * error), name


def test_a_thermostat_keeps_its_energy_of_motion_in_an_exchange(carbon_dioxide: Gas) -> None:
    """Its mass goes with the degrees of freedom, so its velocity must change, the one way and the other."""
    thermostat = NoseHooverChain(TEMPERATURE, 50.0 * units.fs)
    exchange = make_exchange(carbon_dioxide, BondedMolecules(carbon_dioxide), fugacity=1e7)
    state = make_state(exchange.potential, carbon_dioxide, loading=8)
    state.thermostat[1] = [0.3, -0.2, 0.1]

    def energy() -> float:
        return float(thermostat.masses(state.degrees_of_freedom) @ state.thermostat[1] ** 2)

    before, loadings = energy(), {state.loading}
    for _ in range(60):
        exchange.attempt(state)
        loadings.add(state.loading)
        assert energy() == pytest.approx(before)
    assert len(loadings) > 3 and min(loadings) > 0


def test_a_rigid_gas_has_no_momenta() -> None:
    """Molecules that are moved by Monte Carlo carry no kinetic energy, those that come in neither."""
    what = {"gas": CO2, "pressure": 2e6, "steps": 60, "attempts_per_block": 8, "initial_loading": 2}
    what |= {"gas_flexible": False, "moves": MONTE_CARLO, "translation_step": 2.0, "rotation_step": 60.0}
    simulation = simulate(BondedMolecules(Gas.from_dict(CO2)), 20.0, 3, **what)
    state = simulation.state
    assert simulation.counts()["insertion"]["accepted"] > 5 and state.loading > 0
    assert np.all(state.momenta[1:] == 0.0)
    assert np.any(state.momenta[0] != 0.0), "the framework moves"


def test_loading_limit_and_empty_cell(carbon_dioxide: Gas) -> None:
    potential = BondedMolecules(carbon_dioxide)
    exchange = make_exchange(carbon_dioxide, potential, fugacity=1e12, max_loading=2)
    state = make_state(potential, carbon_dioxide, loading=0)
    for _ in range(60):
        exchange.attempt(state)
        assert 0 <= state.loading <= 2
    assert exchange.insertions.evaluated < exchange.insertions.attempted
    assert state.loading == 2


def test_reservoir_has_the_internal_energy_of_the_ideal_gas() -> None:
    """A stiff diatomic against quadrature over r² exp(-β k (r - r0)² / 2)."""
    nitrogen = Gas.from_dict(
        CO2 | {"name": "N2", "symbols": ["N", "N"], "positions": [[0, 0, 0.5488], [0, 0, -0.5488]]}
    )
    stiffness = 6.0
    potential = BondedMolecules(nitrogen, stiffness)
    reservoir = make_exchange(nitrogen, potential, equilibrate=True).species[0].reservoir
    acceptances = [reservoir.sweep() for _ in range(200)]
    distance = np.linspace(0.3, 2.2, 4001)
    energy = 0.5 * stiffness * (distance - 1.0976) ** 2
    weight = distance**2 * np.exp(-energy / thermal(TEMPERATURE))
    expected = float((energy * weight).sum() / weight.sum())
    found = estimate_mean(np.array(reservoir.mean_energies), detect_equilibration=False)
    assert abs(found.mean - expected) < 3 * found.error
    assert found.error < 0.02 * expected
    assert 0.6 < np.mean(acceptances) < 0.95


def test_broken_molecule_is_refused(carbon_dioxide: Gas) -> None:
    with pytest.raises(WorkerError, match="does not hold an isolated CO2 together"):
        make_exchange(carbon_dioxide, BondedMolecules(carbon_dioxide, stiffness=0.0), equilibrate=True)


class _Repulsion(BondedMolecules):
    """Molecules whose bonds break as soon as they are in the framework."""

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        answers = super().evaluate(configurations, forces)
        return [
            Evaluation(a.interaction_energy, forces=-a.forces if 13 in np.asarray(c.numbers) else a.forces)
            for a, c in zip(answers, configurations, strict=True)
        ]


def test_an_escaping_atom_ends_the_run(carbon_dioxide: Gas) -> None:
    """The last frame is kept with the reason."""
    what = parameters(
        gas=CO2, initial_loading=2, steps=400, stride=1, md_steps_per_attempt=1000, max_temperature_factor=1e9
    )
    cell = Atoms("Al", cell=[20.0] * 3, pbc=True)
    simulation = HybridSimulation(what, _Repulsion(carbon_dioxide), cell, seed=1)
    explosion, stopped, _ = simulation.advance(StopRequest())
    assert explosion is not None
    assert not stopped
    assert explosion["reason"] == "escape"
    assert explosion["value"] > explosion["limit"] == 2.0
    assert "left its molecule" in describe_explosion(explosion)
    assert simulation.exchange.candidates[-1].info["guard"] == "escape"
