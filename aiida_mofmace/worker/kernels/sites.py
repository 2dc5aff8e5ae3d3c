"""Hydroxyl sites of a framework and the structural units they make, as data that another framework can have its own of.

Definition and use: ``docs/topics/structural_units.md``; that of MIL-120 is ``protocols/sites/MIL-120.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.geometry import cellpar_to_cell
from numpy.typing import NDArray

__all__ = ["GuestSite", "SiteDefinition"]

Array = NDArray[np.float64]
_KEYS = {"name", "source", "cell", "rod", "pore", "donor_range", "tolerance", "hydroxyls", "units"}
_OPTIONAL = {"guests", "published"}  # published: energies and their source, for tables only
_RIGHT_ANGLE = 1e-2  # cosine


@dataclass(frozen=True)
class GuestSite:
    """A place for the guest molecule, relative to the cell of the definition.

    :param centre: of the molecule, fractional, shape (3,)
    :param axis: direction of the molecule's axis, in lattice vectors, shape (3,)
    :param hold_axis: whether the molecule keeps this direction while it relaxes
    """

    centre: Array
    axis: Array
    hold_axis: bool = False


@dataclass(frozen=True)
class SiteDefinition:
    """The hydroxyl groups of one repeat of a rod of the framework, in order, and the units their orientations make.

    :param name: of the framework
    :param cell: reference cell as rows in Å, shape (3, 3); a structure may be strained, and a supercell of it
    :param rod: lattice vector along the rods, onto whose normal plane the O-H bonds are projected, shape (3,)
    :param pore: Miller indices of the planes whose normal the angle alpha is measured from, shape (3,)
    :param donor_range: of alpha in degrees; outside of it a group is free and an acceptor
    :param tolerance: largest distance in Å of an oxygen from its site, lattice strain taken out
    :param hydroxyls: fractional coordinates of the oxygens in order along one rod, not folded into the cell, (m, 3)
    :param units: sequences of A (acceptor) and D (donor) by the name of the unit they make, each m letters
    :param guests: places of the guest molecule by name
    """

    name: str
    cell: Array
    rod: Array
    pore: Array
    donor_range: tuple[float, float]
    tolerance: float
    hydroxyls: Array
    units: dict[str, tuple[str, ...]]
    guests: dict[str, GuestSite]

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> SiteDefinition:
        """Read and check a definition.

        :param content: keys as the attributes; cell as lengths in Å and angles in degrees; guests may be missing
        :raises ValueError: if a key is missing, unknown, or its value is impossible
        """
        missing, unknown = sorted(_KEYS - set(content)), sorted(set(content) - _KEYS - _OPTIONAL)
        if missing or unknown:
            raise ValueError(f"site definition: missing keys {missing}, unknown keys {unknown}")
        low, high = _numbers(content, "donor_range", (2,))
        definition = cls(
            name=str(content["name"]),
            cell=np.asarray(cellpar_to_cell(_numbers(content, "cell", (6,)))),
            rod=_numbers(content, "rod", (3,)),
            pore=_numbers(content, "pore", (3,)),
            donor_range=(float(low), float(high)),
            tolerance=float(content["tolerance"]),
            hydroxyls=_numbers(content, "hydroxyls", (len(content["hydroxyls"]), 3)),
            units={str(name): tuple(map(str, sequences)) for name, sequences in dict(content["units"]).items()},
            guests={str(name): _guest(name, site) for name, site in dict(content.get("guests") or {}).items()},
        )
        definition._check()
        return definition

    def _check(self) -> None:
        if not 0.0 <= self.donor_range[0] < self.donor_range[1] <= 180.0 or self.tolerance <= 0.0:
            raise ValueError("site definition: donor_range must rise within 0 to 180 degrees, tolerance be positive")
        axis, normal = self.axes(self.cell)
        if abs(axis @ normal) > _RIGHT_ANGLE:
            raise ValueError("site definition: rod must lie in the planes pore, so that their product is zero")
        sequences = [sequence for unit in self.units.values() for sequence in unit]
        wrong = [s for s in sequences if len(s) != len(self.hydroxyls) or set(s) - {"A", "D"}]
        if wrong or len(set(sequences)) < len(sequences) or "other" in self.units:
            raise ValueError(f"site definition: units must be different sequences of A and D, a letter a site: {wrong}")

    def axes(self, cell: Array) -> tuple[Array, Array]:
        """Axis that alpha is measured from and normal of the plane of projection, both of length one.

        :param cell: lattice vectors of one unit cell as rows in Å, shape (3, 3)
        """
        axis, normal = np.linalg.inv(cell) @ self.pore, self.rod @ cell
        return axis / np.linalg.norm(axis), normal / np.linalg.norm(normal)

    def repeats(self, cell: Array) -> NDArray[np.int64]:
        """Return the number of unit cells along each vector of a supercell.

        :param cell: lattice vectors as rows in Å, shape (3, 3)
        :raises ValueError: if the cell is none of this framework
        """
        lengths, reference = np.linalg.norm(cell, axis=1), np.linalg.norm(self.cell, axis=1)
        repeats = np.maximum(np.rint(lengths / reference), 1).astype(np.int64)
        unit = cell / repeats[:, None]
        # Cells compare by their metric, whatever their orientation.
        if not np.allclose(unit @ unit.T, self.cell @ self.cell.T, atol=0.15 * float(reference.min()) ** 2):
            raise ValueError(f"the cell is no supercell of that of {self.name}: lengths {lengths.round(2).tolist()} Å")
        return np.asarray(repeats, dtype=np.int64)

    def unit_of(self, sequence: str) -> str:
        """Name of the unit that a sequence makes, `other` if none."""
        return next((name for name, sequences in self.units.items() if sequence in sequences), "other")


def _guest(name: str, content: Mapping[str, Any]) -> GuestSite:
    unknown, hold = sorted(set(content) - {"centre", "axis", "hold_axis"}), content.get("hold_axis", False)
    if unknown or not isinstance(hold, bool):
        raise ValueError(f"site definition: guest {name}: unknown keys {unknown}, or hold_axis is not true or false")
    return GuestSite(_numbers(content, "centre", (3,)), _numbers(content, "axis", (3,)), hold)


def _numbers(content: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> Array:
    try:
        values = np.array(content[key], dtype=np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"site definition: {key} must be numbers of shape {shape}") from error
    if values.shape != shape or not np.all(np.isfinite(values)):
        raise ValueError(f"site definition: {key} must be numbers of shape {shape}, got {values.shape}")
    return values
