"""A flexible diatomic in a framework that strains it, with exact averages."""

from __future__ import annotations

from typing import Any

import numpy as np

from aiida_mofmace.worker.kernels.model import Evaluation

from .engine_fixtures import Array, thermal


class Stretching:
    """Pairs of nitrogen atoms on springs, whose bonds the framework pulls apart wherever they are.

    :param spring: in eV/Å²
    :param pull: in eV/Å
    :param depth: in eV
    """

    r_max, length = 3.0, 1.1

    def __init__(self, spring: float, pull: float, depth: float):
        self.spring, self.pull, self.depth = spring, pull, depth

    def evaluate(self, configurations: Any, forces: bool = True) -> list[Evaluation]:
        return [self._evaluate(np.asarray(c.numbers), np.asarray(c.positions)) for c in configurations]

    def _evaluate(self, numbers: Any, positions: Any) -> Evaluation:
        has_framework, gas = bool((numbers != 7).any()), np.flatnonzero(numbers == 7).reshape(-1, 2)
        bonds = positions[gas[:, 1]] - positions[gas[:, 0]]
        lengths = np.linalg.norm(bonds, axis=1)
        own, met = self.energies(lengths)
        slopes = self.spring * (lengths - self.length) - self.pull * has_framework
        pulls = (slopes / lengths)[:, None] * bonds
        forces = np.zeros_like(positions)
        forces[gas[:, 0]], forces[gas[:, 1]] = pulls, -pulls
        return Evaluation(float(own.sum() + has_framework * met.sum()), forces=forces)

    def energies(self, lengths: Any) -> tuple[Any, Any]:
        """Energy of a bond alone, and what the framework adds."""
        stretch = lengths - self.length
        return 0.5 * self.spring * stretch**2, -self.depth - self.pull * stretch

    def length_distribution(self, temperature: float, adsorbed: bool) -> tuple[Array, Array]:
        """Lengths of a bond in Å and how probable they are, in the framework or alone."""
        lengths = np.linspace(0.01, 3.0, 100001)
        own, met = self.energies(lengths)
        weights = lengths**2 * np.exp(-(own + adsorbed * met) / thermal(temperature))
        return lengths, weights / weights.sum()

    def exact_heat(self, temperature: float) -> tuple[float, float]:
        """Heat at infinite dilution, and the part of it that is the molecule's own strain."""
        (lengths, alone), (_, adsorbed) = (self.length_distribution(temperature, which) for which in (False, True))
        own, met = self.energies(lengths)
        strain = float(own @ adsorbed - own @ alone)
        return thermal(temperature) - strain - float(met @ adsorbed), strain


N2 = {
    "name": "N2",
    "symbols": ["N", "N"],
    "positions": [[0.0, 0.0, 0.0], [0.0, 0.0, Stretching.length]],
    "linear": True,
    "critical_temperature": 126.2,
    "critical_pressure": 3.4e6,
    "acentric_factor": 0.04,
    "source": "",
}
