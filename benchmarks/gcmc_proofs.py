"""Figures of the grand-canonical engine where the answer is known: ``python -m benchmarks.gcmc_proofs [LENGTH]``.

The same functions as in the tests, each LENGTH times as long.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from benchmarks.demo import machine
from tests.worker.gcmc_proofs import Figure, enumeration, henry, ideal_gas, langmuir, lennard_jones


def proofs(length: int) -> Iterator[list[Figure]]:
    """Run one proof after another."""
    for flexible in (True, False):
        for expected in (1.0, 4.0, 10.0):
            yield ideal_gas(expected, flexible, length)
    for occupied in (0.1, 0.5, 0.85):
        yield langmuir({"Ar": occupied}, length)
    yield langmuir({"Ar": 0.3, "Kr": 0.4}, length)
    for framework_flexible, thermostat in ((True, "nose_hoover"), (True, "langevin"), (False, "langevin")):
        yield henry(framework_flexible, thermostat, length)
    for reduced in (0.80, 0.85):
        for dynamics in (True, False):
            yield lennard_jones(reduced, dynamics, length)


def table(proofs: Iterator[list[Figure]]) -> None:
    """Print the figures as they come, and how far they are off on the whole."""
    print(f"{'':<60}{'found':>10}{'error':>10}{'exact':>10}{'errors':>8}")
    started, deviations = time.process_time(), []
    for figures in proofs:
        for each in figures:
            deviations.append(each.deviation)
            row = f"{each.name:<60}{each.found:>10.5g}{each.error:>10.2g}{each.expected:>10.5g}"
            print(f"{row}{each.deviation:>8.1f}", flush=True)
    root_mean_square = (sum(d**2 for d in deviations) / len(deviations)) ** 0.5
    print(f"{len(deviations)} figures, root mean square deviation {root_mean_square:.2f} standard errors")
    print(f"{time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    print(machine())
    balance, stationarity = enumeration()
    print(
        "27 states, all transitions: largest |pi_i P_ij - pi_j P_ji|", f"{balance:.1e}, |pi P - pi| {stationarity:.1e}"
    )
    table(proofs(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
