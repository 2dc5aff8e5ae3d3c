"""MACE's own ASE calculator as the referee of an engine: the same frame must get the same energy and forces."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ..errors import WorkerError

__all__ = ["compare_with_ase"]

#: Allowed differences from the referee in double precision: energy in eV/atom, force in eV/Å.
_TOLERANCES = {"float32": (1e-4, 2e-3), "float64": (1e-7, 1e-6)}


def compare_with_ase(
    atoms: Atoms, energy: float, forces: NDArray[np.float64], *, model: str, device: str, dtype: str, head: str | None
) -> dict[str, Any]:
    """Evaluate a frame by ``mace.calculators.MACECalculator`` in double precision and compare.

    :param atoms: the frame
    :param energy: total energy that the engine gives in eV
    :param forces: forces that the engine gives in eV/Å, shape (n, 3)
    :param dtype: precision of the engine
    :return: differences: energy in eV/atom, largest force component in eV/Å
    :raises WorkerError: kind wrong_engine if they differ by more than the precision explains
    """
    from mace.calculators import MACECalculator

    chosen = {} if head is None else {"head": head}
    frame = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True)
    frame.calc = MACECalculator(model_paths=[model], device=device, default_dtype="float64", **chosen)
    differences = {
        "energy_per_atom": abs(float(frame.get_potential_energy()) - energy) / len(frame),
        "force": float(np.abs(frame.get_forces() - forces).max()),
    }
    energy_limit, force_limit = _TOLERANCES[dtype]
    if not (differences["energy_per_atom"] <= energy_limit and differences["force"] <= force_limit):
        raise WorkerError(
            "wrong_engine",
            f"the first frame differs from ASE's MACE calculator by {differences['energy_per_atom']:.2e} eV/atom and "
            f"{differences['force']:.2e} eV/Å; the engine or its model is not what it should be",
        )
    return differences
