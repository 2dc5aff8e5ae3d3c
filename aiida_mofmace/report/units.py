"""Structural units and binding sites in the report: tables, fractions as bars with errors, distribution of alpha."""

from __future__ import annotations

from typing import Any

import numpy as np
from aiida import orm

from aiida_mofmace.report.provenance import array, dict_output, output
from aiida_mofmace.report.svg import Axis, Canvas, LegendEntry
from aiida_mofmace.report.tree import ProcessTree

__all__ = ["alpha_figure", "binding_sites", "structural_units", "units_figure"]

_MAKER = "StructuralUnitsWorkChain"
_WIDTH = 460.0
_BAR, _GAP = 15.0, 14.0


def structural_units(tree: ProcessTree) -> dict[str, Any]:
    """Read what the latest work chain of structural units has given.

    :return: rows (run, temperature, loading, units, orientation, flips, n_frames, alpha: fractions of 36 bins or None)
        and names of the units; empty if there is none
    """
    rows = dict_output(tree, "table", _MAKER).get("rows", [])
    if not rows or "run" not in rows[0]:
        return {}
    makers = [tree.root, *reversed(tree.labelled(_MAKER))]
    for row in rows:
        series = next((node for record in makers if (node := output(record, f"series__{row['run']}"))), None)
        row["alpha"] = array(series, "alpha_histogram") if isinstance(series, orm.ArrayData) else None
    return {"rows": rows, "names": list(rows[0]["units"])}


def units_figure(units: dict[str, Any]) -> str:
    """Draw the fraction of each unit with its standard error, run by run; hollow where it is not to be relied on.

    :param units: of :func:`structural_units`
    """
    names, rows = units["names"], units["rows"]
    strip = _BAR * len(names) + _GAP
    height = 20 + strip * len(rows) + 46
    canvas = Canvas(
        _WIDTH, height, "Fractions of the structural units with error bars, for each temperature and loading"
    )
    x = Axis(0.0, 1.0, "fraction of the unit cells", first_pixel=150, last_pixel=_WIDTH - 16)
    for index, row in enumerate(rows):
        top = 14 + index * strip
        canvas.text(8, top + strip / 2, f"{row['temperature']:g} K, {row['loading']} molecules", "strip")
        for line, name in enumerate(names):
            y, value = top + line * _BAR + _BAR / 2, row["units"][name]
            canvas.text(x.first_pixel - 6, y + 4, name, "tick", anchor="end")
            canvas.segment(x.first_pixel, y, x.at(value["mean"]), y, "grid")
            if value["error"] is not None:
                low, high = (x.at(float(np.clip(value["mean"] + s * value["error"], 0, 1))) for s in (-1, 1))
                canvas.segment(low, y, high, y, "error s1")
            hollow = " hollow" if value["too_short"] else ""
            canvas.mark(x.at(value["mean"]), y, f"mark s1{hollow}", tip=f"{name}: {value['mean']:.3f}")
    bottom = 14 + strip * len(rows)
    for tick in x.ticks():
        canvas.segment(x.at(tick), bottom, x.at(tick), bottom + 4, "axis")
        canvas.text(x.at(tick), bottom + 17, f"{tick:g}", "tick", anchor="middle")
    canvas.text((x.first_pixel + x.last_pixel) / 2, bottom + 36, x.label, "label", anchor="middle")
    return canvas.svg()


def alpha_figure(units: dict[str, Any]) -> str:
    """Draw the distribution of alpha over all hydroxyl groups and frames, a line for each run (at most four).

    :param units: of :func:`structural_units`
    """
    rows = [row for row in units["rows"] if row["alpha"] is not None][:4]
    canvas = Canvas(_WIDTH, 320, "Distribution of the angle alpha of the hydroxyl groups")
    top = max((float(row["alpha"].max()) for row in rows), default=1.0)
    x = Axis(0.0, 180.0, "alpha (degrees)", first_pixel=62, last_pixel=_WIDTH - 14)
    y = Axis(0.0, 1.2 * top, "fraction of all values", first_pixel=272, last_pixel=30 + 17 * len(rows))
    canvas.frame(x, y)
    for index, row in enumerate(rows):
        centres = (np.arange(len(row["alpha"])) + 0.5) * 180.0 / len(row["alpha"])
        canvas.line(x(centres), y(row["alpha"]), f"s{1 + index}")
    entries = [
        LegendEntry(f"{row['temperature']:g} K, {row['loading']} molecules", f"s{1 + index}")
        for index, row in enumerate(rows)
    ]
    canvas.legend(80, 12, entries)
    return canvas.svg()


def binding_sites(tree: ProcessTree) -> dict[str, Any]:
    """Read the latest table of binding energies: rows, level_of_theory and published_source; empty if there is none."""
    table = dict_output(tree, "table", "BindingSitesWorkChain")
    return table if table.get("rows") and "guest" in table["rows"][0] else {}
