"""Equilibration, correlation times and error bars of time series: ``pymbar.timeseries`` and block averages."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "FEWEST_EFFECTIVE_SAMPLES",
    "Estimate",
    "estimate_mean",
    "jackknife",
    "pooled_mean",
    "pooled_value",
    "statistical_inefficiency",
]

_SHORTEST_SERIES = 10  # fewer values hold no information on a correlation time
FEWEST_EFFECTIVE_SAMPLES = 25.0  # with fewer, and few round trips, more than one interval in 20 misses the mean
_FEWEST_ROUND_TRIPS = 6
_EQUILIBRATION_CANDIDATES = 25
_ALWAYS_CUT = 0.1  # of the series: what is left of a start that no test finds, all runs of a kind have in common
_LARGEST_START = 0.5  # of the rest, that may be cut off
_LARGEST_TRUSTED_START = 0.25  # a rest that is not much longer than what it differs from may change again
_ALIKE = 4.0  # standard errors within which the start counts as a part of the rest
_LONGEST_SERIES = 5000  # longer ones are averaged in groups first, which changes neither the mean nor its error
_BLOCKS = (10, 20)
_JACKKNIFE_BLOCKS = (5, 20)
_INEFFICIENCIES_PER_BLOCK = 2.0  # with one, blocks are still correlated and the error too small
_SAMPLES_PER_DEGREE_OF_FREEDOM = 4.0  # of the estimate of an error
_DISAGREEMENT = 0.01  # probability of a spread as large as that of the replicas, below which they disagree


@dataclass(frozen=True)
class Estimate:
    """Mean of a correlated time series with its standard error.

    :param mean: mean of the equilibrated part, in the unit of the series
    :param error: standard error of the mean, mean ± 1.96 errors being a 95 % interval; NaN where nothing is known of
        it: a single value or a constant series
    :param statistical_inefficiency: number of values that count as one independent sample
    :param equilibration_index: first value of the equilibrated part
    :param effective_samples: independent samples in the equilibrated part
    :param round_trips: how often the equilibrated part went from below its mean to above it, looked at one independent
        sample at a time
    :param too_short: whether mean and error are not to be relied on: too few values, independent samples or round
        trips, a start that differs from the rest and is not short beside it, or a constant series, which says nothing
        about its fluctuation
    """

    mean: float
    error: float
    statistical_inefficiency: float
    equilibration_index: int
    effective_samples: float
    round_trips: int
    too_short: bool


def _timeseries() -> ModuleType:
    """Import pymbar without its banners: a log warning of the module and one about an optional accelerator."""
    loggers = [logging.getLogger(name) for name in ("pymbar", "pymbar.timeseries", "pymbar.mbar_solvers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            from pymbar import timeseries
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
    module: ModuleType = timeseries
    return module


def _grouped(series: NDArray[np.float64]) -> tuple[NDArray[np.float64], int, int]:
    """Average groups of values if there are more than 5000.

    :return: means, number of values in a group, number of values left over at the start
    """
    group = max(1, -(-len(series) // _LONGEST_SERIES))
    first = len(series) % group
    return series[first:].reshape(-1, group).mean(axis=1), group, first


def _autocorrelation_inefficiency(series: NDArray[np.float64]) -> float:
    """Integrate the autocorrelation function to its first zero."""
    return float(_timeseries().statistical_inefficiency(series))


def _block_inefficiency(series: NDArray[np.float64]) -> float:
    """Ratio of the variance of the mean, by 10 and by 20 blocks, to what it would be without correlation."""
    variance, largest = float(np.var(series, ddof=1)), 1.0
    for blocks in _BLOCKS:
        size = len(series) // blocks
        if size > 1:
            means = series[len(series) - blocks * size :].reshape(blocks, size).mean(axis=1)
            largest = max(largest, size * float(np.var(means, ddof=1)) / variance)
    return largest


def statistical_inefficiency(series: NDArray[np.float64]) -> float:
    """Statistical inefficiency g = 1 + 2 τ, τ the integrated autocorrelation time in units of the spacing.

    The larger of two figures: that of the autocorrelation function, and that of block averages. Both are corrected for
    having the mean of the series itself, which takes a share of g / n out of the variance.

    :param series: values at equal spacing, shape (n,)
    :return: g, between 1 and the length of the series, which it is if that is constant or has fewer than three values
    """
    series = np.asarray(series, dtype=np.float64)
    if len(series) < 3 or np.ptp(series) == 0.0:
        return float(max(len(series), 1))
    coarse, group, _ = _grouped(series)
    if np.ptp(coarse) == 0.0:
        return float(len(series))
    inefficiency = max(_autocorrelation_inefficiency(coarse), _block_inefficiency(coarse))
    # What one group holds is lost in `coarse`: the variance of single values relates the two.
    inefficiency *= group * float(np.var(coarse) / np.var(series))
    return float(min(max(inefficiency / max(1.0 - inefficiency / len(series), 1e-9), 1.0), len(series)))


def _equilibration_index(series: NDArray[np.float64]) -> int:
    """First value of the part of a series that is in equilibrium.

    A tenth is cut off in any case. The start ends where the number of independent samples behind it is largest
    (Chodera, J. Chem. Theory Comput. 12, 1799 (2016)). More than the tenth is cut off only if its mean is another than
    that of the rest: a start that merely sat still, where exchanges are rare, is a sample like any other.
    """
    if len(series) < _SHORTEST_SERIES:
        return 0
    always = int(_ALWAYS_CUT * len(series))
    return always + _end_of_start(series[always:])


def _end_of_start(series: NDArray[np.float64]) -> int:
    length = len(series)
    if length < _SHORTEST_SERIES or np.ptp(series) == 0.0:
        return 0
    candidates = np.unique(np.linspace(0, _LARGEST_START * length, _EQUILIBRATION_CANDIDATES + 1).astype(int))
    samples = [(length - first) / statistical_inefficiency(series[first:]) for first in candidates]
    start = int(candidates[int(np.argmax(samples))])
    rest = series[start:]
    if start == 0 or np.ptp(rest) == 0.0:
        return 0
    inefficiency = statistical_inefficiency(rest)
    expected = np.std(rest, ddof=1) * np.sqrt(max(inefficiency / start, 1.0 / start) + inefficiency / len(rest))
    return start if abs(series[:start].mean() - rest.mean()) > _ALIKE * expected else 0


def _round_trips(series: NDArray[np.float64], inefficiency: float) -> int:
    """Count the passages from below the mean to above it, of means over one independent sample each."""
    size = min(int(np.ceil(inefficiency)), len(series))
    means = series[len(series) % size :].reshape(-1, size).mean(axis=1)
    is_above = means > series.mean()
    return int(np.count_nonzero(is_above[1:] & ~is_above[:-1]))


def _widening(freedom: float) -> float:
    """Factor of a standard error that is itself an estimate, so that 1.96 of it are a 95 % interval (Student's t)."""
    from scipy.stats import norm, t

    return float(t.ppf(0.975, max(freedom, 1.0)) / norm.ppf(0.975))


def jackknife(
    values: Callable[[NDArray[np.bool_]], NDArray[np.float64] | None], length: int, inefficiency: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Values that are no means, such as ratios and slopes, with their standard errors, by leaving out block by block.

    There are 5 to 20 blocks, each at least two statistical inefficiencies long, and the error has Student's factor.

    :param values: of the part of a series that is kept, a mask of shape (length,); None where that part has none
    :param length: of the series
    :param inefficiency: statistical inefficiency of what the values fluctuate with
    :return: values of the whole series and their errors; None if it is too short, or a part has no values
    """
    fewest, most = _JACKKNIFE_BLOCKS
    blocks = min(most, int(length / (_INEFFICIENCIES_PER_BLOCK * inefficiency)))
    whole = values(np.ones(length, dtype=bool)) if blocks >= fewest else None
    if whole is None:
        return None
    block = np.arange(length) * blocks // length
    parts = [values(block != index) for index in range(blocks)]
    known = [part for part in parts if part is not None]
    if len(known) < blocks:
        return None
    return whole, np.sqrt((blocks - 1) * np.var(known, axis=0)) * _widening(blocks - 1)


def estimate_mean(series: NDArray[np.float64], detect_equilibration: bool = True) -> Estimate:
    """Mean and standard error, after a start that was not yet in equilibrium is cut off.

    The error is t s sqrt(g / n) with the statistical inefficiency g of the rest and a factor t for g being uncertain. A
    series of more than 5000 values is averaged in groups first: mean and error stay.

    :param series: values at equal spacing, shape (n,)
    :param detect_equilibration: False if the series is known to be in equilibrium from its first value
    :raises ValueError: if the series is empty or holds a value that is not finite
    """
    series = np.asarray(series, dtype=np.float64)
    if len(series) == 0 or not np.all(np.isfinite(series)):
        raise ValueError("a mean needs at least one value, and finite ones only")
    coarse, group, first = _grouped(series)
    start = _equilibration_index(coarse) * group if detect_equilibration else 0
    start = first + start if start else 0
    kept = series[start:]
    inefficiency = statistical_inefficiency(kept)
    effective, trips = len(kept) / inefficiency, _round_trips(kept, inefficiency)
    error = float(np.std(kept, ddof=1) / np.sqrt(effective)) if np.ptp(kept) > 0.0 else float("nan")
    return Estimate(
        mean=float(kept.mean()),
        error=error * _widening(effective / _SAMPLES_PER_DEGREE_OF_FREEDOM),
        statistical_inefficiency=inefficiency,
        equilibration_index=start,
        effective_samples=effective,
        round_trips=trips,
        too_short=(
            len(kept) < _SHORTEST_SERIES
            or effective < FEWEST_EFFECTIVE_SAMPLES
            or trips < _FEWEST_ROUND_TRIPS
            or start > _LARGEST_TRUSTED_START * len(series)
        ),
    )


def pooled_mean(replicas: Sequence[Estimate]) -> Estimate:
    """Mean of independent runs of equal length of the same system, begun from different states.

    What one run cannot tell, several can: a barrier that none has crossed leaves each with a small error and all with
    different means. The error is the larger of that from their errors and that from their spread; runs that disagree
    (χ² of their means) make the mean one not to be relied on.

    :param replicas: at least one; indices and inefficiency of the result are the largest among them
    :raises ValueError: if there is none
    """
    if not replicas:
        raise ValueError("there is no replica to average")
    if len(replicas) == 1:
        return replicas[0]
    from scipy.stats import chi2

    number = len(replicas)
    means, errors = (np.array([getattr(each, name) for each in replicas]) for name in ("mean", "error"))
    mean, error = pooled_value(means, errors)
    weights = 1.0 / np.maximum(errors, np.finfo(float).tiny) ** 2
    is_known = np.all(np.isfinite(errors))
    squares = np.sum(weights * (means - np.average(means, weights=weights)) ** 2) if is_known else np.inf
    return Estimate(
        mean=mean,
        error=error,
        statistical_inefficiency=max(each.statistical_inefficiency for each in replicas),
        equilibration_index=max(each.equilibration_index for each in replicas),
        effective_samples=sum(each.effective_samples for each in replicas),
        round_trips=sum(each.round_trips for each in replicas),
        too_short=any(each.too_short for each in replicas) or bool(chi2.sf(squares, number - 1) < _DISAGREEMENT),
    )


def pooled_value(values: ArrayLike, errors: ArrayLike) -> tuple[float, float]:
    """Mean of independent results, and its error: the larger of that from their errors and that from their spread.

    :param values: of at least two runs, shape (n,)
    :param errors: their standard errors, NaN where one is not known, shape (n,)
    :return: mean; standard error, NaN if one of the errors is
    """
    means, own = np.asarray(values, dtype=np.float64), np.asarray(errors, dtype=np.float64)
    number = len(means)
    spread = np.std(means, ddof=1) / np.sqrt(number)
    return float(means.mean()), float(np.maximum(np.sqrt(np.sum(own**2)) / number, spread))
