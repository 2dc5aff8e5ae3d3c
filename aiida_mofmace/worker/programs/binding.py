"""Binding energies of a gas molecule at given sites in each structural unit of a framework."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ..errors import WorkerError
from ..kernels.frames import Frames
from ..kernels.gases import Gas
from ..kernels.geometry import closest_distance
from ..kernels.model import Potential
from ..kernels.relaxation import HeldAxis, relax
from ..kernels.sites import GuestSite, SiteDefinition
from ..kernels.structural_units import classify_trajectory, oriented
from ..kernels.thermodynamics import kilojoule_per_mole
from ..stopping import StopRequest
from .simulation import open_model, read_structure

__all__ = ["BindingSites", "run"]

_FRAMES = Path("frames.npz")


@dataclass
class BindingSites:
    """Relaxes framework, molecule and both together.

    :param potential: energies and forces
    :param definition: hydroxyl sites, units and places of the molecule
    :param gas: the molecule
    :param parameters: units, largest_force (eV/Å), max_steps and minimum_distance (Å, of a molecule that is placed)
    """

    potential: Potential
    definition: SiteDefinition
    gas: Gas
    parameters: Mapping[str, Any]

    def relaxed(self, atoms: Atoms, name: str, framework_atoms: int) -> tuple[Atoms, dict[str, Any]]:
        """Relax a copy; return it with its energy (eV), the largest force left (eV/Å) and whether it is a minimum."""
        copy, limit = atoms.copy(), float(self.parameters["largest_force"])
        energy, force = relax(copy, self.potential, limit, int(self.parameters["max_steps"]))
        copy.set_constraint()
        if not np.isfinite(energy):
            raise WorkerError("nan", f"{name}: the model gives no energy")
        copy.info = {"group": name, "framework_atoms": framework_atoms, "loading": int(len(copy) > framework_atoms)}
        return copy, {"energy": energy, "largest_force": force, "relaxed": force <= limit}

    def molecule(self, cell: np.ndarray[Any, np.dtype[np.float64]]) -> Atoms:
        """Return the molecule in the middle of a cell."""
        return Atoms(self.gas.numbers, self.gas.positions + cell.sum(axis=0) / 2, cell=cell, pbc=True)

    def placed(self, framework: Atoms, site: GuestSite, name: str) -> Atoms:
        """Put the molecule at its place, its longest axis along that of the place.

        :raises WorkerError: kind does_not_fit, if an atom of the framework is there
        """
        unit_cell = framework.cell.array / self.definition.repeats(framework.cell.array)[:, None]
        axis = site.axis @ unit_cell
        molecule = Atoms(self.gas.numbers, self.gas.positions)
        molecule.rotate(_long_axis(self.gas.positions), axis / np.linalg.norm(axis))
        molecule.positions += site.centre @ unit_cell
        distance = float(closest_distance(molecule.positions, framework.positions, framework.cell.array))
        loaded = framework + molecule
        if site.hold_axis:
            first, last = _ends(molecule.positions)
            loaded.set_constraint(HeldAxis(loaded, (len(framework) + first, len(framework) + last)))
        if distance < float(self.parameters["minimum_distance"]):
            raise WorkerError("does_not_fit", f"{name}: the molecule is {distance:.2f} Å from the framework")
        return loaded

    def rows(self, framework: Atoms, images: list[Atoms]) -> Iterator[dict[str, Any]]:
        """Compute one site after another.

        :param framework: any arrangement of the hydroxyl groups
        :param images: relaxed structures are appended: molecule, then each framework and what is in it
        """
        alone, molecule = self.relaxed(
            self.molecule(np.eye(3) * float(self.parameters["gas_phase_box"])), "molecule", 0
        )
        cells = int(np.prod(self.definition.repeats(framework.cell.array)))
        images.append(alone)
        for unit in self.parameters["units"]:
            turned = oriented(framework, self.definition, [self.definition.units[unit][0]] * cells)
            empty, bare = self.relaxed(turned, f"framework_{unit}", len(framework))
            images.append(empty)
            for guest, site in self.definition.guests.items():
                name = f"{unit}_{guest}"
                loaded, both = self.relaxed(self.placed(empty, site, name), name, len(framework))
                images.append(loaded)
                energy = both["energy"] - bare["energy"] - molecule["energy"]
                yield {
                    "unit": unit,
                    "guest": guest,
                    "energy_eV": energy,
                    "energy_kJ_per_mol": kilojoule_per_mole(energy),
                    "axis_held": site.hold_axis,
                    "relaxed": both["relaxed"] and bare["relaxed"] and molecule["relaxed"],
                    "largest_force": max(both["largest_force"], bare["largest_force"]),
                    "units_before": self._units(empty),
                    "units_after": self._units(loaded),
                    "angle_to_rod": self._angle_to_rod(loaded, len(framework)),
                    "framework_energy_eV": bare["energy"],
                }

    def _units(self, atoms: Atoms) -> list[str]:
        """Return sequences of a relaxed structure, which need not be those it was begun with."""
        return classify_trajectory(Frames.from_atoms([atoms]), self.definition).sequences[0]

    def _angle_to_rod(self, atoms: Atoms, framework_atoms: int) -> float:
        """Angle in degrees from 0 to 90 between the molecule's axis and the rods."""
        _, rod = self.definition.axes(atoms.cell.array / self.definition.repeats(atoms.cell.array)[:, None])
        axis = _long_axis(atoms.positions[framework_atoms:])
        return float(np.degrees(np.arccos(min(abs(float(axis @ rod)), 1.0))))


def _long_axis(positions: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Direction along which a molecule is longest, of length one."""
    return np.asarray(np.linalg.svd(positions - positions.mean(axis=0))[2][0])


def _ends(positions: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[int, int]:
    """Return the indices of the two atoms that are farthest from each other."""
    distances = np.linalg.norm(positions[:, None] - positions, axis=2)
    first, last = np.unravel_index(int(distances.argmax()), distances.shape)
    return int(first), int(last)


def run(inputs: dict[str, Any], stop: StopRequest) -> dict[str, Any]:
    """Relax framework, molecule and sites, and write all relaxed structures to frames.npz.

    :raises WorkerError: kind bad_input, no_model, does_not_fit or nan
    """
    parameters = inputs["parameters"]
    potential = open_model(inputs, parameters.get("head"))
    framework = read_structure(inputs["files"]["structure"])
    gas = Gas.from_dict(parameters["gas"])
    potential.require_elements(np.concatenate([framework.numbers, gas.numbers]))
    try:
        sites = BindingSites(potential, SiteDefinition.from_dict(parameters["sites"]), gas, parameters)
        images: list[Atoms] = []
        rows: list[dict[str, Any]] = []
        stopped = False
        for row in sites.rows(framework, images):
            rows.append(row)
            stopped = stop.reason() is not None and len(rows) < len(parameters["units"]) * len(sites.definition.guests)
            if stopped:
                break
    except (KeyError, ValueError) as error:
        raise WorkerError("bad_input", f"structure and sites do not belong together: {error}") from error
    Frames.from_atoms(images).save(_FRAMES)
    return {"rows": rows, "device": potential.device} | ({"stopped_early": True} if stopped else {})
