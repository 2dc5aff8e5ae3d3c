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
    ExchangeRules,
    deletion_acceptance,
    insertion_acceptance,
)
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.geometry import minimum_image
from aiida_mofmace.worker.kernels.ideal_gas import IdealGasReservoir, Molecule
from aiida_mofmace.worker.kernels.loading import place_molecules
from aiida_mofmace.worker.kernels.model import Evaluation, MaceEvaluator
from aiida_mofmace.worker.kernels.statistics import estimate_mean
from aiida_mofmace.worker.kernels.thermodynamics import ideal_gas_number, isosteric_heat
from aiida_mofmace.worker.programs.md_gcmc import HybridSimulation, MdGcmcParameters
from aiida_mofmace.worker.stopping import StopRequest

from .engine_fixtures import CO2, Array, BondedMolecules, LennardJones, NoPotential, thermal

TEMPERATURE = 300.0
ARGON = CO2 | {"name": "Ar", "symbols": ["Ar"], "positions": [[0, 0, 0]]}


def make_exchange(gas: Gas, potential: Any, seed: int = 0, equilibrate: bool = False, **rules: Any) -> Exchange:
    rng = np.random.default_rng(seed)
    reservoir = IdealGasReservoir(gas, potential, TEMPERATURE, 0.5 * units.fs, rng, equilibrate=equilibrate)
    defaults = {"fugacity": 1e6, "minimum_distance": 0.0, "hole_bound": -10.0}
    return Exchange(gas, potential, reservoir, ExchangeRules(TEMPERATURE, **(defaults | rules)), rng)


def make_state(potential: Any, gas: Gas, loading: int, edge: float = 20.0, seed: int = 1) -> MdState:
    rng = np.random.default_rng(seed)
    atoms = place_molecules(Atoms("Al", cell=[edge] * 3, pbc=True), gas, loading, 1.0, rng)
    return initial_state(atoms, potential, TEMPERATURE, rng, framework_atoms=1)


@pytest.mark.parametrize("expected", [1.0, 4.0, 10.0])
def test_ideal_gas(expected: float, carbon_dioxide: Gas) -> None:
    """Flexible molecules that do not interact: the mean is β f V, the distribution Poisson's."""
    edge = 20.0
    pressure = expected / ideal_gas_number(1.0, edge**3, TEMPERATURE)
    parameters = MdGcmcParameters(
        temperature=TEMPERATURE,
        pressure=pressure,
        gas=CO2,
        timestep_fs=1.0,
        steps=2000,
        stride=2000,
        md_steps_per_attempt=1,
        attempts_per_block=4,
        thermostat_time_fs=50.0,
        minimum_distance=0.0,
        model_hole_bound=-10.0,
        explosion_distance=0.0,
        max_temperature_factor=5.0,
        initial_loading=int(expected),
    )
    cell = Atoms("Al", cell=[edge] * 3, pbc=True)
    simulation = HybridSimulation(parameters, BondedMolecules(carbon_dioxide), cell, seed=int(expected))
    assert simulation.advance(StopRequest())[0] is None
    loading = simulation.series.arrays()["loading"]
    mean = estimate_mean(loading, detect_equilibration=False)
    variance = estimate_mean((loading - expected) ** 2, detect_equilibration=False)
    assert abs(mean.mean - expected) < 3 * mean.error
    assert abs(variance.mean - expected) < 3 * variance.error
    assert mean.error < 0.12 * max(expected, 2.0)
    heat = simulation.results()["isosteric_heat"], simulation.results()["isosteric_heat_error"]
    assert abs(heat[0] - thermal(TEMPERATURE)) < 4 * heat[1]


class _Wells:
    """Sites that hold one argon atom each; elsewhere, or beside another atom in a site, the energy is prohibitive.

    :param centres: of the sites in Å, shape (sites, 3)
    :param radius: of the sites in Å
    :param depth: energy in a site in eV
    """

    r_max = 3.0

    def __init__(self, centres: Array, radius: float, depth: float):
        self.centres, self.radius, self.depth = centres, radius, depth

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        return [self._evaluate(np.asarray(c.numbers), np.asarray(c.positions)) for c in configurations]

    def _evaluate(self, numbers: Array, positions: Array) -> Evaluation:
        if 13 not in numbers:
            return Evaluation(0.0, forces=np.zeros((len(positions), 3)))
        positions = positions[numbers != 13]
        inside = np.linalg.norm(positions[:, None] - self.centres, axis=-1) < self.radius
        is_allowed = np.all(inside.sum(axis=1) == 1) and np.all(inside.sum(axis=0) <= 1)
        return Evaluation(-self.depth * len(positions) if is_allowed else 1e3, forces=np.zeros((len(positions), 3)))


