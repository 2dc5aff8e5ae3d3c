"""Independent loadings and attempts by schedule: ``python -m benchmarks.gcmc_schedules [SECONDS [PASCAL ...]]``.

MIL-120(Al), primitive cell, CO2, starter model in float32, one thread; at a temperature at which the cell takes up and
gives off molecules often enough to be measured. SECONDS of CPU time for each schedule and pressure, four times as much
for the paper's; all from one equilibrated state. Without pressures three of them, and then the attempts per second
against a plain loop in ASE; a pressure of 0 for those alone.
"""

from __future__ import annotations

import copy
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io import read
from ase.md.nose_hoover_chain import NoseHooverChainNVT

from aiida_mofmace.protocols import load_force_field, load_gas
from aiida_mofmace.worker.kernels.geometry import random_rotation
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.worker.kernels.statistics import estimate_mean
from aiida_mofmace.worker.programs.hybrid import HybridSimulation, MdGcmcParameters
from aiida_mofmace.worker.stopping import StopRequest
from benchmarks.demo import machine

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "aiida_mofmace" / "starter" / "starter.model"
FRAMEWORK = ROOT / "examples" / "MIL-120_primitive_40atoms.cif"
TEMPERATURE = 800.0
PRESSURES = (3e6, 1e7, 3e7)
#: MD steps, attempts, places weighed in each attempt
SCHEDULES = ((5, 1, 1), (10, 30, 1), (5, 5, 1000))
EQUILIBRATION = 8.0  # CPU seconds
SURROGATE = {
    "cutoff": 5.0,
    "ceiling": 0.1,
    "diameter_scale": 0.9,
    "parameters": load_force_field("uff")["parameters"],
}


class CpuLimit(StopRequest):
    """Stops after some seconds of CPU time."""

    def __init__(self, seconds: float):
        super().__init__()
        self._last = time.process_time() + seconds

    def reason(self) -> str | None:
        """Say whether the time is used up."""
        return "walltime" if time.process_time() > self._last else None


def parameters(pressure: float, steps: int, attempts: int, places: int, total: int = 10**9) -> MdGcmcParameters:
    return MdGcmcParameters(
        temperature=TEMPERATURE,
        pressure=pressure,
        gas=load_gas("CO2"),
        timestep_fs=0.5,
        steps=total,
        stride=10**9,
        md_steps_per_attempt=steps,
        attempts_per_block=attempts,
        trial_places=places,
        surrogate=SURROGATE,
        thermostat_time_fs=50.0,
        minimum_distance=1.8,
        model_hole_bound=-1.5,
        explosion_distance=0.6,
        max_temperature_factor=5.0,
        initial_loading=1,
        checkpoint_seconds=np.inf,
    )


def compare_schedules(potential: MaceEvaluator, framework: Atoms, seconds: float, pressures: Sequence[float]) -> None:
    """Print effective samples of the loading and accepted exchanges per CPU hour.

    The relative error of n effective samples is taken as the square root of 10 / n: that of an integrated correlation
    time summed over five of its lengths (Madras and Sokal, J. Stat. Phys. 50, 109 (1988)). The ratio to the first
    schedule is given with the range that two such errors of its logarithm span.
    """
    header = f"{'pressure':>11} {'schedule':>12} {'<N>':>6} {'error':>6} {'attempts/s':>11} {'calls/s':>8}"
    print(f"{header} {'accepted/h':>11} {'samples/h':>16} {'ratio, from to':>20}")
    for pressure in pressures:
        start = HybridSimulation(parameters(pressure, 10, 10, 1000), potential, framework, seed=3)
        start.advance(CpuLimit(EQUILIBRATION))
        paper: tuple[float, float] | None = None
        for schedule in SCHEDULES:
            run = HybridSimulation(parameters(pressure, *schedule), potential, framework, seed=4)
            run.state = copy.deepcopy(start.state)
            began = time.process_time()
            run.advance(CpuLimit(seconds * (4 if schedule == SCHEDULES[0] else 1)))
            spent = time.process_time() - began
            tried, called, accepted = (
                sum(counts[what] for counts in run.counts().values()) / spent
                for what in ("attempted", "evaluated", "accepted")
            )
            loading = estimate_mean(run.series.arrays()["loading"], detect_equilibration=False)
            rate, error = loading.effective_samples / spent * 3600, math.sqrt(10.0 / loading.effective_samples)
            paper = paper or (rate, error)
            ratio, off = rate / paper[0], math.hypot(error, paper[1])
            name = "{}:{} k={}".format(*schedule)
            print(
                f"{pressure:>8.0f} Pa {name:>12} {loading.mean:>6.3f} {loading.error:>6.3f} {tried:>11.1f} "
                f"{called:>8.1f} {accepted * 3600:>11.0f} {rate:>8.0f} ± {rate * error:<5.0f} "
                f"{ratio:>6.1f} {ratio * math.exp(-2.0 * off):>6.1f} {ratio * math.exp(2.0 * off):>6.1f}",
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
    for steps, attempts, places in ((5, 1, 1), (5, 5, 1000), (10, 30, 1)):
        run = HybridSimulation(parameters(1e5, steps, attempts, places), potential, framework, seed=4)
        began = time.process_time()
        run.advance(CpuLimit(seconds))
        ours = sum(c["attempted"] for c in run.counts().values()) / (time.process_time() - began)
        plain = plain_loop(framework, steps, attempts, seconds, np.random.default_rng(1))
        what = f"attempts per CPU second at {steps}:{attempts}, k = {places}: engine {ours:.1f}, ASE loop {plain:.1f}"
        print(f"{what}, ratio {ours / plain:.1f}", flush=True)


def main() -> None:
    import torch

    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    torch.set_num_threads(1)
    framework: Any = read(FRAMEWORK)
    potential = MaceEvaluator(MODEL)
    pressures = [float(each) for each in sys.argv[2:]]
    print(machine())
    if any(pressures) or not pressures:
        compare_schedules(potential, framework, seconds, pressures or PRESSURES)
    if not any(pressures):
        compare_attempts(potential, framework, min(seconds, 30.0))


if __name__ == "__main__":
    main()
