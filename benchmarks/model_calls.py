"""CPU time of an evaluation by the model's own layers and by fused ones: ``python -m benchmarks.model_calls``.

MIL-120(Al), 40 and 160 atoms, float32, one thread; the starter model and untrained ones of usual sizes, for what a call
costs does not depend on training. ``ASE`` is mace's own calculator, ``e3nn`` its layers behind our evaluator. The best
of some calls each, one kind after the other in turns.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from ase.io import read

from aiida_mofmace.worker.kernels.model import Configuration, MaceEvaluator
from benchmarks.demo import machine
from benchmarks.gcmc_schedules import FRAMEWORK, MODEL
from benchmarks.trial_cost import untrained

#: name, channels, largest degree of features and of harmonics, cut-off in Å
SIZES = (("32 ch", 32, 0, 3, 5.0), ("64 ch", 64, 0, 3, 5.0), ("128 ch L=1", 128, 1, 3, 6.0))
SECONDS = 8.0


def best(calls: list[Callable[[], Any]]) -> list[float]:
    """Return the shortest CPU time of each in ms."""
    found = [[np.inf] for _ in calls]
    began = time.process_time()
    while time.process_time() - began < SECONDS or len(found[0]) < 5:
        for times, call in zip(found, calls, strict=True):
            start = time.process_time()
            call()
            times.append(time.process_time() - start)
    return [1e3 * min(times) for times in found]


def compare(name: str, own: MaceEvaluator, fused: MaceEvaluator, framework: Any) -> None:
    from mace.calculators import MACECalculator

    assert fused.kernels == "fused", "the fused layers were refused"
    calculator = MACECalculator(models=[own.model], device="cpu", default_dtype="float32")
    for cells in (1, 2):
        atoms = framework.repeat((cells, cells, 1))
        atoms.rattle(0.05, seed=1)
        each = Configuration(atoms.numbers, atoms.positions, atoms.cell.array)
        mine, its = fused.evaluate([each])[0], own.evaluate([each])[0]
        assert mine.forces is not None and its.forces is not None
        off = np.abs(mine.forces - its.forces).max() / np.abs(its.forces).max()

        def by_ase(atoms: Any = atoms) -> None:
            calculator.calculate(atoms, ["energy", "forces"])

        def call(evaluator: MaceEvaluator, forces: bool, each: Configuration = each) -> Callable[[], Any]:
            return lambda: evaluator.evaluate([each], forces=forces)

        calls = [by_ase, *(call(one, forces) for forces in (True, False) for one in (own, fused))]
        ase, forces, faster_forces, energy, faster_energy = best(calls)
        print(
            f"{name:<11} {len(atoms):>5} {ase:>9.1f} "
            f"{forces:>9.1f} {faster_forces:>9.1f} {forces / faster_forces:>7.1f} "
            f"{energy:>9.1f} {faster_energy:>9.1f} {energy / faster_energy:>7.1f}   {off:.0e}",
            flush=True,
        )


def main() -> None:
    import torch

    torch.set_num_threads(1)
    framework: Any = read(FRAMEWORK)
    print(machine())
    print("                         energy and forces, CPU ms              energy alone, CPU ms")
    print("model       atoms       ASE      e3nn     fused   ratio      e3nn     fused   ratio   forces differ by")
    compare("starter", MaceEvaluator(MODEL, may_fuse=False), MaceEvaluator(MODEL), framework)
    for name, channels, max_l, max_ell, r_max in SIZES:
        sizes = {"channels": channels, "max_l": max_l, "max_ell": max_ell, "r_max": r_max}
        own, fused = (untrained(framework, may_fuse=may, **sizes) for may in (False, True))
        compare(name, own, fused, framework)


if __name__ == "__main__":
    main()
