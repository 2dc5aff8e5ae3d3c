"""From averages of simulations to isotherm and heat of adsorption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, nan
from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import calcfunction

from aiida_mofmace.worker.kernels.geometry import cell_volume
from aiida_mofmace.worker.kernels.statistics import Estimate, pooled_mean, pooled_value
from aiida_mofmace.worker.kernels.thermodynamics import (
    cm3_stp_per_gram,
    heat_of_adsorption,
    kilojoule_per_mole,
    mole_per_kilogram,
)

__all__ = [
    "assemble_heat",
    "assemble_henry",
    "assemble_isotherm",
    "framework_mass",
    "hole_fraction",
    "is_converged",
    "judge_points",
    "pool_replicas",
]


def framework_mass(structure: orm.StructureData) -> float:
    """Return the mass of the framework's atoms in the cell in amu."""
    return float(structure.get_ase().get_masses().sum())


def is_converged(results: Mapping[str, Any], mass: float, section: Mapping[str, Any]) -> bool:
    """Whether a point of the isotherm has been sampled long enough.

    A small error alone is not enough: a loading that has hardly changed yet has one too, so one flagged `too_short` is
    never converged. Of a mixture, every component has to fulfil what the whole has to.

    Nor is one whose molecules sat in holes of the model for longer than `max_hole_fraction`.

    :param results: of the hybrid MD-GCMC, all chunks so far
    :param mass: of the framework in amu
    :param section: isotherm section of the parameters: min_steps, min_exchanges, min_effective_samples,
        max_hole_fraction and error_target in mol/kg
    """
    if results["steps_done"] < section["min_steps"] or hole_fraction(results) > section["max_hole_fraction"]:
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


def hole_fraction(results: Mapping[str, Any]) -> float:
    """Return the share of their time that molecules sat in holes of the model, where they bind beyond belief.

    A deletion picks a molecule at random, so it is the share of the deletions of a molecule, those refused for the
    minimum distance included, that was refused for a hole. An insertion refused for one does no harm: nothing comes of
    it.
    """
    deletions = results["acceptance"]["deletion"]
    molecules: int = deletions.get("evaluated", 0) + deletions.get("overlap", 0)
    return deletions.get("holes", 0) / molecules if molecules else 0.0


