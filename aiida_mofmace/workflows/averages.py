"""Runs beside an isotherm that give averages of their own: those of the heat of adsorption and Henry coefficients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiida import orm

from aiida_mofmace.calculations.base import WorkerCalculation
from aiida_mofmace.calculations.mace_md import MaceMdCalculation
from aiida_mofmace.calculations.widom import WidomCalculation

from .jobs import gas_phase_inputs, md_inputs, widom_inputs

__all__ = ["average_job", "average_names", "henry_gases", "is_average"]

#: The three terms of equation 2 of the paper.
_HEAT = ("heat_loaded", "heat_framework", "heat_gas")


def henry_gases(gas: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the molecules whose Henry coefficients are wanted, by name of the run; of a mixture each component.

    :param gas: description of the molecule or the mixture
    :param parameters: of the protocol
    """
    if not parameters["henry_coefficient"]["insertions"]:
        return {}
    if "components" not in gas:
        return {"henry": dict(gas)}
    alone = [{key: part[key] for key in part if key != "mole_fraction"} for part in gas["components"]]
    return {f"henry_{index:02d}": part for index, part in enumerate(alone)}


def average_names(gas: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[str]:
    """Return the names of the runs; the heat by equation 2 is that of one kind of molecule."""
    return [*(() if "components" in gas else _HEAT), *henry_gases(gas, parameters)]


def is_average(key: str) -> bool:
    """Whether a key of the window stands for such a run, and not for a point."""
    return key.startswith(("heat_", "henry"))


def average_job(
    key: str, inputs: Mapping[str, Any], parameters: Mapping[str, Any], checkpoint: orm.SinglefileData | None
) -> tuple[type[WorkerCalculation], dict[str, Any]]:
    """Return class and inputs of the next job of a run.

    :param key: name of the run, perhaps with the number of its part behind it
    :param inputs: code, structure, gas, model and seed
    :param checkpoint: state to go on from, None to begin
    """
    name, model, section = key.partition("_part_")[0], inputs["model"], parameters["heat_of_adsorption"]
    job: type[WorkerCalculation] = MaceMdCalculation
    if name == "heat_gas":
        content = gas_phase_inputs(key, inputs, parameters, section, model)
    elif name in _HEAT:
        loading = section["n_molecules"] if name == "heat_loaded" else 0
        run = {"run": section, "model": model, "temperature": section["temperature"], "loading": loading}
        content = md_inputs(key, inputs, parameters, **run)
    else:
        job = WidomCalculation
        content = widom_inputs(key, inputs, parameters, henry_gases(inputs["gas"].get_dict(), parameters)[name])
    return job, content | ({} if checkpoint is None else {"checkpoint": checkpoint})
