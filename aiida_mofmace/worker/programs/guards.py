"""Guards of hybrid MD-GCMC: energy that drifts between the exchanges, molecules and frameworks that fall apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from ..kernels.dynamics import MdState
from ..kernels.gases import Gas
from ..kernels.ideal_gas import LARGEST_STRETCH
from ..kernels.neighbour_search import short_distances

__all__ = ["DriftGuard", "broken_molecule", "detached_atom", "has_neighbour"]


@dataclass
class DriftGuard:
    """Watches the conserved energy over the pieces of dynamics between the moves, which change it as they please.

    :param limit: drift in eV per atom and ps that ends a run; None for none
    :param window: ps of dynamics over which it is measured
    :param begun: conserved energy in eV at the start of the present piece
    :param change: sum of the changes over the earlier pieces in this window, in eV per atom
    :param time: dynamics so far in this window, in ps
    """

    limit: float | None
    window: float
    begun: float = 0.0
    change: float = 0.0
    time: float = 0.0

    def end_piece(self, energy: float, time: float, atoms: int, step: int) -> dict[str, Any] | None:
        """End one piece of dynamics, and say whether the window it completes is beyond the limit.

        :param energy: conserved energy in eV
        :param time: length of the piece in ps
        :param atoms: in the cell
        :param step: at its end
        """
        self.change += (energy - self.begun) / atoms
        self.time += time
        if self.time < self.window:
            return None
        drift, self.change, self.time = self.change / self.time, 0.0, 0.0
        if self.limit is None or abs(drift) <= self.limit:
            return None
        return {"reason": "drift", "step": step, "value": drift, "limit": self.limit}

    def to_dict(self) -> dict[str, float]:
        """Return what a restart needs."""
        return {"begun": self.begun, "change": self.change, "time": self.time}


def broken_molecule(state: MdState, gases: Sequence[Gas]) -> dict[str, Any] | None:
    """Say which molecule has an atom that escaped from it: a pair far beyond its distance at equilibrium."""
    for kind, gas in enumerate(gases):
        block = slice(state.atoms_of(kind, 0).start, state.atoms_of(kind, int(state.counts[kind])).start)
        molecules = state.positions[block].reshape(-1, len(gas), 3)
        first, second = np.triu_indices(len(gas), k=1)
        if molecules.size == 0 or len(first) == 0:
            continue
        reference = np.linalg.norm(gas.positions[first] - gas.positions[second], axis=1)
        stretch = float((np.linalg.norm(molecules[:, first] - molecules[:, second], axis=2) / reference).max())
        if not stretch < LARGEST_STRETCH:
            return {"reason": "escape", "step": state.step, "value": stretch, "limit": LARGEST_STRETCH}
    return None


def detached_atom(state: MdState, bonded: NDArray[np.bool_], longest: float | None) -> dict[str, Any] | None:
    """Say whether an atom of the framework has lost all its neighbours there.

    :param state: after a step
    :param bonded: which atoms of the framework had one at the start, shape (framework atoms,)
    :param longest: bond in sums of covalent radii; None to look for none
    """
    if longest is None:
        return None
    lost = np.flatnonzero(bonded & ~has_neighbour(state, longest))
    if len(lost) == 0:
        return None
    return {"reason": "detachment", "step": state.step, "value": int(lost[0]), "limit": longest}


def has_neighbour(state: MdState, longest: float) -> NDArray[np.bool_]:
    """Return which atoms of the framework have a neighbour there.

    :param longest: bond in sums of covalent radii
    :return: shape (framework atoms,)
    """
    numbers, positions = state.numbers[: state.framework_atoms], state.positions[: state.framework_atoms]
    radii = covalent_radii[numbers]
    first, second, distances = short_distances(positions, state.cell, 2.0 * longest * float(radii.max()))
    close = distances <= longest * (radii[first] + radii[second])
    return np.asarray(np.bincount(first[close], minlength=len(numbers)) > 0)