@pytest.mark.parametrize("occupied", [0.1, 0.5, 0.85])
def test_langmuir(occupied: float) -> None:
    """Independent sites follow N = M K f / (1 + K f), K = β v exp(β ε), without any dynamics."""
    edge, sites, radius, depth = 8.0, 8, 1.7, 0.05
    centres = np.array([[x, y, z] for x in (2, 6) for y in (2, 6) for z in (2, 6)], dtype=float)
    volume_ratio = 4 / 3 * np.pi * radius**3 / edge**3
    odds = occupied / (1 - occupied)
    fugacity = odds / (
        ideal_gas_number(1.0, edge**3, TEMPERATURE) * volume_ratio * np.exp(depth / thermal(TEMPERATURE))
    )
    wells = _Wells(centres, radius, depth)
    gas = Gas.from_dict(ARGON)
    exchange = make_exchange(gas, wells, seed=int(100 * occupied), fugacity=fugacity)
    empty = Atoms("Al", cell=[edge] * 3, pbc=True)
    state = initial_state(empty, NoPotential(), TEMPERATURE, exchange.rng, framework_atoms=1)
    state.energy = 0.0
    loadings, energies = [], []
    for _ in range(20000):
        exchange.attempt(state)
        loadings.append(exchange.loading(state))
        energies.append(state.energy)
    mean = estimate_mean(np.array(loadings, dtype=float))
    assert abs(mean.mean - sites * occupied) < 3 * mean.error
    assert mean.error < 0.1
    heat = isosteric_heat(np.array(energies), np.array(loadings, dtype=float), TEMPERATURE, gas_energy=0.0)
    assert heat is not None
    assert heat[0] == pytest.approx(thermal(TEMPERATURE) + depth, abs=1e-9)


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
    loaded = initial_state(full, potential, TEMPERATURE, exchange.rng, framework_atoms=1)
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
    state = initial_state(loaded, potential, TEMPERATURE, rng, len(framework))
    exchange = make_exchange(carbon_dioxide, potential, minimum_distance=1.0)
    trial = exchange.try_deletion(state, 0)
    without = loaded[[*range(40), *range(43, 46)]]
    expected = potential.evaluate([without])[0]
    assert trial.evaluation is not None
    assert trial.evaluation.interaction_energy == pytest.approx(expected.interaction_energy, abs=1e-6)
    assert trial.evaluation.atomic_energy == pytest.approx(expected.atomic_energy, abs=1e-9)
    smaller = initial_state(without, potential, TEMPERATURE, rng, len(framework))
    alone = loaded[40:43]
    alone.cell = np.eye(3) * 30
    own = potential.evaluate([alone])[0].interaction_energy
    back = exchange.try_insertion(smaller, Molecule(loaded.positions[40:43], own))
    assert back.insertion_energy == pytest.approx(trial.insertion_energy, abs=2e-5)
    double = MaceEvaluator(tiny_model, dtype="float64")
    exact = double.evaluate([loaded, without, alone], forces=False)
    gain = exact[0].interaction_energy - exact[1].interaction_energy - exact[2].interaction_energy
    assert trial.insertion_energy == pytest.approx(gain, abs=2e-5)
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
    assert exchange.loading(state) == 1
    counts = exchange.counts()
    assert counts["insertion"]["holes"] == counts["insertion"]["attempted"] > 5
    assert counts["deletion"]["holes"] == counts["deletion"]["attempted"] > 5
    assert sorted({(len(a), a.info["loading"]) for a in exchange.candidates}) == [(4, 1), (7, 2)]
    inserted = next(a for a in exchange.candidates if len(a) == 7)
    assert inserted.info["energy"] < state.energy - 2.5
    allowed = make_exchange(carbon_dioxide, potential, hole_bound=-4.0)
    assert allowed.try_deletion(state, 0).refusal is None


def test_momenta_after_exchange(carbon_dioxide: Gas) -> None:
    """Inserted and remaining atoms follow Maxwell and Boltzmann, in the frame of the resting centre of mass."""
    potential = BondedMolecules(carbon_dioxide)
    exchange = make_exchange(carbon_dioxide, potential, fugacity=1e12)
    samples: dict[str, list[Array]] = {"inserted": [], "old": []}
    for seed in range(1500):
        state = make_state(potential, carbon_dioxide, loading=1, seed=seed)
        while not exchange._attempt_insertion(state):
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


