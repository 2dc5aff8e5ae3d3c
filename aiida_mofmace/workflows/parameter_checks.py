"""Checks of the values of a protocol, one by one and within their section."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from aiida import orm

from aiida_mofmace.calculations.diversity_select import DiversitySelectCalculation
from aiida_mofmace.calculations.validators import (
    check_engine,
    check_flexible_cell,
    check_lammps_exchange,
    check_pressure,
    check_window,
    first_message,
)
from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.descriptors import SoapSettings

__all__ = ["check_parameters", "check_value", "is_number", "validate_parameters"]


def validate_parameters(parameters: orm.Dict | None, _: Any) -> str | None:
    """Refuse parameters with values that make no sense, wherever they stand, and those that do not go together."""
    if parameters is None:
        return None
    content = parameters.get_dict()
    return check_parameters(content) or _check_henry(content)


def _check_henry(parameters: Mapping[str, Any]) -> str | None:
    """Refuse insertions on trial into a cell that changes."""
    section = parameters.get("henry_coefficient")
    if section is None or not section["insertions"]:
        return None
    if parameters["gcmc"]["flexible_cell"] != "none":
        return (
            "henry_coefficient is that of a cell that does not change; set henry_coefficient.insertions to 0, "
            "or gcmc.flexible_cell to none"
        )
    return None


def check_parameters(parameters: Mapping[str, Any], prefix: str = "") -> str | None:
    """Return what is wrong with the values of a protocol, or None; the same key means the same everywhere."""
    for key, value in parameters.items():
        if key in ("options", "worker_options", "cp2k_options", "magnetization"):
            continue
        if key == "e0s":
            message = _check_atomic_energies(value)
            message = f"{prefix}{message}" if message else None
        elif isinstance(value, Mapping):
            message = check_parameters(value, f"{prefix}{key}.") or _check_section(key, value)
        else:
            message = check_value(key, value)
            message = f"{prefix}{message}" if message else None
        if message:
            return message
    return None


def _check_section(section: str, values: Mapping[str, Any]) -> str | None:
    """Refuse values that are sound one by one and do not go together, or are no name that is known."""
    check = _SECTIONS.get(section)
    message = (check(values) if check else None) or _check_length(values)
    return f"{section}: {message}" if message else None


def _check_length(run: Mapping[str, Any]) -> str | None:
    """Refuse dynamics that is over before a frame of it is kept."""
    if not {"steps", "equilibration_steps"} <= set(run) or run.get("insertions") == 0:
        return None
    steps, equilibration, stride = run["steps"], run["equilibration_steps"], run.get("stride", 1)
    if equilibration >= steps:
        return f"equilibration_steps is {equilibration}; it must be fewer than steps, {steps}"
    if steps // stride == equilibration // stride:
        return f"stride is {stride}; no frame is kept in the {steps - equilibration} steps after equilibration"
    return None


def _check_sampling(values: Mapping[str, Any]) -> str | None:
    return check_engine(values) or check_pressure(values)


def _check_gcmc(values: Mapping[str, Any]) -> str | None:
    return check_engine(values) or check_lammps_exchange(values) or check_flexible_cell(values)


def _check_selection(values: Mapping[str, Any]) -> str | None:
    try:
        SoapSettings.from_parameters(values["soap"])
    except WorkerError as error:
        return str(error)
    return DiversitySelectCalculation.check_parameters({"n_select": 1, **values})


def _check_uff(values: Mapping[str, Any]) -> str | None:
    return None if values["pressures"] else "pressures is empty; give at least one in Pa"


def _check_isotherm(values: Mapping[str, Any]) -> str | None:
    wrong = [key for key in ("batch", "share_calls") if not isinstance(values.get(key, False), bool)]
    if wrong:
        return f"{wrong[0]} is {values[wrong[0]]!r}; give true or false"
    if values.get("share_calls") and not values.get("batch"):
        return "share_calls is for runs of one job; set batch to true as well"
    return None


_SECTIONS: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "gcmc": _check_gcmc,
    "isotherm": _check_isotherm,
    "sampling": _check_sampling,
    "selection": _check_selection,
    "uff_gcmc": _check_uff,
}
_POSITIVE = {
    "temperature": "K",
    "temperatures": "K",
    "pressures": "Pa",
    "timestep_fs": "fs",
    "thermostat_time_fs": "fs",
    "error_target": "mol/kg",
    "relative_error_target": "",
    "gas_phase_box": "Å",
    "isolated_atom_box": "Å",
    "insertion_minimum_distance": "Å",
    "cutoff": "Å",
    "diameter_scale": "",
    "max_energy_drift": "eV per atom and ps",
    "energy_drift_window_fs": "fs",
    "longest_bond": "sums of covalent radii",
    "translation_step": "Å",
    "rotation_step": "degrees",
    "cell_step": "",
    "max_volume_change": "",
    "learning_rate": "",
    "max_force": "eV/Å",
    "max_energy_deviation": "eV/atom",
}
_WHOLE = {
    "loadings": 0,
    "initial_loading": 0,
    "equilibration_steps": 0,
    "insertions": 0,
    "max_rounds": 0,
    "n_empty": 0,
    "n_per_loading": 0,
    "n_uff": 0,
    "steps": 1,
    "stride": 1,
    "chunk_steps": 1,
    "max_steps": 1,
    "min_steps": 1,
    "n_select": 1,
    "n_frames": 1,
    "n_molecules": 1,
    "batch_size": 1,
    "max_epochs": 1,
    "min_exchanges": 0,
    "max_concurrent": 1,
    "cores": 1,
    "max_wallclock_seconds": 1,
    "md_steps_per_attempt": 1,
    "attempts_per_block": 1,
    "trial_places": 1,
    "md_steps_per_cell_move": 1,
    "committee_size": 2,
    "processes": 1,
    "replicas": 1,
    "max_restarts": 0,
    "pca_components": 1,
    "widom_cycles": 1,
    "initialization_cycles": 0,
    "cycles": 1,
    "movie_frames": 1,
    "snapshots": 0,
}
_MAY_BE_EMPTY = ("pressures", "loadings")


def _check_atomic_energies(value: Any) -> str | None:
    ways = ("foundation", "estimated", "isolated_atoms")
    if value in ways or isinstance(value, Mapping):
        return None
    return f"e0s is {value!r}; give one of {', '.join(ways)}, or energies in eV by element"


def check_value(key: str, value: Any) -> str | None:
    """Return what is wrong with one value of a protocol, or None."""
    values = value if isinstance(value, (list, tuple)) else [value]
    if key == "window":
        return check_window(value)
    if isinstance(value, (list, tuple)) and not value and key not in _MAY_BE_EMPTY:
        return f"{key} is empty; give at least one"
    if key in _POSITIVE:
        unit = f" in {_POSITIVE[key]}" if _POSITIVE[key] else ""
        return first_message(_refuse(key, item, is_number(item) and item > 0, f"above 0{unit}") for item in values)
    if key in _WHOLE:
        least = _WHOLE[key]
        rule = f"that is whole and at least {least}"
        return first_message(_refuse(key, item, _is_whole(item) and item >= least, rule) for item in values)
    if key.endswith("_fraction"):
        return _refuse(key, value, is_number(value) and 0 <= value <= 1, "from 0 to 1")
    return None


def _refuse(key: str, value: Any, holds: bool, rule: str) -> str | None:
    return None if holds else f"{key} is {value!r}; give a number {rule}"


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
