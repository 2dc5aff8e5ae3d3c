"""Chemical potentials, fugacities, heats of adsorption and units of loading. Light: numpy and ase.units only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from ase import units
from numpy.typing import NDArray

from .gases import Gas
from .statistics import jackknife, statistical_inefficiency

__all__ = [
    "chemical_potential",
    "cm3_stp_per_gram",
    "de_broglie_wavelength",
    "fugacities",
    "heat_of_adsorption",
    "henry_coefficient",
    "ideal_gas_number",
    "isosteric_heats",
    "kilojoule_per_mole",
    "mole_per_kilogram",
]

_PLANCK = units._hplanck * units.J * units.s  # eV times the ASE unit of time
_STANDARD_TEMPERATURE = 273.15  # K
_STANDARD_PRESSURE = 101325.0  # Pa


def de_broglie_wavelength(mass: float, temperature: float) -> float:
    """Thermal wavelength Λ = h / sqrt(2π m kT), equation 4 of the paper.

    :param mass: mass of the molecule in amu
    :param temperature: in K
    :return: wavelength in Å
    """
    return float(_PLANCK / math.sqrt(2.0 * math.pi * mass * units.kB * temperature))


def chemical_potential(temperature: float, fugacity: float, mass: float) -> float:
    """Chemical potential of the translation of an ideal gas, μ = kT ln(φ P Λ³ / kT), equation 3 of the paper.

    :param temperature: in K
    :param fugacity: φ P in Pa
    :param mass: mass of the molecule in amu
    :return: chemical potential in eV
    """
    thermal = units.kB * temperature
    wavelength = de_broglie_wavelength(mass, temperature)
    return float(thermal * math.log(fugacity * units.Pascal * wavelength**3 / thermal))


def ideal_gas_number(fugacity: float, volume: float, temperature: float) -> float:
    """Mean number of ideal-gas molecules in a volume, β f V.

    :param fugacity: in Pa
    :param volume: in Å³
    :param temperature: in K
    """
    return float(fugacity * units.Pascal * volume / (units.kB * temperature))


def fugacities(
    pressure: float,
    temperature: float,
    components: Sequence[tuple[Gas, float]],
    equation: str = "peng_robinson",
) -> dict[str, float]:
    """Fugacities of the components of a gas, by their names.

    Peng-Robinson is that of the package thermo, with van der Waals' mixing rules and no binary interaction parameters;
    where gas and liquid are both solutions, the stable one is taken.

    :param pressure: of the whole gas in Pa
    :param temperature: in K
    :param components: molecules with their critical constants, and their mole fractions
    :param equation: "peng_robinson", or "ideal" for the partial pressures
    :return: fugacities in Pa
    :raises ValueError: for an unknown equation, or a pressure or temperature that is not positive
    """
    if pressure <= 0 or temperature <= 0:
        raise ValueError(f"pressure and temperature must be positive, got {pressure} Pa and {temperature} K")
    gases, fractions = [gas for gas, _ in components], [fraction for _, fraction in components]
    if equation == "ideal":
        return {gas.name: pressure * fraction for gas, fraction in components}
    if equation != "peng_robinson":
        raise ValueError(f"unknown equation of state {equation!r}: choose peng_robinson or ideal")
    from thermo.eos_mix import PRMIX

    state = PRMIX(
        Tcs=[gas.critical_temperature for gas in gases],
        Pcs=[gas.critical_pressure for gas in gases],
        omegas=[gas.acentric_factor for gas in gases],
        zs=fractions,
        T=temperature,
        P=pressure,
    )
    is_liquid = state.phase == "l" or (state.phase == "l/g" and state.G_dep_l < state.G_dep_g)
    values = state.fugacities_l if is_liquid else state.fugacities_g
    return {gas.name: float(value) for gas, value in zip(gases, values, strict=True)}


def henry_coefficient(factor: float, volume: float, mass: float, temperature: float) -> tuple[float, float]:
    """Henry coefficient β V ⟨exp(-β ΔU)⟩: loading over fugacity where both are small.

    :param factor: mean Boltzmann factor of test-particle insertions
    :param volume: of the cell in Å³
    :param mass: of the framework's atoms in the cell in amu
    :param temperature: in K
    :return: in molecules per cell and Pa, and in mol per kg and Pa
    """
    molecules = factor * ideal_gas_number(1.0, volume, temperature)
    return molecules, mole_per_kilogram(molecules, mass)


def kilojoule_per_mole(energy: float) -> float:
    """Convert eV per molecule to kJ/mol."""
    return float(energy * units.mol / units.kJ)


def mole_per_kilogram(molecules: float, framework_mass: float) -> float:
    """Convert molecules per cell to mol per kg of framework.

    :param molecules: molecules per cell
    :param framework_mass: mass of the framework's atoms in the cell in amu
    """
    return 1000.0 * molecules / framework_mass


def cm3_stp_per_gram(molecules: float, framework_mass: float) -> float:
    """Convert molecules per cell to cm³ of ideal gas at 273.15 K and 101325 Pa per gram of framework.

    :param molecules: molecules per cell
    :param framework_mass: mass of the framework's atoms in the cell in amu
    """
    molar_volume = units._k * units._Nav * _STANDARD_TEMPERATURE / _STANDARD_PRESSURE * 1e6
    return float(molar_volume * molecules / framework_mass)


def heat_of_adsorption(
    loaded: tuple[float, float],
    framework: tuple[float, float],
    gas: tuple[float, float],
    temperature: float,
    n_molecules: int = 1,
) -> tuple[float, float]:
    """Heat of adsorption per molecule, ΔH = [⟨E(MOF + n gas)⟩ - ⟨E(MOF)⟩]/n - ⟨E(gas)⟩ - RT, equation 2 of the paper.

    The three mean potential energies come from independent runs, so their errors add in quadrature.

    :param loaded: mean energy of the framework with its molecules and its standard error in eV
    :param framework: mean energy of the empty framework and its standard error in eV
    :param gas: mean energy of one isolated molecule and its standard error in eV
    :param temperature: in K
    :param n_molecules: molecules in the loaded framework
    :return: ΔH (negative for binding) and its standard error in eV
    """
    value = (loaded[0] - framework[0]) / n_molecules - gas[0] - units.kB * temperature
    error = math.sqrt((loaded[1] ** 2 + framework[1] ** 2) / n_molecules**2 + gas[1] ** 2)
    return value, error


def _fluctuation_slopes(energies: NDArray[np.float64], loadings: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Covariances of energy and loadings times the inverse covariance of the loadings in eV; None if singular."""
    deviations = loadings - loadings.mean(axis=0)
    if np.linalg.matrix_rank(deviations) < loadings.shape[1]:
        return None
    return np.asarray(np.linalg.lstsq(deviations, energies - energies.mean(), rcond=None)[0])


