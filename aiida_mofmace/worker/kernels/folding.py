"""From a large simulation cell of a rigid framework to cells of the size that can be labelled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from .geometry import closest_distance

__all__ = ["fold_snapshot"]

Array = NDArray[np.float64]


def _whole(molecules: Array) -> Array:
    """Put the atoms of each molecule beside its first one; fractional coordinates of the large cell."""
    offsets = molecules - molecules[:, :1]
    return np.asarray(molecules[:, :1] + offsets - np.round(offsets))


def _clashes(molecules: Array, framework: Array, cell: Array, minimum_distance: float) -> bool:
    for index, molecule in enumerate(molecules):
        others = np.concatenate([framework, molecules[index + 1 :].reshape(-1, 3)])
        if float(closest_distance(molecule, others, cell)) < minimum_distance:
            return True
    return False


def fold_snapshot(
    framework: Atoms, symbols: Sequence[str], molecules: Array, repeats: Sequence[int], minimum_distance: float
) -> list[Atoms]:
    """Cut a snapshot into its unit cells, each with the molecules whose first atom lies in it.

    Each cell is continued periodically by itself and not by its neighbours; where that brings molecules too close
    to one another the cell is left out. The framework is rigid, so it fits by construction.

    :param framework: one unit cell
    :param symbols: of the atoms of a molecule
    :param molecules: fractional coordinates in the large cell, shape (n_molecules, n_atoms, 3)
    :param repeats: unit cells along each lattice vector in the large cell
    :param minimum_distance: smallest allowed distance in Å between atoms that are not of one molecule
    :return: framework atoms followed by the molecules; ``info`` holds framework_atoms and loading
    """
    counts = np.asarray(repeats)
    cell = np.asarray(framework.cell.array)
    whole = _whole(molecules) * counts
    homes = np.floor(whole[:, 0]).astype(int)
    found = []
    for home in np.ndindex(*counts):
        inside = np.all(homes % counts == home, axis=1)
        places = (whole[inside] - homes[inside][:, None]) @ cell
        if _clashes(places, framework.positions, cell, minimum_distance):
            continue
        atoms = Atoms(framework.numbers, framework.positions, cell=framework.cell, pbc=True)
        atoms += Atoms(list(symbols) * len(places), places.reshape(-1, 3))
        atoms.info = {"framework_atoms": len(framework), "loading": len(places)}
        found.append(atoms)
    return found
