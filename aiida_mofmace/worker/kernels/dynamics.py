"""Molecular dynamics at constant volume: velocity Verlet, Nosé-Hoover chains, momentum resampling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from .model import Configuration, Potential

__all__ = [
    "MdState",
    "MomentumResampling",
    "NoThermostat",
    "NoseHooverChain",
    "Thermostat",
    "draw_momenta",
    "initial_state",
    "remove_drift",
    "velocity_verlet_step",
]

Array = NDArray[np.float64]
_CHAIN_LENGTH = 3
# Suzuki-Yoshida weights of fourth order (Yoshida, Phys. Lett. A 150, 262 (1990)).
_OUTER = 1.0 / (2.0 - 2.0 ** (1.0 / 3.0))
_WEIGHTS = (_OUTER, 1.0 - 2.0 * _OUTER, _OUTER)


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

    The centre of mass rests, so that 3n - 3 degrees of freedom carry the kinetic energy.

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
    thermostat: Array = field(default_factory=lambda: np.zeros((2, _CHAIN_LENGTH)))

    def __len__(self) -> int:
        return len(self.numbers)

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
        """3n - 3: the resting centre of mass carries none."""
        return 3 * len(self.numbers) - 3

    @property
    def temperature(self) -> float:
        """Kinetic temperature in K; 0 for a lone atom, which rests."""
        freedoms = self.degrees_of_freedom
        return 2.0 * self.kinetic_energy / (freedoms * units.kB) if freedoms else 0.0

    def update(self, potential: Potential) -> None:
        """Evaluate energy and forces at the present positions."""
        evaluation = potential.evaluate([self.configuration])[0]
        if evaluation.forces is None:
            raise ValueError("the potential gave no forces")
        self.forces, self.energy = evaluation.forces, evaluation.interaction_energy
        self.atomic_energy = evaluation.atomic_energy

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
    atoms: Atoms, potential: Potential, temperature: float, rng: np.random.Generator, framework_atoms: int | None = None
) -> MdState:
    """Start a simulation: momenta at the temperature, centre of mass at rest, forces evaluated.

    :param atoms: starting configuration with a cell
    :param potential: energies and forces
    :param temperature: in K
    :param rng: source of random numbers
    :param framework_atoms: leading atoms that are the framework; None for all
    """
    masses = np.asarray(atoms.get_masses(), dtype=np.float64)
    state = MdState(
        numbers=np.asarray(atoms.numbers, dtype=np.int64),
        masses=masses,
        positions=np.array(atoms.positions, dtype=np.float64),
        momenta=remove_drift(draw_momenta(masses, temperature, rng), masses),
        cell=np.array(atoms.cell.array, dtype=np.float64),
        forces=np.zeros((len(atoms), 3)),
        energy=0.0,
        atomic_energy=0.0,
        framework_atoms=len(atoms) if framework_atoms is None else framework_atoms,
    )
    state.update(potential)
    return state


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


class NoThermostat:
    """Constant energy."""

    def begin_step(self, state: MdState, timestep: float) -> None:
        """Leave the momenta alone."""

    end_step = begin_step

    def energy(self, state: MdState) -> float:
        """Nothing is exchanged."""
        return 0.0


class NoseHooverChain:
    """Nosé-Hoover chain of three thermostats, integrated symplectically in the sense of Martyna et al.

    Mol. Phys. 87, 1117 (1996). Masses: Q1 = g kT τ², Q2 = Q3 = kT τ², with g the degrees of freedom, so that Q1
    follows the number of atoms.

    :param temperature: in K
    :param period: relaxation time τ in ASE time units
    """

    def __init__(self, temperature: float, period: float):
        self._thermal = units.kB * temperature
        self._period = period

    def masses(self, freedoms: int) -> Array:
        """Thermostat masses in eV (ASE time)², shape (3,)."""
        masses = np.full(_CHAIN_LENGTH, self._thermal * self._period**2)
        masses[0] *= freedoms
        return masses

    def begin_step(self, state: MdState, timestep: float) -> None:
        """Propagate the chain by half a time step and scale the momenta."""
        freedoms = state.degrees_of_freedom
        if freedoms == 0:
            return
        q1, q2, q3 = self.masses(freedoms).tolist()
        (x1, x2, x3), (v1, v2, v3) = state.thermostat.tolist()
        thermal, exp = self._thermal, np.exp
        twice_kinetic, scale = 2.0 * state.kinetic_energy, 1.0
        for weight in _WEIGHTS:
            half, quarter, eighth = weight * timestep / 2, weight * timestep / 4, weight * timestep / 8
            v3 += quarter * (q2 * v2 * v2 - thermal) / q3
            damping = exp(-eighth * v3)
            v2 = (v2 * damping + quarter * (q1 * v1 * v1 - thermal) / q2) * damping
            damping = exp(-eighth * v2)
            v1 = (v1 * damping + quarter * (twice_kinetic - freedoms * thermal) / q1) * damping
            factor = exp(-half * v1)
            scale *= factor
            twice_kinetic *= factor * factor
            x1, x2, x3 = x1 + half * v1, x2 + half * v2, x3 + half * v3
            damping = exp(-eighth * v2)
            v1 = (v1 * damping + quarter * (twice_kinetic - freedoms * thermal) / q1) * damping
            damping = exp(-eighth * v3)
            v2 = (v2 * damping + quarter * (q1 * v1 * v1 - thermal) / q2) * damping
            v3 += quarter * (q2 * v2 * v2 - thermal) / q3
        state.momenta = state.momenta * scale
        state.thermostat = np.array([[x1, x2, x3], [v1, v2, v3]])

    end_step = begin_step

    def energy(self, state: MdState) -> float:
        """Kinetic and potential energy of the chain."""
        freedoms = state.degrees_of_freedom
        positions, velocities = state.thermostat
        kinetic = 0.5 * float(self.masses(freedoms) @ velocities**2)
        return kinetic + float(self._thermal * (freedoms * positions[0] + positions[1:].sum()))


class MomentumResampling:
    """Draw all momenta anew at intervals (Andersen, J. Chem. Phys. 72, 2384 (1980), all atoms at once).

    For few degrees of freedom, such as a lone molecule, where a Nosé-Hoover chain is not ergodic.

    :param temperature: in K
    :param interval: steps between two drawings
    :param rng: source of random numbers
    """

    def __init__(self, temperature: float, interval: int, rng: np.random.Generator):
        self._temperature, self._interval, self._rng = temperature, interval, rng

    def begin_step(self, state: MdState, timestep: float) -> None:
        """Draw the momenta anew if it is time; the energy taken out is kept in the state's ``thermostat``."""
        if state.step % self._interval == 0:
            before = state.kinetic_energy
            state.momenta = remove_drift(draw_momenta(state.masses, self._temperature, self._rng), state.masses)
            state.thermostat[0, 0] += before - state.kinetic_energy

    def end_step(self, state: MdState, timestep: float) -> None:
        """Leave the momenta alone."""

    def energy(self, state: MdState) -> float:
        """Energy taken out so far."""
        return float(state.thermostat[0, 0])


def velocity_verlet_step(state: MdState, potential: Potential, thermostat: Thermostat, timestep: float) -> None:
    """Advance the state by one step: half thermostat, half kick, drift, half kick, half thermostat.

    :param state: changed in place
    :param potential: energies and forces
    :param thermostat: NoThermostat for constant energy
    :param timestep: in ASE time units (fs times ``ase.units.fs``)
    """
    thermostat.begin_step(state, timestep)
    state.momenta = state.momenta + 0.5 * timestep * state.forces
    state.positions = state.positions + timestep * state.momenta / state.masses[:, None]
    state.update(potential)
    state.momenta = state.momenta + 0.5 * timestep * state.forces
    thermostat.end_step(state, timestep)
    state.step += 1
