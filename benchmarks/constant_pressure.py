"""Dynamics of MIL-120(Al) at 1 bar by both engines, starter model: ``python -m benchmarks.constant_pressure [PS]``."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import read

from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.kernels.statistics import estimate_mean
from aiida_mofmace.worker.programs.md import run
from aiida_mofmace.worker.stopping import StopRequest
from benchmarks.demo import machine

REPOSITORY = Path(__file__).parents[1]
FRAMEWORK = REPOSITORY / "examples" / "MIL-120_primitive_40atoms.cif"
MODEL = REPOSITORY / "aiida_mofmace" / "starter" / "starter.model"
TIMESTEP = 0.5
PARAMETERS: dict[str, Any] = {
    "temperature": 300.0,
    "timestep_fs": TIMESTEP,
    "stride": 10,
    "thermostat_time_fs": 50.0,
    "max_temperature_factor": 5.0,
    "minimum_distance": 0.6,
    "pressure": 1e5,
    "barostat_time_fs": 500.0,
}
ENGINES: dict[str, dict[str, Any]] = {
    "lammps, barostat": {"engine": "lammps"},
    "native, full": {"flexible_cell": "full"},
    "native, anisotropic": {"flexible_cell": "anisotropic"},
    "native, isotropic": {"flexible_cell": "isotropic"},
}


def steps_in(picoseconds: float) -> int:
    """Time steps of that many ps."""
    return round(picoseconds * 1000 / TIMESTEP)


def sample(picoseconds: float, repeats: int = 1, **changes: Any) -> tuple[dict[str, Any], Frames]:
    """Run in a folder of its own; the first fifth is left out of everything."""
    folder = Path(tempfile.mkdtemp())
    os.chdir(folder)
    read(FRAMEWORK).repeat((repeats, 1, 1)).write("structure.extxyz")
    steps = steps_in(picoseconds)
    parameters = PARAMETERS | {"steps": steps, "equilibration_steps": steps // 5} | changes
    files = {"model": str(MODEL), "structure": "structure.extxyz"}
    started = time.process_time()
    results = run({"seed": 1, "device": "cpu", "files": files, "parameters": parameters}, StopRequest())
    return results | {"cpu": time.process_time() - started}, Frames.load("frames.npz")


def scan() -> None:
    """Print how many moves are accepted, by the longest strain that is tried."""
    print("accepted of 100 moves of the cell, by cell_step (0.5 ps, a move every 5 steps)")
    for shape in ("isotropic", "anisotropic", "full"):
        row = []
        for step in (0.01, 0.02, 0.04):
            moves = sample(0.5, flexible_cell=shape, cell_step=step, md_steps_per_cell_move=5)[0]["cell_moves"]
            row.append(f"{step}: {100 * moves['accepted'] / moves['attempted']:.0f}")
        print(f"  {shape:<12} {', '.join(row)}", flush=True)


if __name__ == "__main__":
    length = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    print(machine())
    scan()
    print(f"\n{length:g} ps at 300 K and 1 bar, 40 atoms, the first fifth left out; lengths of the vectors in Å")
    for name, changes in ENGINES.items():
        results, frames = sample(length, **changes)
        edges = np.linalg.norm(frames.cells, axis=2)
        means = [estimate_mean(edges[:, axis], detect_equilibration=False) for axis in range(3)]
        text = "  ".join(f"{mean.mean:.3f} ± {mean.error:.3f}" for mean in means)
        volume = f"V = {results['mean_volume']:.1f} ± {results['mean_volume_error']:.1f} Å³"
        print(f"{name:<20} {volume}   {text}   {results['cpu']:.0f} CPU s", flush=True)
