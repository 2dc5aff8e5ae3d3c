"""Checks of inputs; each returns what is wrong and what to do, or None, and never raises."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from aiida import orm

from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.cell_moves import CELL_SHAPES
from aiida_mofmace.worker.kernels.displacement import DISPLACEMENTS
from aiida_mofmace.worker.training.settings import split_sizes

__all__ = [
    "CHOICES",
    "check_choice",
    "check_code",
    "check_elements",
    "check_engine",
    "check_flexible_cell",
    "check_integer",
    "check_lammps_exchange",
    "check_lammps_gas",
    "check_moves",
    "check_options",
    "check_positive",
    "check_pressure",
    "check_replay_files",
    "check_training_size",
    "check_window",
    "first_message",
    "gas_elements",
]

#: What the programs of the worker know, by parameter.
CHOICES = {
    "device": ("auto", "cpu", "cuda"),
    "dtype": ("float32", "float64"),
    "engine": ("native", "lammps"),
    "equation_of_state": ("ideal", "peng_robinson"),
    "thermostat": ("nose_hoover", "langevin"),
}
_MOVES = ("exchange", *DISPLACEMENTS)


def first_message(messages: Iterable[str | None]) -> str | None:
    """Return the first message that says something is wrong."""
    return next((message for message in messages if message), None)


def check_code(code: orm.AbstractCode | None, prefix: str) -> str | None:
    """Refuse a code that was set up for another plugin.

    :param prefix: what the code's default calculation plugin must begin with; a code without one is taken as it is
    """
    plugin = code.default_calc_job_plugin if code is not None else None
    if code is None or plugin is None or plugin.startswith(prefix):
        return None
    return f"code {code.label} is set up for {plugin}; give a code whose default plugin begins with {prefix!r}"


def check_elements(elements: Iterable[str], models: Iterable[MaceModelData], what: str) -> str | None:
    """Refuse elements that a model does not know."""
    wanted = sorted(set(elements))
    for model in models:
        unknown = [element for element in wanted if element not in model.elements]
        if unknown:
            return (
                f"model {model.name} knows no {', '.join(unknown)} of the {what}, only {', '.join(model.elements)}; "
                "take a model that was trained with these elements, or train one from scratch (BlankModelCalculation)"
            )
    return None


def check_choice(key: str, value: Any, choices: Iterable[str] = ()) -> str | None:
    """Refuse a name that is none of those to choose from.

    :param choices: the names; those of :data:`CHOICES` if not given
    """
    known = list(choices) or CHOICES[key]
    return None if value in known else f"{key} is {value!r}; it must be one of {', '.join(known)}"


def check_engine(parameters: Mapping[str, Any]) -> str | None:
    """Refuse an engine that is none."""
    return check_choice("engine", parameters.get("engine", "native"))


def check_moves(moves: Any) -> str | None:
    """Refuse kinds of Monte Carlo moves that there are not, and frequencies that are none."""
    unknown = sorted(set(moves) - set(_MOVES)) if isinstance(moves, Mapping) else [str(moves)]
    if unknown:
        return f"moves {', '.join(unknown)} are unknown; known are {', '.join(_MOVES)}"
    wrong = next((name for name, value in moves.items() if _number(value) is None or value < 0), None)
    if wrong:
        return f"the frequency of {wrong} is {moves[wrong]!r}; give a number of at least 0"
    return None if any(moves.values()) else "no kind of move has a frequency above 0; give exchange one"


def check_lammps_exchange(parameters: Mapping[str, Any]) -> str | None:
    """Refuse what LAMMPS cannot do: parts that are held, and moves other than exchanges."""
    if parameters.get("engine", "native") != "lammps":
        return None
    held = [name for name in ("framework_flexible", "gas_flexible") if not parameters.get(name, True)]
    moves = [name for name, share in parameters.get("moves", {}).items() if name != "exchange" and share]
    if held or moves or parameters.get("thermostat", "nose_hoover") != "nose_hoover":
        return "the engine lammps holds nothing, makes no moves but exchanges and has the thermostat nose_hoover alone"
    many = parameters.get("trial_places", 1) != 1
    return "the engine lammps tries one place at a time; set trial_places to 1" if many else None


def check_lammps_gas(parameters: Mapping[str, Any], gas: orm.Dict) -> str | None:
    """Refuse a mixture where LAMMPS exchanges molecules."""
    if parameters.get("engine", "native") != "lammps" or "components" not in gas.get_dict():
        return None
    return "the engine lammps takes one kind of molecule; set engine to native for a mixture"


def check_flexible_cell(parameters: Mapping[str, Any]) -> str | None:
    """Refuse a cell that changes as none can, or where framework or engine of MD-GCMC are against it."""
    shape = parameters.get("flexible_cell", "none")
    if shape == "none":
        return None
    if not parameters.get("framework_flexible", True):
        return "flexible_cell needs a framework that moves; set framework_flexible to true, or flexible_cell to none"
    if parameters.get("engine", "native") != "native":
        return "flexible_cell needs the engine native"
    moves, attempts = parameters.get("md_steps_per_cell_move", 10), parameters.get("md_steps_per_attempt")
    if isinstance(moves, int) and isinstance(attempts, int) and attempts > 0 and moves % attempts:
        return "md_steps_per_cell_move must be a multiple of md_steps_per_attempt"
    return _check_cell_moves(parameters, shape)


def check_pressure(parameters: Mapping[str, Any]) -> str | None:
    """Refuse a pressure in MD on a cell that cannot give way to it."""
    shape = parameters.get("flexible_cell", "full")
    if parameters.get("pressure") is None:
        return None
    if shape == "none":
        return "a pressure needs a cell that changes; set flexible_cell to full, or pressure to null"
    if parameters.get("engine", "native") == "lammps" and shape != "full":
        return "the engine lammps changes the whole cell; set flexible_cell to full, or engine to native"
    return _check_cell_moves(parameters, shape)


def _check_cell_moves(parameters: Mapping[str, Any], shape: Any) -> str | None:
    """Refuse moves of the cell that there are not."""
    if shape not in CELL_SHAPES:
        return f"flexible_cell is {shape!r}; it must be one of {', '.join(CELL_SHAPES)}"
    given = {key: parameters[key] for key in ("cell_step", "max_volume_change") if key in parameters}
    pressures = {key: parameters.get(key) for key in ("pressure", "cell_pressure")}
    wrong = next((key for key, value in pressures.items() if value is not None and _number(value) is None), None)
    if wrong:
        return f"{wrong} is {pressures[wrong]!r}; give a number in Pa, or null"
    steps = {"md_steps_per_cell_move": parameters.get("md_steps_per_cell_move", 10)}
    return check_positive(given, dict.fromkeys(given, "")) or check_integer(steps, {"md_steps_per_cell_move": 1})


def gas_elements(gas: orm.Dict | None) -> list[str]:
    """Return the symbols of a gas molecule, or of all in a mixture; none without a gas."""
    content = {} if gas is None else gas.get_dict()
    parts = content.get("components", [content])
    return [str(symbol) for part in parts for symbol in part.get("symbols", [])]


def _number(value: Any) -> float | None:
    """Return a finite number, None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def check_positive(parameters: Mapping[str, Any], units: Mapping[str, str]) -> str | None:
    """Refuse parameters that are missing or not above zero.

    :param units: unit by key, for the message
    """
    for key, unit in units.items():
        number = _number(parameters.get(key))
        if number is None or number <= 0:
            return f"{key} is {parameters.get(key)!r}; give a number above 0{f' in {unit}' if unit else ''}"
    return None


