"""Averages of runs of MD-GCMC and MD, of series whose means are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from aiida_mofmace.worker.programs.gcmc_averages import RunRecord, summarise
from aiida_mofmace.worker.programs.md import md_averages

from .engine_fixtures import thermal

TEMPERATURE, PRESSURE, BINDING = 300.0, 2e-4, -0.35


def record(**changes: Any) -> RunRecord:
    """A breathing cell: U + P V = E N exactly, behind a start that is of another kind."""
    rng = np.random.default_rng(5)
    loading = rng.poisson(6.0, 1000).astype(float)
    volume = 900.0 + 20.0 * rng.normal(size=1000)
    energy = BINDING * loading - PRESSURE * volume
    start = slice(0, 120)
    loading[start], energy[start] = 40.0, 0.1 * np.arange(120)
    series = {
        "step": np.arange(1000),
        "loading": loading,
        "potential_energy": energy,
        "temperature": np.where(loading == 0.0, 0.0, 305.0),
        "volume": volume,
    }
    counts = {"insertion": {"holes": 2}, "deletion": {"holes": 1}}
    gas = {"CO2": {"fugacity": 1e5, "ideal_gas": {"energy": -10.0, "energy_error": 0.3}}}
    content = {"series": series, "counts": counts, "components": gas, "cell_pressure": PRESSURE} | changes
    return RunRecord(temperature=TEMPERATURE, **content)


def test_isosteric_heat_of_a_cell_that_breathes() -> None:
    """One of enthalpies, without the start; what is not known of the ideal gas is in its error."""
    results = summarise(record())
    assert results["isosteric_heat"] == pytest.approx(thermal(TEMPERATURE) - 10.0 - BINDING, abs=1e-9)
    assert results["isosteric_heat_error"] == pytest.approx(0.3, abs=1e-6)
    assert results["mean_loading"] == pytest.approx(6.0, abs=0.4)
    assert results["mean_volume"] == pytest.approx(900.0, abs=3.0)
    assert results["model_holes"] == 3


@pytest.mark.parametrize("error", [None, float("nan")])
def test_an_energy_of_the_ideal_gas_that_is_exact_adds_no_error(error: float | None) -> None:
    gas = {"Ar": {"fugacity": 1e5, "ideal_gas": {"energy": 0.0, "energy_error": error}}}
    results = summarise(record(components=gas))
    assert results["isosteric_heat_error"] == pytest.approx(0.0, abs=1e-6)


def test_nothing_that_moves_has_no_temperature() -> None:
    """In a framework that is held, while its pores are empty; and then it does not count as one of zero kelvin."""
    assert summarise(record())["mean_temperature"] == pytest.approx(305.0)
    series = dict(record().series) | {"temperature": np.zeros(1000)}
    assert summarise(record(series=series))["mean_temperature"] is None


def observables() -> dict[str, Any]:
    rng = np.random.default_rng(6)
    energy = -500.0 + rng.normal(size=1700).repeat(3)
    energy[:100] += 50.0
    steps = 10 * (1 + np.arange(len(energy)))
    return {"step": steps, "potential_energy": energy, "kinetic_temperature": np.where(steps > 1000, 300.0, 900.0)}


def test_means_of_dynamics_begin_behind_the_equilibration() -> None:
    results = md_averages(observables(), equilibration_steps=1000, stride=10, atoms=40)
    assert results["mean_energy"] == pytest.approx(-500.0, abs=0.15)
    assert results["mean_temperature"] == 300.0
    # Each value stands three times: the inefficiency is three values, thirty steps.
    assert results["correlation_steps"] == pytest.approx(30.0, rel=0.6)
    assert results["mean_energy_error"] == pytest.approx(np.sqrt(3.0 / 4500), rel=0.4)
    assert not results["too_short"]


def test_the_energy_of_one_atom_is_exact() -> None:
    """Or no heat of adsorption of argon would ever be converged."""
    series = observables() | {"potential_energy": np.full(5100, -7.5)}
    alone = md_averages(series, equilibration_steps=0, stride=10, atoms=1)
    assert (alone["mean_energy"], alone["mean_energy_error"], alone["too_short"]) == (-7.5, 0.0, False)
    frozen = md_averages(series, equilibration_steps=0, stride=10, atoms=40)
    assert frozen["too_short"]
