"""Gas molecules: geometry, mass and critical constants, from the mappings in ``protocols/gases/*.yaml``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase.data import atomic_masses, atomic_numbers
from numpy.typing import NDArray

from ..errors import WorkerError

__all__ = ["Gas", "mixture"]

_KEYS = {
    "name",
    "symbols",
    "positions",
    "linear",
    "critical_temperature",
    "critical_pressure",
    "acentric_factor",
    "source",
}
_CLOSEST_ATOMS = 0.4  # Å; below any bond there is, so it can only be a mistake in the file
_LINEAR_TOLERANCE = 1e-3  # largest ratio of the smallest to the largest moment of inertia of a linear molecule


@dataclass(frozen=True, eq=False)
class Gas:
    """One kind of gas molecule.

    :param name: what the molecule is called in files and process labels, e.g. CO2
    :param numbers: atomic numbers, shape (n,)
    :param positions: equilibrium positions relative to the centre of mass in Å, shape (n, 3)
    :param linear: whether all atoms lie on one line
    :param critical_temperature: in K
    :param critical_pressure: in Pa
    :param acentric_factor: Pitzer's acentric factor
    :param source: where geometry and constants come from
    """

    name: str
    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    linear: bool
    critical_temperature: float
    critical_pressure: float
    acentric_factor: float
    source: str

    @classmethod
    def from_dict(cls, description: Mapping[str, Any]) -> Gas:
        """Build a gas from its description, refusing one that cannot be right.

        :param description: mapping with the keys name, symbols, positions (Å), linear, critical_temperature (K),
            critical_pressure (Pa), acentric_factor and source
        :raises WorkerError: kind bad_input, if a key is missing or unknown or a value is impossible
        """
        missing, unknown = _KEYS - set(description), set(description) - _KEYS
        if missing or unknown:
            raise WorkerError(
                "bad_input", f"gas description: missing keys {sorted(missing)}, unknown {sorted(unknown)}"
            )
        name, symbols = str(description["name"]), list(description["symbols"])
        strangers = [symbol for symbol in symbols if symbol not in atomic_numbers]
        if strangers or not symbols:
            raise WorkerError("bad_input", f"gas {name}: symbols must be chemical elements, got {symbols}")
        positions = np.array(description["positions"], dtype=np.float64)
        if positions.shape != (len(symbols), 3):
            raise WorkerError("bad_input", f"gas {name}: {len(symbols)} positions of 3 numbers expected")
        numbers = np.array([atomic_numbers[symbol] for symbol in symbols], dtype=np.int64)
        masses = atomic_masses[numbers]
        gas = cls(
            name=name,
            numbers=numbers,
            positions=positions - masses @ positions / masses.sum(),
            linear=bool(description["linear"]),
            critical_temperature=float(description["critical_temperature"]),
            critical_pressure=float(description["critical_pressure"]),
            acentric_factor=float(description["acentric_factor"]),
            source=str(description["source"]),
        )
        gas._check()
        return gas

    @classmethod
    def of_atoms(cls, numbers: NDArray[np.int64], positions: NDArray[np.float64]) -> Gas:
        """Build a molecule of which nothing but its atoms is known; fugacities of it cannot be computed.

        :param numbers: atomic numbers, shape (n,)
        :param positions: in Å, shape (n, 3)
        :raises WorkerError: kind bad_input, if two atoms are too close
        """
        masses = atomic_masses[numbers]
        shape = cls(
            "molecule", numbers, positions - masses @ positions / masses.sum(), False, 1.0, 1.0, 0.0, "its atoms"
        )
        gas = replace(shape, linear=shape._is_linear)
        gas._check()
        return gas

    @property
    def _is_linear(self) -> bool:
        moments = self.moments_of_inertia
        return bool(moments[0] <= _LINEAR_TOLERANCE * moments[2])

    def _check(self) -> None:
        if min(self.critical_temperature, self.critical_pressure) <= 0:
            raise WorkerError("bad_input", f"gas {self.name}: critical temperature and pressure must be positive")
        distances = np.linalg.norm(self.positions[:, None] - self.positions, axis=-1)
        if np.any(distances[np.triu_indices(len(self), k=1)] < _CLOSEST_ATOMS):
            raise WorkerError("bad_input", f"gas {self.name}: two atoms are closer than {_CLOSEST_ATOMS} Å")
        if len(self) > 1 and self._is_linear != self.linear:
            raise WorkerError(
                "bad_input", f"gas {self.name}: linear is {self.linear}, the positions say {self._is_linear}"
            )

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def masses(self) -> NDArray[np.float64]:
        """Atomic masses in amu, shape (n,)."""
        return np.asarray(atomic_masses[self.numbers], dtype=np.float64)

    @property
    def mass(self) -> float:
        """Mass of the molecule in amu."""
        return float(self.masses.sum())

    def centre_of_mass(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Centre of mass of one molecule in Å, shape (3,).

        :param positions: of its atoms in Å, not wrapped, shape (n, 3)
        """
        return np.asarray(self.masses @ positions / self.mass)

    @property
    def moments_of_inertia(self) -> NDArray[np.float64]:
        """Principal moments of inertia in amu Å², ascending, shape (3,)."""
        squares = np.einsum("ij,ij->i", self.positions, self.positions)
        tensor = (self.masses * squares).sum() * np.eye(3) - (self.positions.T * self.masses) @ self.positions
        return np.clip(np.linalg.eigvalsh(tensor), 0.0, None)


def mixture(description: Mapping[str, Any]) -> list[tuple[Gas, float]]:
    """Return the kinds of molecules of a gas and their mole fractions in the gas phase.

    :param description: of one kind of molecule (:meth:`Gas.from_dict`), or of a mixture: its name and ``components``, a
        list of such descriptions, each with its ``mole_fraction``
    :raises WorkerError: kind bad_input, if fractions are missing, not positive or do not add up to one, or names repeat
    """
    if "components" not in description:
        return [(Gas.from_dict(description), 1.0)]
    name, parts = description.get("name"), [dict(part) for part in description["components"]]
    fractions = [float(part.pop("mole_fraction", 0.0)) for part in parts]
    gases = [Gas.from_dict(part) for part in parts]
    if not parts or min(fractions) <= 0 or abs(sum(fractions) - 1.0) > 1e-6:
        raise WorkerError("bad_input", f"mixture {name}: mole fractions must be positive and add up to 1: {fractions}")
    if len({gas.name for gas in gases}) < len(gases):
        raise WorkerError("bad_input", f"mixture {name}: two components have the same name")
    return list(zip(gases, fractions, strict=True))