def test_loading_limit_and_empty_cell(carbon_dioxide: Gas) -> None:
    potential = BondedMolecules(carbon_dioxide)
    exchange = make_exchange(carbon_dioxide, potential, fugacity=1e12, max_loading=2)
    state = make_state(potential, carbon_dioxide, loading=0)
    for _ in range(60):
        exchange.attempt(state)
        assert 0 <= exchange.loading(state) <= 2
    counts = exchange.counts()
    assert counts["insertion"]["evaluated"] < counts["insertion"]["attempted"]
    assert exchange.loading(state) == 2


def test_reservoir_has_the_internal_energy_of_the_ideal_gas() -> None:
    """A stiff diatomic against quadrature over r² exp(-β k (r - r0)² / 2)."""
    nitrogen = Gas.from_dict(
        CO2 | {"name": "N2", "symbols": ["N", "N"], "positions": [[0, 0, 0.5488], [0, 0, -0.5488]]}
    )
    stiffness = 6.0
    potential = BondedMolecules(nitrogen, stiffness)
    reservoir = make_exchange(nitrogen, potential, equilibrate=True).reservoir
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


class _Attraction:
    """Argon drawn to one aluminium atom by a Gaussian well, and not to each other.

    :param depth: in eV
    :param width: in Å
    """

    r_max = 3.0

    def __init__(self, depth: float, width: float):
        self.depth, self.width = depth, width

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        return [
            self._evaluate(np.asarray(c.numbers), np.asarray(c.positions), np.asarray(c.cell)) for c in configurations
        ]

    def _evaluate(self, numbers: Array, positions: Array, cell: Array) -> Evaluation:
        if numbers[0] != 13:
            return Evaluation(0.0, forces=np.zeros((len(positions), 3)))
        vectors = minimum_image(positions[1:] - positions[0], cell)
        wells = -self.depth * np.exp(-0.5 * (vectors**2).sum(axis=1) / self.width**2)
        pulls = wells[:, None] * vectors / self.width**2
        return Evaluation(float(wells.sum()), forces=np.concatenate([[-pulls.sum(axis=0)], pulls]))


def test_dynamics_and_exchange_together_follow_henry() -> None:
    """⟨N⟩ = β f ∫ exp(-β u) and ⟨U⟩ = β f ∫ u exp(-β u), with a framework so light that its recoil counts."""
    edge, depth, width, fugacity = 14.0, 0.1, 1.5, 2e6
    parameters = MdGcmcParameters(
        temperature=TEMPERATURE,
        pressure=fugacity,
        gas=ARGON,
        timestep_fs=5.0,
        steps=20000,
        stride=20000,
        md_steps_per_attempt=3,
        attempts_per_block=2,
        thermostat_time_fs=100.0,
        max_temperature_factor=50.0,
        minimum_distance=0.0,
        model_hole_bound=-10.0,
        explosion_distance=0.0,
        initial_loading=1,
    )
    simulation = HybridSimulation(parameters, _Attraction(depth, width), Atoms("Al", cell=[edge] * 3, pbc=True), seed=8)
    simulation.advance(StopRequest())
    arrays = simulation.series.arrays()
    radius = np.linspace(0, 0.5 * edge, 20001)
    energy = -depth * np.exp(-0.5 * (radius / width) ** 2)
    shell = 4 * np.pi * radius**2 * (radius[1] - radius[0])
    density = ideal_gas_number(fugacity, 1.0, TEMPERATURE)
    boltzmann = np.exp(-energy / thermal(TEMPERATURE))
    number = estimate_mean(arrays["loading"], detect_equilibration=False)
    potential = estimate_mean(arrays["potential_energy"], detect_equilibration=False)
    expected = density * (edge**3 + float((shell * (boltzmann - 1)).sum()))
    assert abs(number.mean - expected) < 3 * number.error
    assert number.error < 0.06 * expected
    expected_energy = density * float((shell * energy * boltzmann).sum())
    assert abs(potential.mean - expected_energy) < 3 * potential.error
    assert potential.error < 0.15 * abs(expected_energy)
    moving = arrays["temperature"][arrays["temperature"] > 0]  # a lone framework atom rests
    kinetic = estimate_mean(moving, detect_equilibration=False)
    assert abs(kinetic.mean - TEMPERATURE) < 3 * kinetic.error
