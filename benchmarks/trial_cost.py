"""CPU time of an exchange attempt with a 32-channel model: ``python -m benchmarks.trial_cost [SECONDS]``.

MIL-120(Al), 2 x 2 x 1 cells of 40 atoms, CO2, an untrained MACE model of the usual size (32 channels, L = 0, two
layers, 5 Å, float32), one thread; a rigid framework and rigid molecules, exchanges alone, each trial evaluated in full
or by what it changes. What an evaluation costs does not depend on training. Four molecules are there, and every trial
is refused in the end.
"""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import read, write

from aiida_mofmace.protocols import load_gas
from aiida_mofmace.worker.kernels.model import Evaluation, MaceEvaluator, Potential
from aiida_mofmace.worker.kernels.receptive_field import LayerRecord, LocalPotential
from aiida_mofmace.worker.programs import blank_model
from aiida_mofmace.worker.programs.hybrid import HybridSimulation, MdGcmcParameters
from aiida_mofmace.worker.stopping import StopRequest
from benchmarks.demo import machine
from benchmarks.gcmc_schedules import FRAMEWORK, SURROGATE, CpuLimit

CELLS = (2, 2, 1)
SETTINGS = {
    "channels": 32,
    "max_l": 0,
    "max_ell": 3,
    "layers": 2,
    "correlation": 3,
    "r_max": 5.0,
    "n_radial": 8,
    "scale": 1.0,
    "elements": ["C", "O"],
}


class Timed:
    """A potential that adds up the CPU time of its calls."""

    def __init__(self, potential: Potential):
        self._potential, self.r_max, self.spent = potential, potential.r_max, 0.0
        self.keeps_last = getattr(potential, "keeps_last", False)

    def evaluate(self, configurations: Any, forces: bool = True) -> list[Evaluation]:
        """Evaluate, timed."""
        began = time.process_time()
        answers = self._potential.evaluate(configurations, forces=forces)
        self.spent += time.process_time() - began
        return answers


def untrained(framework: Any, may_fuse: bool = True, **changes: Any) -> MaceEvaluator:
    """Return the model, as the program that makes such models writes it.

    :param changes: of the settings
    """
    with tempfile.TemporaryDirectory() as folder:
        before = Path.cwd()
        os.chdir(folder)
        try:
            write("framework.extxyz", framework)
            inputs = {"files": {"structure": "framework.extxyz"}, "seed": 1, "dtype": "float32"}
            blank_model.run(inputs | {"parameters": SETTINGS | changes}, StopRequest())
            return MaceEvaluator(Path("model.model"), may_fuse=may_fuse)
        finally:
            os.chdir(before)


def parameters(places: int) -> MdGcmcParameters:
    return MdGcmcParameters(
        temperature=303.0,
        pressure=1e7,
        gas=load_gas("CO2"),
        timestep_fs=0.5,
        steps=10**9,
        stride=10**9,
        md_steps_per_attempt=1,
        attempts_per_block=10,
        trial_places=places,
        surrogate=SURROGATE,
        minimum_distance=1.8,
        model_hole_bound=1e9,  # every trial that reaches the model is refused, as nearly all are in a dense framework
        explosion_distance=0.6,
        initial_loading=4,
        checkpoint_seconds=np.inf,
        framework_flexible=False,
        gas_flexible=False,
        moves={"exchange": 1.0, "translation": 1e-9, "rotation": 1e-9},
        translation_step=1.0,
        rotation_step=10.0,
        thermostat_time_fs=50.0,
        max_temperature_factor=5.0,
    )


def main() -> None:
    import torch

    torch.set_num_threads(1)
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    framework: Any = read(FRAMEWORK)
    framework = framework.repeat(CELLS)
    model = untrained(framework)
    print(machine())
    print(
        f"{len(framework)} atoms; CPU ms a trial that reaches the model, and the model's part; attempts per CPU second"
    )
    print("places evaluated             trial    model  attempts/s  reach, %")
    for is_local, places in itertools.product((False, True), (1, 1000)):
        potential = Timed(LocalPotential(LayerRecord(untrained(framework))) if is_local else model)
        run = HybridSimulation(parameters(places), potential, framework, seed=2)
        run.advance(CpuLimit(3.0))
        counted, potential.spent, began = run.counts(), 0.0, time.process_time()
        run.advance(CpuLimit(seconds))
        spent = time.process_time() - began
        tried, called = (
            sum(now[what] - counted[move][what] for move, now in run.counts().items())
            for what in ("attempted", "evaluated")
        )
        how = "by what changes" if is_local else "in full"
        print(
            f"{places:>6} {how:<16} {1e3 * spent / called:>8.1f} {1e3 * potential.spent / called:>8.1f} "
            f"{tried / spent:>11.0f} {100 * called / tried:>8.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
