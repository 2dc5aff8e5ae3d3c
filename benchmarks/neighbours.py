"""CPU time to find who is near whom: ``python -m benchmarks.neighbours``.

MIL-120(Al) by matscipy, by vesin and by our search for a batch on a GPU, which runs on the CPU here; one thread, the
best of some calls. 0.6 Å is what the guard against overlapping atoms asks for, 5 Å what a model does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from ase.io import read

from aiida_mofmace.worker.kernels.neighbour_search import neighbours, neighbours_of_batch, short_distances
from benchmarks.demo import machine
from benchmarks.gcmc_schedules import FRAMEWORK

CALLS = 100


def best(call: Callable[[], Any]) -> float:
    """Return the shortest CPU time in ms."""
    times = []
    for _ in range(CALLS):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def main() -> None:
    import torch

    torch.set_num_threads(1)
    framework: Any = read(FRAMEWORK)
    print(machine())
    print("atoms  cut-off/Å    pairs   matscipy/ms   vesin/ms   for a GPU/ms")
    for cells in ((1, 1, 1), (2, 2, 1), (4, 3, 2)):
        atoms = framework.repeat(cells)
        where = atoms.positions, np.asarray(atoms.cell.array)
        for cutoff in (0.6, 5.0):
            calls = (
                lambda where=where, cutoff=cutoff: short_distances(*where, cutoff),
                lambda where=where, cutoff=cutoff: neighbours(*where, cutoff),
                lambda where=where, cutoff=cutoff: neighbours_of_batch([where[0]], [where[1]], cutoff, "cpu"),
            )
            pairs = neighbours(*where, cutoff).edges.shape[1]
            matscipy, vesin, ours = (best(call) for call in calls)
            print(f"{len(atoms):>5} {cutoff:>10.1f} {pairs:>8} {matscipy:>13.3f} {vesin:>10.3f} {ours:>14.3f}")


if __name__ == "__main__":
    main()
