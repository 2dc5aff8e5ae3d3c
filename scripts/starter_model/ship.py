"""Copy a trained model, its data and its metadata into the package.

``python ship.py final``
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
import mace
import torch

STARTER = configurations.ROOT / "aiida_mofmace" / "starter"


def describe(model_file: Path, folder: Path, errors: dict[str, Any]) -> dict[str, Any]:
    """Return the metadata of a model: its settings are read from the model itself."""
    model = torch.load(model_file, map_location="cpu", weights_only=False)
    channels = re.match(r"(\d+)x0e", str(model.interactions[0].hidden_irreps))
    counts = [len(ase.io.read(folder / name, ":")) for name in ("train.extxyz", "valid.extxyz")]
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


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="working folder of train.py")
    folder = parser.parse_args().folder
    shutil.copyfile(folder / f"{folder.name}.model", STARTER / "starter.model")
    for part in ("train", "valid"):
        shutil.copyfile(folder / f"{part}.extxyz", STARTER / f"starter_{part}.extxyz")
    errors = json.loads((folder / "errors.json").read_text(encoding="utf-8"))
    metadata = describe(STARTER / "starter.model", folder, errors)
    (STARTER / "starter.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    for path in sorted(STARTER.iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
