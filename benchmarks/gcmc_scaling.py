"""Memory over a million steps of MD-GCMC, cost against the size of the cell: ``python -m benchmarks.gcmc_scaling``.

Memory with a potential that costs nothing, so that the engine is all there is; cost with the starter model and MIL-120
(Al) repeated along its axes, one thread.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import read

from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.worker.programs.hybrid import HybridSimulation
from aiida_mofmace.worker.stopping import StopRequest
from benchmarks.demo import machine
from benchmarks.gcmc_schedules import FRAMEWORK, MODEL, parameters
from tests.worker.engine_fixtures import NoPotential
from tests.worker.gcmc_proofs import ARGON
from tests.worker.gcmc_proofs import parameters as plain_parameters

STEPS = 1_000_000
STRIDE = 1000
REPEATS = ((1, 1, 1), (2, 1, 1), (2, 2, 1))


def megabytes() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def memory() -> None:
    """Print the memory at several points of one run, and the size of its files."""
    cell = Atoms("Al", cell=[20.0] * 3, pbc=True)
    with tempfile.TemporaryDirectory() as name:
        for part in range(1, 11):
            what = plain_parameters(
                gas=ARGON,
                pressure=1e6,
                initial_loading=2,
                steps=STEPS * part // 10,
                stride=STRIDE,
                md_steps_per_attempt=100,
                attempts_per_block=1,
            )
            if part == 1:
                run = HybridSimulation(what, NoPotential(), cell, seed=1, folder=Path(name))
            run.parameters = what
            assert run.advance(StopRequest())[0] is None
            print(f"step {run.state.step:>8}: {megabytes():.1f} MiB, {len(run.images)} frames", flush=True)
        run.save()
        sizes = {path.name: path.stat().st_size / 1e6 for path in sorted(Path(name).iterdir())}
        print(", ".join(f"{name} {size:.2f} MB" for name, size in sizes.items()))


def cost() -> None:
    """Print CPU time of an MD step and of an attempt by the number of atoms."""
    potential, primitive = MaceEvaluator(MODEL), read(FRAMEWORK)
    for repeats in REPEATS:
        framework: Any = primitive.repeat(repeats)
        times = []
        for attempts in (1, 21):
            run = HybridSimulation(parameters(1e5, 5, attempts, 1000), potential, framework, seed=1)
            run.parameters = parameters(1e5, 5, attempts, 1000, total=20)
            began = time.process_time()
            run.advance(StopRequest())
            times.append(time.process_time() - began)
        attempt = (times[1] - times[0]) / 80
        step = (times[0] - 4 * attempt) / 20
        atoms = len(framework)
        print(
            f"{atoms:>4} atoms: {1e3 * step:>6.1f} ms a step ({1e3 * step / atoms:.2f} an atom), "
            f"{1e3 * attempt:>6.1f} ms an attempt ({1e3 * attempt / atoms:.2f} an atom)",
            flush=True,
        )


def main() -> None:
    import torch

    torch.set_num_threads(1)
    print(machine())
    memory()
    cost()


if __name__ == "__main__":
    main()
