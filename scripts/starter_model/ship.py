"""Copy a trained model, its data and its metadata into the package.

``python ship.py final --seen first/train.extxyz``
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import ase.io
import configurations
import dataset
import mace
import torch
import train
from ase import Atoms

STARTER = configurations.ROOT / "aiida_mofmace" / "starter"


def describe(model_file: Path, counts: list[int], errors: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a model: its settings are read from the model itself."""
    model = torch.load(model_file, map_location="cpu", weights_only=False)
    channels = re.match(r"(\d+)x0e", str(model.interactions[0].hidden_irreps))
    return {
        "name": "starter",
        "sha256": hashlib.sha256(model_file.read_bytes()).hexdigest(),
        "elements": [ase.data.chemical_symbols[number] for number in model.atomic_numbers.tolist()],
        "r_max": float(model.r_max),
        "channels": int(channels.group(1)) if channels else None,
        "max_L": 0,
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "n_train": counts[0],
        "n_valid": counts[1],
        "errors": errors,
        "level_of_theory": {"name": "GFN1-xTB"},
        "mace_version": mace.__version__,
        "trained_by": "scripts/starter_model/train.py",
    }


def unseen(validation: list[Atoms], seen: list[Atoms]) -> list[Atoms]:
    """Return the validation frames that are not in an earlier training set."""
    known = {dataset.identity(atoms) for atoms in seen}
    return [atoms for atoms in validation if dataset.identity(atoms) not in known]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="working folder of train.py")
    parser.add_argument("--seen", type=Path, nargs="*", default=[], help="training sets of models it went on from")
    arguments = parser.parse_args()
    folder = arguments.folder
    shutil.copyfile(folder / f"{folder.name}.model", STARTER / "starter.model")
    training = ase.io.read(folder / "train.extxyz", ":")
    validation = unseen(ase.io.read(folder / "valid.extxyz", ":"), dataset.read_all(arguments.seen))
    dataset.write_compact(STARTER / "starter_train.extxyz", training)
    dataset.write_compact(STARTER / "starter_valid.extxyz", validation)
    errors = train.errors_by_kind(STARTER / "starter.model", validation)
    metadata = describe(STARTER / "starter.model", [len(training), len(validation)], errors)
    (STARTER / "starter.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    for path in sorted(STARTER.iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
