"""Checks of the values of a protocol, one by one and within their section."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from aiida import orm

from aiida_mofmace.calculations.diversity_select import DiversitySelectCalculation
from aiida_mofmace.calculations.lammps_script import PAIR_STYLES
from aiida_mofmace.calculations.validators import (
    CHOICES,
    check_choice,
    check_engine,
    check_flexible_cell,
    check_lammps_exchange,
    check_moves,
    check_pressure,
    check_window,
    first_message,
)
from aiida_mofmace.protocols import force_field_names
from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.descriptors import SoapSettings
from aiida_mofmace.worker.training.settings import option_fault

from .parameter_types import check_type, is_number
from .scheduler_options import check_cores, check_scheduler_options

__all__ = ["check_parameters", "check_value", "validate_parameters"]


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


def check_parameters(parameters: Mapping[str, Any]) -> str | None:
    """Return what is wrong with the values of a protocol, or None."""
    return _check_values(parameters, "") or check_cores(parameters)


def _check_values(values: Mapping[str, Any], prefix: str) -> str | None:
    """Return what is wrong with the values below a section, or None; the same key means the same everywhere."""
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if dotted in _OPEN:
            message = _OPEN[dotted](value, dotted)
        elif isinstance(value, Mapping):
            message = check_type(dotted, value) or _check_values(value, f"{dotted}.") or _check_section(dotted, value)
        else:
            message = None if value is None else check_value(key, value)
            message = f"{prefix}{message}" if message else check_type(dotted, value)
        if message:
            return message
    return None


def _check_section(dotted: str, values: Mapping[str, Any]) -> str | None:
    """Refuse values that are sound one by one and do not go together, or are no name that is known."""
    check = _SECTIONS.get(dotted)
    message = (check(values) if check else None) or _check_length(values)
    return f"{dotted}: {message}" if message else None


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
    if values.get("share_calls") and not values.get("batch"):
        return "share_calls is for runs of one job; set batch to true as well"
    return None


def _check_exploration(values: Mapping[str, Any]) -> str | None:
    if values["loadings"] or values["pressures"] or not values["max_rounds"]:
        return None
    return "loadings and pressures are both empty; give at least one of either to explore, or set max_rounds to 0"


_SECTIONS: dict[str, Callable[[Mapping[str, Any]], str | None]] = {
    "active_learning": _check_exploration,
    "gcmc": _check_gcmc,
    "gcmc.moves": check_moves,
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
    "max_temperature_factor": "",
    "barostat_time_fs": "fs",
    "largest_force": "eV/Å",
    "stage_two_learning_rate": "",
    "nan_learning_rate_factor": "",
    "r_max": "Å",
    "scale": "eV",
    "perplexity": "",
}
_NOT_NEGATIVE = {
    "minimum_distance": "Å",
    "detached_distance": "Å",
    "rattle_amplitude": "Å",
    "ceiling": "eV",
    "cell_pressure": "Pa",
    "duplicate_tolerance": "",
    "weight_decay": "",
    "energy_weight": "",
    "forces_weight": "",
    "stress_weight": "",
    "stage_two_energy_weight": "",
    "stage_two_forces_weight": "",
    "stage_two_stress_weight": "",
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
    "min_effective_samples": 1,
    "max_candidates": 1,
    "rattled_frames": 1,
    "rattled_gas_frames": 0,
    "n_replay": 1,
    "valid_batch_size": 1,
    "patience": 1,
    "stage_two_start": 1,
    "multiplicity": 1,
    "pca_sample": 1,
    "max_points": 1,
    "coverage_cells": 1,
    "channels": 1,
    "layers": 1,
    "correlation": 1,
    "n_radial": 1,
    "max_l": 0,
    "max_ell": 1,
}
_MAY_BE_EMPTY = ("pressures", "loadings")


def _check_atomic_energies(value: Any, dotted: str) -> str | None:
    ways = ("foundation", "estimated", "isolated_atoms")
    is_table = isinstance(value, Mapping) and bool(value) and all(map(is_number, value.values()))
    if is_table or (isinstance(value, str) and value in ways):
        return None
    return f"{dotted} is {value!r}; give one of {', '.join(ways)}, or energies in eV by element"


def _check_magnetization(value: Any, dotted: str) -> str | None:
    """Refuse moments that are no numbers; whether they fit the structure is seen with the level of theory."""
    moments = list(value.values()) if isinstance(value, Mapping) else [value]
    listed = [item for moment in moments for item in (moment if isinstance(moment, (list, tuple)) else [moment])]
    if value is None or (isinstance(value, Mapping) and all(map(is_number, listed)) and [] not in moments):
        return None
    return f"{dotted} is {value!r}; give moments in μB by element, such as {{Fe: [5, -5]}}, or null"


def _check_mace_options(value: Any, dotted: str) -> str | None:
    message = check_type(dotted, value) or first_message(option_fault(str(name)) for name in value)
    return f"{dotted}: {message}" if message else None


_OPEN: dict[str, Callable[[Any, str], str | None]] = {
    "fine_tune.e0s": _check_atomic_energies,
    "fine_tune.options": _check_mace_options,
    "labels.magnetization": _check_magnetization,
    "resources.worker_options": check_scheduler_options,
    "resources.cp2k_options": check_scheduler_options,
}


def check_value(key: str, value: Any) -> str | None:
    """Return what is wrong with one value of a protocol, or None."""
    values = value if isinstance(value, (list, tuple)) else [value]
    if key == "window":
        return check_window(value)
    if isinstance(value, (list, tuple)) and not value and key not in _MAY_BE_EMPTY:
        return f"{key} is empty; give at least one"
    if key in _choices():
        return check_choice(key, value, _choices()[key])
    holds, words = _rule(key)
    return next((f"{key} is {item!r}; give a number {words}" for item in values if not holds(item)), None)


def _rule(key: str) -> tuple[Callable[[Any], bool], str]:
    """Return what a number at this key must be, as a test and in words; any value passes where nothing is known."""
    unit = _POSITIVE.get(key) or _NOT_NEGATIVE.get(key)
    of_unit = f" in {unit}" if unit else ""
    if key in _POSITIVE:
        return (lambda value: is_number(value) and value > 0), f"above 0{of_unit}"
    if key == "model_hole_bound":
        return (lambda value: not is_number(value) or value < 0), "below 0 in eV"
    if key in _NOT_NEGATIVE:
        return (lambda value: is_number(value) and value >= 0), f"of at least 0{of_unit}"
    if key in _WHOLE:
        least = _WHOLE[key]
        return (lambda value: _is_whole(value) and value >= least), f"that is whole and at least {least}"
    if key.endswith(("_fraction", "_decay")):
        return (lambda value: is_number(value) and 0 <= value <= 1), "from 0 to 1"
    return (lambda _: True), ""


@cache
def _choices() -> dict[str, Iterable[str]]:
    """Return the names to choose from, by key; those that a section is checked for are left to it."""
    names: dict[str, Iterable[str]] = {key: CHOICES[key] for key in ("device", "dtype", "thermostat")}
    names["equation_of_state"] = CHOICES["equation_of_state"]
    return names | {"force_field": force_field_names(), "pair_style": PAIR_STYLES}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
