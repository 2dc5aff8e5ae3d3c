"""Label structures with CP2K at a level of theory of this package, several single points at a time.

``python label.py INPUT.extxyz OUTPUT.extxyz --processes 2``

Frames that do not converge, fail or feel a force above the bound are left out and counted by reason.
"""

from __future__ import annotations

import argparse
import collections
import copy
import math
import os
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import yaml
from aiida_cp2k.utils import Cp2kInput
from ase import Atoms, units

ROOT = Path(__file__).resolve().parents[2]
LEVEL = ROOT / "aiida_mofmace" / "protocols" / "levels" / "gfn1-xtb.yaml"

FLOAT = r"[-+]?\d+\.\d+(?:[EDed][-+]?\d+)?"
FORCE_LINE = re.compile(rf"^\s+\d+\s+\d+\s+[A-Z][a-z]?\s+({FLOAT})\s+({FLOAT})\s+({FLOAT})\s*$", re.MULTILINE)
STRESS_LINE = re.compile(rf"^\s*STRESS\|\s+[xyz]\s+({FLOAT})\s+({FLOAT})\s+({FLOAT})\s*$", re.MULTILINE)
ENERGY_LINE = re.compile(rf"ENERGY\| Total FORCE_EVAL .*?:\s+({FLOAT})")

# Ground states of the free atoms: their labels are the reference energies of the model.
MULTIPLICITY_OF_FREE_ATOM = {"H": 2, "C": 3, "O": 3, "Al": 2}


class LabelError(Exception):
    """A label that cannot be used; the message is the reason that is counted."""


def cp2k_input(atoms: Atoms, level: dict[str, Any]) -> str:
    """Return the CP2K input of a single point.

    :param atoms: structure, periodic in all directions.
    :param level: level of theory, as in ``protocols/levels``.
    :returns: text of the input file.
    """
    parameters = copy.deepcopy(level["cp2k_input"])
    force_eval = parameters["FORCE_EVAL"]
    rows = ["{:.10f} {:.10f} {:.10f}".format(*vector) for vector in atoms.cell]
    coordinates = [
        "{} {:.10f} {:.10f} {:.10f}".format(symbol, *position)
        for symbol, position in zip(atoms.symbols, atoms.positions, strict=True)
    ]
    force_eval["SUBSYS"] = {
        "CELL": {"PERIODIC": "XYZ", "A": rows[0], "B": rows[1], "C": rows[2]},
        "COORD": {" ": coordinates},
    }
    if len(atoms) == 1:
        force_eval["DFT"]["MULTIPLICITY"] = MULTIPLICITY_OF_FREE_ATOM[str(atoms.symbols[0])]
        force_eval["DFT"]["UKS"] = "T"
    parameters["GLOBAL"]["PROJECT"] = "label"
    return str(Cp2kInput(parameters).render())


def parse_output(text: str, natoms: int) -> tuple[float, np.ndarray, np.ndarray]:
    """Read energy, forces and stress from CP2K's standard output.

    :param text: standard output of a single point with forces and stress printed.
    :param natoms: number of atoms.
    :returns: energy (eV), forces (natoms, 3) in eV/Å, stress (3, 3) in eV/Å³ with ASE's sign.
    :raises LabelError: if the calculation is not converged or not complete.
    """
    if "SCF run NOT converged" in text:
        raise LabelError("not converged")
    energy = ENERGY_LINE.search(text)
    block = text.rfind("ATOMIC FORCES in [a.u.]")
    if energy is None or block < 0:
        raise LabelError("incomplete output")
    forces = np.array(FORCE_LINE.findall(text[block:])[:natoms], dtype=float)
    stress = np.array(STRESS_LINE.findall(text)[:3], dtype=float)
    if forces.shape != (natoms, 3) or stress.shape != (3, 3):
        raise LabelError("incomplete output")
    # CP2K prints GPa and counts compression as positive; ASE counts tension as positive.
    ase_stress = -0.5 * (stress + stress.T) * units.GPa
    return float(energy.group(1)) * units.Hartree, forces * units.Hartree / units.Bohr, ase_stress


def run_cp2k(atoms: Atoms, level: dict[str, Any], command: str) -> str:
    """Run one single point in a folder of its own and return the standard output."""
    # Without the second variable every run of an Open MPI build starts a helper daemon first.
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMPI_MCA_ess_singleton_isolated": "1"}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "label.inp").write_text(cp2k_input(atoms, level), encoding="utf-8")
        try:
            completed = subprocess.run(
                [command, "-i", "label.inp"],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise LabelError("timeout") from error
    if completed.returncode != 0:
        raise LabelError("cp2k failed")
    return completed.stdout


def label(atoms: Atoms, level: dict[str, Any], command: str, max_force: float) -> Atoms:
    """Return a copy of a frame with its reference energy, forces and (for solids) stress.

    :param max_force: largest allowed norm of a force, eV/Å.
    :raises LabelError: with the reason, if there is no usable label.
    """
    energy, forces, stress = parse_output(run_cp2k(atoms, level, command), len(atoms))
    largest = float(np.linalg.norm(forces, axis=1).max())
    if not math.isfinite(energy) or largest > max_force:
        raise LabelError("force above the bound")
    labelled = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
    labelled.info["config_type"] = atoms.info["config_type"]
    labelled.info["REF_energy"] = round(energy, 8)
    if atoms.info.get("bulk"):
        labelled.info["REF_stress"] = np.round(stress, 8)
    labelled.arrays["REF_forces"] = np.round(forces, 6)
    return labelled


def label_all(frames: list[Atoms], command: str, processes: int, max_force: float) -> list[Atoms]:
    """Label frames in parallel, print the reasons of all failures and return the good ones in order."""
    level = yaml.safe_load(LEVEL.read_text(encoding="utf-8"))
    failures: collections.Counter[tuple[str, str]] = collections.Counter()

    def attempt(atoms: Atoms) -> Atoms | None:
        try:
            return label(atoms, level, command, max_force)
        except LabelError as error:
            failures[str(error), atoms.info["config_type"]] += 1
            return None

    labelled = []
    with ThreadPoolExecutor(processes) as pool:
        for number, atoms in enumerate(pool.map(attempt, frames), start=1):
            labelled += [] if atoms is None else [atoms]
            if number % 100 == 0:
                print(f"{number} of {len(frames)} frames done", flush=True)
    print(f"{len(labelled)} of {len(frames)} frames labelled")
    for (reason, kind), count in sorted(failures.items()):
        print(f"  left out: {count:4d} {kind}: {reason}")
    return labelled


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--command", default="cp2k.psmp")
    parser.add_argument("--max-force", type=float, default=40.0, help="eV/Å")
    arguments = parser.parse_args()
    frames = ase.io.read(arguments.input, ":")
    labelled = label_all(frames, arguments.command, arguments.processes, arguments.max_force)
    ase.io.write(arguments.output, labelled, format="extxyz")


if __name__ == "__main__":
    main()
