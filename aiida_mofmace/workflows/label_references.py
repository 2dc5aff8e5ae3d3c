"""What stands beside the labels: a lone gas molecule, the binding energy of molecules in a pore, quick charges."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from aiida import orm
from aiida.engine import calcfunction
from ase import Atoms

from aiida_mofmace.data.charged_cif import charged_cif
from aiida_mofmace.data.label import DftLabelData
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.thermodynamics import kilojoule_per_mole

__all__ = ["binding_energy", "equilibrated_charges", "lone_molecule"]


@calcfunction
def lone_molecule(gas: orm.Dict, cell: orm.List) -> orm.StructureData:
    """Return one gas molecule in the middle of a periodic cell, to be labelled as a reference.

    The cell of the framework makes errors of the grid and of the images cancel in a binding energy; a large cube gives
    the molecule of the gas phase.

    :param gas: description of the gas, from :func:`~aiida_mofmace.workflows.inputs.gas_node`
    :param cell: three lattice vectors in Å, or one number for a cube
    """
    molecule = Gas.from_dict(gas.get_dict())
    vectors = np.array(cell.get_list(), dtype=float)
    vectors = np.eye(3) * vectors[0] if vectors.size == 1 else vectors.reshape(3, 3)
    atoms = Atoms(molecule.numbers, molecule.positions, cell=vectors, pbc=True)
    atoms.positions += vectors.sum(axis=0) / 2 - atoms.positions.mean(axis=0)
    return orm.StructureData(ase=atoms)


@calcfunction
def binding_energy(loaded: DftLabelData, framework: DftLabelData, molecule: DftLabelData) -> orm.Dict:
    """Return the energy that molecules gain in a pore, of these very geometries, for each molecule.

    E = [E(loaded) - E(framework) - n E(molecule)] / n, below zero where they bind. Nothing is relaxed here: of relaxed
    labels it is the binding energy of the paper's table 1.

    :param loaded: label of the framework with n molecules
    :param framework: label of the empty framework
    :param molecule: label of one molecule alone
    :return: n_molecules, energy_eV, energy_kJ_per_mol, and level_of_theory, the name
    :raises ValueError: if the levels of theory differ, or the atoms do not add up
    """
    hashes = {label.level_of_theory["hash"] for label in (loaded, framework, molecule)}
    if len(hashes) > 1:
        raise ValueError("the three labels are of different levels of theory; label all at the same one")
    gained = Counter(loaded.symbols)
    gained.subtract(framework.symbols)
    number, rest = divmod(sum(gained.values()), molecule.n_atoms)
    if rest or number < 1 or gained != Counter({s: number * n for s, n in Counter(molecule.symbols).items()}):
        raise ValueError(f"{loaded.formula} is not {framework.formula} with molecules of {molecule.formula}")
    energy = (loaded.energy - framework.energy - number * molecule.energy) / number
    return orm.Dict(
        {
            "n_molecules": number,
            "energy_eV": energy,
            "energy_kJ_per_mol": kilojoule_per_mole(energy),
            "level_of_theory": loaded.level_of_theory["name"],
        }
    )


@calcfunction
def equilibrated_charges(structure: orm.StructureData) -> orm.List:
    """Return charges by extended charge equilibration, in a second and without a density functional.

    EQeq of Wilmer, Kim and Snurr, J. Phys. Chem. Lett. 2012, 3, 2506, by the package pyeqeq with its own parameters. A
    first look only: on MIL-120 they differ from REPEAT charges by 0.2 e on average.

    :param structure: periodic structure
    :return: charge of each atom in e, in the structure's order
    :raises ImportError: if pyeqeq is not installed
    """
    try:
        from pyeqeq import run_on_cif
    except ImportError as error:
        raise ImportError(
            f"these charges need the package pyeqeq, which cannot be imported ({error}): install it with "
            "`pip install pybind11 setuptools` and `pip install --no-build-isolation pyeqeq`"
        ) from error

    with TemporaryDirectory() as folder:
        file = Path(folder) / "structure.cif"
        file.write_text(charged_cif(structure, [0.0] * len(structure.sites)), encoding="utf-8")
        charges: list[float] = run_on_cif(str(file), verbose=False)
    return orm.List(charges)
