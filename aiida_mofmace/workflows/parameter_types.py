"""Types of the values of a protocol: those of the protocols that come with the package, and numbers written as text."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np

from aiida_mofmace.protocols import load_protocol, protocol_names
from aiida_mofmace.worker.training.settings import FineTuneSettings

__all__ = ["OPEN_KEYS", "as_wanted", "check_type", "is_number", "type_words"]

#: Dotted keys whose content is free: what stands below them is not in the protocol files.
OPEN_KEYS = (
    "fine_tune.options",
    "fine_tune.e0s",
    "labels.magnetization",
    "resources.worker_options",
    "resources.cp2k_options",
)
#: What may stand at a key that is null or empty in all protocols.
_IN_PLACE_OF_NOTHING: dict[str, Any] = {
    "aimd.loadings": [1],
    "gcmc.cell_pressure": 1.0e5,
    "labels.kpoints": [2, 2, 2],
    "labels.magnetization": {"Fe": [5, -5]},
    "labels.multiplicity": 1,
    "sampling.pressure": 1.0e5,
}
#: Keys that may be null beside those that are in a protocol: what they bound, choose or count is left out then.
_MAY_BE_NULL = {
    "gcmc.surrogate.force_field",
    "selection.detached_distance",
    *(f"fine_tune.{entry.name}" for entry in fields(FineTuneSettings) if entry.default is None),
}
_WORDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    tuple: "a list",
    dict: "a mapping",
}


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all sections and values by their dotted keys."""
    for key, value in content.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping) and f"{prefix}{key}" not in OPEN_KEYS:
            yield from _flat(value, f"{prefix}{key}.")


@cache
def _examples() -> dict[str, Any]:
    """Return what stands at each dotted key of the protocols; something else where that is null or empty."""
    pairs = [pair for name in protocol_names() for pair in _flat(load_protocol(name))]
    return {key: value for key, value in pairs if value not in (None, [])} | _IN_PLACE_OF_NOTHING


@cache
def _nullable() -> frozenset[str]:
    """Return the dotted keys whose value may be null."""
    pairs = [pair for name in protocol_names() for pair in _flat(load_protocol(name))]
    return frozenset(_MAY_BE_NULL | {key for key, value in pairs if value is None})


def as_wanted(dotted: str, value: Any) -> Any:
    """Return a copy of a value in which text that is a number is one, where the protocols have numbers.

    YAML takes ``1e-3``, without a dot, and ``1.0e5``, without a sign, for text. A whole number is an integer where one
    is wanted, and what is of numpy is of Python.

    :param dotted: key of the value
    """
    example = _examples().get(dotted)
    value = value.tolist() if isinstance(value, np.ndarray) else value
    if isinstance(value, Mapping) and dotted == "fine_tune.e0s":
        return {key: _number(item, 1.0) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and isinstance(example, list):
        return [_number(item, example[0]) for item in value]
    return copy.deepcopy(_number(value, example))


def _number(value: Any, example: Any) -> Any:
    """Return the number that a value is, of the example's type if it can be; any other value as it is."""
    value = value.item() if isinstance(value, np.generic) else value
    if not is_number(example) or not isinstance(value, (str, float)):
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    if isinstance(example, int) and number.is_integer():
        return int(number)
    return number


def check_type(dotted: str, value: Any) -> str | None:
    """Refuse a value of another type than the protocols have at this key; a key that they lack may hold anything."""
    example = _examples().get(dotted)
    may_be_null = dotted in _nullable()
    if example is None or _fits(value, example) or (value is None and may_be_null):
        return None
    what = "null" if value is None else repr(value)
    return f"{dotted} is {what}; give {_described(example)}{', or null' if may_be_null else ''}"


def _fits(value: Any, example: Any) -> bool:
    """Whether a value is of the type of an example; a list is if all its items are."""
    if isinstance(example, list):
        return isinstance(value, (list, tuple)) and all(_fits(item, example[0]) for item in value)
    if isinstance(example, float):
        return is_number(value)
    if isinstance(example, int) and isinstance(value, bool):
        return isinstance(example, bool)
    return isinstance(value, Mapping if isinstance(example, Mapping) else type(example))


def _described(example: Any) -> str:
    shown = example[:3] if isinstance(example, list) else example
    return type_words(type(example)) + ("" if isinstance(example, bool) else f" such as {shown!r}")


def type_words(*types: type) -> str:
    """Return what to call values of these types, e.g. "a whole number"."""
    return " or ".join(dict.fromkeys(_WORDS.get(one, one.__name__) for one in types))


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; true and false are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
