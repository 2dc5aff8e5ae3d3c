"""Grand-canonical exchange of molecules with an ideal-gas reservoir: trial moves and acceptance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from .dynamics import MdState, draw_momenta, remove_drift
from .gases import Gas
from .geometry import cell_volume, closest_distance, random_rotation
from .ideal_gas import Molecule, Reservoir, isolated
from .model import Configuration, Evaluation, Potential
from .multiple_try import MultipleTry
from .surrogate import Surroundings
from .thermodynamics import ideal_gas_number

__all__ = [
    "MOST_CANDIDATES",
    "Exchange",
    "MoveCounts",
    "MoveRules",
    "Species",
    "Trial",
    "deletion_acceptance",
    "insertion_acceptance",
    "place_at_random",
    "with_molecule",
]

Array = NDArray[np.float64]
MOST_CANDIDATES = 100  # frames kept for active learning; a hole that is met more often looks the same


def insertion_acceptance(number: float, loading: int, reduced_energy: float) -> float:
    """Probability min[1, β f V / (N + 1) exp(-β ΔU)] (Frenkel and Smit, Understanding Molecular Simulation, ch. 5).

    :param number: β f V, the number of ideal-gas molecules in the volume
    :param loading: N before the insertion
    :param reduced_energy: β ΔU, the molecule's own internal energy left out
    """
    # In this order the least of an energy that is no number is none either.
    return math.exp(min(math.log(number / (loading + 1)) - reduced_energy, 0.0))


def deletion_acceptance(number: float, loading: int, reduced_energy: float) -> float:
    """Probability min[1, N / (β f V) exp(-β ΔU)].

    :param number: β f V, the number of ideal-gas molecules in the volume
    :param loading: N before the deletion, at least 1
    :param reduced_energy: β ΔU, the molecule's own internal energy left out
    """
    return math.exp(min(math.log(loading / number) - reduced_energy, 0.0))


@dataclass(frozen=True)
class MoveRules:
    """What a trial is judged by.

    :param temperature: in K
    :param minimum_distance: in Å; a molecule closer than this to anything is neither inserted, deleted nor displaced
    :param hole_bound: in eV; an insertion that gains more is a hole of the model, neither way is gone
    :param max_loading: largest number of molecules of all kinds, None for no limit
    """

    temperature: float
    minimum_distance: float
    hole_bound: float
    max_loading: int | None = None

    @property
    def thermal(self) -> float:
        """Return kT in eV."""
        return float(units.kB * self.temperature)


@dataclass(frozen=True)
class Species:
    """One kind of molecule that is exchanged.

    :param gas: the molecule
    :param fugacity: in Pa
    :param reservoir: geometries of inserted molecules
    """

    gas: Gas
    fugacity: float
    reservoir: Reservoir


@dataclass
class MoveCounts:
    """What became of the trials of one kind.

    :param attempted: all trials
    :param overlap: refused for the minimum distance; no energy is evaluated but that of a deletion, in search of holes
    :param evaluated: trials whose energy decided
    :param holes: refused because the model has a hole there, of a deletion whatever the distances
    :param accepted: trials accepted
    """

    attempted: int = 0
    overlap: int = 0
    evaluated: int = 0
    holes: int = 0
    accepted: int = 0


@dataclass(frozen=True)
class Trial:
    """One judged trial.

    :param configuration: atoms after the move
    :param acceptance: probability in [0, 1]
    :param refusal: "overlap" or "hole" if it is refused whatever the dice say
    :param evaluation: energies after the move; None if it was refused before
    """

    configuration: Configuration
    acceptance: float
    refusal: str | None = None
    evaluation: Evaluation | None = None


@dataclass
class Exchange:
    """Attempts insertions and deletions, with equal probability, of a kind of molecule drawn at random.

    Both refusals hold in both directions: where an insertion is refused for a short distance or a hole, the deletion of
    that very molecule is refused as well, should dynamics have brought it there. So detailed balance is kept with the
    full Boltzmann distribution, of which those configurations stay a part that only dynamics enters and leaves.

    :param species: kinds of molecules, in the order of the state
    :param potential: energies, the one of the dynamics
    :param rules: what a trial is judged by
    :param rng: source of random numbers
    :param multiple_try: how to choose among many places for each molecule; None for one place drawn uniformly
    :param insertions: what became of the insertions
    :param deletions: what became of the deletions
    :param candidates: configurations in which a hole was met, for active learning
    """

    species: Sequence[Species]
    potential: Potential
    rules: MoveRules
    rng: np.random.Generator
    multiple_try: MultipleTry | None = None
    insertions: MoveCounts = field(default_factory=MoveCounts)
    deletions: MoveCounts = field(default_factory=MoveCounts)
    candidates: list[Atoms] = field(default_factory=list)

    def attempt(self, state: MdState) -> bool:
        """Attempt one exchange.

        If it is accepted, the state holds the new atoms, momenta and energy, but the forces are still to be evaluated.

        :return: whether it was accepted
        """
        kind = int(self.rng.integers(len(self.species)))
        if self.rng.random() < 0.5:
            return self._attempt_insertion(state, kind)
        return self._attempt_deletion(state, kind)

    def _attempt_insertion(self, state: MdState, kind: int) -> bool:
        self.insertions.attempted += 1
        if self.rules.max_loading is not None and state.loading >= self.rules.max_loading:
            return False
        placed = self._place(state, kind)
        if placed is None:
            self.insertions.overlap += 1
            return False
        trial = self.try_insertion(state, placed[0], kind, placed[1])
        if not self._decide(state, trial, self.insertions):
            return False
        self._insert(state, trial, kind)
        return True

    def _attempt_deletion(self, state: MdState, kind: int) -> bool:
        self.deletions.attempted += 1
        if state.counts[kind] == 0:
            return False
        index = int(self.rng.integers(state.counts[kind]))
        trial = self.try_deletion(state, index, kind, self._bias_of(state, index, kind))
        if not self._decide(state, trial, self.deletions):
            return False
        self._delete(state, trial, kind, index)
        return True

    def _place(self, state: MdState, kind: int) -> tuple[Molecule, float] | None:
        """Draw a molecule of the ideal gas and a place for it; return it and the bias, None if there is no room."""
        gas, reservoir = self.species[kind].gas, self.species[kind].reservoir
        if self.multiple_try is None:
            return place_at_random(reservoir, state.cell, self.rng), 0.0
        molecule = reservoir.draw()
        surroundings = Surroundings(state.numbers, state.positions, state.cell, self.multiple_try.reach)
        chosen = self.multiple_try.choose(gas.numbers, molecule.positions, surroundings, state.cell)
        return None if chosen is None else (Molecule(chosen[0], molecule.energy), chosen[1])

    def _bias_of(self, state: MdState, index: int, kind: int) -> float:
        """Return the bias that the insertion of this molecule into its place would have had."""
        if self.multiple_try is None:
            return 0.0
        gas, atoms = self.species[kind].gas, state.atoms_of(kind, index)
        kept = np.delete(np.arange(len(state)), atoms)
        surroundings = Surroundings(state.numbers[kept], state.positions[kept], state.cell, self.multiple_try.reach)
        positions = state.positions[atoms]
        shape = positions - gas.centre_of_mass(positions)
        return self.multiple_try.bias_of(gas.numbers, positions, shape, surroundings, state.cell)

    def try_insertion(self, state: MdState, molecule: Molecule, kind: int = 0, log_bias: float = 0.0) -> Trial:
        """Judge the insertion of a molecule whose positions are those in the cell; it goes behind those of its kind.

        :param log_bias: ln[W / (k w)] of its place (:class:`MultipleTry`), 0 for one drawn uniformly
        """
        configuration = with_molecule(state, self.species[kind].gas, molecule.positions, kind)
        if closest_distance(molecule.positions, state.positions, state.cell) < self.rules.minimum_distance:
            return Trial(configuration, 0.0, "overlap")
        evaluation = self.potential.evaluate([configuration], forces=False)[0]
        change = evaluation.interaction_energy - state.energy - molecule.energy
        if not change >= self.rules.hole_bound:
            return Trial(configuration, 0.0, "hole", evaluation)
        acceptance = insertion_acceptance(
            self.ideal_number(state, kind), int(state.counts[kind]), change / self.rules.thermal - log_bias
        )
        return Trial(configuration, acceptance, None, evaluation)

    def try_deletion(self, state: MdState, index: int, kind: int = 0, log_bias: float = 0.0) -> Trial:
        """Judge the deletion of one molecule; its atoms are gone before the energy is evaluated.

        One that is refused for the minimum distance is evaluated all the same: dynamics may have brought the molecule
        into a hole, and as neither way out is open, nothing else would tell of it.

        :param index: of the molecule among those of its kind
        :param log_bias: that of its insertion
        """
        atoms = state.atoms_of(kind, index)
        molecule = state.positions[atoms]
        kept = np.delete(np.arange(len(state)), atoms)
        configuration = Configuration(state.numbers[kept], state.positions[kept], state.cell)
        alone = isolated(self.species[kind].gas, molecule, self.potential.r_max)
        evaluation, own = self.potential.evaluate([configuration, alone], forces=False)
        gain = state.energy - evaluation.interaction_energy - own.interaction_energy
        if not gain >= self.rules.hole_bound:
            return Trial(configuration, 0.0, "hole", evaluation)
        if closest_distance(molecule, configuration.positions, state.cell) < self.rules.minimum_distance:
            return Trial(configuration, 0.0, "overlap")
        acceptance = deletion_acceptance(
            self.ideal_number(state, kind), int(state.counts[kind]), log_bias - gain / self.rules.thermal
        )
        return Trial(configuration, acceptance, None, evaluation)

    def ideal_number(self, state: MdState, kind: int = 0) -> float:
        """Return β f V, the number of molecules of one kind that an ideal gas would hold in the cell."""
        return ideal_gas_number(self.species[kind].fugacity, cell_volume(state.cell), self.rules.temperature)

    def _decide(self, state: MdState, trial: Trial, counts: MoveCounts) -> bool:
        counts.overlap += trial.refusal == "overlap"
        counts.evaluated += trial.evaluation is not None
        if trial.refusal == "hole":
            counts.holes += 1
            self._keep_candidate(state, trial, counts)
        accepted = trial.acceptance > 0.0 and bool(self.rng.random() < trial.acceptance)
        counts.accepted += accepted
        return accepted

    def _keep_candidate(self, state: MdState, trial: Trial, counts: MoveCounts) -> None:
        """Keep the configuration with the molecule, which the model likes too much."""
        if len(self.candidates) >= MOST_CANDIDATES:
            return
        if counts is self.deletions:
            self.candidates.append(state.atoms(loading=state.loading))
            return
        atoms = Atoms(trial.configuration.numbers, trial.configuration.positions, cell=state.cell, pbc=True)
        atoms.info = {"step": state.step, "framework_atoms": state.framework_atoms, "loading": state.loading + 1}
        if trial.evaluation is not None:
            atoms.info["energy"] = trial.evaluation.energy
        self.candidates.append(atoms)

    def _insert(self, state: MdState, trial: Trial, kind: int) -> None:
        """Take the molecule in, with momenta drawn at T.

        The frame of the resting centre of mass is left (:meth:`_free_momenta`) and entered again with the new atoms,
        so that the momenta keep their distribution exactly. A rigid gas has none.
        """
        masses = self.species[kind].gas.masses
        incoming = draw_momenta(masses, self.rules.temperature, self.rng) * state.gas_moves
        first = state.atoms_of(kind, int(state.counts[kind])).start
        momenta = np.insert(self._free_momenta(state), first, incoming, axis=0)
        counts = state.counts + (np.arange(len(state.counts)) == kind)
        self._take_over(state, trial, counts, np.insert(state.masses, first, masses), momenta)

    def _delete(self, state: MdState, trial: Trial, kind: int, index: int) -> None:
        """Remove a molecule, and with it its momenta, of which the others know nothing."""
        gone = state.atoms_of(kind, index)
        momenta = np.delete(self._free_momenta(state), gone, axis=0)
        counts = state.counts - (np.arange(len(state.counts)) == kind)
        self._take_over(state, trial, counts, np.delete(state.masses, gone), momenta)

    def _free_momenta(self, state: MdState) -> Array:
        """Momenta with a centre-of-mass velocity drawn at T: every atom's then follow Maxwell and Boltzmann."""
        if not state.is_free:
            return state.momenta
        velocity = self.rng.standard_normal(3) * math.sqrt(self.rules.thermal / state.masses.sum())
        return np.asarray(state.momenta + state.masses[:, None] * velocity)

    @staticmethod
    def _take_over(state: MdState, trial: Trial, counts: NDArray[np.int64], masses: Array, momenta: Array) -> None:
        """Change the state; the kinetic energy of the thermostat stays, though its mass follows the atoms."""
        assert trial.evaluation is not None
        before = state.degrees_of_freedom
        state.numbers, state.positions = trial.configuration.numbers, trial.configuration.positions
        state.masses, state.momenta = masses, remove_drift(momenta, masses) if state.is_free else momenta
        state.counts = counts
        state.energy, state.atomic_energy = trial.evaluation.interaction_energy, trial.evaluation.atomic_energy
        if before and state.degrees_of_freedom:
            state.thermostat[1, 0] *= math.sqrt(before / state.degrees_of_freedom)


def place_at_random(reservoir: Reservoir, cell: Array, rng: np.random.Generator) -> Molecule:
    """Draw a molecule of the ideal gas, turned at random, its centre of mass anywhere in the cell."""
    molecule = reservoir.draw()
    centre = rng.random(3) @ cell
    return Molecule(molecule.positions @ random_rotation(rng).T + centre, molecule.energy)


def with_molecule(state: MdState, gas: Gas, positions: Array, kind: int) -> Configuration:
    """Return the configuration with one more molecule, behind those of its kind."""
    first = state.atoms_of(kind, int(state.counts[kind])).start
    numbers = np.insert(state.numbers, first, gas.numbers)
    return Configuration(numbers, np.insert(state.positions, first, positions, axis=0), state.cell)
