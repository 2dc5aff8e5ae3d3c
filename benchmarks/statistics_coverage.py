"""Coverage of the interval of 95 % over series of known mean: ``python -m benchmarks.statistics_coverage [SERIES]``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from aiida_mofmace.worker.kernels.statistics import Estimate, estimate_mean, pooled_mean
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
    yield "loading 50, begun empty", 50.0, lambda rng: ideal_loading(LENGTH, slow, 50.0, rng, start=0)
    yield "basins", 1.0, lambda rng: basins(LENGTH, slow, rng)


def looked_at(mean: float, samples: int, rng: np.random.Generator) -> Estimate:
    """Return the first estimate that is good enough: its error is what so many samples should have."""
    series = ideal_loading(1000, 20.0, mean, rng)
    for _ in range(100):
        found = estimate_mean(series)
        if not found.too_short and found.effective_samples >= samples and found.error <= np.sqrt(mean / samples):
            return found
        more = ideal_loading(1001, 20.0, mean, rng, start=int(series[-1]))[1:]
        series = np.concatenate([series, more])
    return found


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    started = time.process_time()
    print(machine())
    print(f"{number} series of {LENGTH} values in each row")
    print(f"{'series':<30}{'tau':>6}{'n/G':>6}{'kept':>8}{'covered':>9}{'missed, not flagged':>21}{'bias/error':>12}")
    for slow in TIMES:
        for name, mean, make in kinds(slow):
            rng = np.random.default_rng(SEED)
            found = coverage(lambda make=make, rng=rng: make(rng), estimate_mean, mean, number)
            covered = f"{found.covered:.3f}" if found.kept > 0 else "-"
            row = f"{name:<30}{slow:>6g}{LENGTH / (2 * slow):>6.0f}{found.kept:>8.2f}{covered:>9}"
            print(f"{row}{found.silent:>21.3f}{found.bias:>12.2f}", flush=True)
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
    print("loading, tau 20, looked at every 1000 values until its error and its samples are as wanted")
    for mean, samples in ((0.1, 100), (0.3, 25), (0.3, 100), (3.0, 25), (3.0, 100)):
        rng = np.random.default_rng(SEED)
        found = coverage(lambda: np.empty(0), lambda _: looked_at(mean, samples, rng), mean, number)  # noqa: B023
        row = f"{f'mean {mean:g}, {samples} samples':<30}{20:>6}{'':>6}{found.kept:>8.2f}{found.covered:>9.3f}"
        print(f"{row}{found.silent:>21.3f}{found.bias:>12.2f}", flush=True)
    print(f"{time.process_time() - started:.0f} CPU seconds")
