"""LAMMPS's grand-canonical ensemble where the answer is known: ``python -m benchmarks.lammps_proofs [LENGTH]``.

The same functions as in the tests, LENGTH times as long; the last lines are the native engine on the same fluid.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator

from benchmarks.demo import machine
from tests.worker.gcmc_proofs import Figure, ideal_gas, lennard_jones
from tests.worker.lammps_proofs import orientations, own_pair_style


def proofs(length: int) -> Iterator[list[Figure]]:
    """Run one proof after another."""
    yield orientations(10 * length)
    for expected in (1.0, 6.0):
        yield ideal_gas(expected, flexible=True, length=length, engine="lammps")
    for full_energy in (False, True):
        yield own_pair_style(0.80, full_energy, 20 * length)
    yield lennard_jones(0.80, dynamics=True, length=length, engine="lammps")
    yield lennard_jones(0.80, dynamics=True, length=length)


def main() -> None:
    length = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    print(machine())
    print(f"{'':<64}{'found':>10}{'error':>10}{'exact':>10}{'errors':>8}")
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for figures in proofs(length):
            for each in figures:
                row = f"{each.name:<64}{each.found:>10.5g}{each.error:>10.2g}{each.expected:>10.5g}"
                print(f"{row}{each.deviation:>8.1f}", flush=True)
    print(f"{time.process_time() - started:.0f} CPU seconds")


if __name__ == "__main__":
    main()
