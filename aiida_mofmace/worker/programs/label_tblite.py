"""Label one structure with a tight-binding method of the tblite wheel, where no other electronic structure code is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculatorError
from ase.io import read

from ..errors import WorkerError
from ..stopping import StopRequest

__all__ = ["run"]

_PARAMETERS = {"method", "accuracy", "electronic_temperature", "max_iterations"}


def _calculator(parameters: dict[str, Any]) -> Any:
    """Create tblite's ASE calculator.

    :raises WorkerError: of kind bad_input if tblite is not installed or does not know the method
    """
    unknown = set(parameters) - _PARAMETERS
    if unknown:
        raise WorkerError("bad_input", f"unknown parameters: {sorted(unknown)}")
    try:
        from tblite.ase import TBLite
    except ImportError as error:
        message = "tblite is not installed where the job runs; install it there with: pip install 'tblite>=0.4'"
        raise WorkerError("bad_input", message) from error
    options = {name: parameters[name] for name in _PARAMETERS & set(parameters) if parameters[name] is not None}
    return TBLite(verbosity=0, **options)


def _label(atoms: Atoms, parameters: dict[str, Any]) -> tuple[float, Any, Any] | None:
    """Energy (eV), forces (eV/Å) and stress (eV/Å³, ASE's sign, (3, 3)); None if the SCF did not converge."""
    atoms.calc = _calculator(parameters)
    try:
        return float(atoms.get_potential_energy()), atoms.get_forces(), atoms.get_stress(voigt=False)
    except (CalculatorError, RuntimeError, TypeError, ValueError) as error:
        if "converge" in str(error).lower() or "cycles" in str(error).lower():
            return None
        raise WorkerError("bad_input", f"tblite cannot label this structure: {error}") from error


def run(inputs: dict[str, Any], stop: StopRequest) -> dict[str, Any]:
    """Write ``label.npz`` with energy, forces and stress; no file if the SCF did not converge.

    :param inputs: content of ``input.json``: file ``structure``; parameters ``method`` (as "GFN1-xTB") and
        ``accuracy`` (of tblite, 1 is its default; smaller is tighter), perhaps ``electronic_temperature`` (K) and
        ``max_iterations``
    :return: energy in eV and whether the SCF converged
    """
    atoms: Atoms = read(Path(inputs["files"]["structure"]))
    if not atoms.pbc.all():
        raise WorkerError("bad_input", "the structure must be periodic in all directions")
    label = _label(atoms, inputs["parameters"])
    if label is None:
        return {"energy": None, "converged": False}
    energy, forces, stress = label
    if not np.isfinite(energy) or not np.all(np.isfinite(forces)):
        raise WorkerError("nan", "tblite gives an energy or forces that are not numbers")
    np.savez("label.npz", energy=energy, forces=forces, stress=stress)
    return {"energy": energy, "converged": True}
