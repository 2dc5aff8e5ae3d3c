"""CPU time of a trial insertion, in full and by what it changes: ``python -m benchmarks.receptive_field [CELLS]``.

Supercells of MIL-120(Al) with one CO2 in each cell, starter model, one thread. The first trial after an evaluation with
forces also sorts the neighbours; a trial is a molecule at a random place no closer than 1.8 Å to another atom.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import read

from aiida_mofmace.protocols import load_gas
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.geometry import closest_distance, random_rotation
from aiida_mofmace.worker.kernels.loading import place_molecules
from aiida_mofmace.worker.kernels.model import Configuration, MaceEvaluator
from aiida_mofmace.worker.kernels.receptive_field import LayerRecord, LocalPotential
from benchmarks.demo import machine

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "aiida_mofmace" / "starter" / "starter.model"
FRAMEWORK = ROOT / "examples" / "MIL-120_primitive_40atoms.cif"
SUPERCELLS = ((1, 1, 1), (2, 2, 1), (2, 2, 2), (3, 3, 3), (4, 4, 3))
TRIALS = 8
ROUNDS = 3


def trials_of(start: Configuration, gas: Gas, rng: np.random.Generator) -> list[Configuration]:
    """Return insertions that no overlap refuses."""
    trials: list[Configuration] = []
    while len(trials) < TRIALS:
        new = gas.positions @ random_rotation(rng).T + rng.random(3) @ start.cell
        if closest_distance(new, start.positions, start.cell) > 1.8:
            numbers = np.concatenate([start.numbers, gas.numbers])
            trials.append(Configuration(numbers, np.concatenate([start.positions, new]), start.cell))
    return trials


def seconds(potential: Any, configurations: list[Configuration]) -> float:
    """Return the CPU seconds of evaluating the energies one by one."""
    began = time.process_time()
    for each in configurations:
        potential.evaluate([each], forces=False)
    return time.process_time() - began


def compare(full: MaceEvaluator, local: LocalPotential, cells: tuple[int, int, int], dtype: str) -> None:
    """Print one line: milliseconds of each, the best of some rounds, and the largest difference."""
    rng, gas = np.random.default_rng(1), Gas.from_dict(load_gas("CO2"))
    atoms: Any = read(FRAMEWORK)
    atoms = atoms.repeat(cells)
    atoms.rattle(0.05, seed=1)
    atoms = place_molecules(atoms, gas, int(np.prod(cells)), 2.0, rng)
    start = Configuration(atoms.numbers, atoms.positions, atoms.cell.array)
    times = []
    for _ in range(ROUNDS):
        trials = trials_of(start, gas, rng)
        seconds(full, trials[:1])
        began = time.process_time()
        local.evaluate([start])
        forces = time.process_time() - began
        first = seconds(local, trials[:1])
        others = seconds(local, trials[1:]) / (TRIALS - 1)
        times.append([forces, seconds(full, trials) / TRIALS, first, others])
    forces, whole, first, others = np.min(times, axis=0) * 1e3
    pairs = zip(local.evaluate(trials, forces=False), full.evaluate(trials, forces=False), strict=True)
    error = max(abs(a.interaction_energy - b.interaction_energy) for a, b in pairs)
    print(
        f"{dtype} {len(atoms):>6} {forces:>8.1f} {whole:>8.1f} {first:>8.1f} {others:>8.1f} "
        f"{whole / first:>7.1f} {whole / others:>7.1f} {error:>10.1e}",
        flush=True,
    )


def main() -> None:
    import torch

    torch.set_num_threads(1)
    supercells = SUPERCELLS[: int(sys.argv[1])] if len(sys.argv) > 1 else SUPERCELLS
    print(machine())
    print("                   milliseconds of CPU time              full over local  difference")
    print("dtype    atoms   forces     full    first    later   first   later         eV")
    for dtype in ("float32", "float64"):
        full, local = (
            MaceEvaluator(MODEL, dtype=dtype),
            LocalPotential(LayerRecord(MaceEvaluator(MODEL, dtype=dtype)), 0),
        )
        for cells in supercells:
            compare(full, local, cells, dtype)


if __name__ == "__main__":
    main()
