"""Integrators and thermostats against conservation laws and the canonical ensemble."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk

from aiida_mofmace.worker.kernels.checkpoint import load_checkpoint, restore_generator, save_checkpoint
from aiida_mofmace.worker.kernels.dynamics import (
    MdState,
    Thermostat,
    draw_momenta,
    initial_state,
    remove_drift,
    velocity_verlet_step,
)
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.worker.kernels.statistics import estimate_mean
from aiida_mofmace.worker.kernels.thermostats import Langevin, MomentumResampling, NoseHooverChain, NoThermostat

from .engine_fixtures import CO2, Array, BondedMolecules, LennardJones, thermal

FS = units.fs


@pytest.fixture
def argon() -> Atoms:
    """Solid argon, 32 atoms."""
    return bulk("Ar", a=5.3, cubic=True).repeat(2)


def run_energies(state: MdState, potential: LennardJones, thermostat: Thermostat, timestep: float, n: int) -> Array:
    """Kinetic, potential and conserved energy after every step, shape (n, 3)."""
    rows = []
    for _ in range(n):
        velocity_verlet_step(state, potential, thermostat, timestep)
        kinetic = state.kinetic_energy
        rows.append((kinetic, state.energy, kinetic + state.energy + thermostat.energy(state)))
    return np.array(rows)


def test_forces_of_the_test_potential(argon: Atoms) -> None:
    """The referee of the other tests must itself be right."""
    potential = LennardJones()
    argon.rattle(0.1, seed=3)
    forces = potential.evaluate([argon])[0].forces
    up, down = argon.copy(), argon.copy()
    up.positions[5, 1] += 1e-5
    down.positions[5, 1] -= 1e-5
    slope = (potential.evaluate([up])[0].energy - potential.evaluate([down])[0].energy) / 2e-5
    assert forces is not None
    assert forces[5, 1] == pytest.approx(-slope, rel=1e-5)


def test_energy_is_conserved_to_second_order(argon: Atoms) -> None:
    """No drift over 2000 steps; half the time step gives a quarter of the fluctuation."""
    potential, fluctuation = LennardJones(), {}
    for timestep in (4.0, 8.0):
        state = initial_state(argon, potential, 80.0, np.random.default_rng(1))
        total = run_energies(state, potential, NoThermostat(), timestep * FS, int(8000 / timestep))[:, 2]
        drift = np.polyfit(np.arange(len(total)), total, 1)[0] * len(total)
        assert abs(drift) / len(argon) < 5e-6
        fluctuation[timestep] = total.std()
    assert fluctuation[8.0] / fluctuation[4.0] == pytest.approx(4.0, rel=0.25)


def test_nose_hoover_chain_is_canonical(argon: Atoms) -> None:
    """Mean and variance of the kinetic temperature, heat capacity and the conserved energy."""
    temperature, potential = 60.0, LennardJones()
    thermostat = NoseHooverChain(temperature, 80.0 * FS)
    state = initial_state(argon, potential, temperature, np.random.default_rng(2))
    rows = run_energies(state, potential, thermostat, 4.0 * FS, 8000)
    assert np.ptp(rows[:, 2]) / len(argon) < 2e-4
    assert abs(np.polyfit(np.arange(len(rows)), rows[:, 2], 1)[0] * len(rows)) / len(argon) < 2e-5
    freedoms = 3 * 32 - 3
    reduced = rows[1000:, 0] / (0.5 * freedoms * thermal(temperature))
    mean = estimate_mean(reduced, detect_equilibration=False)
    variance = estimate_mean((reduced - 1.0) ** 2, detect_equilibration=False)
    assert abs(mean.mean - 1.0) < 3 * mean.error
    assert mean.error < 0.01
    assert abs(variance.mean - 2.0 / freedoms) < 3 * variance.error
    assert variance.error < 0.15 * 2.0 / freedoms
    assert np.allclose(state.momenta.sum(axis=0), 0.0, atol=1e-10)


def test_friction_and_noise_leave_the_centre_of_mass_at_rest(argon: Atoms) -> None:
    """All 3n - 3 other degrees of freedom have their share of the energy, and the conserved energy is one."""
    temperature, potential, rng = 60.0, LennardJones(), np.random.default_rng(2)
    state = initial_state(argon, potential, temperature, rng)
    rows = run_energies(state, potential, Langevin(temperature, 80.0 * FS, rng), 4.0 * FS, 2000)
    assert np.allclose(state.momenta.sum(axis=0), 0.0, atol=1e-10)
    assert np.ptp(rows[:, 2]) / len(argon) < 2e-4
    mean = estimate_mean(rows[200:, 0] / (1.5 * 31 * thermal(temperature)), detect_equilibration=False)
    assert abs(mean.mean - 1.0) < 3 * mean.error
    assert mean.error < 0.02


def test_resampling_samples_a_lone_molecule() -> None:
    """The mean energy of a bond against quadrature; a single thermostat chain would not find it."""
    nitrogen = Gas.from_dict(
        CO2 | {"name": "N2", "symbols": ["N", "N"], "positions": [[0, 0, 0.5488], [0, 0, -0.5488]]}
    )
    stiffness, temperature = 20.0, 500.0
    potential = BondedMolecules(nitrogen, stiffness)
    rng = np.random.default_rng(6)
    atoms = Atoms(nitrogen.numbers, nitrogen.positions + 5, cell=[10] * 3, pbc=True)
    state = initial_state(atoms, potential, temperature, rng, framework_atoms=0)
    thermostat = MomentumResampling(temperature, 10, rng)
    rows = run_energies(state, potential, thermostat, 1.0 * FS, 20000)
    assert np.ptp(rows[:, 2]) < 0.1 * thermal(temperature)
    distance = np.linspace(0.3, 2.2, 4001)
    energy = 0.5 * stiffness * (distance - 1.0976) ** 2
    weight = distance**2 * np.exp(-energy / thermal(temperature))
    mean = estimate_mean(rows[:, 1])
    assert abs(mean.mean - float((energy * weight).sum() / weight.sum())) < 3 * mean.error
    assert mean.error < 0.05 * mean.mean


def test_momenta_follow_maxwell_and_boltzmann() -> None:
    masses = np.array([1.008, 12.011, 26.98])
    rng = np.random.default_rng(0)
    momenta = np.array([draw_momenta(masses, 300.0, rng) for _ in range(5000)])
    variance = np.mean(momenta**2, axis=(0, 2))
    assert variance == pytest.approx(masses * thermal(300.0), rel=0.05)
    fourth = np.mean(momenta**4, axis=(0, 2)) / variance**2
    assert fourth == pytest.approx([3.0] * 3, rel=0.06)
    assert np.allclose(remove_drift(momenta[0], masses).sum(axis=0), 0.0, atol=1e-14)


def test_a_restored_state_goes_on_bit_by_bit(tiny_model: Path, framework: Atoms, tmp_path: Path) -> None:
    """With a real MACE in float32, opened anew: positions, momenta and thermostat are the same to the last bit."""
    thermostat = NoseHooverChain(300.0, 50.0 * FS)
    rng = np.random.default_rng(9)
    potential = MaceEvaluator(tiny_model, dtype="float32")
    state = initial_state(framework, potential, 300.0, rng)
    for _ in range(12):
        velocity_verlet_step(state, potential, thermostat, 0.5 * FS)
    save_checkpoint(tmp_path / "c.npz", state.to_arrays(), {"rng": rng.bit_generator.state})
    arrays, values = load_checkpoint(tmp_path / "c.npz")
    assert set(arrays) == set(state.to_arrays())
    restored, restored_rng = MdState.from_arrays(arrays), restore_generator(values["rng"])
    fresh = MaceEvaluator(tiny_model, dtype="float32")
    for _ in range(8):
        velocity_verlet_step(state, potential, thermostat, 0.5 * FS)
        velocity_verlet_step(restored, fresh, thermostat, 0.5 * FS)
    for name, value in vars(state).items():
        assert np.array_equal(value, getattr(restored, name)), name
    assert rng.random() == restored_rng.random()
    assert [p.name for p in tmp_path.iterdir()] == ["c.npz"]
