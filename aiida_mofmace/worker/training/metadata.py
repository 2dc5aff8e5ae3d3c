"""What a MACE model file says about itself."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from ..errors import WorkerError

__all__ = ["describe_model"]


def describe_model(path: Path, kind: str) -> dict[str, Any]:
    """Open a model (a pickle: opening it runs code) and describe it.

    :param kind: "foundation" or "fine_tuned"
    :return: sha256, elements, r_max (Å), dtype, heads, atomic_energies (eV, by head and symbol), mace_version,
        n_parameters, kind
    :raises WorkerError: of kind no_model if the file is no MACE model
    """
    import mace  # noqa: F401  (before anything of e3nn: it prepares torch for loading constants)
    import torch

    try:
        model = torch.load(path, map_location="cpu", weights_only=False)
        numbers = [int(number) for number in model.atomic_numbers]
        table = np.atleast_2d(model.atomic_energies_fn.atomic_energies.detach().double().numpy())
        heads = [str(head) for head in getattr(model, "heads", None) or ["Default"]]
        symbols = [chemical_symbols[number] for number in numbers]
        return {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "elements": [chemical_symbols[number] for number in sorted(numbers)],
            "r_max": float(model.r_max),
            "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
            "heads": heads,
            "atomic_energies": {
                head: dict(zip(symbols, map(float, row), strict=True)) for head, row in zip(heads, table, strict=True)
            },
            "mace_version": version("mace-torch"),
            "n_parameters": sum(parameter.numel() for parameter in model.parameters()),
            "kind": kind,
        }
    except Exception as error:
        raise WorkerError("no_model", f"{path.name} cannot be opened as a MACE model: {error}") from error
