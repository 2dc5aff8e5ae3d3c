"""Native engine and LAMMPS on the same isotherm: MIL-120(Al) and CO2 with the starter model.

``lammps`` is the engine in the worker, ``script`` a script for mofmace-lmp such as aiida-lammps is given.

``python -m benchmarks.gcmc_lammps FOLDER SECONDS [PASCAL ...]`` goes on with each of the runs for so many seconds of
CPU time (of wall time for the script), from its checkpoint in the folder, and prints what there is; call it as often as
the errors ask for. With 0 seconds it prints only. The environment variable SEED, 0 if not given, makes other runs.

``in holes`` is the share of the deletions tried that were refused because the model binds the molecule by more than
``model_hole_bound``: a run in which that is not small is not one of CO2 in MIL-120, whatever the engine.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

from aiida_mofmace.calculations import lammps_script
from aiida_mofmace.parsers.lammps_output import parse_output
from aiida_mofmace.starter import STARTER_MODEL
from aiida_mofmace.worker.kernels.dynamics import MdState, initial_state
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.lammps_molecule import molecule_file
from aiida_mofmace.worker.kernels.loading import place_molecules
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.worker.kernels.statistics import estimate_mean
from aiida_mofmace.worker.programs.md_gcmc import run
from aiida_mofmace.worker.stopping import StopRequest
from benchmarks.demo import machine
from tests.worker.engine_fixtures import CO2

STRUCTURE = Path(__file__).parents[1] / "examples" / "MIL-120_primitive_40atoms.cif"
TEMPERATURE = 800.0
PRESSURES = (3e6, 1e7, 3e7)  # Pa
MAX_LOADING = 2
SEED = 1000 * int(os.environ.get("SEED", "0"))
ENGINES = ("native", "lammps", "script")
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
    seed = ENGINES.index(engine) + int(pressure) + SEED
    inputs = {"seed": seed, "dtype": "float32", "files": files, "parameters": parameters}
    began = time.process_time()
    results = run(inputs, CpuLimit(seconds))
    kept = json.loads(Path("run.json").read_text()) if Path("run.json").exists() else {"seconds": 0.0}
    kept = {"comparison": results.get("comparison")} | kept
    kept |= {"seconds": kept["seconds"] + time.process_time() - began, "acceptance": results["acceptance"]}
    Path("run.json").write_text(json.dumps(kept))


def go_on_by_script(folder: Path, pressure: float, seconds: float) -> None:
    """Take a run of mofmace-lmp further; what it has printed is added to the time series."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    seed, gas = ENGINES.index("script") + int(pressure) + SEED, Gas.from_dict(CO2)
    parameters = PARAMETERS | {"pressure": pressure, "fugacity": pressure, "lammps_seed": seed, "dtype": "float32"}
    parameters |= {"pair_style": "mliap unified", "model": "my.model", "wall_seconds": seconds}
    state = _start(gas, seed)
    if Path(lammps_script.RESTART).exists():
        script = lammps_script.restart_script(parameters, state, gas)
    else:
        script = lammps_script.first_script(parameters | {"check_first_frame": True}, state, gas)
        Path(lammps_script.STRUCTURE).write_text(lammps_script.structure_file(state, gas))
        first = len(np.unique(state.numbers[: state.framework_atoms])) + 1
        Path(lammps_script.MOLECULE).write_text(molecule_file(gas, first))
        Path("my.model").write_bytes(STARTER_MODEL.read_bytes())
    Path("input.in").write_text(script)
    began = resource.getrusage(resource.RUSAGE_CHILDREN)
    with open("lammps.out", "w") as screen:
        subprocess.run(["mofmace-lmp", "-in", "input.in", "-log", "none"], stdout=screen, check=True)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = parse_output(Path("lammps.out").read_text())
    rows = output.thermo[output.thermo[:, 0] % PARAMETERS["md_steps_per_attempt"] == 0]
    if Path("timeseries.npz").exists():
        with np.load("timeseries.npz") as before:
            rows = np.concatenate([before["rows"], rows[rows[:, 0] > before["rows"][-1, 0]]])
    np.savez("timeseries.npz", rows=rows, loading=rows[:, 6], temperature=rows[:, 1])
    kept = json.loads(Path("run.json").read_text()) if Path("run.json").exists() else {"seconds": 0.0}
    moves = {move: {"accepted": int(rows[-1, column])} for move, column in (("insertion", 8), ("deletion", 10))}
    for move, counts in output.counts.items():
        earlier = kept.get("acceptance", {}).get(move, {})
        moves[move] |= {what: number + earlier.get(what, 0) for what, number in counts.items()}
    spent = ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime
    kept = {"comparison": output.trials} | kept | {"seconds": kept["seconds"] + spent, "acceptance": moves}
    Path("run.json").write_text(json.dumps(kept))


