"""Relaxation of atoms in a potential by ASE's optimisers."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.optimize import LBFGS

from .model import Potential

__all__ = ["HeldAxis", "PotentialCalculator", "relax"]

_LONGEST_STEP = 0.05  # Å, of any atom


class PotentialCalculator(Calculator):  # type: ignore[misc]
    """A potential as ASE's optimisers want it; energies leave out those of the isolated atoms."""

    implemented_properties = ("energy", "forces")

    def __init__(self, potential: Potential):
        super().__init__()
        self._potential = potential

    def calculate(self, atoms: Atoms = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """Evaluate energy and forces."""
        super().calculate(atoms, properties, system_changes)
        evaluation = self._potential.evaluate([self.atoms])[0]
        self.results = {"energy": evaluation.interaction_energy, "forces": evaluation.forces}


class HeldAxis:
    """Keeps the direction from one atom to another; their distance, and all the rest, is free. A constraint of ASE.

    :param atoms: as they stand
    :param pair: indices of the two atoms
    """

    def __init__(self, atoms: Atoms, pair: tuple[int, int]):
        self._pair = pair
        along = atoms.positions[pair[1]] - atoms.positions[pair[0]]
        self._direction = along / np.linalg.norm(along)

    def _without_turning(self, first: Any, second: Any) -> Any:
        """Return half of what the difference of two vectors has across the direction."""
        difference = second - first
        return 0.5 * (difference - (difference @ self._direction) * self._direction)

    def adjust_positions(self, atoms: Atoms, new: Any) -> None:
        """Move both atoms back, by as much each."""
        i, j = self._pair
        across = self._without_turning(new[i], new[j])
        new[i] += across
        new[j] -= across

    def adjust_forces(self, atoms: Atoms, forces: Any) -> None:
        """Take out what would turn the pair."""
        self.adjust_positions(atoms, forces)

    def get_removed_dof(self, atoms: Atoms) -> int:
        """Return the number of degrees of freedom that are held."""
        return 2


def relax(atoms: Atoms, potential: Potential, largest_force: float, steps: int) -> tuple[float, float]:
    """Move atoms to a minimum of the energy in a fixed cell (L-BFGS).

    :param atoms: moved in place
    :param largest_force: in eV/Å at which it is done
    :param steps: most steps
    :return: energy without that of the isolated atoms in eV, and the largest force that is left in eV/Å
    """
    atoms.calc = PotentialCalculator(potential)
    LBFGS(atoms, maxstep=_LONGEST_STEP, logfile=None).run(fmax=largest_force, steps=steps)
    energy, forces = float(atoms.get_potential_energy()), atoms.get_forces()
    atoms.calc = None
    return energy, float(np.linalg.norm(forces, axis=1).max())
