"""Make a MACE model that has learned nothing yet, for materials with elements that no model at hand knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from ..errors import WorkerError
from ..stopping import StopRequest
from ..training.metadata import describe_model
from .simulation import read_structure

__all__ = ["run"]

_REQUIRED = ("channels", "max_l", "max_ell", "layers", "correlation", "r_max", "n_radial", "scale")


def _mean_neighbours(atoms: Atoms, r_max: float) -> float:
    from matscipy.neighbours import neighbour_list

    return len(neighbour_list("i", atoms, r_max)) / len(atoms)


def _build(settings: dict[str, Any], numbers: list[int], neighbours: float) -> Any:
    from mace import modules  # before e3nn, which torch would not let load its constants

    # isort: split
    import torch
    from e3nn import o3

    blocks = modules.interaction_classes
    channels = settings["channels"]
    hidden = "+".join(f"{channels}x{degree}{'oe'[degree % 2 == 0]}" for degree in range(settings["max_l"] + 1))
    return modules.ScaleShiftMACE(
        r_max=settings["r_max"],
        num_bessel=settings["n_radial"],
        num_polynomial_cutoff=5,
        max_ell=settings["max_ell"],
        interaction_cls_first=blocks["RealAgnosticInteractionBlock"],
        interaction_cls=blocks["RealAgnosticResidualInteractionBlock"],
        num_interactions=settings["layers"],
        num_elements=len(numbers),
        hidden_irreps=o3.Irreps(hidden),
        MLP_irreps=o3.Irreps("16x0e"),
        gate=torch.nn.functional.silu,
        atomic_energies=np.zeros((1, len(numbers))),
        avg_num_neighbors=neighbours,
        atomic_numbers=numbers,
        correlation=settings["correlation"],
        radial_type="bessel",
        radial_MLP=[64, 64, 64],
        atomic_inter_scale=[settings["scale"]],
        atomic_inter_shift=[0.0],
        pair_repulsion=True,
        heads=["Default"],
    )


def run(inputs: dict[str, Any], stop: StopRequest) -> dict[str, Any]:
    """Write ``model.model`` and ``model.json``.

    :param inputs: content of ``input.json``: file ``structure``, whose neighbours are counted; parameters channels,
        max_l, max_ell, layers, correlation, r_max (Å), n_radial, scale (eV) and elements (symbols of the gas)
    :raises WorkerError: of kind bad_input if a parameter is missing
    """
    import mace  # noqa: F401  (it prepares torch for loading constants)
    import torch

    settings = inputs["parameters"]
    missing = [name for name in (*_REQUIRED, "elements") if name not in settings]
    if missing:
        raise WorkerError("bad_input", f"parameters are missing: {', '.join(missing)}")
    atoms = read_structure(inputs["files"]["structure"])
    numbers = sorted({*map(int, atoms.numbers), *(atomic_numbers[symbol] for symbol in settings["elements"])})
    neighbours = _mean_neighbours(atoms, settings["r_max"])
    default = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, inputs.get("dtype", "float32")))
    torch.manual_seed(int(inputs["seed"]))
    try:
        torch.save(_build(settings, numbers, neighbours), "model.model")
    finally:
        torch.set_default_dtype(default)
    described = describe_model(Path("model.model"), "untrained")
    Path("model.json").write_text(json.dumps(described), encoding="utf-8")
    return {key: described[key] for key in ("elements", "n_parameters")} | {"mean_neighbours": neighbours}
