"""Equilibration, correlation times and error bars of time series, by ``pymbar.timeseries``."""

from __future__ import annotations

import contextlib
import io
import logging
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

__all__ = ["Estimate", "estimate_mean", "statistical_inefficiency"]

_SHORTEST_SERIES = 10  # fewer values hold no information on a correlation time
_FEWEST_EFFECTIVE_SAMPLES = 20.0  # below this, an error bar is itself uncertain by more than about 16 %
_EQUILIBRATION_CANDIDATES = 50
_LONGEST_SERIES = 5000  # longer ones are averaged in groups first, which changes neither the mean nor its error


@dataclass(frozen=True)
class Estimate:
    """Mean of a correlated time series with its standard error.

    :param mean: mean of the equilibrated part, in the unit of the series
    :param error: standard error of the mean; NaN where nothing is known of it: a single value or a constant series
    :param statistical_inefficiency: number of values that count as one independent sample
    :param equilibration_index: first value of the equilibrated part
    :param effective_samples: independent samples in the equilibrated part
    :param too_short: whether mean and error are not to be relied on: too few values or independent samples, or a
        constant series, which says nothing about its fluctuation
    """

    mean: float
    error: float
    statistical_inefficiency: float
    equilibration_index: int
    effective_samples: float
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


def statistical_inefficiency(series: NDArray[np.float64]) -> float:
    """Statistical inefficiency g = 1 + 2 τ, τ the integrated autocorrelation time in units of the spacing.

    :param series: values at equal spacing, shape (n,)
    :return: g, at least 1; the length of the series if it is constant or has fewer than three values
    """
    series = np.asarray(series, dtype=np.float64)
    if len(series) < 3 or np.ptp(series) == 0.0:
        return float(max(len(series), 1))
    return float(_timeseries().statistical_inefficiency(series))


def estimate_mean(series: NDArray[np.float64], detect_equilibration: bool = True) -> Estimate:
    """Mean and standard error, after the start that was not yet in equilibrium is cut off.

    The cut is where the number of independent samples behind it is largest (Chodera, J. Chem. Theory Comput. 12, 1799
    (2016)); the error is s sqrt(g / n) with the statistical inefficiency g of the rest. A series of more than 5000
    values is averaged in groups first: mean and error stay, g is then at least the size of a group.

    :param series: values at equal spacing, shape (n,)
    :param detect_equilibration: False if the series is known to be in equilibrium from its first value
    :raises ValueError: if the series is empty or holds a value that is not finite
    """
    series = np.asarray(series, dtype=np.float64)
    if len(series) == 0 or not np.all(np.isfinite(series)):
        raise ValueError("a mean needs at least one value, and finite ones only")
    group = -(-len(series) // _LONGEST_SERIES)
    if group > 1:
        whole = len(series) // group * group
        coarse = estimate_mean(series[len(series) - whole :].reshape(-1, group).mean(axis=1), detect_equilibration)
        return replace(
            coarse,
            statistical_inefficiency=coarse.statistical_inefficiency * group,
            equilibration_index=len(series) - whole + coarse.equilibration_index * group,
        )
    start = 0
    if detect_equilibration and len(series) >= _SHORTEST_SERIES and np.ptp(series) > 0.0:
        spacing = max(1, len(series) // _EQUILIBRATION_CANDIDATES)
        start = int(_timeseries().detect_equilibration(series, fast=True, nskip=spacing)[0])
    kept = series[start:]
    inefficiency = statistical_inefficiency(kept)
    effective = len(kept) / inefficiency
    error = float(np.std(kept, ddof=1) / np.sqrt(effective)) if np.ptp(kept) > 0.0 else float("nan")
    return Estimate(
        mean=float(kept.mean()),
        error=error,
        statistical_inefficiency=inefficiency,
        equilibration_index=start,
        effective_samples=effective,
        too_short=len(kept) < _SHORTEST_SERIES or effective < _FEWEST_EFFECTIVE_SAMPLES,
    )
