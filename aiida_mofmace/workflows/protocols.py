"""Protocols: a named set of parameters, overridden key by key, with misspelt keys refused."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from aiida.engine import Process
from aiida.engine.processes.builder import ProcessBuilder

from aiida_mofmace.data.model import UNTRAINED, MaceModelData
from aiida_mofmace.protocols import load_changes, load_protocol

from .parameter_checks import check_parameters
from .parameter_types import OPEN_KEYS, as_wanted
from .scheduler_options import check_job_resources

__all__ = ["DEFAULT_PROTOCOL", "filled_builder", "merge", "resolve"]

DEFAULT_PROTOCOL = "fast"


def resolve(
    protocol: str | None = None, overrides: Mapping[str, Any] | None = None, model: Any = None
) -> dict[str, Any]:
    """Return the parameters of a protocol with the overrides put over them.

    :param protocol: name of a protocol; None for the default
    :param overrides: nested like the protocol file, with only the keys to be changed
    :param model: to start from; for an untrained one, changes for training from scratch come before the overrides
    :raises ValueError: if the protocol is unknown, a key is misspelt, or a value is none that its key can have
    """
    parameters = load_protocol(protocol or DEFAULT_PROTOCOL)
    if isinstance(model, MaceModelData) and model.kind == UNTRAINED:
        parameters = merge(parameters, load_changes("from_scratch"))
    parameters = merge(parameters, overrides or {})
    message = check_parameters(parameters)
    if message:
        raise ValueError(message)
    return parameters


def merge(parameters: Mapping[str, Any], overrides: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a deep copy of the parameters with the overrides put over them, numbers written as text as numbers.

    :raises ValueError: for a key that the parameters do not have, with its dotted name and the nearest known one
    """
    merged = copy.deepcopy(dict(parameters))
    if not isinstance(overrides, Mapping):
        raise ValueError(f"overrides must be a mapping of the protocol's keys, not {type(overrides).__name__}")
    for key, value in overrides.items():
        dotted = f"{prefix}{key}"
        if key not in merged:
            raise ValueError(_unknown_key(dotted, prefix, merged))
        if isinstance(merged[key], Mapping) and dotted not in OPEN_KEYS:
            if not isinstance(value, Mapping):
                raise ValueError(f"override {dotted!r} must be a mapping with some of {_listing(merged[key])}")
            merged[key] = merge(merged[key], value, f"{dotted}.")
        elif isinstance(value, Mapping) and dotted not in OPEN_KEYS:
            raise ValueError(f"override {dotted!r} must be a plain value such as {merged[key]!r}, not a mapping")
        else:
            merged[key] = as_wanted(dotted, value)
    return merged


def filled_builder(process_class: type[Process], inputs: Mapping[str, Any]) -> ProcessBuilder:
    """Return a builder with these inputs, checked by all validators of the process.

    :param inputs: by port, nested like the namespaces; those that are None are left out
    :raises ValueError: if a validator or the scheduler refuses an input, a needed one is missing, or one is unknown
    """
    builder = process_class.get_builder()
    builder._update(_without_none(inputs))
    error = process_class.spec().inputs.validate(builder._inputs(prune=True))
    message = f"{error.message} (input {error.port})" if error else check_job_resources(inputs)
    if message:
        raise ValueError(f"{process_class.__name__}: {message}")
    return builder


def _without_none(inputs: Mapping[str, Any]) -> dict[str, Any]:
    # A node that is a mapping, such as a Dict, is no namespace of ports.
    return {
        key: _without_none(value) if type(value) is dict else value
        for key, value in inputs.items()
        if value is not None
    }


def _unknown_key(dotted: str, prefix: str, known: Mapping[str, Any]) -> str:
    name = dotted.removeprefix(prefix)
    close = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f"did you mean {prefix + close[0]!r}?" if close else f"known here are {_listing(known)}"
    return f"unknown override key {dotted!r}; {hint}"


def _listing(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
