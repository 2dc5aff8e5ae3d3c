"""From averages of simulations to isotherm and heat of adsorption."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import calcfunction

from aiida_mofmace.worker.kernels.thermodynamics import (
    cm3_stp_per_gram,
    heat_of_adsorption,
    kilojoule_per_mole,
    mole_per_kilogram,
)

__all__ = ["assemble_heat", "assemble_isotherm", "framework_mass", "is_converged"]


def framework_mass(structure: orm.StructureData) -> float:
    """Return the mass of the framework's atoms in the cell in amu."""
    return float(structure.get_ase().get_masses().sum())


def is_converged(results: Mapping[str, Any], mass: float, section: Mapping[str, Any]) -> bool:
    """Whether a point of the isotherm has been sampled long enough.

    A small error alone is not enough: a loading that has hardly changed yet has one too, so one flagged `too_short` is
    never converged. Of a mixture, every component has to fulfil what the whole has to.

    :param results: of the hybrid MD-GCMC, all chunks so far
    :param mass: of the framework in amu
    :param section: isotherm section of the parameters: min_steps, min_exchanges, min_effective_samples and error_target
        in mol/kg
    """
    if results["steps_done"] < section["min_steps"]:
        return False
    parts = [results, *results.get("components", {}).values()]
    errors = [part.get("loading_error") for part in parts]
    samples = [part.get("effective_samples") for part in parts]
    if None in errors or None in samples or any(part["too_short"] for part in parts):
        return False
    exchanges = sum(results["acceptance"][move]["accepted"] for move in ("insertion", "deletion"))
    return bool(
        exchanges >= section["min_exchanges"]
        and min(samples) >= section["min_effective_samples"]
        and mole_per_kilogram(max(errors), mass) <= section["error_target"]
    )


@calcfunction
def assemble_isotherm(structure: orm.StructureData, settings: orm.Dict, **results: orm.Dict) -> orm.Dict:
    """Return the isotherm.

    :param structure: framework
    :param settings: gas, section (isotherm section of the parameters) and points: key, pressure, fugacity, chunks and,
        for a point that failed, reason
    :param results: of the last chunk of each point, by its key
    """
    content = settings.get_dict()
    mass = framework_mass(structure)
    points = [
        _point(point, results[point["key"]].get_dict(), mass, content["section"])
        for point in content["points"]
        if point["key"] in results
    ]
    failed = [
        {"pressure_Pa": point["pressure"], "reason": point.get("reason", "")}
        for point in content["points"]
        if point["key"] not in results
    ]
    return orm.Dict(
        {
            "temperature_K": content["section"]["temperature"],
            "gas": content["gas"],
            "framework_mass_amu": mass,
            "cell_volume_A3": abs(float(np.linalg.det(np.asarray(structure.cell)))),
            "points": points,
            "failed": failed,
        }
    )


def _point(
    point: Mapping[str, Any], results: Mapping[str, Any], mass: float, section: Mapping[str, Any]
) -> dict[str, Any]:
    """Return one point in molecules per cell, mol/kg and kJ/mol."""
    components = results.get("components", {})
    return {
        "pressure_Pa": point["pressure"],
        "fugacity_Pa": point["fugacity"],
        **_amounts(results, mass),
        "converged": is_converged(results, mass, section) and not point.get("reason"),
        "reason": point.get("reason", ""),
        "acceptance": results["acceptance"],
        "model_holes": results.get("model_holes"),
        "cell_volume_A3": results.get("mean_volume"),
        "cell_volume_A3_error": results.get("mean_volume_error"),
        "components": {name: _amounts(part, mass) for name, part in components.items()} if len(components) > 1 else {},
        "chunks": point["chunks"],
        "steps": results["steps_done"],
    }


def _amounts(results: Mapping[str, Any], mass: float) -> dict[str, Any]:
    """Return loading and isosteric heat of a gas, or of one component, with their errors and units."""
    loading, error = results["mean_loading"], results.get("loading_error")
    heat, heat_error = results.get("isosteric_heat"), results.get("isosteric_heat_error")
    return {
        "loading_per_cell": loading,
        "loading_per_cell_error": error,
        "loading_mol_per_kg": mole_per_kilogram(loading, mass),
        "loading_mol_per_kg_error": None if error is None else mole_per_kilogram(error, mass),
        "loading_cm3_stp_per_gram": cm3_stp_per_gram(loading, mass),
        "loading_cm3_stp_per_gram_error": None if error is None else cm3_stp_per_gram(error, mass),
        "statistical_inefficiency": results.get("statistical_inefficiency"),
        "effective_samples": results.get("effective_samples"),
        "round_trips": results.get("round_trips"),
        "isosteric_heat_kJ_per_mol": None if heat is None else kilojoule_per_mole(heat),
        "isosteric_heat_error_kJ_per_mol": None if heat_error is None else kilojoule_per_mole(heat_error),
    }


@calcfunction
def assemble_heat(settings: orm.Dict, loaded: orm.Dict, framework: orm.Dict, gas: orm.Dict) -> orm.Dict:
    """Return the heat of adsorption by equation 2 of the paper, per molecule, negative for binding.

    It is converged if none of the three mean energies is flagged `too_short`.

    :param settings: temperature in K and n_molecules
    :param loaded: results of MD of the framework with n_molecules
    :param framework: results of MD of the empty framework
    :param gas: results of MD of one molecule alone
    """
    temperature, n_molecules = settings["temperature"], settings["n_molecules"]
    runs = {"loaded": loaded.get_dict(), "framework": framework.get_dict(), "gas": gas.get_dict()}
    energies = {name: float(results["mean_energy"]) for name, results in runs.items()}
    errors = {name: results.get("mean_energy_error") for name, results in runs.items()}
    averages = {name: (energies[name], float(errors[name] or 0.0)) for name in runs}
    known = all(error is not None for error in errors.values())
    value, error = heat_of_adsorption(temperature=temperature, n_molecules=n_molecules, **averages)
    return orm.Dict(
        {
            "temperature_K": temperature,
            "n_molecules": n_molecules,
            "value_kJ_per_mol": kilojoule_per_mole(value),
            "error_kJ_per_mol": kilojoule_per_mole(error) if known else None,
            "converged": known and not any(results["too_short"] for results in runs.values()),
            **{f"energy_{name}_eV": energies[name] for name in runs},
            **{f"energy_{name}_error_eV": errors[name] for name in runs},
        }
    )
