"""What ``fix gcmc`` is answered and left with, without LAMMPS itself: its arrays in memory stand for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aiida_mofmace.worker.kernels import lammps_exchange
from aiida_mofmace.worker.kernels.dynamics import draw_momenta, remove_drift
from aiida_mofmace.worker.kernels.exchange import MoveCounts, MoveRules
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.ideal_gas import Molecule
from aiida_mofmace.worker.kernels.lammps_engine import VELOCITY
from aiida_mofmace.worker.kernels.lammps_exchange import GROUP_ALL, ExchangeJudge

from .engine_fixtures import Array, BondedMolecules, thermal

TEMPERATURE, EDGE = 300.0, 20.0
FRAMEWORK = np.array([[1.0, 1.0, 1.0], [3.0, 1.0, 1.0]])


class Arrays:
    """LAMMPS's arrays of a framework of two atoms of aluminium and of molecules of CO2, all within the box."""

    def __init__(self, rng: np.random.Generator):
        self.numpy, self.energy = self, 0.0
        self.hold(1, rng)

    def hold(self, molecules: int, rng: np.random.Generator) -> None:
        """Make room for so many molecules, with momenta of the ensemble."""
        atoms = len(FRAMEWORK) + 3 * molecules
        self.mask = np.full(atoms, GROUP_ALL)
        self.masses = np.concatenate([[26.9815385] * 2, np.tile([12.011, 15.999, 15.999], molecules)])
        self.v = remove_drift(draw_momenta(self.masses, TEMPERATURE, rng), self.masses)
        self.v *= VELOCITY / self.masses[:, None]

    def extract_atom(self, name: str) -> Any:
        return getattr(self, name)

    def fix_external_set_energy_global(self, fix: str, energy: float) -> None:
        self.energy = energy


class OneGeometry:
    """A reservoir whose molecules are all stretched in the same way."""

    def __init__(self, gas: Gas, energy: float):
        self.molecule = Molecule(1.05 * gas.positions, energy)

    def draw(self) -> Molecule:
        return self.molecule


@pytest.fixture(autouse=True)
def box(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lammps_exchange, "box_of", lambda lammps: EDGE * np.eye(3))
    monkeypatch.setattr(lammps_exchange, "image_flags", lambda lammps, n: np.zeros((n, 3), dtype=np.int64))


def judge_of(lammps: Arrays, gas: Gas, rng: np.random.Generator, limit: int | None = None) -> tuple[Any, float]:
    """The judge, and the own energy of a molecule of its reservoir in eV."""
    potential = BondedMolecules(gas)
    stretch = 0.05 * potential.lengths
    own = 0.5 * potential.stiffness * float((stretch**2).sum())
    judge = ExchangeJudge(
        lammps,
        potential,
        np.array([13, 13]),
        gas,
        OneGeometry(gas, own),
        rules=MoveRules(TEMPERATURE, 0.0, -10.0, limit),
        rng=rng,
        counts=(MoveCounts(), MoveCounts()),
        inspect=lambda move, trial: None,
        fix="external",
    )
    return judge, own


def positions(gas: Gas, *centres: float) -> Array:
    """The framework, and molecules at centres on the diagonal of the cell."""
    return np.concatenate([FRAMEWORK, *(gas.positions + centre for centre in centres)])


def ask(judge: ExchangeJudge, lammps: Arrays, step: int, x: Array) -> float:
    """Have the judge answer for atoms whose tags are in order; return the energy in eV that LAMMPS is told."""
    judge.answer(step, np.arange(1, len(x) + 1), x, np.zeros_like(x))
    return lammps.energy


def test_momenta_after_an_insertion(carbon_dioxide: Gas) -> None:
    """New atoms and old follow Maxwell and Boltzmann, whatever LAMMPS gave the new ones; the centre of mass rests."""
    rng = np.random.default_rng(4)
    samples = []
    for _ in range(800):
        lammps = Arrays(rng)
        judge, _ = judge_of(lammps, carbon_dioxide, rng)
        ask(judge, lammps, 1, positions(carbon_dioxide, 6.0))
        old = lammps.v
        lammps.hold(2, rng)
        lammps.v[:5], lammps.v[5:] = old, [0.0, 0.0, 1000.0]
        x = positions(carbon_dioxide, 6.0, 12.0)
        ask(judge, lammps, 1, x)
        ask(judge, lammps, 1, x)
        momenta = lammps.v * lammps.masses[:, None] / VELOCITY
        assert np.allclose(momenta.sum(axis=0), 0.0, atol=1e-9)
        samples.append(momenta)
    variance = np.mean(np.array(samples) ** 2, axis=(0, 2))
    expected = lammps.masses * (1 - lammps.masses / lammps.masses.sum()) * thermal(TEMPERATURE)
    assert np.all(np.abs(variance - expected) < 4 * expected * np.sqrt(2 / (3 * len(samples))))


def test_energies_of_trials_in_the_steps_after_an_exchange(carbon_dioxide: Gas) -> None:
    """A molecule that came in and stands still goes out for what it came in for: none here, where none interact."""
    rng = np.random.default_rng(4)
    lammps = Arrays(rng)
    judge, own = judge_of(lammps, carbon_dioxide, rng)
    before = ask(judge, lammps, 1, positions(carbon_dioxide, 6.0))
    lammps.hold(2, rng)
    x = positions(carbon_dioxide, 6.0, 12.0)
    assert ask(judge, lammps, 1, x) == pytest.approx(before, abs=1e-9)
    assert own > 0.1
    for step in (1, 2):  # the forces of the frame that it left, and the energy that the next step begins with
        present = ask(judge, lammps, step, x)
        assert present == pytest.approx(before + own, abs=1e-9)
    lammps.mask[5:] = 0
    assert ask(judge, lammps, 2, x) == pytest.approx(present, abs=1e-9)


@pytest.mark.parametrize(("limit", "allowed"), [(1, False), (2, True), (None, True)])
def test_no_molecule_beyond_the_largest_loading(carbon_dioxide: Gas, limit: int | None, allowed: bool) -> None:
    rng = np.random.default_rng(4)
    lammps = Arrays(rng)
    judge, _ = judge_of(lammps, carbon_dioxide, rng, limit)
    ask(judge, lammps, 1, positions(carbon_dioxide, 6.0))
    lammps.hold(2, rng)
    told = ask(judge, lammps, 1, positions(carbon_dioxide, 6.0, 12.0))
    assert (told < 1.0) is allowed
    assert judge._insertions.evaluated == int(allowed)
