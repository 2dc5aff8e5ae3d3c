"""From the snapshots of a RASPA run to molecules in fractional coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from ase.geometry import cellpar_to_cell
from numpy.typing import NDArray

__all__ = ["parse_raspa_movie"]

Array = NDArray[np.float64]


def parse_raspa_movie(text: str, symbols: Sequence[str] | None) -> list[Array]:
    """Read the molecules of one component from a file of PDB models.

    Sites that are no atoms of the molecule (such as the charge site of TIP4P) are left out; the atoms of each molecule
    are put into the order of the symbols.

    :param text: content of ``Movies/System_0/..._component_NAME_0.pdb``
    :param symbols: of the atoms of a molecule; None where a molecule is one site that stands for all of them
    :return: for each snapshot the fractional coordinates in RASPA's supercell, shape (n_molecules, n_atoms, 3)
    :raises ValueError: if the file is cut off or holds other molecules
    """
    snapshots = []
    for is_model, lines in groupby(text.splitlines(), key=lambda line: not line.startswith(("MODEL", "ENDMDL"))):
        if is_model:
            snapshots.append(_parse_model(list(lines), symbols))
    return snapshots


def _parse_model(lines: list[str], symbols: Sequence[str] | None) -> Array:
    box = next((line for line in lines if line.startswith("CRYST1")), None)
    if box is None:
        raise ValueError("a snapshot has no cell; is the file cut off?")
    cell = cellpar_to_cell([float(box[6 + 9 * i : 15 + 9 * i]) for i in range(3)] + _angles(box))
    atoms = [line for line in lines if line.startswith("ATOM")]
    places: Array = np.array([[float(line[30 + 8 * i : 38 + 8 * i]) for i in range(3)] for line in atoms]).reshape(
        -1, 3
    )
    if symbols is None:
        return np.asarray(places @ np.linalg.inv(cell))[:, None]
    names = [_element(line) for line in atoms]
    kept = [index for index, name in enumerate(names) if name in symbols]
    size = len(symbols)
    if len(kept) % size:
        raise ValueError(f"{len(kept)} atoms are no whole number of molecules of {size}")
    order: list[int] = []
    for start in range(0, len(kept), size):
        order += _in_order(kept[start : start + size], names, symbols)
    return np.asarray(places[order] @ np.linalg.inv(cell)).reshape(-1, size, 3)


def _angles(box: str) -> list[float]:
    return [float(box[33 + 7 * i : 40 + 7 * i]) for i in range(3)]


def _element(line: str) -> str:
    """Element of an atom: from its own column, else the letters its name begins with."""
    name = line[76:78].strip() or line[12:16].strip().split("_")[0].rstrip("0123456789")
    return name.capitalize()


def _in_order(atoms: list[int], names: list[str], symbols: Sequence[str]) -> list[int]:
    left = list(atoms)
    order = []
    for symbol in symbols:
        found = next((index for index in left if names[index] == symbol), None)
        if found is None:
            raise ValueError(f"a molecule of {[names[index] for index in atoms]} is no {list(symbols)}")
        left.remove(found)
        order.append(found)
    return order
