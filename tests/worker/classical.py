"""A classical force field for comparisons with other codes: UFF framework, TraPPE CO2, Ewald sums. Rigid throughout."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms, units
from scipy.special import erf, erfc

from aiida_mofmace.worker.kernels.geometry import minimum_image
from aiida_mofmace.worker.kernels.model import Evaluation

from .engine_fixtures import Array

COULOMB = 14.399645  # eV Å / e²
#: Well depth in K and diameter in Å of the framework: Rappé et al., J. Am. Chem. Soc. 114, 10024 (1992).
UFF = {"Al": (254.126, 4.00815), "O": (30.193, 3.11815), "C": (52.838, 3.43085), "H": (22.142, 2.57113)}
#: The same of CO2: Potoff and Siepmann, AIChE J. 47, 1676 (2001).
TRAPPE = {"C": (27.0, 2.80), "O": (79.0, 3.05)}
GAS_CHARGES = np.array([0.70, -0.35, -0.35])
#: Charges of the framework by element in e, neutral for Al4H10C10O16; round numbers, for comparisons only.
CHARGES = {"Al": 1.6, "O": -0.7, "C": 0.28, "H": 0.2}


class ClassicalPotential:
    """Energy of rigid CO2 in a rigid framework, truncated Lennard-Jones (Lorentz and Berthelot) and Ewald sums.

    Framework and molecules have no energy of their own, as in the grand-canonical codes this is compared with.

    :param framework: its cell must be wider than twice the cut-off
    :param cutoff: of Lennard-Jones and of the real part of the Ewald sum in Å
    :param precision: of the Ewald sum, relative
    """

    def __init__(self, framework: Atoms, cutoff: float, precision: float = 1e-7):
        self.cell, self.r_max, self.n = framework.cell.array, cutoff, len(framework)
        self.positions = framework.positions.copy()
        symbols = framework.get_chemical_symbols()
        self.charges = np.array([CHARGES[s] for s in symbols])
        depths = np.array([UFF[s][0] for s in symbols])
        diameters = np.array([UFF[s][1] for s in symbols])
        gas = np.array([TRAPPE[s] for s in ("C", "O", "O")])
        self.host = np.sqrt(gas[:, :1] * depths) * units.kB, (gas[:, 1:] + diameters) / 2
        self.guest = np.sqrt(np.outer(gas[:, 0], gas[:, 0])) * units.kB, (gas[:, 1:] + gas[:, 1]) / 2
        self.alpha = np.sqrt(-np.log(precision)) / cutoff
        self._make_waves(precision)
        self._known: dict[bytes, tuple[float, Array]] = {}

    def _make_waves(self, precision: float) -> None:
        """Reciprocal vectors and their weights; half of them, for the others are the complex conjugates."""
        reciprocal = 2 * np.pi * np.linalg.inv(self.cell).T
        longest = 2 * self.alpha * np.sqrt(-np.log(precision))
        limits = np.ceil(longest / (2 * np.pi) * np.linalg.norm(self.cell, axis=1)).astype(int)
        indices = np.array(list(itertools.product(*(range(-m, m + 1) for m in limits))))
        indices = indices[[tuple(i) > (0, 0, 0) for i in indices.tolist()]]
        waves = indices @ reciprocal
        squares = (waves**2).sum(axis=1)
        keep = squares < longest**2
        self.waves = waves[keep]
        volume = abs(np.linalg.det(self.cell))
        weights = 2 * np.pi / volume * np.exp(-squares[keep] / (4 * self.alpha**2)) / squares[keep]
        self.weights = 2 * COULOMB * weights
        self.framework_factor = np.exp(1j * self.positions @ self.waves.T).T @ self.charges

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        return [self._evaluate(np.asarray(c.positions), len(c.numbers)) for c in configurations]

    def _evaluate(self, positions: Array, atoms: int) -> Evaluation:
        forces = np.zeros((atoms, 3))
        if atoms <= self.n:  # the empty framework, or a molecule alone
            return Evaluation(0.0, forces=forces)
        molecules = positions[self.n :].reshape(-1, 3, 3)
        if len(self._known) > 20000:
            self._known.clear()
        own = [self._molecule(molecule) for molecule in molecules]
        total = self.framework_factor + sum(factor for _, factor in own)
        waves = float(self.weights @ (abs(total) ** 2 - abs(self.framework_factor) ** 2))
        return Evaluation(sum(energy for energy, _ in own) + waves + self._pairs(molecules), forces=forces)

    def _molecule(self, molecule: Array) -> tuple[float, Array]:
        """Energy with the framework in real space less that with itself, and structure factor."""
        key = molecule.tobytes()
        if key not in self._known:
            vectors = minimum_image(molecule[:, None] - self.positions, self.cell)
            energy = self._real(np.linalg.norm(vectors, axis=-1), *self.host, np.outer(GAS_CHARGES, self.charges))
            energy -= COULOMB * self.alpha / np.sqrt(np.pi) * float((GAS_CHARGES**2).sum())
            first, second = np.triu_indices(3, k=1)
            bonds = np.linalg.norm(molecule[first] - molecule[second], axis=1)
            products = GAS_CHARGES[first] * GAS_CHARGES[second]
            energy -= COULOMB * float((products * erf(self.alpha * bonds) / bonds).sum())
            self._known[key] = energy, np.exp(1j * molecule @ self.waves.T).T @ GAS_CHARGES
        return self._known[key]

    def _pairs(self, molecules: Array) -> float:
        """Energy between molecules in real space."""
        first, second = np.triu_indices(len(molecules), k=1)
        if len(first) == 0:
            return 0.0
        vectors = minimum_image(molecules[first][:, :, None] - molecules[second][:, None], self.cell)
        return self._real(np.linalg.norm(vectors, axis=-1), *self.guest, np.outer(GAS_CHARGES, GAS_CHARGES))

    def _real(self, distances: Array, depths: Array, diameters: Array, products: Array) -> float:
        """Lennard-Jones and the screened Coulomb part within the cut-off."""
        close = distances < self.r_max
        depths, diameters, products = (
            np.broadcast_to(a, distances.shape)[close] for a in (depths, diameters, products)
        )
        r = distances[close]
        sixth = (diameters / r) ** 6
        coulomb = COULOMB * products * erfc(self.alpha * r) / r
        return float((4 * depths * (sixth**2 - sixth) + coulomb).sum())
