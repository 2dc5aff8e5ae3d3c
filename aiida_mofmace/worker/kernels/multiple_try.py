"""Multiple-try placement: many trial places of a molecule, weighed by a surrogate, one of them handed to the model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .surrogate import LennardJonesSurrogate, Surroundings

__all__ = ["MultipleTry", "log_bias"]

Array = NDArray[np.float64]


def log_bias(log_weights: Array, chosen: int) -> float:
    """Logarithm of what a biased choice among k trial places enters the acceptance with: ln[W / (k w_j)].

    :param log_weights: ln w of all k places, minus infinity for those that are never chosen, shape (k,)
    :param chosen: j
    """
    largest = float(log_weights.max())
    if largest == -math.inf:
        return math.inf
    total = largest + math.log(float(np.exp(log_weights - largest).sum()))
    return total - math.log(len(log_weights)) - float(log_weights[chosen])


@dataclass(frozen=True)
class MultipleTry:
    """Draws places uniformly in the cell and weighs them by exp(-β U_s), U_s the surrogate's energy of the molecule.

    Configurational bias with the whole molecule as the one segment (Frenkel and Smit, Understanding Molecular
    Simulation, ch. 13): whatever the weights are, the acceptance with :func:`log_bias` keeps detailed balance.

    :param trials: k, the places of each attempt
    :param surrogate: energy the places are weighed by; None weighs all that do not overlap the same
    :param thermal: kT in eV
    :param minimum_distance: in Å; a place closer than this to another atom has no weight
    :param rng: source of random numbers
    """

    trials: int
    surrogate: LennardJonesSurrogate | None
    thermal: float
    minimum_distance: float
    rng: np.random.Generator

    def choose(
        self, numbers: NDArray[np.int64], shape: Array, surroundings: Surroundings, cell: Array
    ) -> tuple[Array, float] | None:
        """Choose a place for a molecule that comes in.

        :param numbers: atomic numbers of the molecule, shape (n,)
        :param shape: its positions relative to its centre of mass in Å, shape (n, 3)
        :param surroundings: the atoms it comes to
        :param cell: lattice vectors as rows in Å
        :return: positions in Å and ln[W / (k w)] of the choice; None if every place overlaps
        """
        places = self.places(self.trials, shape, cell)
        log_weights = self.log_weights(numbers, places, surroundings)
        if not np.any(log_weights > -np.inf):
            return None
        share = np.cumsum(np.exp(log_weights - log_weights.max()))
        chosen = int(np.searchsorted(share, self.rng.random() * share[-1], side="right"))
        return places[chosen], log_bias(log_weights, chosen)

    def bias_of(
        self, numbers: NDArray[np.int64], positions: Array, shape: Array, surroundings: Surroundings, cell: Array
    ) -> float:
        """Return ln[W / (k w)] of the place that a molecule has, among k - 1 fresh ones.

        :param positions: of the molecule in Å, shape (n, 3)
        :param shape: the same relative to its centre of mass
        :param surroundings: the atoms that stay
        """
        places = np.concatenate([positions[None], self.places(self.trials - 1, shape, cell)])
        return log_bias(self.log_weights(numbers, places, surroundings), 0)

    def places(self, count: int, shape: Array, cell: Array) -> Array:
        """Draw places of a molecule: turned uniformly, its centre of mass anywhere in the cell; shape (count, n, 3)."""
        from scipy.spatial.transform import Rotation

        if count == 0:
            return np.empty((0, *shape.shape))
        turns = Rotation.from_quat(self.rng.standard_normal((count, 4))).as_matrix()
        return np.asarray(shape @ turns.transpose(0, 2, 1) + (self.rng.random((count, 3)) @ cell)[:, None])

    def log_weights(self, numbers: NDArray[np.int64], places: Array, surroundings: Surroundings) -> Array:
        """Logarithms of the weights, minus infinity where a place overlaps; shape (k,)."""
        weights = np.full(len(places), -np.inf)
        free = np.flatnonzero(surroundings.closest(places, self.minimum_distance) >= self.minimum_distance)
        weights[free] = 0.0
        if self.surrogate is not None and len(free):
            weights[free] = -self.surrogate.energies(numbers, places[free], surroundings) / self.thermal
        return weights

    @property
    def reach(self) -> float:
        """Distance in Å up to which the surroundings matter."""
        return max(self.minimum_distance, self.surrogate.cutoff if self.surrogate else 0.0)
