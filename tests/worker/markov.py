"""Stationary series of known mean and correlation time, and how often an interval covers the mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from aiida_mofmace.worker.kernels.statistics import Estimate

Array = NDArray[np.float64]


def two_state(length: int, time: float, occupied: float, rng: np.random.Generator, start: int | None = None) -> Array:
    """Site that is empty or occupied, with the correlation exp(-t / time); rare exchanges for a large time."""
    leaving = (1.0 - np.exp(-1.0 / time)) * np.array([occupied, 1.0 - occupied])
    state = int(rng.random() < occupied) if start is None else start
    series, at = np.empty(length), 0
    while at < length:
        stay = int(rng.geometric(leaving[state]))
        series[at : at + stay], state, at = state, 1 - state, at + stay
    return series


def autoregressive(length: int, time: float, rng: np.random.Generator) -> Array:
    """Gaussian series of mean 0 and variance 1 with the correlation exp(-t / time)."""
    memory = np.exp(-1.0 / time)
    noise = rng.standard_normal(length) * np.sqrt(1.0 - memory**2)
    series = np.empty(length)
    series[0] = rng.standard_normal()
    for i in range(1, length):
        series[i] = memory * series[i - 1] + noise[i]
    return series


def ideal_loading(length: int, time: float, mean: float, rng: np.random.Generator, start: int | None = None) -> Array:
    """Molecules of an ideal gas that come and go: Poisson, with the correlation exp(-t / time)."""
    stays = np.exp(-1.0 / time)
    loading = int(rng.poisson(mean)) if start is None else start
    series = np.empty(length)
    for i in range(length):
        loading = int(rng.binomial(loading, stays) + rng.poisson(mean * (1.0 - stays)))
        series[i] = loading
    return series


@dataclass(frozen=True)
class Coverage:
    """What became of the estimates of many series.

    :param kept: fraction that was not flagged
    :param covered: fraction of these whose interval of 1.96 errors holds the mean
    :param silent: fraction of all that misses the mean and is not flagged
    :param bias: mean deviation of those not flagged from the mean, in units of their errors
    """

    kept: float
    covered: float
    silent: float
    bias: float


def coverage(make: Callable[[], Array], estimate: Callable[[Array], Estimate], mean: float, number: int) -> Coverage:
    """Estimate the mean of a number of series."""
    estimates = [estimate(make()) for _ in range(number)]
    kept = [each for each in estimates if not each.too_short]
    off = np.array([(each.mean - mean) / each.error for each in kept])
    missed = int(np.count_nonzero(~(abs(off) < 1.96)))
    bias = float(off.mean()) if kept else float("nan")
    return Coverage(len(kept) / number, 1.0 - missed / max(len(kept), 1), missed / number, bias)
