"""Test-particle insertion: exact integrals, the slope of the isotherm at low pressure, restart with a real model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from aiida_mofmace.worker.kernels import ideal_gas
from aiida_mofmace.worker.kernels.receptive_field import LocalPotential
from aiida_mofmace.worker.kernels.thermodynamics import ideal_gas_number
from aiida_mofmace.worker.kernels.widom import widom_averages
from aiida_mofmace.worker.programs.gcmc_averages import summarise
from aiida_mofmace.worker.programs.md_gcmc import record_of
from aiida_mofmace.worker.programs.widom import WidomParameters, WidomSimulation, run
from aiida_mofmace.worker.stopping import StopRequest

from .engine_fixtures import CO2, thermal
from .gcmc_proofs import ARGON, STARTER, TEMPERATURE, Attraction, figure, simulate
from .stretching import N2, Stretching

PARAMETERS = {
    "temperature": TEMPERATURE,
    "gas": CO2,
    "timestep_fs": 0.5,
    "steps": 30,
    "stride": 5,
    "equilibration_steps": 12,
    "insertions": 15,
    "thermostat_time_fs": 50.0,
    "max_temperature_factor": 5.0,
    "minimum_distance": 1.8,
    "model_hole_bound": -1.5,
    "explosion_distance": 0.5,
}


def widom_of_attraction(flexible: bool) -> WidomSimulation:
    parameters = WidomParameters(
        **PARAMETERS
        | {"gas": ARGON, "minimum_distance": 0.0, "explosion_distance": 0.0, "steps": 400, "stride": 1}
        | {"gas_flexible": False, "framework_flexible": flexible, "insertions": 200, "max_temperature_factor": 50.0}
    )
    cell = Atoms("Al", cell=[14.0] * 3, pbc=True)
    simulation = WidomSimulation(parameters, Attraction(0.1, 1.5), cell, seed=6)
    simulation.advance(StopRequest())
    return simulation


@pytest.mark.parametrize("flexible", [True, False])
def test_exact_integrals(flexible: bool) -> None:
    """⟨exp(-β u)⟩ and the heat kT - ∫ u exp(-β u) / ∫ exp(-β u) of a Gaussian well."""
    simulation = widom_of_attraction(flexible)
    found = simulation.averages()
    volume, energy = simulation.potential.boltzmann_integrals(14.0, TEMPERATURE)
    assert found is not None
    for (value, error), expected in (
        (found.factor, volume / 14.0**3),
        (found.excess, -thermal(TEMPERATURE) * np.log(volume / 14.0**3)),
        (found.heat, thermal(TEMPERATURE) - energy / volume),
    ):
        assert abs(value - expected) < 3 * error
        assert error < 0.05 * abs(expected)


def test_what_overlaps_counts_as_an_insertion_without_weight() -> None:
    """⟨exp(-β u)⟩ is the integral outside of a sphere, over the whole cell."""
    nearest, well = 3.0, Attraction(0.1, 1.5)
    parameters = WidomParameters(
        **PARAMETERS
        | {"gas": ARGON, "minimum_distance": nearest, "steps": 400, "stride": 1, "insertions": 200}
        | {"gas_flexible": False, "framework_flexible": False}
    )
    simulation = WidomSimulation(parameters, well, Atoms("Al", cell=[14.0] * 3, pbc=True), seed=6)
    simulation.advance(StopRequest())
    found, radius = simulation.averages(), np.linspace(0.0, nearest, 20001)
    assert found is not None
    inside = np.exp(well.depth * np.exp(-0.5 * (radius / well.width) ** 2) / thermal(TEMPERATURE))
    sphere = float((4 * np.pi * radius**2 * inside).sum() * (radius[1] - radius[0]))
    value, error = found.factor
    assert abs(value - (well.boltzmann_integrals(14.0, TEMPERATURE)[0] - sphere) / 14.0**3) < 3 * error
    assert error < 0.005 * value


def test_heat_of_a_molecule_that_the_framework_strains() -> None:
    """The energy it costs to stretch the bond is no part of the binding; against quadrature."""
    potential = Stretching(spring=2.0, pull=0.15, depth=0.1)
    parameters = WidomParameters(
        **PARAMETERS
        | {"gas": N2, "minimum_distance": 0.0, "explosion_distance": 0.0, "insertions": 40}
        | {"framework_flexible": False, "steps": 400, "stride": 1}
    )
    framework = Atoms("Ar", cell=[20.0] * 3, pbc=True)
    simulation = WidomSimulation(parameters, potential, framework, seed=4)
    simulation.advance(StopRequest())
    found = simulation.averages()
    assert found is not None
    (heat, error), (expected, strain) = found.heat, potential.exact_heat(TEMPERATURE)
    assert abs(heat - expected) < 3 * error
    assert error < 0.2 * strain


def test_averages_of_a_framework_whose_energy_goes_with_what_it_binds() -> None:
    """Values by hand; errors as those of independent repetitions."""
    rng, thermal_energy = np.random.default_rng(3), thermal(TEMPERATURE)

    def series() -> tuple[Any, ...]:
        states = rng.normal(size=(4, 2000))
        factors = np.exp(0.5 * states[0])
        return factors, -0.2 * factors + 0.05 * states[1] * factors, 0.1 + 0.02 * states[2], states[0] + states[3]

    factors, weighted, own, framework = series()
    found = widom_averages(factors, weighted, own, framework - 900.0, TEMPERATURE)
    assert found is not None and not found.too_short
    inside = (weighted + framework * factors).mean() / factors.mean() - framework.mean()
    assert found.heat[0] == pytest.approx(thermal_energy + own.mean() - inside, abs=1e-9)
    assert found.factor[0] == pytest.approx(factors.mean())
    assert found.excess[0] == pytest.approx(-thermal_energy * np.log(factors.mean()))
    repeated = [widom_averages(*series(), TEMPERATURE) for _ in range(200)]
    for name in ("factor", "excess", "heat"):
        values, errors = np.array([getattr(each, name) for each in repeated]).T
        # Student's factor of 20 blocks is 1.07.
        assert np.sqrt(np.mean(errors**2)) == pytest.approx(1.07 * np.std(values), rel=0.15), name


def test_one_large_value_is_one_sample() -> None:
    factors, zeros = np.full(2000, 1e-3), np.zeros(2000)
    factors[77] = 50.0
    found = widom_averages(factors, zeros, zeros, zeros, TEMPERATURE)
    assert found is not None
    assert found.too_short and found.effective_samples == pytest.approx(1.0, abs=0.1)


def test_henry_coefficient_is_the_slope_of_the_isotherm() -> None:
    """The same potential in the grand canonical ensemble at two low pressures; the heat, too, by its fluctuations."""
    results = widom_of_attraction(flexible=False).results()
    for fugacity in (5e4, 2e5):
        run_at = simulate(
            Attraction(0.1, 1.5),
            14.0,
            seed=int(fugacity),
            gas=ARGON,
            fugacity=fugacity,
            steps=5000,
            translation_step=3.0,
            moves={"exchange": 5.0, "translation": 1.0},
            gas_flexible=False,
            framework_flexible=False,
        )
        henry, its_error = results["henry_molecules_per_pascal"], results["henry_molecules_per_pascal_error"]
        slope = figure("slope", run_at.series.arrays()["loading"] / fugacity, henry)
        assert abs(slope.found - henry) < 3 * np.hypot(slope.error, its_error)
        assert slope.error < 0.15 * henry
        heat = summarise(record_of(run_at))
        q_st, its_error = heat["isosteric_heat"], np.hypot(heat["isosteric_heat_error"], results["heat_error"])
        assert abs(q_st - results["heat"]) < 3 * its_error
        assert its_error < 0.15 * q_st
    mass = 26.9815385
    assert results["henry"] == pytest.approx(results["henry_molecules_per_pascal"] * 1000 / mass)
    ideal = ideal_gas_number(1.0, 14.0**3, TEMPERATURE)
    assert results["henry_molecules_per_pascal"] == pytest.approx(results["boltzmann_factor"] * ideal)


@pytest.fixture
def inputs(framework: Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ideal_gas, "_EQUILIBRATION_SWEEPS", 4)
    framework.write("structure.extxyz")
    files = {"model": str(STARTER), "structure": "structure.extxyz"}
    return {"program": "widom", "seed": 2, "dtype": "float32", "files": files, "parameters": PARAMETERS}


@pytest.mark.parametrize("flexible", [True, False])
def test_insertions_evaluated_by_what_they_change(
    inputs: dict[str, Any], flexible: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64 the averages are those of full evaluations, and a restart changes no bit."""
    inputs = inputs | {"dtype": "float64", "parameters": PARAMETERS | {"framework_flexible": flexible}}
    results, factors = {}, {}
    for smallest in (10**6, 0):
        monkeypatch.setattr(LocalPotential.__init__, "__defaults__", (smallest,))
        results[smallest] = run(inputs, StopRequest())
        with np.load("timeseries.npz") as archive:
            factors[smallest] = archive["boltzmann_factor"]
    assert results[0]["local_trials"]
    assert factors[0].max() > 0.0
    np.testing.assert_allclose(factors[0], factors[10**6], rtol=1e-5)
    assert results[0]["insertions"] == results[10**6]["insertions"]
    with np.load("checkpoint.npz") as archive:
        expected = {name: archive[name] for name in archive.files}
    run(inputs | {"parameters": inputs["parameters"] | {"steps": 13}}, StopRequest())
    Path("checkpoint.npz").rename("restart.npz")
    run(inputs | {"files": inputs["files"] | {"checkpoint": "restart.npz"}}, StopRequest())
    with np.load("checkpoint.npz") as archive:
        for name, array in expected.items():
            assert np.array_equal(archive[name], array), name


