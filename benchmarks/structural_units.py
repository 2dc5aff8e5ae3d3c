"""Structural units of MIL-120 by MD with the starter model: ``python -m benchmarks.structural_units [STEPS]``.

Each run begins from str2, the structure in examples/, which is what the model was trained around.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ase.io import read

from aiida_mofmace.protocols import load_gas, load_protocol, load_sites
from aiida_mofmace.starter import STARTER_MODEL
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.kernels.sites import SiteDefinition
from aiida_mofmace.worker.kernels.structural_units import classify_trajectory
from aiida_mofmace.worker.programs.md import run
from aiida_mofmace.worker.stopping import StopRequest
from benchmarks.demo import machine

STRUCTURE = Path(__file__).parents[1] / "examples" / "MIL-120_primitive_40atoms.cif"
RUNS = [(temperature, 0) for temperature in (100.0, 300.0, 500.0)] + [(300.0, 1)]


def frames_of(temperature: float, loading: int, steps: int) -> Frames:
    """Run MD in a folder of its own."""
    parameters: dict[str, Any] = {
        **load_protocol("fast")["md"],
        **{"temperature": temperature, "loading": loading, "gas": load_gas("CO2")},
        **{"steps": steps, "equilibration_steps": steps // 10, "stride": 5},
    }
    with tempfile.TemporaryDirectory() as folder:
        before = Path.cwd()
        os.chdir(folder)
        try:
            read(STRUCTURE).write("structure.extxyz")
            files = {"model": str(STARTER_MODEL), "structure": "structure.extxyz"}
            run({"seed": 1, "dtype": "float32", "files": files, "parameters": parameters}, StopRequest())
            return Frames.load("frames.npz")
        finally:
            os.chdir(before)


def shown(estimate: dict[str, Any]) -> str:
    """Write a fraction with its error; an asterisk where it is not to be relied on."""
    error = "" if estimate["error"] is None else f"±{estimate['error']:.2f}"
    return f"{estimate['mean']:.2f}{error}{'*' if estimate['too_short'] else ''}"


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    definition, started = SiteDefinition.from_dict(load_sites("MIL-120")), time.process_time()
    print(machine())
    print(f"{number} steps of 0.5 fs with the starter model, one primitive cell; * too few changes for an error bar")
    names = [*definition.units, "other"]
    print(
        f"{'T (K)':>6}{'CO2':>5}"
        + "".join(f"{name:>14}" for name in ("free_low", "donor", "free_high", *names))
        + "  flips"
    )
    for temperature, loading in RUNS:
        summary = classify_trajectory(frames_of(temperature, loading, number), definition).summary()
        cells = [summary["orientation"][name] for name in ("free_low", "donor", "free_high")]
        cells += [summary["units"][name] for name in names]
        print(
            f"{temperature:>6g}{loading:>5}"
            + "".join(f"{shown(cell):>14}" for cell in cells)
            + f"{summary['flips']:>7}"
        )
        print(
            "        " + ", ".join(f"{name} {share:.2f}" for name, share in list(summary["sequences"].items())[:5]),
            flush=True,
        )
    print(f"{time.process_time() - started:.0f} CPU seconds")