def isosteric_heats(
    energies: NDArray[np.float64],
    loadings: NDArray[np.float64],
    temperature: float,
    gas_energies: Sequence[float],
) -> list[tuple[float, float]] | None:
    """Isosteric heats of the components of a gas from the fluctuations of a grand-canonical run.

    q_i = kT + ⟨u_i⟩ - Σ_j cov(U, N_j) [cov(N, N)⁻¹]_ji, positive for binding (Karavias and Myers, Langmuir 7, 3118
    (1991); for one component Nicholson and Parsonage 1982). U is the potential energy of the cell; ⟨u_i⟩ takes the
    molecules' own energy out of it. The errors are a jackknife over blocks of at least two statistical inefficiencies
    of the loading.

    :param energies: potential energies in eV, equilibrated, shape (n,)
    :param loadings: molecules of each kind in the cell at the same times, shape (n, kinds)
    :param temperature: in K
    :param gas_energies: mean potential energy of one isolated molecule of each kind at this temperature in eV, same
        reference as U
    :return: q and its standard error in eV for each kind; None if a loading fluctuates too little for an estimate
    """
    energies, loadings = np.asarray(energies, dtype=np.float64), np.asarray(loadings, dtype=np.float64)
    longest = max((statistical_inefficiency(series) for series in loadings.T), default=1.0)
    found = jackknife(lambda kept: _fluctuation_slopes(energies[kept], loadings[kept]), len(loadings), longest)
    if found is None:
        return None
    slopes, errors = found
    values = units.kB * temperature + np.asarray(gas_energies) - slopes
    return list(zip(values.tolist(), errors.tolist(), strict=True))
