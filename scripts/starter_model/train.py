"""Train a small MACE potential on labelled frames, and measure its errors by kind of frame.

``python train.py --name final --epochs 100 --labels initial_labelled.extxyz round_1_labelled.extxyz``

Everything is written below the working folder ``NAME/``: the split, MACE's own files and ``errors.json``.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import ase.io
import dataset
import numpy as np
from ase import Atoms

MODEL: dict[str, Any] = {
    "model": "ScaleShiftMACE",
    "interaction_first": "RealAgnosticInteractionBlock",
    "interaction": "RealAgnosticResidualInteractionBlock",
    "num_interactions": 2,
    "max_L": 0,
    "max_ell": 2,
    "correlation": 3,
    "num_radial_basis": 8,
    "MLP_irreps": "16x0e",
    "scaling": "rms_forces_scaling",
    "pair_repulsion": True,
}

# The Huber loss keeps the few large forces of close contacts from ruling the fit.
TRAINING: dict[str, Any] = {
    "loss": "universal",
    "forces_weight": 10.0,
    "stress_weight": 1.0,
    "compute_stress": True,
    "batch_size": 5,
    "valid_batch_size": 16,
    "scheduler": "ExponentialLR",
    "weight_decay": 5e-7,
    "clip_grad": 10.0,
    "ema": True,
    "ema_decay": 0.99,
    "amsgrad": True,
    "eval_interval": 5,
    "patience": 1000,
    "error_table": "PerAtomMAE",
    "default_dtype": "float32",
    "device": "cpu",
    "num_workers": 0,
}


def arguments_of_mace(name: str, options: argparse.Namespace, energies: dict[int, float]) -> list[str]:
    """Return the command-line arguments of MACE's own training program."""
    settings = MODEL | TRAINING
    settings |= {
        "name": name,
        "seed": options.seed,
        "r_max": options.cutoff,
        "num_channels": options.channels,
        "train_file": "train.extxyz",
        "valid_file": "valid.extxyz",
        "E0s": repr(energies),
        "max_num_epochs": options.epochs,
        "lr": options.learning_rate,
        "energy_weight": options.energy_weight,
        # The learning rate falls to one fiftieth over the run.
        "lr_scheduler_gamma": round(math.exp(math.log(0.02) / options.epochs), 5),
    }
    if options.start is not None:
        settings |= {"foundation_model": options.start.resolve(), "multiheads_finetuning": False}
    switches = {"ema", "amsgrad", "pair_repulsion"}
    flags = [f"--{key}" for key in settings if key in switches]
    # A run that was cut off goes on from its last checkpoint.
    flags.append("--restart_latest")
    return flags + [f"--{key}={value}" for key, value in settings.items() if key not in switches]


def errors_by_kind(model: Path, frames: list[Atoms]) -> dict[str, dict[str, float]]:
    """Return mean absolute errors of energy (meV/atom) and force components (meV/Å) for every kind of frame."""
    import mace  # noqa: F401  mace must come before e3nn
    from mace.calculators import MACECalculator

    calculator = MACECalculator(model_paths=str(model), device="cpu", default_dtype="float32")
    gathered: dict[str, list[tuple[float, np.ndarray]]] = defaultdict(list)
    for frame in frames:
        atoms = Atoms(frame.symbols, positions=frame.positions, cell=frame.cell, pbc=True, calculator=calculator)
        energy_error = (atoms.get_potential_energy() - frame.info["REF_energy"]) / len(atoms)
        force_error = (atoms.get_forces() - frame.arrays["REF_forces"]).ravel()
        for kind in (frame.info["config_type"], "all"):
            gathered[kind].append((abs(energy_error), np.abs(force_error)))
    return {
        kind: {
            "frames": len(errors),
            "energy_mae_mev_per_atom": round(1000 * float(np.mean([energy for energy, _ in errors])), 2),
            "forces_mae_mev_per_angstrom": round(1000 * float(np.concatenate([f for _, f in errors]).mean()), 1),
        }
        for kind, errors in sorted(gathered.items())
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True)
    parser.add_argument("--labels", type=Path, nargs="+", required=True)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cutoff", type=float, default=4.5, help="Å")
    parser.add_argument("--learning-rate", type=float, default=0.01)
    parser.add_argument("--energy-weight", type=float, default=1.0, help="relative to 10 for the forces")
    parser.add_argument("--start", type=Path, help="model to go on from")
    parser.add_argument(
        "--split", type=Path, nargs=2, metavar=("TRAIN", "VALID"), help="split of the model to go on from, to be kept"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--validation-share", type=float, default=0.1)
    options = parser.parse_args()
    folder = Path(options.name)
    folder.mkdir(exist_ok=True)
    frames = dataset.read_all(options.labels)
    earlier = [dataset.read_all([path]) for path in options.split] if options.split else [[], []]
    training, validation = dataset.split(frames, options.validation_share, options.seed, (earlier[0], earlier[1]))
    dataset.write_compact(folder / "train.extxyz", training)
    dataset.write_compact(folder / "valid.extxyz", validation)
    mace_arguments = arguments_of_mace(options.name, options, dataset.reference_energies(frames))
    environment = {"OMP_NUM_THREADS": "1"} | dict(os.environ)
    command = [sys.executable, "-m", "mace.cli.run_train", *mace_arguments]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    errors = errors_by_kind(folder / f"{options.name}.model", ase.io.read(folder / "valid.extxyz", ":"))
    (folder / "errors.json").write_text(json.dumps(errors, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(errors, indent=2))


if __name__ == "__main__":
    main()
