"""Simulations in one batch against the same one after the other: ``python -m benchmarks.gcmc_batch [CELLS [SYSTEMS]]``.

MIL-120(Al), CELLS x CELLS x 1 of it (1: 40 atoms, 2: 160), CO2 at 303 K, starter model in float32, or the model that
the environment variable MODEL names; on a GPU where there is one, else on one core. SYSTEMS pressures, 32 if not given.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

from aiida_mofmace.protocols import load_gas
from aiida_mofmace.worker.kernels import ideal_gas
from aiida_mofmace.worker.kernels.batched import BatchedPotential
from aiida_mofmace.worker.kernels.model import Configuration, MaceEvaluator, choose_device, neighbours
from aiida_mofmace.worker.programs.hybrid import MdGcmcParameters
from aiida_mofmace.worker.programs.md_gcmc import Point, simulate
from aiida_mofmace.worker.programs.md_gcmc_batch import run_together
from aiida_mofmace.worker.stopping import StopRequest
from benchmarks.demo import machine

ROOT = Path(__file__).parents[1]
MODEL = os.environ.get("MODEL", str(ROOT / "aiida_mofmace" / "starter" / "starter.model"))
FRAMEWORK = ROOT / "examples" / "MIL-120_primitive_40atoms.cif"
STEPS = 15


def points_of(framework: Atoms, systems: int, folder: Path) -> dict[str, Point]:
    """Return simulations at pressures from 1 kPa to 100 kPa, five steps to an attempt."""
    points = {}
    for index, pressure in enumerate(np.geomspace(1e3, 1e5, systems)):
        name = f"pressure_{index:02d}"
        (folder / name).mkdir(exist_ok=True)
        parameters = MdGcmcParameters(
            temperature=303.0,
            pressure=float(pressure),
            gas=load_gas("CO2"),
            timestep_fs=0.5,
            steps=STEPS,
            stride=STEPS,
            md_steps_per_attempt=5,
            attempts_per_block=1,
            thermostat_time_fs=50.0,
            minimum_distance=1.8,
            model_hole_bound=-1.5,
            explosion_distance=0.6,
            max_temperature_factor=5.0,
            initial_loading=1,
        )
        points[name] = Point(parameters, index, framework, None, folder / name)
    return points


def neighbour_time(framework: Atoms, cutoff: float) -> float:
    """Return the seconds of CPU time that the neighbours of one system take."""
    configuration = Configuration(framework.numbers, framework.positions, framework.cell.array)
    began = time.process_time()
    for _ in range(20):
        neighbours(configuration, cutoff)
    return (time.process_time() - began) / 20


def main() -> None:
    import torch

    torch.set_num_threads(1)
    # The gas is no part of what is compared, and would take longer than the few steps.
    ideal_gas._EQUILIBRATION_SWEEPS = ideal_gas._STEPS_PER_SWEEP = 1
    given = [int(argument) for argument in sys.argv[1:]]
    cells, systems = (given + [2, 32][len(given) :])[:2]
    framework: Any = read(FRAMEWORK)
    framework = framework.repeat((cells, cells, 1))
    device = choose_device("auto")
    clock = time.perf_counter if device == "cuda" else time.process_time
    model = MaceEvaluator(MODEL, device)
    print(machine())
    print(f"device {device}{', ' + torch.cuda.get_device_name() if device == 'cuda' else ', one core'}")
    with tempfile.TemporaryDirectory() as name:
        points = points_of(framework, systems, Path(name))
        simulate(next(iter(points.values())), model, StopRequest())  # warm
        began = clock()
        for point in points.values():
            simulate(point, model, StopRequest())
        single = clock() - began
        began = clock()
        outcomes = run_together(points, BatchedPotential([model] * systems, joint=model), StopRequest())
        batch = clock() - began
    assert {outcome["status"] for outcome in outcomes.values()} == {"finished"}
    done = systems * STEPS
    print(f"{systems} systems of {len(framework)} atoms and CO2, {STEPS} steps each, an attempt every 5 steps")
    print(f"one after the other {done / single:8.1f} steps/s")
    print(f"in one batch        {done / batch:8.1f} steps/s, ratio {single / batch:.2f}")
    print(f"neighbours of one system {1e3 * neighbour_time(framework, model.r_max):.2f} ms")


if __name__ == "__main__":
    main()
