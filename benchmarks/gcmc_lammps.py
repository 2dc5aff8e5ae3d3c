"""Native engine and LAMMPS on the same isotherm: MIL-120(Al) and CO2 with the starter model.

``python -m benchmarks.gcmc_lammps FOLDER SECONDS [PASCAL ...]`` goes on with each of the runs for so many seconds of
CPU time, from its checkpoint in the folder, and prints what there is; call it as often as the errors ask for. With
0 seconds it prints only.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from aiida_mofmace.starter import STARTER_MODEL
from aiida_mofmace.worker.kernels.statistics import estimate_mean
from aiida_mofmace.worker.programs.md_gcmc import run
from aiida_mofmace.worker.stopping import StopRequest
from benchmarks.demo import machine
from tests.worker.engine_fixtures import CO2

STRUCTURE = Path(__file__).parents[1] / "examples" / "MIL-120_primitive_40atoms.cif"
TEMPERATURE = 800.0
PRESSURES = (3e6, 1e7, 3e7)  # Pa
MAX_LOADING = 2
ENGINES = ("native", "lammps")
PARAMETERS = {
    "temperature": TEMPERATURE,
    "gas": CO2,
    "timestep_fs": 1.0,
    "steps": 10**9,
    "stride": 2000,
    "md_steps_per_attempt": 20,
    "attempts_per_block": 40,
    "thermostat_time_fs": 50.0,
    "max_temperature_factor": 5.0,
    "explosion_distance": 0.6,
    "minimum_distance": 1.8,
    "model_hole_bound": -1.5,
    "initial_loading": 1,
    "max_loading": MAX_LOADING,
    "checkpoint_seconds": 60.0,
}


class CpuLimit(StopRequest):
    """Stops after some seconds of CPU time, whatever else the machine does."""

    def __init__(self, seconds: float):
        super().__init__()
        self._end_cpu = time.process_time() + seconds

    def reason(self) -> str | None:
        """Say that the time is used up."""
        return "walltime" if time.process_time() > self._end_cpu else None


def go_on(folder: Path, engine: str, pressure: float, seconds: float) -> None:
    """Take a run further and leave its state and counts in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    checkpoint = Path("checkpoint.npz")
    files = {"model": str(STARTER_MODEL), "structure": str(STRUCTURE)}
    files |= {"checkpoint": str(checkpoint.resolve())} if checkpoint.exists() else {}
    parameters = PARAMETERS | {"engine": engine, "pressure": pressure}
    seed = ENGINES.index(engine) + int(pressure)
    inputs = {"seed": seed, "dtype": "float32", "files": files, "parameters": parameters}
    began = time.process_time()
    results = run(inputs, CpuLimit(seconds))
    kept = json.loads(Path("run.json").read_text()) if Path("run.json").exists() else {"seconds": 0.0}
    kept = {"comparison": results.get("comparison")} | kept
    kept |= {"seconds": kept["seconds"] + time.process_time() - began, "acceptance": results["acceptance"]}
    Path("run.json").write_text(json.dumps(kept))


def describe(folder: Path) -> tuple[str, float, float]:
    """Return a line on a run, its mean loading and its error."""
    kept: dict[str, Any] = json.loads((folder / "run.json").read_text())
    with np.load(folder / "timeseries.npz") as series:
        loading, temperature = series["loading"], series["temperature"]
    estimate = estimate_mean(loading)
    exchanges = kept["acceptance"]["insertion"]["accepted"] + kept["acceptance"]["deletion"]["accepted"]
    line = (
        f"{estimate.mean:8.3f} ± {estimate.error:.3f} {estimate.effective_samples:8.0f} {exchanges:9d} "
        f"{temperature.mean():8.1f} {PARAMETERS['md_steps_per_attempt'] * len(loading):9d} {kept['seconds']:7.0f}"
    )
    return line, estimate.mean, estimate.error


def main() -> None:
    folder, seconds = Path(sys.argv[1]).resolve(), float(sys.argv[2])
    print(machine())
    steps, attempts = PARAMETERS["md_steps_per_attempt"], PARAMETERS["attempts_per_block"]
    print(f"MIL-120(Al), {STRUCTURE.stem}, starter model, float32, {TEMPERATURE:g} K")
    print(
        f"both engines: {PARAMETERS['timestep_fs']:g} fs, {steps} steps and {attempts} attempts in a block, "
        f"at most {MAX_LOADING} molecules"
    )
    header = f"{'<N> per cell':>16} {'samples':>8} {'exchanges':>9} {'T, K':>8} {'steps':>9} {'CPU s':>7}"
    print(f"{'pressure':>11} {'engine':>7} {header}")
    for pressure in [float(each) for each in sys.argv[3:]] or PRESSURES:
        found = []
        for engine in ENGINES:
            place = folder / f"{engine}_{pressure:g}"
            if seconds > 0:
                go_on(place, engine, pressure, seconds)
            if not (place / "run.json").exists():
                print(f"{pressure:>8g} Pa {engine:>7} not run")
                continue
            line, *figures = describe(place)
            found.append(figures)
            print(f"{pressure:>8g} Pa {engine:>7} {line}", flush=True)
        if len(found) == len(ENGINES):
            (mean, error), (other, other_error) = found
            print(f"{'':>11} difference of {(other - mean) / np.hypot(error, other_error):+.1f} standard errors")


if __name__ == "__main__":
    main()