def _start(gas: Gas, seed: int) -> MdState:
    """Return the framework with one molecule, its energy and forces in double precision."""
    framework, rng = read(STRUCTURE), np.random.default_rng(seed)
    assert isinstance(framework, Atoms)
    model = MaceEvaluator(STARTER_MODEL, dtype="float64")
    counts, sizes = np.array([PARAMETERS["initial_loading"]]), np.array([len(gas)])
    atoms = place_molecules(framework, gas, int(counts[0]), PARAMETERS["minimum_distance"], rng)
    return initial_state(atoms, model, TEMPERATURE, rng, len(framework), counts=counts, sizes=sizes)


def describe(folder: Path) -> tuple[str, float, float]:
    """Return a line on a run, its mean loading and its error."""
    kept: dict[str, Any] = json.loads((folder / "run.json").read_text())
    with np.load(folder / "timeseries.npz") as series:
        loading, temperature = series["loading"], series["temperature"]
    estimate = estimate_mean(loading)
    exchanges = kept["acceptance"]["insertion"]["accepted"] + kept["acceptance"]["deletion"]["accepted"]
    deletions = kept["acceptance"]["deletion"]
    holes = 100.0 * deletions["holes"] / max(1, deletions["evaluated"])
    line = (
        f"{estimate.mean:8.3f} ± {estimate.error:.3f} {estimate.effective_samples:8.0f} {exchanges:9d} {holes:9.1f}% "
        f"{temperature.mean():8.1f} {PARAMETERS['md_steps_per_attempt'] * len(loading):9d} {kept['seconds']:7.0f}"
    )
    return line, estimate.mean, estimate.error


def main() -> None:
    folder, seconds = Path(sys.argv[1]).resolve(), float(sys.argv[2])
    print(machine())
    steps, attempts = PARAMETERS["md_steps_per_attempt"], PARAMETERS["attempts_per_block"]
    print(f"MIL-120(Al), {STRUCTURE.stem}, starter model, float32, {TEMPERATURE:g} K")
    print(
        f"all engines: {PARAMETERS['timestep_fs']:g} fs, {steps} steps and {attempts} attempts in a block, "
        f"at most {MAX_LOADING} molecules"
    )
    header = (
        f"{'<N> per cell':>16} {'samples':>8} {'exchanges':>9} {'in holes':>10} {'T, K':>8} {'steps':>9} {'CPU s':>7}"
    )
    print(f"{'pressure':>11} {'engine':>7} {header}")
    for pressure in [float(each) for each in sys.argv[3:]] or PRESSURES:
        found = []
        for engine in ENGINES:
            place = folder / f"{engine}_{pressure:g}"
            if seconds > 0 and engine == "script":
                go_on_by_script(place, pressure, seconds)
            elif seconds > 0:
                go_on(place, engine, pressure, seconds)
            if not (place / "run.json").exists():
                print(f"{pressure:>8g} Pa {engine:>7} not run")
                continue
            line, *figures = describe(place)
            found.append(figures)
            print(f"{pressure:>8g} Pa {engine:>7} {line}", flush=True)
        for engine, (other, other_error) in zip(ENGINES[1:], found[1:], strict=False):
            difference = (other - found[0][0]) / np.hypot(found[0][1], other_error)
            print(f"{'':>11} {engine:>7} differs from native by {difference:+.1f} standard errors")


if __name__ == "__main__":
    main()