def pool_replicas(replicas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the results of independent runs at one pressure as if they were those of one run.

    Errors are the larger of those within the runs and that of their spread; counts and samples are summed; the steps
    are those of the shortest run. An isosteric heat needs one of every run.

    :param replicas: results of the hybrid MD-GCMC of each, at least one
    """
    first = replicas[0]
    if len(replicas) == 1:
        return dict(first)
    return {
        **_pooled(replicas),
        "steps_done": min(each["steps_done"] for each in replicas),
        "acceptance": {
            move: {key: sum(each["acceptance"][move][key] for each in replicas) for key in counts}
            for move, counts in first["acceptance"].items()
        },
        "model_holes": sum(each.get("model_holes") or 0 for each in replicas),
        "components": {
            name: _pooled([each["components"][name] for each in replicas]) for name in first.get("components", {})
        },
        **_pooled_pair(replicas, "mean_volume", "mean_volume_error"),
    }


def _pooled(replicas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Pool loading and isosteric heat of a gas, or of one component."""
    pooled = pooled_mean([_loading(each) for each in replicas])
    return {
        "mean_loading": pooled.mean,
        "loading_error": pooled.error if isfinite(pooled.error) else None,
        "statistical_inefficiency": pooled.statistical_inefficiency,
        "effective_samples": pooled.effective_samples,
        "round_trips": pooled.round_trips,
        "too_short": pooled.too_short,
        **_pooled_pair(replicas, "isosteric_heat", "isosteric_heat_error"),
    }


def _loading(results: Mapping[str, Any]) -> Estimate:
    """Return the estimate of a mean loading out of the results it was written to."""
    error = results.get("loading_error")
    return Estimate(
        mean=results["mean_loading"],
        error=nan if error is None else error,
        statistical_inefficiency=results["statistical_inefficiency"],
        equilibration_index=results.get("equilibration_index") or 0,
        effective_samples=results["effective_samples"],
        round_trips=results["round_trips"],
        too_short=results["too_short"],
    )


def _pooled_pair(replicas: Sequence[Mapping[str, Any]], name: str, error_name: str) -> dict[str, float | None]:
    """Pool a figure that not every run has; None if one has none."""
    values = [each[name] for each in replicas if each.get(name) is not None]
    if len(values) < len(replicas):
        return {name: None, error_name: None}
    mean, error = pooled_value(values, [nan if each.get(error_name) is None else each[error_name] for each in replicas])
    return {name: mean, error_name: error if isfinite(error) else None}


@calcfunction
def assemble_isotherm(structure: orm.StructureData, settings: orm.Dict, **results: orm.Dict) -> orm.Dict:
    """Return the isotherm.

    :param structure: framework
    :param settings: gas, section (isotherm section of the parameters) and points: pressure, fugacity and runs, the
        replicas, each with key, chunks and, if it failed, reason
    :param results: of the last chunk of each run, by its key
    """
    content = settings.get_dict()
    mass = framework_mass(structure)
    known = {key: node.get_dict() for key, node in results.items()}
    points, failed = [], []
    for point in content["points"]:
        if any(run["key"] in known for run in point["runs"]):
            points.append(_point(point, known, mass, content["section"]))
        else:
            failed.append({"pressure_Pa": point["pressure"], "reason": _reason(point)})
    return orm.Dict(
        {
            "temperature_K": content["section"]["temperature"],
            "gas": content["gas"],
            "framework_mass_amu": mass,
            "cell_volume_A3": cell_volume(np.asarray(structure.cell)),
            "points": points,
            "failed": failed,
            "low_pressure_slope": _slopes(min(points, key=lambda point: point["pressure_Pa"]), content["gas"]),
        }
    )


def judge_points(isotherm: Mapping[str, Any], max_hole_fraction: float) -> tuple[str, dict[str, str]] | None:
    """Return the label of the exit code for what is wrong with an isotherm, and its values; None if nothing is."""
    if isotherm["failed"]:
        failures = "; ".join(f"{point['pressure_Pa']:g} Pa: {point['reason']}" for point in isotherm["failed"])
        return "WARNING_POINTS_MISSING", {"message": failures}
    trapped = {f"{point['pressure_Pa']:g}": point["hole_fraction"] for point in isotherm["points"]}
    trapped = {pressure: share for pressure, share in trapped.items() if share > max_hole_fraction}
    if trapped:
        return "WARNING_MODEL_HOLES", {"pressures": ", ".join(trapped), "percent": f"{100 * max(trapped.values()):.0f}"}
    loose = [f"{point['pressure_Pa']:g}" for point in isotherm["points"] if not point["converged"]]
    return ("WARNING_NOT_CONVERGED", {"pressures": ", ".join(loose)}) if loose else None


def _reason(point: Mapping[str, Any]) -> str:
    """Say why runs of a point failed, naming them where there are several; empty if none did."""
    runs = point["runs"]
    return "; ".join(
        run["reason"] if len(runs) == 1 else f"{run['key']}: {run['reason']}" for run in runs if run.get("reason")
    )


def _point(
    point: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]], mass: float, section: Mapping[str, Any]
) -> dict[str, Any]:
    """Return one point in molecules per cell, mol/kg and kJ/mol: the mean of the runs that did not fail, if any."""
    runs = [run for run in point["runs"] if run["key"] in known]
    counted = [run for run in runs if not run.get("reason")] or runs
    results = pool_replicas([known[run["key"]] for run in counted])
    reason = _reason(point)
    components = results.get("components", {})
    replicas = [
        {"reason": run.get("reason", ""), "counted": run in counted, "steps": known[run["key"]]["steps_done"]}
        | _amounts(known[run["key"]], mass)
        for run in runs
    ]
    return {
        "pressure_Pa": point["pressure"],
        "fugacity_Pa": point["fugacity"],
        **_amounts(results, mass),
        "converged": is_converged(results, mass, section) and not reason,
        "reason": reason,
        "acceptance": results["acceptance"],
        "model_holes": results.get("model_holes"),
        "hole_fraction": hole_fraction(results),
        "cell_volume_A3": results.get("mean_volume"),
        "cell_volume_A3_error": results.get("mean_volume_error"),
        "components": {name: _amounts(part, mass) for name, part in components.items()} if len(components) > 1 else {},
        "chunks": sum(run["chunks"] for run in runs),
        "steps": results["steps_done"],
        "replicas": replicas if len(point["runs"]) > 1 else [],
    }


def _slopes(point: Mapping[str, Any], gas: str) -> dict[str, Any]:
    """Return loading over fugacity of the lowest point in mol/(kg Pa), to be held against the Henry coefficient.

    :return: by name of the gas or component
    """
    parts = point["components"] or {gas: point}
    fugacities = point["fugacity_Pa"] if isinstance(point["fugacity_Pa"], Mapping) else {gas: point["fugacity_Pa"]}
    slopes = {}
    for name, part in parts.items():
        error = part["loading_mol_per_kg_error"]
        slopes[name] = {
            "pressure_Pa": point["pressure_Pa"],
            "converged": point["converged"],
            "value_mol_per_kg_Pa": part["loading_mol_per_kg"] / fugacities[name],
            "error_mol_per_kg_Pa": None if error is None else error / fugacities[name],
        }
    return slopes


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


@calcfunction
def assemble_henry(settings: orm.Dict, **results: orm.Dict) -> orm.Dict:
    """Return Henry coefficients with their errors, and isosteric heats where the loading is small.

    :param settings: temperature in K, relative_error_target, and gases, the name of the gas by that of the run
    :param results: of test-particle insertions into the empty framework, by name of the run
    """
    gases = {}
    for key, name in settings["gases"].items():
        row = results[key].get_dict()
        gases[name] = {
            "value_mol_per_kg_Pa": row["henry"],
            "error_mol_per_kg_Pa": row["henry_error"],
            "converged": row["henry_error"] <= settings["relative_error_target"] * row["henry"]
            and not row["too_short"],
            "effective_samples": row["effective_samples"],
            "value_molecules_per_cell_Pa": row["henry_molecules_per_pascal"],
            "error_molecules_per_cell_Pa": row["henry_molecules_per_pascal_error"],
            "isosteric_heat_kJ_per_mol": kilojoule_per_mole(row["heat"]),
            "isosteric_heat_error_kJ_per_mol": kilojoule_per_mole(row["heat_error"]),
            "insertions": row["insertions"]["attempted"],
            "model_holes": row["model_holes"],
            "steps": row["steps_done"],
        }
    return orm.Dict({"temperature_K": settings["temperature"], "gases": gases})
