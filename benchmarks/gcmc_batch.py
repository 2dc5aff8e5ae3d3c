"""Simulations in one batch, and one by one: ``python -m benchmarks.gcmc_batch [CELLS [SYSTEMS [STEPS]]]``.

MIL-120(Al), CELLS x CELLS x 1 of it (1: 40 atoms, 2: 160), CO2 at 303 K, starter model in float32, or the model that
the environment variable MODEL names; on a GPU where there is one, else on one core. SYSTEMS pressures, 32 if not given.
Also what a step of a system takes beside the model, by the same runs with atoms on springs.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

from aiida_mofmace.protocols import load_gas
from aiida_mofmace.worker.kernels import ideal_gas
from aiida_mofmace.worker.kernels.batched import BatchedPotential
from aiida_mofmace.worker.kernels.gases import mixture
from aiida_mofmace.worker.kernels.model import Evaluation, MaceEvaluator, choose_device
from aiida_mofmace.worker.kernels.neighbour_search import neighbours
from aiida_mofmace.worker.programs.hybrid import MdGcmcParameters
from aiida_mofmace.worker.programs.md_gcmc import Point, simulate
from aiida_mofmace.worker.programs.md_gcmc_batch import run_together
from aiida_mofmace.worker.stopping import StopRequest
from benchmarks.demo import machine

ROOT = Path(__file__).parents[1]
MODEL = os.environ.get("MODEL", str(ROOT / "aiida_mofmace" / "starter" / "starter.model"))
FRAMEWORK = ROOT / "examples" / "MIL-120_primitive_40atoms.cif"
STEPS = 15


def points_of(framework: Atoms, systems: int, folder: Path, steps: int = STEPS) -> dict[str, Point]:
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
            steps=steps,
            stride=steps,
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
    began = time.process_time()
    for _ in range(20):
        neighbours(framework.positions, framework.cell.array, cutoff)
    return (time.process_time() - began) / 20


class Springs:
    """Holds the framework's atoms near their places and keeps the molecules in shape, at next to no cost.

    :param framework: without gas
    """

    r_max = 5.0

    def __init__(self, framework: Atoms):
        self._places = framework.positions.copy()
        molecule = mixture(load_gas("CO2"))[0][0].positions
        self._molecule = molecule - molecule.mean(axis=0)

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        """Evaluate configurations; forces cost nothing."""
        return [self._evaluate(np.asarray(each.positions)) for each in configurations]

    def _evaluate(self, positions: Any) -> Evaluation:
        count = len(self._places) if len(positions) >= len(self._places) else 0
        gas = positions[count:].reshape(-1, len(self._molecule), 3)
        off = (gas - gas.mean(axis=1, keepdims=True) - self._molecule).reshape(-1, 3)
        if count:
            off = np.concatenate([positions[:count] - self._places, off])
        return Evaluation(2.5 * float((off**2).sum()), forces=-5.0 * off)


def host_time(framework: Atoms, systems: int) -> float:
    """Return the seconds of CPU time of a step of one system in a batch, without a model."""
    logging.disable(logging.WARNING)  # of series too short for averages
    potential, times = Springs(framework), []
    for steps in (50, 250):
        with tempfile.TemporaryDirectory() as name:
            points = points_of(framework, systems, Path(name), steps)
            began = time.process_time()
            outcomes = run_together(points, BatchedPotential([potential] * systems, joint=potential), StopRequest())
            times.append(time.process_time() - began)
        assert {outcome["status"] for outcome in outcomes.values()} == {"finished"}
    return (times[1] - times[0]) / (200 * systems)


def main() -> None:
    import torch

    torch.set_num_threads(1)
    # The gas is no part of what is compared, and would take longer than the few steps.
    ideal_gas._EQUILIBRATION_SWEEPS = ideal_gas._STEPS_PER_SWEEP = 1
    given = [int(argument) for argument in sys.argv[1:]]
    cells, systems, steps = (given + [2, 32, STEPS][len(given) :])[:3]
    framework: Any = read(FRAMEWORK)
    framework = framework.repeat((cells, cells, 1))
    device = choose_device("auto")
    clock = time.perf_counter if device == "cuda" else time.process_time
    model = MaceEvaluator(MODEL, device)
    print(machine())
    print(f"device {device}{', ' + torch.cuda.get_device_name() if device == 'cuda' else ', one core'}")
    with tempfile.TemporaryDirectory() as name:
        points = points_of(framework, systems, Path(name), steps)
        simulate(next(iter(points.values())), model, StopRequest())  # warm
        began = clock()
        for point in points.values():
            simulate(point, model, StopRequest())
        single = clock() - began
        began = clock()
        outcomes = run_together(points, BatchedPotential([model] * systems, joint=model), StopRequest())
        batch = clock() - began
    assert {outcome["status"] for outcome in outcomes.values()} == {"finished"}
    done = systems * steps
    print(f"{systems} systems of {len(framework)} atoms and CO2, {steps} steps each, an attempt every 5 steps")
    print(f"one after the other {done / single:8.1f} steps/s")
    print(f"in one batch        {done / batch:8.1f} steps/s, ratio {single / batch:.2f}")
    print(f"neighbours of one system on a CPU {1e3 * neighbour_time(framework, model.r_max):.2f} ms")
    print(f"a step of one system without the model {1e3 * host_time(framework, systems):.2f} ms")


if __name__ == "__main__":
    main()
