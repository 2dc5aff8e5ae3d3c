"""Molecular dynamics at constant volume: its state and velocity Verlet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from .model import Configuration, Potential

__all__ = [
    "CHAIN_LENGTH",
    "MdState",
    "Thermostat",
    "draw_momenta",
    "initial_state",
    "redraw_momenta",
    "remove_drift",
    "velocity_verlet_step",
]

Array = NDArray[np.float64]
CHAIN_LENGTH = 3


def draw_momenta(masses: Array, temperature: float, rng: np.random.Generator) -> Array:
    """Momenta from the Maxwell-Boltzmann distribution, every component independent.

    :param masses: in amu, shape (n,)
    :param temperature: in K
    :param rng: source of random numbers
    :return: momenta in amu Å / ASE time, shape (n, 3)
    """
    return np.asarray(rng.standard_normal((len(masses), 3)) * np.sqrt(masses * units.kB * temperature)[:, None])


def remove_drift(momenta: Array, masses: Array) -> Array:
    """Return the momenta in the frame in which the centre of mass rests.

    :param momenta: shape (n, 3)
    :param masses: in amu, shape (n,)
    """
    return np.asarray(momenta - masses[:, None] * (momenta.sum(axis=0) / masses.sum()))


@dataclass
class MdState:
    """Everything that the next step depends on; saved and restored without loss.

    The framework comes first, then the gas, kind by kind and molecule by molecule. Where all n atoms move, their centre
    of mass rests, so that 3n - 3 degrees of freedom carry the kinetic energy; where framework or gas is held, all 3n of
    those that move do.

    :param numbers: atomic numbers, shape (n,)
    :param masses: in amu, shape (n,)
    :param positions: in Å, not wrapped, shape (n, 3)
    :param momenta: in amu Å / ASE time, shape (n, 3)
    :param cell: lattice vectors as rows in Å, shape (3, 3)
    :param forces: at these positions in eV/Å, shape (n, 3)
    :param energy: interaction energy at these positions in eV
    :param atomic_energy: sum of the energies of the isolated atoms in eV
    :param framework_atoms: how many of the leading atoms are the framework
    :param step: steps done
    :param thermostat: what the thermostat keeps: for a chain its positions and velocities, shape (2, chain length)
    :param counts: molecules of each kind, shape (kinds,)
    :param sizes: atoms in a molecule of each kind, shape (kinds,)
    :param framework_moves: False holds the framework's atoms where they are
    :param gas_moves: False holds the gas's atoms where they are
    """

    numbers: NDArray[np.int64]
    masses: Array
    positions: Array
    momenta: Array
    cell: Array
    forces: Array
    energy: float
    atomic_energy: float
    framework_atoms: int
    step: int = 0
    thermostat: Array = field(default_factory=lambda: np.zeros((2, CHAIN_LENGTH)))
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    sizes: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    framework_moves: bool = True
    gas_moves: bool = True

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def loading(self) -> int:
        """Gas molecules in the cell, of all kinds."""
        return int(self.counts.sum())

    def atoms_of(self, kind: int, index: int) -> slice:
        """Return the atoms of one molecule; for an index equal to the count, where the next one would go.

        :param kind: of the molecule
        :param index: of the molecule among those of its kind
        """
        first = self.framework_atoms + int(self.counts[:kind] @ self.sizes[:kind]) + index * int(self.sizes[kind])
        return slice(first, first + int(self.sizes[kind]))

    @property
    def mobile(self) -> slice:
        """The atoms that dynamics moves."""
        return slice(
            0 if self.framework_moves else self.framework_atoms, len(self) if self.gas_moves else self.framework_atoms
        )

    @property
    def is_free(self) -> bool:
        """Whether every atom moves, so that the total momentum is conserved and kept at zero."""
        return self.framework_moves and self.gas_moves

    @property
    def configuration(self) -> Configuration:
        """What a potential needs to know."""
        return Configuration(self.numbers, self.positions, self.cell)

    @property
    def kinetic_energy(self) -> float:
        """In eV."""
        return 0.5 * float((self.momenta**2 / self.masses[:, None]).sum())

    @property
    def degrees_of_freedom(self) -> int:
        """3n for the n atoms that move, less 3 if all do: the resting centre of mass carries none."""
        atoms = len(range(len(self))[self.mobile])
        return max(0, 3 * atoms - (3 if self.is_free else 0))

    @property
    def temperature(self) -> float:
        """Kinetic temperature in K; 0 where nothing moves."""
        freedoms = self.degrees_of_freedom
        return 2.0 * self.kinetic_energy / (freedoms * units.kB) if freedoms else 0.0

    def update(self, potential: Potential) -> None:
        """Evaluate energy and forces at the present positions."""
        evaluation = potential.evaluate([self.configuration])[0]
        if evaluation.forces is None:
            raise ValueError("the potential gave no forces")
        self.forces, self.energy = evaluation.forces, evaluation.interaction_energy
        self.atomic_energy = evaluation.atomic_energy

    @property
    def is_held(self) -> bool:
        """Whether nothing moves, so that a step of dynamics evaluates nothing."""
        return not self.mobile.start < self.mobile.stop

    def show(self, potential: Potential) -> None:
        """Evaluate where that has a use: for the next step, or for a potential that keeps what it saw last."""
        if not self.is_held or getattr(potential, "keeps_last", False):
            self.update(potential)

    def atoms(self, **info: Any) -> Atoms:
        """Return a frame with the positions as they are, not wrapped, so that molecules stay whole.

        :param info: further entries of ``info``, beside energy (total, eV), step and framework_atoms
        """
        atoms = Atoms(numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=True)
        atoms.info = {
            "energy": self.energy + self.atomic_energy,
            "step": self.step,
            "framework_atoms": self.framework_atoms,
            **info,
        }
        return atoms

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return arrays for a checkpoint, named ``state_...``."""
        return {f"state_{name}": np.asarray(value) for name, value in vars(self).items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> MdState:
        """Restore what :meth:`to_arrays` gave, bit by bit."""
        values: dict[str, Any] = {name: arrays[f"state_{name}"] for name in cls.__dataclass_fields__}
        return cls(**{name: value if value.ndim else value.item() for name, value in values.items()})


def initial_state(
    atoms: Atoms,
    potential: Potential,
    temperature: float,
    rng: np.random.Generator,
    framework_atoms: int | None = None,
    **layout: Any,
) -> MdState:
    """Start a simulation: momenta at the temperature, centre of mass at rest, forces evaluated.

    :param atoms: starting configuration with a cell
    :param potential: energies and forces
    :param temperature: in K
    :param rng: source of random numbers
    :param framework_atoms: leading atoms that are the framework; None for all
    :param layout: counts, sizes, framework_moves and gas_moves of the :class:`MdState`
    """
    state = MdState(
        numbers=np.asarray(atoms.numbers, dtype=np.int64),
        masses=np.asarray(atoms.get_masses(), dtype=np.float64),
        positions=np.array(atoms.positions, dtype=np.float64),
        momenta=np.zeros((len(atoms), 3)),
        cell=np.array(atoms.cell.array, dtype=np.float64),
        forces=np.zeros((len(atoms), 3)),
        energy=0.0,
        atomic_energy=0.0,
        framework_atoms=len(atoms) if framework_atoms is None else framework_atoms,
        **layout,
    )
    redraw_momenta(state, temperature, rng)
    state.update(potential)
    return state


def redraw_momenta(state: MdState, temperature: float, rng: np.random.Generator) -> None:
    """Draw the momenta of all atoms that move anew."""
    momenta, mobile = np.zeros((len(state), 3)), state.mobile
    momenta[mobile] = draw_momenta(state.masses[mobile], temperature, rng)
    state.momenta = remove_drift(momenta, state.masses) if state.is_free else momenta


class Thermostat(Protocol):
    """Acts on the momenta before and after each velocity Verlet step."""

    def begin_step(self, state: MdState, timestep: float) -> None:
        """Act before the first half kick of a step (ASE time)."""
        ...

    def end_step(self, state: MdState, timestep: float) -> None:
        """Act after the second half kick of a step (ASE time)."""
        ...

    def energy(self, state: MdState) -> float:
        """Energy in eV that makes the sum with kinetic and potential energy a constant."""
        ...


def velocity_verlet_step(state: MdState, potential: Potential, thermostat: Thermostat, timestep: float) -> None:
    """Advance the state by one step: half thermostat, half kick, drift, half kick, half thermostat.

    Where nothing moves, such as an empty rigid framework, only the step is counted.

    :param state: changed in place
    :param potential: energies and forces
    :param thermostat: NoThermostat for constant energy
    :param timestep: in ASE time units (fs times ``ase.units.fs``)
    """
    if not state.is_held:
        thermostat.begin_step(state, timestep)
        _kick(state, 0.5 * timestep)
        state.positions = state.positions + timestep * state.momenta / state.masses[:, None]
        state.update(potential)
        _kick(state, 0.5 * timestep)
        thermostat.end_step(state, timestep)
    state.step += 1


def _kick(state: MdState, time: float) -> None:
    """Let the forces act on the momenta of the atoms that move."""
    momenta, mobile = state.momenta.copy(), state.mobile
    momenta[mobile] += time * state.forces[mobile]
    state.momenta = momenta
