"""Figures of a cell that changes where the answer is known: ``python -m benchmarks.cell_proofs [LENGTH]``.

The same functions as in the tests, each LENGTH times as long.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

from benchmarks.demo import machine
from benchmarks.gcmc_proofs import table
from tests.worker.cell_proofs import SHAPES, elastic_crystal, ideal_gas, lennard_jones_liquid, osmotic
from tests.worker.gcmc_proofs import Figure


def proofs(length: int) -> Iterator[list[Figure]]:
    """Run one proof after another."""
    for shape in SHAPES:
        yield ideal_gas(shape, True, length)
    yield ideal_gas("full", False, length)
    for shape in SHAPES:
        yield elastic_crystal(shape, length)
    yield osmotic(length)
    yield lennard_jones_liquid("isotropic", length)


if __name__ == "__main__":
    print(machine())
    table(proofs(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
