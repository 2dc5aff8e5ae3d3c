"""Widom's test-particle insertion: excess chemical potential, Henry coefficient, heat at infinite dilution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from .dynamics import MdState
from .exchange import MOST_CANDIDATES, MoveCounts, MoveRules, place_at_random, with_molecule
from .gases import Gas
from .geometry import closest_distance
from .ideal_gas import Reservoir
from .model import Potential
from .statistics import statistical_inefficiency

__all__ = ["WidomAverages", "WidomInsertion", "widom_averages"]

Array = NDArray[np.float64]
_FEWEST_BLOCKS, _MOST_BLOCKS = 5, 20


@dataclass
class WidomInsertion:
    """Inserts molecules of the ideal gas on trial and takes them out again; the state never changes.

    :param gas: the molecule
    :param potential: energies, the one of the dynamics
    :param reservoir: geometries of inserted molecules
    :param rules: temperature, minimum distance and bound for holes; a trial they refuse counts as one of no weight
    :param rng: source of random numbers
    :param counts: what became of the trials; none is ever accepted
    :param candidates: configurations in which a hole was met, for active learning
    """

    gas: Gas
    potential: Potential
    reservoir: Reservoir
    rules: MoveRules
    rng: np.random.Generator
    counts: MoveCounts
    candidates: list[Atoms]

    def sample(self, state: MdState, trials: int) -> tuple[float, float]:
        """Insert on trial, all that do not overlap in one call of the potential.

        :param state: framework, with whatever is in it
        :param trials: number of insertions
        :return: means of exp(-β ΔU) and of ΔU exp(-β ΔU) in eV over all trials
        """
        molecules = [place_at_random(self.reservoir, state.cell, self.rng) for _ in range(trials)]
        free = [
            molecule
            for molecule in molecules
            if closest_distance(molecule.positions, state.positions, state.cell) >= self.rules.minimum_distance
        ]
        self.counts.attempted += trials
        self.counts.overlap += trials - len(free)
        self.counts.evaluated += len(free)
        if not free:
            return 0.0, 0.0
        configurations = [with_molecule(state, self.gas, molecule.positions, 0) for molecule in free]
        evaluations = self.potential.evaluate(configurations, forces=False)
        factors, weighted = 0.0, 0.0
        for molecule, configuration, evaluation in zip(free, configurations, evaluations, strict=True):
            change = evaluation.interaction_energy - state.energy - molecule.energy
            if not change >= self.rules.hole_bound:
                self.counts.holes += 1
                self._keep(state, Atoms(configuration.numbers, configuration.positions, cell=state.cell, pbc=True))
                continue
            factor = float(np.exp(-change / self.rules.thermal))
            factors, weighted = factors + factor, weighted + change * factor
        return factors / trials, weighted / trials

    def _keep(self, state: MdState, atoms: Atoms) -> None:
        if len(self.candidates) < MOST_CANDIDATES:
            atoms.info = {"step": state.step, "framework_atoms": state.framework_atoms, "loading": state.loading + 1}
            self.candidates.append(atoms)


@dataclass(frozen=True)
class WidomAverages:
    """Averages of test-particle insertions, each with its standard error.

    :param factor: ⟨exp(-β ΔU)⟩
    :param excess: excess chemical potential -kT ln⟨exp(-β ΔU)⟩ in eV
    :param heat: isosteric heat at infinite dilution in eV, positive for binding
    """

    factor: tuple[float, float]
    excess: tuple[float, float]
    heat: tuple[float, float]


def widom_averages(factors: Array, weighted: Array, energies: Array, temperature: float) -> WidomAverages | None:
    """Average over configurations that follow the Boltzmann distribution of the framework (Widom, 1963).

    The heat is kT - [⟨(U + ΔU) exp(-β ΔU)⟩ / ⟨exp(-β ΔU)⟩ - ⟨U⟩] with the framework's energy U, so it also holds how a
    molecule changes a flexible framework. Errors are a jackknife over blocks of at least one statistical inefficiency.

    :param factors: mean of exp(-β ΔU) for each configuration, shape (n,)
    :param weighted: mean of ΔU exp(-β ΔU) in eV, shape (n,)
    :param energies: U in eV, shape (n,)
    :param temperature: in K
    :return: None if nothing could be inserted, or the series is too short for an error
    """
    n_blocks = min(_MOST_BLOCKS, int(len(factors) / statistical_inefficiency(factors))) if len(factors) else 0
    if n_blocks < _FEWEST_BLOCKS or not factors.sum() > 0.0:
        return None
    block, thermal = np.arange(len(factors)) * n_blocks // len(factors), units.kB * temperature
    framework = energies - energies.mean()

    def averages(kept: NDArray[np.bool_]) -> Array:
        factor, energy = factors[kept].mean(), (weighted + framework * factors)[kept].mean()
        return np.array([factor, -thermal * np.log(factor), thermal - energy / factor + framework[kept].mean()])

    if any(not factors[block != i].sum() > 0.0 for i in range(n_blocks)):
        return None
    values = averages(np.ones(len(factors), dtype=bool))
    parts = np.array([averages(block != i) for i in range(n_blocks)])
    errors = np.sqrt((n_blocks - 1) * parts.var(axis=0))
    return WidomAverages(*zip(values.tolist(), errors.tolist(), strict=True))
