"""Does a model that was trained from scratch bind the gas as its labels do? Widom insertion by both, places alike.

python benchmarks/second_material.py PK    # of a finished run of examples/sifsix_from_scratch.py, in the loaded profile
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import units

PRESSURE = 1.0e5
MINIMUM_DISTANCE = 2.0


def placed(framework: Any, gas: Any, trials: int, seed: int) -> list[Any]:
    """Return the framework with the gas at those of so many random places where no two atoms overlap."""
    from aiida_mofmace.worker.kernels.geometry import closest_distance

    random, found = np.random.default_rng(seed), []
    for _ in range(trials):
        molecule = gas.copy()
        molecule.rotate([0.0, 0.0, 1.0], random.normal(size=3))
        molecule.positions += random.random(3) @ framework.cell.array - molecule.get_center_of_mass()
        if closest_distance(molecule.positions, framework.positions, framework.cell.array) >= MINIMUM_DISTANCE:
            found.append(framework + molecule)
    return found


def interactions(calculator: Any, framework: Any, gas: Any, loaded: list[Any]) -> np.ndarray:
    """Return the interaction energies in eV."""

    def energy(atoms: Any) -> float:
        atoms = atoms.copy()
        atoms.calc = calculator
        return float(atoms.get_potential_energy())

    apart = energy(framework) + energy(gas)
    return np.array([energy(atoms) - apart for atoms in loaded])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pk", type=int)
    parser.add_argument("--trials", type=int, default=2000, help="random places")
    given = parser.parse_args()
    from aiida import load_profile, orm
    from ase.build import molecule
    from mace.calculators import MACECalculator
    from tblite.ase import TBLite

    load_profile()
    node = orm.load_node(given.pk)
    framework, temperature = node.inputs.structure.get_ase(), node.outputs.isotherm["temperature_K"]
    gas = molecule("CO2", cell=framework.cell, pbc=True)
    loaded = placed(framework, gas, given.trials, 0)
    calculators: dict[str, Any] = {"GFN1-xTB": TBLite(method="GFN1-xTB", verbosity=0)}
    with tempfile.TemporaryDirectory() as folder:
        for name, model in sorted(node.outputs.models.items()):
            path = Path(folder) / f"{name}.model"
            path.write_bytes(model.base.repository.get_object_content("model.model", "rb"))
            calculators[name] = MACECalculator(str(path), device="cpu", default_dtype="float64")
    beta = 1.0 / (units.kB * temperature)
    filling = beta * PRESSURE * framework.get_volume() * units.Pascal
    print(f"{platform.machine()}, {os.cpu_count()} cores; {len(loaded)} of {given.trials} places without overlap")
    print(f"{'':10}  lowest / eV  per cell at {PRESSURE:g} Pa (Henry's law)  off GFN1-xTB, best 20 places / eV  CPU s")
    labels, best = np.array([]), np.arange(0)
    for name, calculator in calculators.items():
        started = time.process_time()
        energies = interactions(calculator, framework, gas, loaded)
        if not labels.size:
            labels, best = energies, np.argsort(energies)[:20]
        factors = np.zeros(given.trials)
        factors[: len(energies)] = np.exp(-beta * energies)
        error = factors.std() / np.sqrt(given.trials)
        off = np.sqrt(np.mean((energies - labels)[best] ** 2))
        print(
            f"{name:10}  {energies.min():11.3f}  {filling * factors.mean():18.3f} ± {filling * error:.3f}"
            f"{off:37.3f}  {time.process_time() - started:5.0f}"
        )


if __name__ == "__main__":
    main()
