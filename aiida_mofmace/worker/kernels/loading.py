"""Put gas molecules into the pores of a framework, at random and without overlap."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ..errors import WorkerError
from .gases import Gas
from .geometry import cell_heights, closest_distance, random_rotation

__all__ = ["largest_loading", "place_molecules"]

Array = NDArray[np.float64]
_BATCH = 64


def _find_place(
    occupied: Array, cell: Array, gas: Gas, *, distance: float, tries: int, rng: np.random.Generator
) -> Array:
    """Positions of one more molecule in Å, shape (n, 3); of shape (0, 3) if no trial was free of overlap."""
    for first in range(0, tries, _BATCH):
        size = min(_BATCH, tries - first)
        centres = rng.random((size, 3)) @ cell
        turned = np.array([gas.positions @ random_rotation(rng).T for _ in range(size)])
        trials = turned + centres[:, None]
        free = np.flatnonzero(closest_distance(trials, occupied, cell) >= distance)
        if len(free):
            return np.asarray(trials[free[0]])
    return np.zeros((0, 3))


def _fill(framework: Atoms, gas: Gas, *, limit: int, distance: float, tries: int, rng: np.random.Generator) -> Array:
    """Add molecules one by one until the limit is reached or no place is found.

    :return: positions of the molecules in Å, shape (molecules, n, 3)
    """
    cell = np.asarray(framework.cell.array)
    occupied = np.asarray(framework.positions)
    placed: list[Array] = []
    for _ in range(limit):
        molecule = _find_place(occupied, cell, gas, distance=distance, tries=tries, rng=rng)
        if len(molecule) == 0:
            break
        placed.append(molecule)
        occupied = np.concatenate([occupied, molecule])
    return np.array(placed).reshape(-1, len(gas), 3)


def _check(framework: Atoms, minimum_distance: float) -> None:
    if not framework.cell.rank == 3:
        raise WorkerError("bad_input", "the framework has no three-dimensional cell to put molecules into")
    half_height = float(cell_heights(np.asarray(framework.cell.array)).min()) / 2
    if not 0 <= minimum_distance < half_height:
        raise WorkerError(
            "bad_input", f"the minimum distance must lie between 0 and half the cell height, {half_height:.2f} Å"
        )


def place_molecules(
    framework: Atoms,
    gas: Gas,
    n: int,
    minimum_distance: float,
    rng: np.random.Generator,
    *,
    tries_per_molecule: int = 4096,
    restarts: int = 20,
) -> Atoms:
    """Insert ``n`` molecules by random sequential addition.

    Centres are uniform in the cell and orientations uniform in SO(3); a molecule stays where none of its atoms is
    closer than the minimum distance to the framework or to another molecule. If the pores fill up too early, all is
    begun again.

    :param framework: the empty framework, with a cell
    :param gas: the molecule, in its equilibrium geometry
    :param n: number of molecules
    :param minimum_distance: smallest allowed distance between atoms that are not of one molecule, in Å
    :param rng: source of random numbers
    :param tries_per_molecule: trial positions of each molecule
    :param restarts: how often to begin again
    :return: framework atoms followed by the molecules; ``info`` holds framework_atoms and loading
    :raises WorkerError: kind does_not_fit, with the largest number that did fit; bad_input for an impossible cell or
        distance
    """
    _check(framework, minimum_distance)
    best = 0
    for _ in range(1 + restarts):
        molecules = _fill(framework, gas, limit=n, distance=minimum_distance, tries=tries_per_molecule, rng=rng)
        best = max(best, len(molecules))
        if best >= n:
            loaded = Atoms(framework.numbers, framework.positions, cell=framework.cell, pbc=True)
            loaded += Atoms(np.tile(gas.numbers, n), molecules.reshape(-1, 3))
            loaded.info = {"framework_atoms": len(framework), "loading": n}
            return loaded
    raise WorkerError(
        "does_not_fit",
        f"{n} {gas.name} do not fit into the pores with {minimum_distance} Å between atoms; the most that did fit is "
        f"{best}: lower the loading or insertion_minimum_distance",
    )


def largest_loading(
    framework: Atoms,
    gas: Gas,
    minimum_distance: float,
    rng: np.random.Generator,
    *,
    limit: int = 1000,
    tries_per_molecule: int = 4096,
) -> int:
    """Return the number of molecules that random sequential addition brings into the pores.

    A lower bound of the densest packing: no molecule moves aside for another.

    :param framework: the empty framework, with a cell
    :param gas: the molecule, in its equilibrium geometry
    :param minimum_distance: smallest allowed distance between atoms that are not of one molecule, in Å
    :param rng: source of random numbers
    :param limit: stop at this number
    :param tries_per_molecule: trial positions of each molecule
    :raises WorkerError: kind bad_input for an impossible cell or distance
    """
    _check(framework, minimum_distance)
    return len(_fill(framework, gas, limit=limit, distance=minimum_distance, tries=tries_per_molecule, rng=rng))
