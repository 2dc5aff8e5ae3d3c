"""The report: one HTML file that opens from disk, without network, in light and dark, narrow and wide."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from aiida import orm

from aiida_mofmace.report import figures
from aiida_mofmace.report.collect import BAR, collect
from aiida_mofmace.report.picture import structure_picture
from aiida_mofmace.report.progress import duration
from aiida_mofmace.report.summary import with_error, with_power
from aiida_mofmace.report.svg import MINUS, limits
from aiida_mofmace.report.units import alpha_figure, units_figure

__all__ = ["render", "write_report"]

_MOST_MAPS = 4
_LOW = {ord(str(digit)): chr(0x2080 + digit) for digit in range(10)}


def write_report(process: orm.ProcessNode, path: str | Path) -> Path:
    """Write the report of a run.

    :param process: the run of ``MofMaceWorkChain``, finished or not
    :param path: the HTML file to write
    :return: the path written
    """
    target = Path(path)
    target.write_text(render(collect(process)), encoding="utf-8")
    return target


def render(data: dict[str, Any]) -> str:
    """Turn collected data into the text of the report.

    :param data: what :func:`~aiida_mofmace.report.collect.collect` gave
    """
    import jinja2

    loader = jinja2.PackageLoader("aiida_mofmace.report", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        {"duration": duration, "bar": _bar, "moment": _moment, "acceptance": _acceptance, "chemical": _chemical}
    )
    environment.globals |= {"with_error": _with_error, "with_power": with_power}
    page = environment.get_template("report.html.j2")
    return page.render(data=data, figures=_figures(data), highlights=_highlights(data))


def _bar(pressure: float) -> str:
    return f"{pressure / BAR:.4g}"


def _with_error(*arguments: Any) -> str:
    text = with_error(*arguments)
    return text if text == "-" else text.replace("-", MINUS)


def _chemical(text: str | None) -> str:
    """Set the numbers of a formula low."""
    return re.sub(r"(?<=[A-Za-z)])\d+", lambda match: match.group().translate(_LOW), text or "")


def _moment(value: Any) -> str:
    return value.strftime("%Y-%m-%d %H:%M UTC") if value is not None else "-"


def _acceptance(point: dict[str, Any]) -> str:
    insertion = (point.get("acceptance") or {}).get("insertion") or {}
    attempted = insertion.get("attempted")
    return f"{100.0 * insertion.get('accepted', 0) / attempted:.1f} %" if attempted else "-"


def _figures(data: dict[str, Any]) -> dict[str, Any]:
    """Draw what there is."""
    drawn: dict[str, Any] = {"parity": _parity_figures(data["parity"])}
    if data["header"]["atoms"] is not None:
        drawn["structure"] = structure_picture(data["header"]["atoms"])
    if data["phases"]:
        drawn["timeline"] = figures.timeline_figure(data["phases"])
    if data["learning_curve"]:
        drawn["learning_curve"] = figures.learning_curve_figure(data["learning_curve"])
    drawn["maps"] = [(row, figures.selection_map(row)) for row in data["selections"][-_MOST_MAPS:]]
    if data["deviations"]:
        drawn["deviations"] = figures.deviation_figure(data["deviations"])
    if data["isotherm"].get("points") or data["uff_isotherm"].get("points"):
        curves = (data["isotherm"], data["uff_isotherm"], data["experiment"])
        drawn["isotherm_log"] = figures.isotherm_figure(*curves, log=True)
        drawn["isotherm_linear"] = figures.isotherm_figure(*curves, log=False)
    if data["timeseries"]:
        drawn["loading"] = figures.loading_figure(data["timeseries"], data["isotherm"])
    if data["structural_units"]:
        drawn["units"], drawn["alpha"] = units_figure(data["structural_units"]), alpha_figure(data["structural_units"])
    return drawn


def _parity_figures(parity: dict[str, dict[str, Any]]) -> dict[str, dict[str, str]]:
    """Draw before and after on common axes, so that the eye can compare."""
    if not parity:
        return {}
    stages = list(parity.values())
    forces = limits(np.concatenate([stage["reference_forces"] for stage in stages]), 0.03)
    first = stages[0]
    centres = {
        int(loading): float(first["reference_energies"][first["loadings"] == loading].mean())
        for loading in np.unique(first["loadings"])
    }
    shown = [_centred(stage, centres, "reference_energies") for stage in stages]
    energies = limits(np.concatenate([*shown, _centred(stages[-1], centres, "energies")]), 0.1)
    return {
        name: {
            "force": figures.force_parity(stage, forces),
            "energy": figures.energy_parity(stage, energies, centres),
        }
        for name, stage in parity.items()
    }


def _centred(stage: dict[str, Any], centres: dict[int, float], key: str) -> Any:
    shifts = np.array([centres[int(loading)] for loading in stage["loadings"]])
    return 1000.0 * (stage[key] - shifts)


def _highlights(data: dict[str, Any]) -> list[dict[str, str]]:
    """Choose the figures that stand at the top: value, unit and what it is."""
    labels = data["labels"]
    cards = [_card(str(labels["made"]), "", "labels made", f"{labels['failed']} failed")]
    if len(data["parity"]) == 2:
        before, after = data["parity"]["before"], data["parity"]["after"]
        for key, digits, unit, name in (
            ("force_mae_mev_per_ang", 1, "meV/Å", "force error (MAE)"),
            ("energy_mae_mev_per_atom", 2, "meV/atom", "energy error (MAE)"),
        ):
            cards.append(_card(f"{after[key]:.{digits}f}", unit, name, f"{before[key]:.{digits}f} before fine-tuning"))
    heat = data["heat_of_adsorption"]
    if heat:
        value = _with_error(heat["value_kJ_per_mol"], heat.get("error_kJ_per_mol"), 1)
        note = "" if heat.get("converged", True) else ", not converged"
        cards.append(_card(value, "kJ/mol", "heat of adsorption", f"at {heat['temperature_K']:g} K{note}"))
    points = data["isotherm"].get("points", [])
    if points:
        point = points[-1]
        value = _with_error(point["loading_mol_per_kg"], point["loading_mol_per_kg_error"])
        note = "" if point["converged"] else ", not converged"
        cards.append(_card(value, "mol/kg", "loading", f"at {_bar(point['pressure_Pa'])} bar{note}"))
    return cards


def _card(value: str, unit: str, name: str, note: str) -> dict[str, str]:
    return {"value": value, "unit": unit, "name": name, "note": note}
