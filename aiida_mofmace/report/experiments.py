"""Measured isotherms and heats of adsorption to compare with; every one names its source."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import reduce
from importlib import resources
from math import gcd
from typing import Any

__all__ = ["NO_EXPERIMENT", "measured"]

NO_EXPERIMENT: dict[str, Any] = {"material": "", "isotherms": [], "heats_of_adsorption": []}


def measured(counts: Mapping[str, int], gas: str) -> dict[str, Any]:
    """Return what was measured of a material with this composition and this gas.

    :param counts: atoms of each element in the cell of the framework
    :param gas: name of the gas, e.g. CO2
    :return: material, isotherms (pressure_bar, loading_mol_per_kg, temperature_K, source, reference) and
        heats_of_adsorption (value_kJ_per_mol, source, reference); both lists are empty if nothing is known
    """
    divisor = reduce(gcd, counts.values(), 0) or 1
    reduced = {element: count // divisor for element, count in counts.items()}
    for path in resources.files("aiida_mofmace.report").joinpath("data").iterdir():
        if not path.name.endswith(".json"):
            continue
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if record["gas"] == gas and record["reduced_formula"] == reduced:
            return record
    return NO_EXPERIMENT
