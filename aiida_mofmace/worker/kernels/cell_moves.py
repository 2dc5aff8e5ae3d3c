"""Monte Carlo moves of the cell at constant pressure: its size, its edges, or its whole shape."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .dynamics import MdState
from .exchange import MoveCounts
from .geometry import cell_heights, cell_volume
from .model import Configuration, Potential

__all__ = ["CELL_SHAPES", "CellMoves"]

Array = NDArray[np.float64]
CELL_SHAPES = ("none", "isotropic", "anisotropic", "full")
_TO_SHEAR = math.sqrt(0.5)  # so that a strain is as long as the vector of its six components


@dataclass
class CellMoves:
    """Attempts strains of the cell, by Metropolis' rule in the ensemble of constant pressure.

    The atoms of the framework and the molecules' centres of mass keep their fractional coordinates; molecules keep
    their shape and orientation, all atoms their momenta. With n such points, the change of a cell of volume V to V' is
    accepted with min{1, exp[-β(ΔU + P ΔV) + (n + 1) ln(V'/V)]}, where strains are drawn uniformly in their logarithm
    (Frenkel and Smit, Understanding Molecular Simulation, ch. 5; docs/topics/physics.md for the shape of the cell).

    :param shape: isotropic changes the volume alone, anisotropic the lengths of the three lattice vectors, full all
        six components of the strain
    :param pressure: in eV/Å³
    :param thermal: kT in eV
    :param largest_strain: length of the longest strain that is tried (root of the sum of its squared components)
    :param smallest_height: in Å; a cell with two faces nearer than this is refused
    :param largest_change: relative change of the volume since the start at which a run is to end
    :param start: lattice vectors at the start as rows in Å, which say how the cell is oriented, shape (3, 3)
    :param potential: energies, the one of the dynamics
    :param rng: source of random numbers
    :param counts: what became of the moves; ``overlap`` counts those refused for the smallest height
    """

    shape: str
    pressure: float
    thermal: float
    largest_strain: float
    smallest_height: float
    largest_change: float
    start: Array
    potential: Potential
    rng: np.random.Generator
    counts: MoveCounts = field(default_factory=MoveCounts)

    def attempt(self, state: MdState) -> bool:
        """Attempt one move; if it is accepted, the forces of the state are still to be evaluated.

        :return: whether it was accepted
        """
        self.counts.attempted += 1
        strained = self.propose(state.cell)
        if cell_heights(strained).min() < self.smallest_height:
            self.counts.overlap += 1
            return False
        turn = self._turn(strained) if self.shape == "full" else np.eye(3)
        cell, positions = strained @ turn, _carried_along(state, strained) @ turn
        self.counts.evaluated += 1
        trial = Configuration(state.numbers, positions, cell)
        energy = self.potential.evaluate([trial], forces=False)[0].interaction_energy
        if not math.isfinite(energy):
            self.counts.holes += 1
            return False
        points = state.framework_atoms + state.loading
        before, after = cell_volume(state.cell), cell_volume(cell)
        work = energy - state.energy + self.pressure * (after - before)
        logarithm = (points + 1) * math.log(after / before) - work / self.thermal
        if self.rng.random() >= math.exp(min(0.0, logarithm)):
            return False
        self.counts.accepted += 1
        state.cell, state.positions, state.energy = cell, positions, energy
        state.momenta = state.momenta @ turn
        return True

    def propose(self, cell: Array) -> Array:
        """Draw a strained cell; a strain and its reverse are equally probable.

        :param cell: lattice vectors as rows in Å, shape (3, 3)
        """
        from scipy.linalg import expm

        size = {"isotropic": 1, "anisotropic": 3, "full": 6}[self.shape]
        direction = self.rng.standard_normal(size)
        strain = self.rng.random() * self.largest_strain * direction / np.linalg.norm(direction)
        if self.shape == "isotropic":
            return np.asarray(math.exp(strain[0] / math.sqrt(3.0)) * cell)
        if self.shape == "anisotropic":
            return np.asarray(np.exp(strain)[:, None] * cell)
        xy, xz, yz = _TO_SHEAR * strain[3:]
        return np.asarray(cell @ expm(np.array([[strain[0], xy, xz], [xy, strain[1], yz], [xz, yz, strain[2]]])))

    def _turn(self, cell: Array) -> Array:
        """Rotation after which the cell is the one of the start with a symmetric strain, so that no crystal turns."""
        from scipy.linalg import polar

        rotation, _ = polar(np.linalg.inv(self.start) @ cell, side="left")
        return np.asarray(rotation.T)

    def outgrown(self, state: MdState) -> dict[str, Any] | None:
        """Say whether the volume has changed too much since the start."""
        ratio = cell_volume(state.cell) / cell_volume(self.start)
        if abs(ratio - 1.0) <= self.largest_change:
            return None
        return {"reason": "volume", "step": state.step, "value": ratio, "limit": self.largest_change}


def _carried_along(state: MdState, cell: Array) -> Array:
    """Positions in another cell: framework atoms and centres of mass with their fractional coordinates, shape (n, 3).

    :param cell: lattice vectors as rows in Å, shape (3, 3)
    """
    strain = np.linalg.inv(state.cell) @ cell
    positions = state.positions.copy()
    positions[: state.framework_atoms] = positions[: state.framework_atoms] @ strain
    for kind, (count, size) in enumerate(zip(state.counts.tolist(), state.sizes.tolist(), strict=True)):
        block = slice(state.atoms_of(kind, 0).start, state.atoms_of(kind, count).start)
        molecules = positions[block].reshape(count, size, 3)
        masses = state.masses[block].reshape(count, size, 1)
        centres = (masses * molecules).sum(axis=1, keepdims=True) / masses.sum(axis=1, keepdims=True)
        positions[block] = (molecules + centres @ (strain - np.eye(3))).reshape(-1, 3)
    return np.asarray(positions)
