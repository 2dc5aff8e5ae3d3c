"""The ideal gas: geometries and energies of isolated molecules at a temperature, flexible or rigid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from ase import units
from numpy.typing import NDArray

from ..errors import WorkerError
from .dynamics import draw_momenta
from .gases import Gas
from .model import Configuration, Potential

__all__ = ["LARGEST_STRETCH", "IdealGasReservoir", "Molecule", "Reservoir", "RigidReservoir", "isolated"]

Array = NDArray[np.float64]
_WALKERS = 64
_STEPS_PER_SWEEP = 10
_EQUILIBRATION_SWEEPS = 24
_WANTED_ACCEPTANCE = 0.8
_ADAPTATION = 1.1
LARGEST_STRETCH = 2.0  # times its equilibrium value: a bond that long is broken
_MARGIN = 2.0  # Å that a molecule may grow by without meeting its images


@dataclass(frozen=True)
class Molecule:
    """One isolated molecule.

    :param positions: relative to the centre of mass in Å, shape (n, 3)
    :param energy: interaction energy of its atoms in eV
    """

    positions: Array
    energy: float


def isolated(gas: Gas, positions: Array, r_max: float) -> Configuration:
    """Put one molecule into a box in which it does not meet its images.

    :param gas: the molecule
    :param positions: in Å, shape (n, 3)
    :param r_max: distance in Å beyond which atoms do not see each other
    """
    edge = r_max + 2.0 * float(np.linalg.norm(gas.positions, axis=1).max()) + _MARGIN
    return Configuration(gas.numbers, positions - positions.mean(axis=0) + edge / 2, edge * np.eye(3))


class Reservoir(Protocol):
    """Where inserted molecules come from.

    ``mean_energies`` are mean interaction energies in eV of its molecules, one for each time it has sampled them.
    """

    mean_energies: list[float]

    def draw(self) -> Molecule:
        """Return one molecule, not turned: its orientation is that of no other."""
        ...

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return arrays for a checkpoint."""
        ...

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over what :meth:`to_arrays` gave."""
        ...


class RigidReservoir:
    """Molecules that all have the equilibrium geometry.

    :param gas: the molecule
    :param potential: the potential of the simulation, in the same precision
    """

    def __init__(self, gas: Gas, potential: Potential):
        alone = potential.evaluate([isolated(gas, gas.positions, potential.r_max)], forces=False)[0]
        self._molecule = Molecule(gas.positions, alone.interaction_energy)
        self.mean_energies = [alone.interaction_energy]

    def draw(self) -> Molecule:
        """Return the molecule, not turned."""
        return self._molecule

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return nothing: it is made anew from gas and potential."""
        return {}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Nothing is to be restored."""


class IdealGasReservoir:
    """Isolated molecules from the Boltzmann distribution of their internal energy, sampled with the same potential.

    Independent walkers do hybrid Monte Carlo (Duane et al., Phys. Lett. B 195, 216 (1987)): momenta are drawn at T,
    a short trajectory is integrated and accepted or refused by Metropolis' rule, so that no time-step error is left.
    Each walker is given out once between two such sweeps. While the walkers equilibrate, the time step is brought to
    where most trajectories are accepted; then it stays.

    :param gas: the molecule
    :param potential: the potential of the simulation, in the same precision
    :param temperature: in K
    :param timestep: of the dynamics in ASE time units; the trajectories begin with twice that, spread by half against
        resonances
    :param rng: source of random numbers
    :param equilibrate: False if the walkers are to be restored from a checkpoint
    """

    def __init__(
        self,
        gas: Gas,
        potential: Potential,
        temperature: float,
        timestep: float,
        rng: np.random.Generator,
        *,
        equilibrate: bool = True,
    ):
        self.gas, self._potential, self._temperature, self._timestep = gas, potential, temperature, 2.0 * timestep
        self._rng = rng
        self._positions = np.tile(gas.positions, (_WALKERS, 1, 1))
        self._energies, self._forces = np.zeros(_WALKERS), np.zeros_like(self._positions)
        self._next = 0
        self.mean_energies: list[float] = []
        if equilibrate:
            self._energies, self._forces = self._evaluate(self._positions)
            for _ in range(_EQUILIBRATION_SWEEPS):
                self._timestep *= _ADAPTATION if self.sweep() > _WANTED_ACCEPTANCE else 1 / _ADAPTATION
            self.mean_energies = self.mean_energies[_EQUILIBRATION_SWEEPS // 2 :]

    def draw(self) -> Molecule:
        """Return one molecule, not turned: its orientation is that of no other."""
        if self._next == _WALKERS:
            self.sweep()
            self._next = 0
        walker = self._next
        self._next += 1
        return Molecule(self._positions[walker], float(self._energies[walker]))

    def sweep(self) -> float:
        """Move every walker once.

        :return: fraction of the trajectories that was accepted
        :raises WorkerError: kind explosion, if the potential does not hold the molecule together
        """
        if len(self.gas) == 1:
            self.mean_energies.append(float(self._energies.mean()))
            return 1.0
        masses, thermal = self.gas.masses[:, None], units.kB * self._temperature
        tiled = np.tile(self.gas.masses, _WALKERS)
        momenta = draw_momenta(tiled, self._temperature, self._rng).reshape(self._positions.shape)
        timestep = self._timestep * self._rng.uniform(0.5, 1.5, (_WALKERS, 1, 1))
        before = self._energies + 0.5 * (momenta**2 / masses).sum(axis=(1, 2))
        positions, energies, forces = self._positions, self._energies, self._forces
        for _ in range(_STEPS_PER_SWEEP):
            momenta = momenta + 0.5 * timestep * forces
            positions = positions + timestep * momenta / masses
            energies, forces = self._evaluate(positions)
            momenta = momenta + 0.5 * timestep * forces
        after = energies + 0.5 * (momenta**2 / masses).sum(axis=(1, 2))
        accepted = self._rng.random(_WALKERS) < np.exp(-np.maximum(after - before, 0.0) / thermal)
        self._energies = np.where(accepted, energies, self._energies)
        chosen = accepted[:, None, None]
        self._forces = np.where(chosen, forces, self._forces)
        positions = np.where(chosen, positions, self._positions)
        self._positions = positions - (masses * positions).sum(axis=1, keepdims=True) / masses.sum()
        self._require_whole()
        self.mean_energies.append(float(self._energies.mean()))
        return float(accepted.mean())

    def _evaluate(self, positions: Array) -> tuple[Array, Array]:
        molecules = [isolated(self.gas, each, self._potential.r_max) for each in positions]
        evaluations = self._potential.evaluate(molecules)
        return np.array([each.interaction_energy for each in evaluations]), np.array([e.forces for e in evaluations])

    def _require_whole(self) -> None:
        first, second = np.triu_indices(len(self.gas), k=1)
        reference = np.linalg.norm(self.gas.positions[first] - self.gas.positions[second], axis=-1)
        present = np.linalg.norm(self._positions[:, first] - self._positions[:, second], axis=-1)
        if not np.all(present < LARGEST_STRETCH * reference):
            name, temperature = self.gas.name, self._temperature
            raise WorkerError("explosion", f"the model does not hold an isolated {name} together at {temperature} K")

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return arrays for a checkpoint, named by what they hold."""
        return {
            "positions": self._positions,
            "energies": self._energies,
            "forces": self._forces,
            "timestep": np.array(self._timestep),
            "next": np.array(self._next),
            "means": np.array(self.mean_energies),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over what :meth:`to_arrays` gave."""
        self._positions, self._energies = arrays["positions"], arrays["energies"]
        self._forces, self._next = arrays["forces"], int(arrays["next"])
        self._timestep = float(arrays["timestep"])
        self.mean_energies = arrays["means"].tolist()
