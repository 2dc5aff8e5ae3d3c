"""Coverage of the interval of 95 % over series of known mean: ``python -m benchmarks.statistics_coverage [SERIES]``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from aiida_mofmace.worker.kernels.statistics import estimate_mean, pooled_mean
from benchmarks.demo import machine
from tests.worker.markov import Array, autoregressive, coverage, ideal_loading, two_state

LENGTH = 2000
TIMES = (5.0, 20.0, 50.0, 100.0, 400.0)
SEED = 20261123

Make = Callable[[np.random.Generator], Array]


def basins(length: int, slow: float, rng: np.random.Generator, start: int | None = None) -> Array:
    """Two basins of equal weight 2 apart, with fast noise of variance 0.5 in each."""
    noise = np.sqrt(0.5) * autoregressive(length, 2.0, rng)
    return np.asarray(2.0 * two_state(length, slow, 0.5, rng, start) + noise)


def kinds(slow: float) -> Iterator[tuple[str, float, Make]]:
    """Name, mean and maker of each kind of series with a correlation time."""
    yield "site, half full", 0.5, lambda rng: two_state(LENGTH, slow, 0.5, rng)
    yield "site, a tenth full", 0.1, lambda rng: two_state(LENGTH, slow, 0.1, rng)
    yield "Gaussian", 0.0, lambda rng: autoregressive(LENGTH, slow, rng)
    yield "loading, mean 3", 3.0, lambda rng: ideal_loading(LENGTH, slow, 3.0, rng)
    yield "loading, begun empty", 10.0, lambda rng: ideal_loading(LENGTH, slow, 10.0, rng, start=0)
    yield "basins", 1.0, lambda rng: basins(LENGTH, slow, rng)


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    started = time.process_time()
    print(machine())
    print(f"{number} series of {LENGTH} values in each row")
    print(f"{'series':<30}{'tau':>6}{'n/G':>6}{'kept':>8}{'covered':>9}{'missed, not flagged':>21}")
    for slow in TIMES:
        for name, mean, make in kinds(slow):
            rng = np.random.default_rng(SEED)
            found = coverage(lambda make=make, rng=rng: make(rng), estimate_mean, mean, number)
            covered = f"{found.covered:.3f}" if found.kept > 0 else "-"
            row = f"{name:<30}{slow:>6g}{LENGTH / (2 * slow):>6.0f}{found.kept:>8.2f}{covered:>9}"
            print(f"{row}{found.silent:>21.3f}", flush=True)
    print("two runs, one from each basin, pooled")
    for slow in TIMES:
        rng, kept, missed = np.random.default_rng(SEED), 0, 0
        for _ in range(number):
            both = pooled_mean([estimate_mean(basins(LENGTH, slow, rng, start)) for start in (0, 1)])
            kept += not both.too_short
            missed += not both.too_short and not abs(both.mean - 1.0) < 1.96 * both.error
        covered = f"{1 - missed / kept:.3f}" if kept else "-"
        row = f"{'basins, both starts':<30}{slow:>6g}{LENGTH / slow:>6.0f}{kept / number:>8.2f}{covered:>9}"
        print(f"{row}{missed / number:>21.3f}", flush=True)
    print(f"{time.process_time() - started:.0f} CPU seconds")
