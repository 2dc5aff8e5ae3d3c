"""One DFT label as a node: energy, forces and stress of one structure at one level of theory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
from aiida import orm
from aiida.common.exceptions import ValidationError
from aiida.common.links import LinkType
from ase.formula import Formula
from numpy.typing import ArrayLike, NDArray

from aiida_mofmace.worker.kernels.geometry import minimum_pair_distance

__all__ = ["LEVEL_KEYS", "DftLabelData", "nearest_distance"]

LEVEL_KEYS = ("name", "hash", "program")


class DftLabelData(orm.ArrayData):
    """Energy, forces and stress of one structure.

    Energy, convergence, level of theory, formula and the greatest force are attributes, so that ``QueryBuilder`` can
    filter them; forces and stress are arrays.

    :param energy: total energy in eV
    :param forces: forces in eV/Å, shape (n, 3)
    :param level_of_theory: name, program and hash of the settings that change energies
    :param symbols: chemical symbols of the atoms in the order of the forces, length n
    :param stress: stress in eV/Å³ with ASE's sign, shape (3, 3); None where the program gives none
    :param converged: whether the self-consistent field converged
    :param program_version: version of the program that made the label
    :param warnings: what the program warned of
    :param flags: marks for later filters, e.g. how the label was rescued
    :param minimum_distance: shortest distance between two atoms in Å, from :func:`nearest_distance`
    :param band_gap: smallest gap between occupied and empty orbitals in eV, where the program printed it
    :param absolute_spin: integral of the absolute spin density in electrons, where the program printed it: of an
        antiferromagnet about the number of its unpaired electrons, of a state without any zero
    :param scf_steps: steps of the self-consistent field, where known
    :param scf_convergence: convergence after each of them, where known
    :param wall_seconds: wall time by the program's own clock in s, where known
    :param origin: where a label that was computed elsewhere comes from
    :raises ValueError: if a shape is wrong, a number is not finite, or the level of theory is incomplete
    """

    def __init__(
        self,
        *,
        energy: float,
        forces: ArrayLike,
        level_of_theory: Mapping[str, Any],
        symbols: Sequence[str],
        stress: ArrayLike | None = None,
        converged: bool = True,
        program_version: str | None = None,
        warnings: Sequence[str] = (),
        flags: Sequence[str] = (),
        minimum_distance: float | None = None,
        band_gap: float | None = None,
        absolute_spin: float | None = None,
        scf_steps: int | None = None,
        scf_convergence: Sequence[float] = (),
        wall_seconds: float | None = None,
        origin: str | None = None,
        **kwargs: Any,
    ):
        force_array = _finite("forces", forces, (len(symbols), 3))
        arrays = {"forces": force_array}
        if stress is not None:
            arrays["stress"] = _finite("stress", stress, (3, 3))
        missing = [key for key in LEVEL_KEYS if not level_of_theory.get(key)]
        if missing:
            raise ValueError(f"the level of theory lacks {', '.join(missing)}; give LevelOfTheory.load(name).summary")
        super().__init__(arrays, **kwargs)
        self.base.attributes.set_many(
            {
                "energy": float(_finite("energy", energy, ())),
                "converged": bool(converged),
                "level_of_theory": {key: str(level_of_theory[key]) for key in LEVEL_KEYS},
                "formula": Formula.from_list(symbols).format("hill"),
                "symbols": [str(symbol) for symbol in symbols],
                "n_atoms": len(symbols),
                "max_force": float(np.linalg.norm(force_array, axis=1).max()),
                "program_version": program_version,
                "warnings": [str(warning) for warning in warnings],
                "flags": [str(flag) for flag in flags],
                "minimum_distance": minimum_distance,
                "band_gap": band_gap,
                "absolute_spin": absolute_spin,
                "scf_steps": scf_steps,
                "scf_convergence": [float(value) for value in scf_convergence if np.isfinite(value)],
                "wall_seconds": wall_seconds,
                "origin": origin,
            }
        )

    def _validate(self) -> bool:
        super()._validate()
        if "energy" not in self.base.attributes or "forces" not in self.get_arraynames():
            raise ValidationError(
                "a label needs an energy and forces: make it with DftLabelData(energy=..., forces=...)"
            )
        return True

    def _get(self, key: str) -> Any:
        return self.base.attributes.get(key)

    @property
    def energy(self) -> float:
        """Total energy in eV."""
        return float(self._get("energy"))

    @property
    def forces(self) -> NDArray[np.float64]:
        """Forces in eV/Å, shape (n, 3)."""
        return np.asarray(self.get_array("forces"), dtype=np.float64)

    @property
    def stress(self) -> NDArray[np.float64] | None:
        """Stress in eV/Å³ with ASE's sign, shape (3, 3); None where the program gave none."""
        if "stress" not in self.get_arraynames():
            return None
        return np.asarray(self.get_array("stress"), dtype=np.float64)

    @property
    def converged(self) -> bool:
        """Whether the self-consistent field converged."""
        return bool(self._get("converged"))

    @property
    def level_of_theory(self) -> dict[str, str]:
        """Name, program and hash of the level of theory."""
        return dict(self._get("level_of_theory"))

    @property
    def symbols(self) -> list[str]:
        """Chemical symbols of the atoms, in the order of the forces."""
        return list(self._get("symbols"))

    @property
    def formula(self) -> str:
        """Chemical formula in Hill's order."""
        return str(self._get("formula"))

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return int(self._get("n_atoms"))

    @property
    def max_force(self) -> float:
        """Greatest force on an atom in eV/Å."""
        return float(self._get("max_force"))

    @property
    def warnings(self) -> list[str]:
        """What the program warned of."""
        return list(self._get("warnings"))

    @property
    def flags(self) -> list[str]:
        """Marks for later filters."""
        return list(self._get("flags"))

    @property
    def minimum_distance(self) -> float | None:
        """Shortest distance between two atoms in Å; None where neither label nor structure says it."""
        known = self._get_or_none("minimum_distance")
        if known is not None:
            return float(known)
        structure = self.structure
        return None if structure is None else nearest_distance(structure)

    @property
    def band_gap(self) -> float | None:
        """Gap between occupied and empty orbitals in eV, where the program printed it."""
        gap = self._get_or_none("band_gap")
        return None if gap is None else float(gap)

    @property
    def wall_seconds(self) -> float | None:
        """Wall time by the program's own clock in s, where it is known."""
        seconds = self._get_or_none("wall_seconds")
        return None if seconds is None else float(seconds)

    @property
    def origin(self) -> str | None:
        """Where a label that was computed elsewhere comes from."""
        return cast("str | None", self._get_or_none("origin"))

    def _get_or_none(self, key: str) -> Any:
        """Return an attribute that labels of earlier versions lack."""
        return self.base.attributes.get(key, None)

    @property
    def structure(self) -> orm.StructureData | None:
        """The structure this label belongs to: an input of the process that made it, or what came with it from a file.

        None if no process made it.
        """
        creator = self.creator
        if creator is None:
            return None
        if "structure" in creator.inputs:
            return cast(orm.StructureData, creator.inputs.structure)
        link = self.base.links.get_incoming(link_type=LinkType.CREATE).one().link_label
        name = link.replace("labels__", "structures__", 1)
        return cast(
            "orm.StructureData | None",
            creator.base.links.get_outgoing().nested().get("structures", {}).get(name.removeprefix("structures__")),
        )


def nearest_distance(structure: orm.StructureData) -> float | None:
    """Return the shortest distance between two atoms of a periodic structure in Å; None for a single atom."""
    if len(structure.sites) < 2:
        return None
    positions = np.array([site.position for site in structure.sites], dtype=float)
    return minimum_pair_distance(positions, np.asarray(structure.cell, dtype=float))


def _finite(name: str, values: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return values as an array of float64 after a check of shape and finiteness."""
    array = np.array(values, dtype=np.float64)
    if array.shape != shape or array.size == 0:
        raise ValueError(f"{name} must have the shape {shape}, not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} hold a value that is not a number; leave this label out")
    return array
