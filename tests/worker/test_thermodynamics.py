"""Chemical potential, fugacity, heats and units against numbers obtained another way."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase import units

from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.thermodynamics import (
    chemical_potential,
    cm3_stp_per_gram,
    de_broglie_wavelength,
    fugacities,
    heat_of_adsorption,
    ideal_gas_number,
    isosteric_heats,
    kilojoule_per_mole,
    mole_per_kilogram,
)

from .engine_fixtures import thermal

GASES = Path(__file__).parents[2] / "aiida_mofmace" / "protocols" / "gases"
PLANCK, BOLTZMANN, AVOGADRO, ELECTRON = 6.62607015e-34, 1.380649e-23, 6.02214076e23, 1.602176634e-19


def fugacity(pressure: float, temperature: float, gas: Gas, equation: str = "peng_robinson") -> float:
    return fugacities(pressure, temperature, [(gas, 1.0)], equation)[gas.name]


def fugacity_coefficient(pressure: float, temperature: float, gas: Gas) -> float:
    return fugacity(pressure, temperature, gas) / pressure


def load(name: str) -> Gas:
    return Gas.from_dict(yaml.safe_load((GASES / f"{name}.yaml").read_text()))


def test_wavelength_and_chemical_potential_in_si(carbon_dioxide: Gas) -> None:
    mass, temperature, pressure = 44.009e-3 / AVOGADRO, 303.0, 2.0e4
    wavelength = PLANCK / math.sqrt(2 * math.pi * mass * BOLTZMANN * temperature)
    assert de_broglie_wavelength(44.009, temperature) == pytest.approx(wavelength * 1e10, rel=1e-6)
    joules = BOLTZMANN * temperature * math.log(pressure * wavelength**3 / (BOLTZMANN * temperature))
    assert chemical_potential(temperature, pressure, carbon_dioxide.mass) == pytest.approx(joules / ELECTRON, rel=1e-6)
    assert ideal_gas_number(1e5, 1e4, 300.0) == pytest.approx(1e5 * 1e-26 / (BOLTZMANN * 300.0), rel=1e-6)


@pytest.mark.parametrize("pressure", [1e5, 2e6, 6e6])
def test_peng_robinson_against_integration(pressure: float, carbon_dioxide: Gas) -> None:
    """The closed form equals ln φ = ∫ (Z - 1) dP / P, with Z from the pressure-explicit equation by bisection."""
    temperature, constant = 320.0, 8.31446261815324
    tc, pc, omega = (
        carbon_dioxide.critical_temperature,
        carbon_dioxide.critical_pressure,
        carbon_dioxide.acentric_factor,
    )
    alpha = (1 + (0.37464 + 1.54226 * omega - 0.26992 * omega**2) * (1 - math.sqrt(temperature / tc))) ** 2
    a, b = 0.45724 * constant**2 * tc**2 / pc * alpha, 0.07780 * constant * tc / pc

    def compressibility(p: float) -> float:
        low, high = b * 1.0001, 10 * constant * temperature / p
        for _ in range(200):
            v = (low + high) / 2
            value = constant * temperature / (v - b) - a / (v * v + 2 * b * v - b * b)
            low, high = (v, high) if value > p else (low, v)
        return p * low / (constant * temperature)

    grid = np.linspace(pressure * 1e-4, pressure, 2001)
    integrand = np.array([(compressibility(p) - 1) / p for p in grid])
    logarithm = float((integrand[1:] + integrand[:-1]) @ np.diff(grid)) / 2 + integrand[0] * grid[0]
    assert math.log(fugacity_coefficient(pressure, temperature, carbon_dioxide)) == pytest.approx(logarithm, rel=1e-3)


def test_fugacity_of_real_gases(carbon_dioxide: Gas) -> None:
    """Second virial coefficient of CO2 at 300 K, -122 cm³/mol (Span and Wagner); liquid water far below 1."""
    virial = math.exp(-122e-6 * 1e5 / (8.314 * 300.0))
    assert fugacity_coefficient(1e5, 300.0, carbon_dioxide) == pytest.approx(virial, abs=6e-4)
    assert fugacity_coefficient(100.0, 300.0, carbon_dioxide) == pytest.approx(1.0, abs=1e-5)
    water = load("H2O")
    # Vapour pressure of water at 298 K is 3.17 kPa, and so about is the fugacity of the liquid at 1 bar.
    assert fugacity(1e5, 298.0, water) == pytest.approx(3170.0, rel=0.2)
    assert fugacity(1e5, 298.0, water, "ideal") == 1e5
    with pytest.raises(ValueError, match="must be positive"):
        fugacity(-1.0, 298.0, water)
    with pytest.raises(ValueError, match="peng_robinson or ideal"):
        fugacity(1.0, 298.0, water, "van der Waals")


def test_fugacities_of_a_mixture() -> None:
    """The pure limit, partial pressures of an ideal gas, and Gibbs and Duhem."""
    carbon_dioxide, nitrogen = load("CO2"), load("N2")
    flue = [(carbon_dioxide, 0.15), (nitrogen, 0.85)]
    assert fugacities(2e6, 303.0, flue, "ideal") == {"CO2": 3e5, "N2": 1.7e6}
    found = fugacities(2e6, 303.0, flue)
    assert found["CO2"] < 0.97 * 3e5
    assert found["N2"] == pytest.approx(1.7e6, rel=0.02)
    nearly_pure = fugacities(2e6, 303.0, [(carbon_dioxide, 1 - 1e-9), (nitrogen, 1e-9)])
    assert nearly_pure["CO2"] == pytest.approx(fugacity(2e6, 303.0, carbon_dioxide), rel=1e-6)
    # At constant T and P, Σ x_i ∂ ln f_i / ∂ x_1 = 0.
    step = 1e-4
    up = fugacities(2e6, 303.0, [(carbon_dioxide, 0.15 + step), (nitrogen, 0.85 - step)])
    down = fugacities(2e6, 303.0, [(carbon_dioxide, 0.15 - step), (nitrogen, 0.85 + step)])
    slopes = {name: math.log(up[name] / down[name]) / (2 * step) for name in up}
    assert 0.15 * slopes["CO2"] + 0.85 * slopes["N2"] == pytest.approx(0.0, abs=1e-5)
    assert slopes["CO2"] > 5.0


def test_units_of_loading() -> None:
    assert kilojoule_per_mole(1.0) == pytest.approx(96.4853321)
    assert mole_per_kilogram(1.0, 494.1) == pytest.approx(1000 / 494.1)
    assert cm3_stp_per_gram(1.0, 494.1) == pytest.approx(22413.97 / 494.1, rel=1e-6)


def test_heat_of_adsorption() -> None:
    value, error = heat_of_adsorption((-200.9, 0.03), (-100.0, 0.04), (-50.0, 0.001), 300.0, n_molecules=2)
    assert value == pytest.approx(-0.45 - units.kB * 300.0)
    assert error == pytest.approx(math.sqrt(0.025**2 + 0.001**2))


def test_isosteric_heats_of_known_energies() -> None:
    """U = Σ N_i (u_i - ε_i) + noise gives q_i = kT + ε_i, with honest error bars; the loadings are correlated."""
    rng = np.random.default_rng(1)
    first = rng.poisson(4.0, 4000).astype(float)
    loadings = np.stack([first, rng.poisson(1.0, 4000) + 0.5 * first], axis=1)
    energies = loadings @ [-10.0 - 0.4, -3.0 - 0.1] + rng.normal(scale=0.2, size=4000)
    both = isosteric_heats(energies, loadings, 300.0, [-10.0, -3.0])
    assert both is not None
    for (value, error), depth in zip(both, (0.4, 0.1), strict=True):
        assert abs(value - (thermal(300.0) + depth)) < 3 * error
    assert both[1][1] == pytest.approx(0.2 / math.sqrt(4000 * 1.0), rel=0.5)
    only = isosteric_heats(energies - loadings[:, 1] * -3.1, loadings[:, :1], 300.0, [-10.0])
    assert only is not None
    assert abs(only[0][0] - (thermal(300.0) + 0.4)) < 3 * only[0][1]
    assert only[0][1] == pytest.approx(0.2 / math.sqrt(4000 * 4.0), rel=0.5)


def test_isosteric_heats_need_fluctuation() -> None:
    assert isosteric_heats(np.zeros(100), np.full((100, 1), 3.0), 300.0, [0.0]) is None
    assert isosteric_heats(np.zeros(0), np.zeros((0, 1)), 300.0, [0.0]) is None
    step = np.repeat([0.0, 1.0], 50)
    assert isosteric_heats(-step, step[:, None], 300.0, [0.0]) is None
    noise = np.random.default_rng(2).poisson(3.0, 1000).astype(float)
    assert isosteric_heats(noise, np.stack([noise, noise], axis=1), 300.0, [0.0, 0.0]) is None
