"""Means and error bars of correlated series."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from aiida_mofmace.worker.kernels.statistics import estimate_mean, statistical_inefficiency


def autoregressive(n: int, memory: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Series with g = (1 + memory) / (1 - memory) and unit variance."""
    noise = rng.standard_normal(n) * np.sqrt(1 - memory**2)
    series = np.zeros(n)
    series[0] = rng.standard_normal()
    for i in range(1, n):
        series[i] = memory * series[i - 1] + noise[i]
    return series


def test_error_bars_cover_the_truth() -> None:
    rng = np.random.default_rng(4)
    estimates = [estimate_mean(autoregressive(2000, 0.8, rng), detect_equilibration=False) for _ in range(60)]
    pulls = np.array([estimate.mean / estimate.error for estimate in estimates])
    assert 0.75 < pulls.std() < 1.35
    assert np.mean([e.statistical_inefficiency for e in estimates]) == pytest.approx(9.0, rel=0.15)


def test_the_start_is_cut_off() -> None:
    rng = np.random.default_rng(5)
    series = autoregressive(3000, 0.5, rng)
    series[:600] += np.linspace(30.0, 0.0, 600)
    estimate = estimate_mean(series)
    assert 400 <= estimate.equilibration_index <= 900
    assert abs(estimate.mean) < 3 * estimate.error
    assert not estimate.too_short


def test_long_series_are_averaged_in_groups() -> None:
    rng = np.random.default_rng(6)
    series = autoregressive(60000, 0.98, rng)
    estimate = estimate_mean(series, detect_equilibration=False)
    assert estimate.mean == pytest.approx(series.mean(), abs=1e-3)
    assert estimate.statistical_inefficiency == pytest.approx(99.0, rel=0.25)
    assert estimate.error == pytest.approx(np.sqrt(99.0 / 60000), rel=0.15)
    series[:20000] += 50.0
    assert 19000 <= estimate_mean(series).equilibration_index <= 24000


@pytest.mark.parametrize("n", [1, 2, 5, 500])
def test_constant_and_short_series_are_flagged(n: int) -> None:
    estimate = estimate_mean(np.full(n, 3.0))
    assert estimate.mean == 3.0
    assert estimate.effective_samples == 1.0
    assert estimate.too_short
    assert np.isnan(estimate.error)
    assert statistical_inefficiency(np.full(n, 3.0)) == n


def test_a_rise_without_a_plateau_is_flagged() -> None:
    assert estimate_mean(np.arange(200.0)).too_short


def test_values_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        estimate_mean(np.array([1.0, np.nan]))
    with pytest.raises(ValueError, match="at least one"):
        estimate_mean(np.array([]))


def test_nothing_is_printed() -> None:
    code = (
        "import numpy as np, sys\n"
        "from aiida_mofmace.worker.kernels.statistics import estimate_mean\n"
        "assert 'pymbar' not in sys.modules\n"
        "estimate_mean(np.random.default_rng(0).normal(size=50))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
