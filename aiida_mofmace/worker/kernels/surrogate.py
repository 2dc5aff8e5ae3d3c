"""A cheap classical energy of a molecule in its surroundings, to choose trial places by; never part of a result."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import units
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from ..errors import WorkerError
from .geometry import cell_heights

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

__all__ = ["LennardJonesSurrogate", "Surroundings"]

Array = NDArray[np.float64]


class Surroundings:
    """Atoms with those of their periodic images that lie around the cell; searched in time linear in the atoms.

    :param numbers: atomic numbers, shape (m,)
    :param positions: in Å, wrapped or not, shape (m, 3)
    :param cell: lattice vectors as rows in Å, shape (3, 3)
    :param reach: largest distance in Å that is asked for
    """

    def __init__(self, numbers: NDArray[np.int64], positions: Array, cell: Array, reach: float):
        from scipy.spatial import cKDTree

        self._cell, self._inverse = cell, np.linalg.inv(cell)
        margin = reach / cell_heights(cell) + 1e-9
        fractional = positions @ self._inverse
        fractional = fractional - np.floor(fractional)
        shifts = np.array(list(itertools.product(*(range(-n, n + 1) for n in np.ceil(margin).astype(int)))))
        images = fractional + shifts[:, None]
        kept = np.all((images > -margin) & (images < 1.0 + margin), axis=-1)
        self.numbers = np.broadcast_to(numbers, kept.shape)[kept]
        self._tree: cKDTree = cKDTree(images[kept] @ cell)

    def _wrapped(self, points: Array) -> Array:
        fractional = points.reshape(-1, 3) @ self._inverse
        return np.asarray((fractional - np.floor(fractional)) @ self._cell)

    def closest(self, places: Array, limit: float) -> Array:
        """Shortest distance in Å between each group of points and an atom; infinite beyond the limit.

        :param places: in Å, shape (k, n, 3)
        :param limit: in Å, at most the reach
        :return: shape (k,)
        """
        distances, _ = self._tree.query(self._wrapped(places), distance_upper_bound=limit)
        return np.asarray(distances.reshape(places.shape[:2]).min(axis=1))

    def pairs(self, points: Array, cutoff: float) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
        """Points and atoms nearer to each other than a cut-off.

        :param points: in Å, shape (n, 3)
        :param cutoff: in Å, at most the reach
        :return: indices of the points, atomic numbers, distances in Å; shape (pairs,) each
        """
        from scipy.spatial import cKDTree

        found = cKDTree(self._wrapped(points)).sparse_distance_matrix(self._tree, cutoff, output_type="ndarray")
        return found["i"], self.numbers[found["j"]], np.maximum(found["v"], 1e-3)


@dataclass(frozen=True, eq=False)
class LennardJonesSurrogate:
    """Lennard-Jones energy between a molecule and the atoms around it, truncated, mixed by Lorentz and Berthelot.

    The ceiling keeps every place within reach of exchange, should the model like what the surrogate does not.

    :param depths: of the wells in eV by atomic number, shape (119,); not a number where unknown
    :param diameters: in Å by atomic number, shape (119,)
    :param cutoff: in Å
    :param ceiling: largest energy of a molecule in eV
    """

    depths: Array
    diameters: Array
    cutoff: float
    ceiling: float

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> LennardJonesSurrogate:
        """Build a surrogate from its description.

        :param description: ``cutoff`` (Å), ``ceiling`` (eV), ``diameter_scale``, and ``parameters``: depth of the well
            (K) and diameter (Å) by element
        :raises WorkerError: kind bad_input
        """
        depths, diameters = np.full((2, len(chemical_symbols)), np.nan)
        try:
            cutoff, ceiling, scale = (float(description[key]) for key in ("cutoff", "ceiling", "diameter_scale"))
            for symbol, (depth, diameter) in description["parameters"].items():
                number = atomic_numbers[symbol]
                depths[number], diameters[number] = float(depth) * units.kB, float(diameter) * scale
        except (KeyError, TypeError, ValueError) as error:
            raise WorkerError("bad_input", f"surrogate is not understood: {error!r}") from error
        if not (cutoff > 0 and scale > 0):
            raise WorkerError("bad_input", "cutoff and diameter_scale of the surrogate must be positive")
        return cls(depths, diameters, cutoff, ceiling)

    def require_elements(self, numbers: NDArray[np.int64]) -> None:
        """Refuse atoms without parameters.

        :raises WorkerError: kind bad_input, naming the elements
        """
        unknown = sorted({chemical_symbols[number] for number in numbers[np.isnan(self.depths[numbers])]})
        if unknown:
            raise WorkerError("bad_input", f"the surrogate has no parameters of {', '.join(unknown)}")

    def energies(self, numbers: NDArray[np.int64], places: Array, surroundings: Surroundings) -> Array:
        """Energies of a molecule in several places, in eV.

        :param numbers: atomic numbers of the molecule, shape (n,)
        :param places: its positions in Å, shape (k, n, 3)
        :param surroundings: all other atoms
        :return: shape (k,)
        """
        points, around, distances = surroundings.pairs(places.reshape(-1, 3), self.cutoff)
        own = np.tile(numbers, len(places))[points]
        sixth = ((self.diameters[own] + self.diameters[around]) / (2.0 * distances)) ** 6
        energies = 4.0 * np.sqrt(self.depths[own] * self.depths[around]) * (sixth**2 - sixth)
        sums = np.bincount(points // len(numbers), weights=energies, minlength=len(places))
        return np.minimum(sums, self.ceiling)
