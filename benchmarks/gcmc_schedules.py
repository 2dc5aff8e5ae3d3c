"""Independent loadings and attempts per CPU hour by schedule: ``python -m benchmarks.gcmc_schedules [SECONDS]``.

MIL-120(Al), primitive cell, CO2 at 303 K, starter model in float32, one thread. SECONDS of CPU time for each schedule
and pressure, all from one equilibrated state.
"""

from __future__ import annotations

import copy
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io import read
from ase.md.nose_hoover_chain import NoseHooverChainNVT

from aiida_mofmace.protocols import load_gas
from aiida_mofmace.worker.kernels.geometry import random_rotation
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.worker.kernels.statistics import estimate_mean
from aiida_mofmace.worker.programs.hybrid import HybridSimulation, MdGcmcParameters
from aiida_mofmace.worker.programs.simulation import TimeSeries
from aiida_mofmace.worker.stopping import StopRequest
from benchmarks.demo import machine

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "aiida_mofmace" / "starter" / "starter.model"
FRAMEWORK = ROOT / "examples" / "MIL-120_primitive_40atoms.cif"
TEMPERATURE = 303.0
PRESSURES = (2e3, 1e4, 1e5)
SCHEDULES = ((5, 1), (5, 10), (10, 30), (10, 100))
EQUILIBRATION = 40.0  # CPU seconds


class CpuLimit(StopRequest):
    """Stops after some seconds of CPU time."""

    def __init__(self, seconds: float):
        super().__init__()
        self._last = time.process_time() + seconds

    def reason(self) -> str | None:
        """Say whether the time is used up."""
        return "walltime" if time.process_time() > self._last else None


def parameters(pressure: float, steps: int, attempts: int) -> MdGcmcParameters:
    return MdGcmcParameters(
        temperature=TEMPERATURE,
        pressure=pressure,
        gas=load_gas("CO2"),
        timestep_fs=0.5,
        steps=10**9,
        stride=10**9,
        md_steps_per_attempt=steps,
        attempts_per_block=attempts,
        thermostat_time_fs=50.0,
        minimum_distance=1.8,
        model_hole_bound=-1.5,
        explosion_distance=0.6,
        max_temperature_factor=5.0,
        initial_loading=1,
        checkpoint_seconds=np.inf,
    )


def compare_schedules(potential: MaceEvaluator, framework: Atoms, seconds: float) -> None:
    """Print effective samples of the loading per CPU hour."""
    print(f"{'pressure':>10} {'schedule':>9} {'<N>':>7} {'error':>7} {'attempts/s':>11} {'samples/h':>10} {'ratio':>6}")
    for pressure in PRESSURES:
        start = HybridSimulation(parameters(pressure, 10, 30), potential, framework, seed=3)
        start.advance(CpuLimit(EQUILIBRATION))
        paper = None
        for steps, attempts in SCHEDULES:
            run = copy.copy(start)
            run.parameters = parameters(pressure, steps, attempts)
            run.state, run.series = (
                copy.deepcopy(start.state),
                TimeSeries("step", "loading", "potential_energy", "temperature"),
            )
            before = sum(c["attempted"] for c in run.counts().values())
            began = time.process_time()
            run.advance(CpuLimit(seconds))
            spent = time.process_time() - began
            tried = sum(c["attempted"] for c in run.counts().values()) - before
            loading = estimate_mean(run.series.arrays()["loading"], detect_equilibration=False)
            rate = loading.effective_samples / spent * 3600
            paper = paper or rate
            print(
                f"{pressure:>8.0f} Pa {steps:>5}:{attempts:<3} {loading.mean:>7.3f} {loading.error:>7.3f} "
                f"{tried / spent:>11.1f} {rate:>10.0f} {rate / paper:>6.1f}",
                flush=True,
            )


def plain_loop(framework: Atoms, steps: int, attempts: int, seconds: float, rng: np.random.Generator) -> float:
    """Return the attempts per CPU second of what one would write with ASE: copies, and forces on every trial."""
    from mace.calculators import MACECalculator

    calculator = MACECalculator(model_paths=str(MODEL), device="cpu", default_dtype="float32")
    gas = load_gas("CO2")
    molecule = Atoms(gas["symbols"], gas["positions"])
    atoms = framework.copy()
    atoms.calc = calculator
    dynamics = NoseHooverChainNVT(atoms, 0.5 * units.fs, temperature_K=TEMPERATURE, tdamp=50 * units.fs)
    began, done = time.process_time(), 0
    while time.process_time() - began < seconds:
        dynamics.run(steps)
        before = atoms.get_potential_energy()
        for _ in range(attempts):
            trial = copy.deepcopy(atoms)
            new = molecule.copy()
            new.positions = new.positions @ random_rotation(rng).T + rng.random(3) @ atoms.cell.array
            trial += new
            trial.calc = calculator
            trial.get_forces()
            done += trial.get_potential_energy() - before < np.inf
    return done / (time.process_time() - began)


def compare_attempts(potential: MaceEvaluator, framework: Atoms, seconds: float) -> None:
    """Print attempts per CPU second of the engine and of a plain ASE loop with the same schedule and model."""
    for steps, attempts in ((5, 1), (10, 30)):
        run = HybridSimulation(parameters(1e4, steps, attempts), potential, framework, seed=4)
        began = time.process_time()
        run.advance(CpuLimit(seconds))
        ours = sum(c["attempted"] for c in run.counts().values()) / (time.process_time() - began)
        plain = plain_loop(framework, steps, attempts, seconds, np.random.default_rng(1))
        what = f"attempts per CPU second at {steps}:{attempts}: engine {ours:.1f}, ASE loop {plain:.1f}"
        print(f"{what}, ratio {ours / plain:.1f}", flush=True)


def main() -> None:
    import torch

    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 300.0
    torch.set_num_threads(1)
    framework: Any = read(FRAMEWORK)
    potential = MaceEvaluator(MODEL)
    print(machine())
    compare_attempts(potential, framework, min(seconds, 40.0))
    compare_schedules(potential, framework, seconds)


if __name__ == "__main__":
    main()
