"""Dynamics of MIL-120(Al) at 1 bar by both engines, starter model: ``python -m benchmarks.constant_pressure [PS]``.

The mean stress is known exactly where all components of the strain are free: for any strain ε of all positions and the
cell, ⟨∂/∂ε [(n + 1) ln V - β(U + PV)]⟩ = 0, so ⟨V S⟩ = [(n + 1) kT - P ⟨V⟩] 1 with n atoms and the stress S of the
potential; P ⟨V⟩ is a hundredth of kT here.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import units
from ase.io import read

from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.worker.kernels.statistics import Estimate, estimate_mean
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
}


def steps_in(picoseconds: float) -> int:
    """Time steps of that many ps."""
    return round(picoseconds * 1000 / TIMESTEP)


def sample(picoseconds: float, **changes: Any) -> tuple[dict[str, Any], Frames]:
    """Run in a folder of its own; the first fifth is left out of everything."""
    folder = Path(tempfile.mkdtemp())
    os.chdir(folder)
    read(FRAMEWORK).write("structure.extxyz")
    steps = steps_in(picoseconds)
    parameters = PARAMETERS | {"steps": steps, "equilibration_steps": steps // 5} | changes
    files = {"model": str(MODEL), "structure": "structure.extxyz"}
    started = time.process_time()
    results = run({"seed": 1, "device": "cpu", "files": files, "parameters": parameters}, StopRequest())
    return results | {"cpu": time.process_time() - started}, Frames.load("frames.npz")


def virials(frames: Frames) -> list[Estimate]:
    """Return ⟨V S⟩ / kT, the mean of the diagonal and the three shears; exactly n + 1 - P ⟨V⟩ / kT and zero."""
    model = MaceEvaluator(MODEL)
    stresses = [model.evaluate([frames.atoms(i)], stress=True)[0].stress for i in range(0, len(frames), 2)]
    volumes = np.linalg.det(frames.cells[::2])
    tensors = np.array(stresses) * volumes[:, None, None] / (units.kB * PARAMETERS["temperature"])
    parts = [np.trace(tensors, axis1=1, axis2=2) / 3, tensors[:, 1, 2], tensors[:, 0, 2], tensors[:, 0, 1]]
    return [estimate_mean(part, detect_equilibration=False) for part in parts]


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
        if changes.get("flexible_cell") == "full":
            found = "  ".join(f"{mean.mean:.1f} ± {mean.error:.1f}" for mean in virials(frames))
            print(f"  mean of V x stress / kT, a third of the trace (must be n + 1 = 41.0) and the shears (0): {found}")
