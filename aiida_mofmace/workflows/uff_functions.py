"""Calculation functions around grand-canonical Monte Carlo with a generic force field."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import calcfunction
from ase import Atoms, units
from numpy.typing import NDArray

from aiida_mofmace.data.charged_cif import charged_cif
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.parsers.raspa_movie import parse_raspa_movie
from aiida_mofmace.worker.kernels.folding import fold_snapshot
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.geometry import random_rotation
from aiida_mofmace.worker.kernels.pockets import BlockingSpheres, blocking_spheres
from aiida_mofmace.worker.kernels.zeo import pore_volumes

__all__ = ["charged_framework", "fold_snapshots", "pore_geometry", "uff_isotherm"]

_MOVIES = "Movies/System_0"
#: Å, of the grids on which closed pockets are sought, one after the other.
_SPACINGS = (0.2, 0.1, 0.07)
#: Fraction of the volume by which a grid may differ from Zeo++'s random points.
_VOLUME_NOISE = 5e-4


@calcfunction
def charged_framework(structure: orm.StructureData, charges: orm.List) -> orm.CifData:
    """Return the framework with its charges as RASPA reads it."""
    text = charged_cif(structure, charges.get_list())
    return orm.CifData(file=io.BytesIO(text.encode()), filename="framework.cif")


@calcfunction
def pore_geometry(structure: orm.StructureData, molecule: orm.Dict, samples: orm.Int) -> dict[str, orm.Data]:
    """Return the volume that the molecule's centre can reach, by Zeo++, and spheres that block what it cannot reach.

    :param molecule: probe radius in Å and density of the liquid in mol/l, as aiida-lsmo knows them
    :param samples: random points for each atom
    :return: ``pores`` in the words of aiida-lsmo; ``blocking_spheres`` in the format of Zeo++ where there are any.
        Where no grid agrees with Zeo++ on what is closed, nothing is blocked
    """
    radius, atoms = float(molecule["proberad"]), structure.get_ase()
    volumes = pore_volumes(atoms, radius, samples.value)
    figures, per_mass = volumes.figures, volumes.figures["AV_cm^3/g"]
    sizes = np.array([volumes.radii[symbol] for symbol in atoms.symbols])
    spheres = _agreed_spheres(atoms, sizes, radius, figures["NAV_Volume_fraction"])
    found: dict[str, orm.Data] = {
        "pores": orm.Dict(
            {
                "POAV_Volume_fraction": figures["AV_Volume_fraction"],
                "POAV_cm^3/g": per_mass,
                "pocket_volume_fraction": figures["NAV_Volume_fraction"],
                "blocked_volume_fraction": spheres.volume_fraction,
                "Number_of_blocking_spheres": len(spheres.radii),
                "Estimated_saturation_loading": per_mass * float(molecule["molsatdens"]),
                "Estimated_saturation_loading_unit": "mol/kg",
                "is_porous": per_mass > 0.0,
            }
        )
    }
    if len(spheres.radii):
        found["blocking_spheres"] = orm.SinglefileData(io.BytesIO(spheres.text().encode()), "framework.block")
    return found


def _agreed_spheres(atoms: Atoms, sizes: NDArray[np.float64], radius: float, closed: float) -> BlockingSpheres:
    """Return the spheres of the first grid that calls no more of the volume closed than Zeo++ does; none without one.

    A grid takes a window that is narrower than its spacing for shut, and would then block the very pores.

    :param closed: fraction of the volume that Zeo++ calls closed
    """
    cell = np.asarray(atoms.cell.array)
    if closed > 0.0:
        for spacing in _SPACINGS:
            spheres = blocking_spheres(cell, atoms.positions, sizes, radius, spacing)
            if spheres.volume_fraction <= max(closed + _VOLUME_NOISE, 1.2 * closed):
                return spheres
    return BlockingSpheres(np.zeros((0, 3)), np.zeros(0), 0.0)


@calcfunction
def uff_isotherm(structure: orm.StructureData, gas: orm.Dict, output: orm.Dict) -> orm.Dict:
    """Return an isotherm in the project's words from that of aiida-lsmo.

    :param output: ``output_parameters`` of the isotherm work chain
    """
    given = output.get_dict()
    series = given.get("isotherm") or {key: [] for key in ("pressure", "loading_absolute_average")}
    mass = float(structure.get_ase().get_masses().sum())
    points = []
    for index, pressure in enumerate(series["pressure"]):
        loading, error = (float(series[f"loading_absolute_{name}"][index]) for name in ("average", "dev"))
        heat, heat_error = (series[f"enthalpy_of_adsorption_{name}"][index] for name in ("average", "dev"))
        points.append(
            {
                "pressure_Pa": pressure * 1e5,
                "loading_mol_per_kg": loading,
                "loading_mol_per_kg_error": error,
                "loading_per_cell": loading * mass / 1000.0,
                "loading_per_cell_error": error * mass / 1000.0,
                "isosteric_heat_kJ_per_mol": None if heat is None else -heat,
                "isosteric_heat_error_kJ_per_mol": heat_error,
            }
        )
    return orm.Dict(
        {
            "temperature_K": given["temperature"],
            "gas": gas["name"],
            "framework_mass_amu": mass,
            "cell_volume_A3": structure.get_cell_volume(),
            "henry_coefficient_mol_per_kg_Pa": given["henry_coefficient_average"],
            "henry_coefficient_error_mol_per_kg_Pa": given["henry_coefficient_dev"],
            "widom_heat_kJ_per_mol": _widom_heat(given),
            "points": points,
        }
    )


def _widom_heat(given: dict[str, Any]) -> float | None:
    """Heat of adsorption at zero loading: RT minus the energy of an inserted molecule."""
    energy = given.get("adsorption_energy_widom_average")
    thermal = units.kB * given["temperature"] / (units.kJ / units.mol)
    return None if energy is None else thermal - float(energy)


@calcfunction
def fold_snapshots(
    structure: orm.StructureData, gas: orm.Dict, parameters: orm.Dict, **retrieved: orm.FolderData
) -> dict[str, orm.Data]:
    """Return snapshots of RASPA runs in single cells of the framework, drawn from all that are free of clashes.

    What cannot be read of one run takes nothing of the others along.

    :param parameters: repeats of the supercell, seed, snapshots of each run, minimum_distance in Å, groups by run, and
        whether a molecule is a single site, which then gets its atoms turned at random
    :param retrieved: folders of the runs by name
    :return: frames by name of the run, where a run that has none is missing; and ``snapshots``, for each run how many
        snapshots it has, how many single cells they were cut into, how many of these clash and how many were drawn,
        and what of it was unreadable
    """
    given, symbols = parameters.get_dict(), gas["symbols"]
    framework, molecule = structure.get_ase(), Gas.from_dict(gas.get_dict())
    supercell = framework.cell.array * np.array(given["repeats"])[:, None]
    generator = np.random.default_rng(given["seed"])
    known = None if given["single_site"] else symbols
    found: dict[str, orm.Data] = {}
    counts: dict[str, dict[str, Any]] = {}
    for name in sorted(retrieved):
        images = []
        snapshots, unreadable = _snapshots(retrieved[name], gas["name"], known)
        for step, places in enumerate(snapshots):
            molecules = _with_atoms(places, molecule, supercell, generator) if given["single_site"] else places
            for image in fold_snapshot(framework, symbols, molecules, given["repeats"], given["minimum_distance"]):
                group = f"{given['groups'][name]}_{image.info['loading']}{gas['name']}"
                image.info |= {"step": step, "group": group}
                images.append(image)
        drawn = generator.permutation(len(images))[: given["snapshots"]]
        cells = len(snapshots) * math.prod(given["repeats"])
        counts[name] = {"snapshots": len(snapshots), "cells": cells, "clashing": cells - len(images)}
        counts[name] |= {"drawn": len(drawn), "unreadable": unreadable}
        if len(drawn):
            frames = Frames.from_atoms([images[index] for index in np.sort(drawn)])
            found[name] = FramesData.from_frames(frames)
    return {**found, "snapshots": orm.Dict(counts)}


def _with_atoms(
    sites: NDArray[np.float64], gas: Gas, supercell: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Put molecules at the places (fractional, shape (n, 1, 3)) of united atoms, each turned at random."""
    inverse = np.linalg.inv(supercell)
    turned = [gas.positions @ random_rotation(rng).T @ inverse for _ in range(len(sites))]
    return np.asarray(sites + np.array(turned).reshape(len(sites), -1, 3))


def _snapshots(
    folder: orm.FolderData, molecule: str, symbols: list[str] | None
) -> tuple[list[NDArray[np.float64]], list[str]]:
    """Return the snapshots of one run, and which of its files cannot be read, with the reason."""
    repository = folder.base.repository
    if "Movies" not in repository.list_object_names():
        return [], [f"there is no {_MOVIES}"]
    names = [name for name in repository.list_object_names(_MOVIES) if f"component_{molecule}" in name]
    found, unreadable = list[NDArray[np.float64]](), list[str]()
    for name in sorted(names):
        try:
            found += parse_raspa_movie(repository.get_object_content(f"{_MOVIES}/{name}", mode="r"), symbols)
        except ValueError as error:
            unreadable.append(f"{name}: {error}")
    return found, unreadable
