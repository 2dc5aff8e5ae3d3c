"""Means and error bars of correlated series."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from aiida_mofmace.worker.kernels.statistics import (
    Estimate,
    _widening,
    estimate_mean,
    pooled_mean,
    statistical_inefficiency,
)

from .markov import autoregressive, coverage, ideal_loading, two_state

MEMORY = {0.5: 1.4427, 0.8: 4.4814, 0.98: 49.498}  # correlation times of what is remembered of the value before


@pytest.mark.parametrize(
    ("time", "occupied", "fewest_kept"), [(5.0, 0.5, 0.95), (20.0, 0.5, 0.6), (100.0, 0.5, 0.0), (20.0, 0.1, 0.2)]
)
def test_intervals_cover_the_mean_or_are_flagged(time: float, occupied: float, fewest_kept: float) -> None:
    """A site with 200, 50, 10 and 50 independent samples: at most one in 20 misses the mean and does not say so.

    Three standard deviations of a fraction of 0.05 among 60 are 0.085.
    """
    rng = np.random.default_rng(4)
    found = coverage(lambda: two_state(2000, time, occupied, rng), estimate_mean, occupied, 60)
    assert found.silent <= 0.05 + 0.085
    assert found.kept >= fewest_kept
    if time == 100.0:
        assert found.kept < 0.1


def test_error_bars_are_no_larger_than_they_must_be() -> None:
    rng = np.random.default_rng(4)
    estimates = [estimate_mean(autoregressive(2000, MEMORY[0.8], rng), detect_equilibration=False) for _ in range(50)]
    pulls = np.array([estimate.mean / estimate.error for estimate in estimates])
    assert 0.75 < pulls.std() < 1.25
    assert np.mean([e.statistical_inefficiency for e in estimates]) == pytest.approx(9.0, rel=0.2)


def test_block_averages_see_what_the_autocorrelation_does_not() -> None:
    """Steps between levels under noise that changes its sign: the autocorrelation is negative before it is positive."""
    rng = np.random.default_rng(3)
    series = np.repeat(rng.standard_normal(40), 50) + np.tile([4.0, -4.0], 1000) + 0.1 * rng.standard_normal(2000)
    assert statistical_inefficiency(series) > 3.0
    shuffled = rng.permutation(series)
    assert statistical_inefficiency(shuffled) < 2.0


def test_errors_are_widened_by_students_factor() -> None:
    """t of 10 and of 4 degrees of freedom are 2.228 and 2.776; 1.96 errors are to be the interval of 95 %."""
    assert _widening(10.0) == pytest.approx(2.2281 / 1.9600, abs=1e-4)
    assert _widening(4.0) == pytest.approx(2.7764 / 1.9600, abs=1e-4)
    series = np.tile([1.0, -1.0], 20)  # 39 independent samples, which tell an error like 9.75 degrees of freedom
    estimate = estimate_mean(series, detect_equilibration=False)
    assert estimate.error == pytest.approx(2.236 / 1.960 * np.std(series, ddof=1) / np.sqrt(39), rel=1e-3)


@pytest.mark.parametrize("length", [20, 40])
def test_inefficiency_is_corrected_for_the_mean_of_the_series_itself(length: int) -> None:
    """Values that alternate are not correlated: 1 / (1 - 1 / n), as the n - 1 in a variance."""
    series = np.tile([1.0, -1.0], length // 2)
    assert statistical_inefficiency(series) == pytest.approx(length / (length - 1))


@pytest.mark.parametrize(("distance", "disagree"), [(3.5, False), (3.8, True)])
def test_two_runs_disagree_beyond_the_limit_of_one_in_a_hundred(distance: float, disagree: bool) -> None:
    """χ² of one degree of freedom is above 6.635 in one case of 100: two means 3.64 errors apart."""
    first = Estimate(0.0, 1.0, 1.0, 0, 100.0, 40, False)
    both = pooled_mean([first, replace(first, mean=distance)])
    assert both.too_short is disagree


def test_rare_visits_are_flagged() -> None:
    """Three visits to a rare state are 50 independent samples by their correlation time, and no mean."""
    series = np.zeros(2000)
    for first in (300, 900, 1500):
        series[first : first + 20] = 1.0
    estimate = estimate_mean(series)
    assert estimate.effective_samples > 25
    assert estimate.round_trips == 3
    assert estimate.too_short


def test_a_start_that_sat_still_is_not_cut_off() -> None:
    """A site that stays occupied as long as it may: more than the tenth that always goes would change the mean."""
    rng = np.random.default_rng(8)
    series = np.concatenate([np.ones(260), two_state(1740, 20.0, 0.5, rng, start=0)])
    estimate = estimate_mean(series)
    assert estimate.equilibration_index == 200
    assert estimate.mean == pytest.approx(series[200:].mean())
    still = np.concatenate([np.full(1500, 3.0), 3.0 + two_state(500, 5.0, 0.5, rng)])
    assert estimate_mean(still).equilibration_index <= 1000
    assert estimate_mean(still).too_short


def test_replicas_tell_what_one_run_cannot() -> None:
    """Two basins between which nothing passes: each run is content, both together are not."""
    rng = np.random.default_rng(2)
    low, high = (estimate_mean(basin + ideal_loading(1000, 3.0, 1.0, rng)) for basin in (0.0, 2.0))
    assert not low.too_short
    assert not high.too_short
    both = pooled_mean([low, high])
    assert both.too_short
    assert both.mean == pytest.approx((low.mean + high.mean) / 2)
    assert both.error > 0.8
    same = pooled_mean([low, *(estimate_mean(ideal_loading(1000, 3.0, 1.0, rng)) for _ in range(3))])
    assert not same.too_short
    assert same.error < 0.75 * low.error
    assert abs(same.mean - 1.0) < 3 * same.error
    assert pooled_mean([low]) is low
    assert pooled_mean([low, estimate_mean(np.ones(500))]).too_short
    with pytest.raises(ValueError, match="no replica"):
        pooled_mean([])


def test_the_start_is_cut_off() -> None:
    rng = np.random.default_rng(5)
    series = autoregressive(3000, MEMORY[0.5], rng)
    series[:600] += np.linspace(30.0, 0.0, 600)
    estimate = estimate_mean(series)
    assert 400 <= estimate.equilibration_index <= 900
    assert abs(estimate.mean) < 3 * estimate.error
    assert not estimate.too_short


def test_what_is_left_of_a_start_is_cut_off_unseen() -> None:
    """A loading begun empty whose rise is too short to differ from the rest; all replicas of a point have it."""
    rng = np.random.default_rng(4)
    found = coverage(lambda: ideal_loading(2000, 20.0, 50.0, rng, start=0), estimate_mean, 50.0, 200)
    assert found.kept > 0.7
    assert abs(found.bias) < 0.25
    assert found.covered > 0.9


def test_long_series_are_averaged_in_groups() -> None:
    rng = np.random.default_rng(6)
    series = autoregressive(60000, MEMORY[0.98], rng)
    estimate = estimate_mean(series, detect_equilibration=False)
    assert estimate.mean == pytest.approx(series.mean(), abs=1e-3)
    assert estimate.statistical_inefficiency == pytest.approx(99.0, rel=0.25)
    assert estimate.error == pytest.approx(np.sqrt(99.0 / 60000), rel=0.15)
    series[:20000] += 50.0
    cut = estimate_mean(series)
    assert 19000 <= cut.equilibration_index <= 24000
    assert cut.too_short  # a third of the run was different: the rest is not much longer


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
