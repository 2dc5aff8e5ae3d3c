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
from .statistics import FEWEST_EFFECTIVE_SAMPLES, jackknife, statistical_inefficiency

__all__ = ["WidomAverages", "WidomInsertion", "widom_averages"]

Array = NDArray[np.float64]


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

    def sample(self, state: MdState, trials: int) -> tuple[float, float, float]:
        """Insert on trial, all that do not overlap in one call of the potential.

        :param state: framework, with whatever is in it
        :param trials: number of insertions
        :return: means over all trials of exp(-β ΔU), of (ΔU + u) exp(-β ΔU) in eV and of u in eV, the molecule's own
            energy in the ideal gas
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
        own = float(np.mean([molecule.energy for molecule in molecules]))
        if not free:
            return 0.0, 0.0, own
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
            factors, weighted = factors + factor, weighted + (change + molecule.energy) * factor
        return factors / trials, weighted / trials, own

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
    :param effective_samples: independent configurations that the factor is made of: of those whose factor is large
        beside the others', if these are fewer
    :param too_short: whether these are too few for mean and error to be relied on
    """

    factor: tuple[float, float]
    excess: tuple[float, float]
    heat: tuple[float, float]
    effective_samples: float
    too_short: bool


def widom_averages(
    factors: Array, weighted: Array, own: Array, energies: Array, temperature: float
) -> WidomAverages | None:
    """Average over configurations that follow the Boltzmann distribution of the framework (Widom, 1963).

    The heat is kT + ⟨u⟩ - [⟨(U + ΔU + u) exp(-β ΔU)⟩ / ⟨exp(-β ΔU)⟩ - ⟨U⟩] with the framework's energy U and the
    molecule's own u, so it also holds how each changes the other. Errors are a :func:`jackknife`.

    :param factors: mean of exp(-β ΔU) for each configuration, shape (n,)
    :param weighted: mean of (ΔU + u) exp(-β ΔU) in eV, shape (n,)
    :param own: mean of u of all molecules in eV, shape (n,)
    :param energies: U in eV, shape (n,)
    :param temperature: in K
    :return: None if nothing could be inserted, or the series is too short for an error
    """
    if not len(factors):
        return None
    thermal, framework = units.kB * temperature, energies - energies.mean()

    def averages(kept: NDArray[np.bool_]) -> Array | None:
        factor, energy = factors[kept].mean(), (weighted + framework * factors)[kept].mean()
        if not factor > 0.0:
            return None
        heat = thermal + own[kept].mean() - energy / factor + framework[kept].mean()
        return np.array([factor, -thermal * np.log(factor), heat])

    inefficiency = statistical_inefficiency(factors)
    found = jackknife(averages, len(factors), inefficiency)
    if found is None:
        return None
    factor, excess, heat = zip(*(each.tolist() for each in found), strict=True)
    # Kish's number of samples: one value that makes most of the mean is one sample.
    contributing = float(factors.sum() ** 2 / np.square(factors).sum())
    effective = min(len(factors) / inefficiency, contributing)
    return WidomAverages(factor, excess, heat, effective, effective < FEWEST_EFFECTIVE_SAMPLES)
