"""Structures and a tiny foundation model for the tests of selection, committee and fine-tuning."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from aiida_mofmace.worker.kernels.frames import Frames

_REPOSITORY = Path(__file__).parents[2]
ELEMENTS = (1, 6, 8, 13)


def water_box(rng: np.random.Generator, stretch: float = 0.0, shift: float = 0.0) -> Atoms:
    """A water molecule and a CO2 in a small periodic box, rattled; ``shift`` moves the two apart."""
    positions = np.array(
        [[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0], [0.0, -3.0, 0.0], [1.16, -3.0, 0], [-1.16, -3.0, 0.0]]
    )
    positions[3:, 1] -= shift
    positions[1:3] *= 1.0 + stretch
    atoms = Atoms("OH2CO2", positions=positions + rng.normal(scale=0.02, size=(6, 3)), cell=[7.5] * 3, pbc=True)
    atoms.info |= {"framework_atoms": 3, "loading": 1}
    return atoms


def labelled(atoms: Atoms, rng: np.random.Generator | None = None) -> Atoms:
    """Give a frame smooth reference labels: a spring between every pair, cut off at 4 Å."""
    vectors = atoms.get_all_distances(mic=True, vector=True)
    lengths = np.linalg.norm(vectors, axis=-1) + 9.0 * np.eye(len(atoms))
    inside = lengths < 4.0
    atoms.info["REF_energy"] = float((0.05 * (lengths - 4.0) ** 2 * inside).sum() / 2 - 5.0 * len(atoms))
    scale = np.where(inside, 0.1 * (lengths - 4.0) / lengths, 0.0)
    atoms.arrays["REF_forces"] = (scale[:, :, None] * vectors).sum(axis=1)
    atoms.info["REF_stress"] = np.zeros(6)
    return atoms


def trajectory(seed: int, n_frames: int, group: str, shift: float = 0.0) -> Frames:
    """Frames of the water box with a group name and ascending steps."""
    rng = np.random.default_rng(seed)
    images = [water_box(rng, stretch=0.05 * rng.normal(), shift=shift) for _ in range(n_frames)]
    for step, image in enumerate(images):
        image.info |= {"group": group, "step": 10 * step}
    return Frames.from_atoms(images)


def write_tiny_model(path: Path, seed: int = 0, elements: tuple[int, ...] = ELEMENTS, dtype: str = "float64") -> Path:
    """Save a ScaleShiftMACE with seeded random weights: 8 channels, two layers, 4 Å."""
    from mace import modules  # before e3nn, which torch would not let load its constants

    # isort: split
    import torch
    from e3nn import o3

    default = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    torch.manual_seed(seed)
    try:
        model = modules.ScaleShiftMACE(
            r_max=4.0,
            num_bessel=4,
            num_polynomial_cutoff=5,
            max_ell=2,
            interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
            num_interactions=2,
            num_elements=len(elements),
            hidden_irreps=o3.Irreps("8x0e"),
            MLP_irreps=o3.Irreps("8x0e"),
            gate=torch.nn.functional.silu,
            atomic_energies=np.array([[-1.0 * z for z in elements]]),
            avg_num_neighbors=8.0,
            atomic_numbers=list(elements),
            correlation=2,
            radial_type="bessel",
            radial_MLP=[16, 16],
            atomic_inter_scale=[1.0],
            atomic_inter_shift=[0.0],
            heads=["Default"],
        )
        torch.save(model, path)
    finally:
        torch.set_default_dtype(default)
    return path


def run_worker(folder: Path, program: str, threads: int = 1, **inputs: Any) -> tuple[int, dict[str, Any]]:
    """Run a program as a job does: its own process in its own folder; returns the exit code and ``output.json``."""
    document = {"program": program, "seed": 1, "device": "cpu", "dtype": "float64", "max_wall_seconds": None, **inputs}
    (folder / "input.json").write_text(json.dumps(document), encoding="utf-8")
    environment = os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    environment["PYTHONPATH"] = str(_REPOSITORY)
    command = [sys.executable, "-m", "aiida_mofmace.worker", program, "input.json"]
    process = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    output = json.loads((folder / "output.json").read_text(encoding="utf-8"))
    output["stderr"] = process.stderr
    return process.returncode, output
