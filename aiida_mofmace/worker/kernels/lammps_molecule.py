"""The molecule file of LAMMPS (manual, command "molecule"): what ``fix gcmc`` inserts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WorkerError
from .gases import Gas

__all__ = ["molecule_file", "read_molecule", "types_with_gas"]

_SECTIONS = ("Coords", "Types")


def types_with_gas(framework: NDArray[np.int64], gas: Gas, loading: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return LAMMPS's types of a loaded framework: the molecule's atoms have their own, each another.

    :param framework: atomic numbers, shape (n,)
    :param gas: the molecule
    :param loading: molecules behind the framework
    :return: atomic number of each type; type of each atom, counted from zero
    """
    elements, types = np.unique(framework, return_inverse=True)
    own = len(elements) + np.arange(len(gas))
    return np.concatenate([elements, gas.numbers]), np.concatenate([types, np.tile(own, loading)])


def molecule_file(gas: Gas, first_type: int) -> str:
    """Return the file of a molecule whose atoms have the types from a certain one on, in turn.

    :param gas: the molecule
    :param first_type: of its first atom, counted from one
    """
    lines = ["# one molecule of the gas", "", f"{len(gas)} atoms", "", "Coords", ""]
    lines += [f"{i} " + " ".join(repr(float(v)) for v in x) for i, x in enumerate(gas.positions, start=1)]
    lines += ["", "Types", "", *(f"{i + 1} {first_type + i}" for i in range(len(gas)))]
    return "\n".join(lines) + "\n"


def read_molecule(text: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return types, counted from one, shape (n,), and coordinates in Å, shape (n, 3), of a molecule file.

    :raises WorkerError: kind bad_input, if it has no coordinates, or types that are no numbers
    """
    rows: dict[str, list[list[str]]] = {name: [] for name in _SECTIONS}
    section: list[list[str]] | None = None
    for words in (line.partition("#")[0].split() for line in text.splitlines()[1:]):
        if words and words[0][0].isalpha():
            section = rows.get(words[0])
        elif words and section is not None:
            section.append(words[1:])
    try:
        types = _column(rows["Types"], int).reshape(-1)
        coordinates = _column(rows["Coords"], float).reshape(-1, 3)
    except ValueError as error:
        raise WorkerError("bad_input", f"the molecule file cannot be read: {error}") from error
    if not len(types) or len(types) != len(coordinates):
        raise WorkerError("bad_input", "the molecule file needs Coords and Types, a line of each for every atom")
    return types, coordinates


def _column(rows: list[list[str]], kind: Any) -> NDArray[Any]:
    return np.array([[kind(word) for word in row] for row in rows])