def check_integer(parameters: Mapping[str, Any], lowest: Mapping[str, int]) -> str | None:
    """Refuse parameters that are missing, no integers or too small.

    :param lowest: smallest value that makes sense, by key
    """
    for key, limit in lowest.items():
        value = parameters.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < limit:
            return f"{key} is {value!r}; give an integer of at least {limit}"
    return None


def check_replay_files(train: orm.SinglefileData | None, valid: orm.SinglefileData | None) -> str | None:
    """Refuse replay data without a structure, and the same structures to train and to validate on."""
    given = {name: node for name, node in (("replay_train", train), ("replay_valid", valid)) if node is not None}
    contents = {name: node.get_content(mode="rb") for name, node in given.items()}
    empty = [name for name, content in contents.items() if not content.strip()]
    if empty:
        return f"{empty[0]} is an empty file; give structures as extended XYZ"
    if len(set(contents.values())) < len(contents):
        return "replay_train and replay_valid are the same; give other structures to validate on, or no replay_valid"
    return None


def check_training_size(n_frames: int, fine_tune: Mapping[str, Any]) -> str | None:
    """Refuse labels that are too few to split into parts, or that do not fill one batch.

    :param n_frames: number of labels
    :param fine_tune: parameters of a training; of what is missing the defaults
    """
    try:
        n_train, _, _ = split_sizes(n_frames, fine_tune.get("valid_fraction", 0.0), fine_tune.get("test_fraction", 0.0))
    except WorkerError as error:
        return f"dataset: {error}"
    batch_size = fine_tune.get("batch_size", 1)
    if fine_tune.get("multihead"):
        n_train += fine_tune.get("n_replay") or batch_size
    if n_train >= batch_size:
        return None
    return f"{n_train} frames to train on do not fill a batch of {batch_size}; lower batch_size or add labels"


def check_window(window: Any) -> str | None:
    """Refuse a window of the force deviation that is empty; None means no window."""
    if window is None:
        return None
    bounds = [_number(bound) for bound in window] if isinstance(window, (list, tuple)) else []
    if len(bounds) != 2 or None in bounds:
        return f"window is {window!r}; give two numbers in eV/Å, or null for none"
    low, high = bounds
    if low is None or high is None or low < 0 or low >= high:
        return f"window [{low}, {high}] is empty; its lower bound must be at least 0 and below the upper one"
    return None


def check_options(parameters: Mapping[str, Any]) -> str | None:
    """Refuse a device, a precision or a thermostat that no worker knows."""
    given = [key for key in ("device", "dtype", "thermostat") if key in parameters]
    return first_message(check_choice(key, parameters[key]) for key in given)
