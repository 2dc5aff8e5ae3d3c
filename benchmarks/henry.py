"""Henry coefficient of CO2 in rigid MIL-120(Al) with the starter model, in two ways that must agree.

``python -m benchmarks.henry [SETS [STEPS]]``: SETS of 100 test-particle insertions; STEPS of 5 moves of the
grand-canonical engine, with the exchanges of protocol `fast`, in a cell that may hold one molecule at most. There the
mean loading is K f / (1 + K f) at any fugacity f, not only at low ones, and K follows from it without extrapolation.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from typing import Any

from ase.io import read

from aiida_mofmace.protocols import load_force_field, load_gas, load_protocol
from aiida_mofmace.starter import STARTER_MODEL
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.worker.kernels.statistics import estimate_mean
from aiida_mofmace.worker.programs.hybrid import HybridSimulation, MdGcmcParameters
from aiida_mofmace.worker.programs.widom import WidomParameters, WidomSimulation
from aiida_mofmace.worker.stopping import StopRequest
from benchmarks.binding_sites import STRUCTURE
from benchmarks.demo import machine

TEMPERATURE = 400.0
INSERTIONS = 100
FUGACITIES = (3e3, 2e4)


def common() -> dict[str, Any]:
    """Return the parameters of protocol `fast`, everything rigid."""
    protocol, surrogate = load_protocol("fast"), load_protocol("fast")["gcmc"]["surrogate"]
    return {
        **protocol["md"],
        **protocol["gcmc"],
        "surrogate": {
            **{key: value for key, value in surrogate.items() if key != "force_field"},
            "parameters": load_force_field(surrogate["force_field"])["parameters"],
        },
        "temperature": TEMPERATURE,
        "gas": load_gas("CO2"),
        "stride": 1,
        "explosion_distance": 0.0,
        "framework_flexible": False,
        "gas_flexible": False,
    }


def by_insertion(potential: MaceEvaluator, sets: int) -> tuple[float, float]:
    """Return K in molecules per cell and Pa with its error."""
    content = common() | {"steps": sets, "equilibration_steps": 0, "insertions": INSERTIONS}
    simulation = WidomSimulation(WidomParameters.from_dict(content), potential, read(STRUCTURE), seed=1)
    simulation.advance(StopRequest())
    results = simulation.results()
    return results["henry_molecules_per_pascal"], results["henry_molecules_per_pascal_error"]


def by_exchange(potential: MaceEvaluator, fugacity: float, steps: int) -> tuple[float, float, float]:
    """Return K in molecules per cell and Pa with its error, and the number of independent samples."""
    content = common() | {
        "pressure": fugacity,
        "steps": steps,
        "stride": steps,
        "md_steps_per_attempt": 1,
        "max_loading": 1,
        "moves": {"exchange": 2.0, "translation": 1.0, "rotation": 1.0},
    }
    simulation = HybridSimulation(MdGcmcParameters.from_dict(content), potential, read(STRUCTURE), seed=int(fugacity))
    simulation.advance(StopRequest())
    loading = estimate_mean(simulation.series.arrays()["loading"])
    empty = 1.0 - loading.mean
    return loading.mean / empty / fugacity, loading.error / empty**2 / fugacity, loading.effective_samples


if __name__ == "__main__":
    sets, steps = (int(given) for given in [*sys.argv[1:], "400", "2500"][:2])
    started = time.process_time()
    os.chdir(tempfile.mkdtemp())  # for checkpoints
    evaluator = MaceEvaluator(STARTER_MODEL, "cpu", "float32", None)
    print(machine())
    print(f"CO2 in rigid MIL-120, {TEMPERATURE:g} K, starter model; K in molecules per cell and Pa")
    value, error = by_insertion(evaluator, sets)
    print(f"{sets * INSERTIONS} insertions on trial              {value:.3e} ± {error:.1e}", flush=True)
    for pressure in FUGACITIES:
        henry, its_error, samples = by_exchange(evaluator, pressure, steps)
        apart = abs(henry - value) / (its_error**2 + error**2) ** 0.5
        what = f"at most one molecule, {pressure:g} Pa"
        print(f"{what:<38}{henry:.3e} ± {its_error:.1e}, {samples:.0f} samples, {apart:.1f} errors apart", flush=True)
    print(f"{time.process_time() - started:.0f} CPU seconds")