def test_a_restart_changes_no_bit(inputs: dict[str, Any]) -> None:
    whole = run(inputs, StopRequest())
    with np.load("checkpoint.npz") as archive:
        expected = {name: archive[name] for name in archive.files}
    run(inputs | {"parameters": PARAMETERS | {"steps": 13}}, StopRequest())
    Path("checkpoint.npz").rename("restart.npz")
    parts = run(inputs | {"files": inputs["files"] | {"checkpoint": "restart.npz"}}, StopRequest())
    with np.load("checkpoint.npz") as archive:
        for name, array in expected.items():
            assert np.array_equal(archive[name], array), name
    assert parts["insertions"] == whole["insertions"]
    counts = whole["insertions"]
    assert counts["attempted"] == 4 * 15 == counts["overlap"] + counts["evaluated"]
    assert 0 < counts["evaluated"] < counts["attempted"]


def test_holes_are_kept(inputs: dict[str, Any]) -> None:
    """With an absurd bound every insertion is a hole: offered for labelling, and no weight is given to it."""
    changes = {"model_hole_bound": 1e3, "equilibration_steps": 4, "steps": 10}
    results = run(inputs | {"parameters": PARAMETERS | changes}, StopRequest())
    assert results["model_holes"] == results["insertions"]["evaluated"] > 0
    assert results["henry"] is None
    assert Path("candidates.npz").exists()
