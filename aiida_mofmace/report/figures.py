"""The figures of the report, each from collected data to one inline SVG element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aiida_mofmace.report.collect import BAR
from aiida_mofmace.report.progress import duration
from aiida_mofmace.report.summary import with_error
from aiida_mofmace.report.svg import Axis, Canvas, LegendEntry, limits, number

__all__ = [
    "deviation_figure",
    "energy_parity",
    "force_parity",
    "isotherm_figure",
    "learning_curve_figure",
    "loading_figure",
    "selection_map",
    "timeline_figure",
]

WIDTH = 460.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 14.0, 16.0, 48.0
_EXPERIMENT_MARKS = ("square", "diamond", "hexagon")
_MOST_DOTS = 2500
_MOST_STEPS = 300


def _axes(height: float, x: Axis, y: Axis, top: float = _TOP) -> tuple[Axis, Axis]:
    x.first_pixel, x.last_pixel = _LEFT, WIDTH - _RIGHT
    y.first_pixel, y.last_pixel = height - _BOTTOM, top
    return x, y


def learning_curve_figure(rounds: Sequence[dict[str, Any]]) -> str:
    """Draw the force error and the committee's deviation against the number of labels.

    :param rounds: rows of the learning curve: n_labels or n_train, force_mae_mev_per_ang, sigma_max_mean (eV/Å)
    """
    canvas = Canvas(WIDTH, 320, "Learning curve: force error and committee deviation against the number of labels")
    labels = np.array([row.get("n_train") or row["n_labels"] for row in rounds], dtype=float)
    errors = np.array([_value(row, "force_mae_mev_per_ang") for row in rounds])
    # A row says what the committee before it met: its deviation belongs to the labels that this one had.
    deviations = 1000.0 * np.array([*(_value(row, "sigma_max_mean") for row in rounds[1:]), float("nan")])
    both = np.concatenate([errors, deviations, [0.0]])
    x, y = _axes(
        320, Axis(*limits(labels, 0.08), "training configurations"), Axis(0, limits(both, 0.25)[1], "meV/Å"), 46
    )
    canvas.frame(x, y)
    series = (
        ("force error (MAE)", errors, "s1", "circle"),
        ("mean largest force deviation", deviations, "s2", "square"),
    )
    drawn = []
    for name, values, css, shape in series:
        if not np.isfinite(values).any():
            continue
        drawn.append(LegendEntry(name, css, shape))
        canvas.line(x(labels), y(values), css)
        for row, count, value in zip(rounds, labels, values, strict=True):
            if np.isfinite(value):
                tip = f"round {row['round']}: {value:.1f} meV/Å with {count:.0f} configurations"
                canvas.mark(x.at(count), y.at(value), f"mark {css}", shape=shape, tip=tip)
    canvas.legend(_LEFT + 18, 14, drawn)
    return canvas.svg()


def _value(row: dict[str, Any], key: str) -> float:
    value = row.get(key)
    return float("nan") if value is None else float(value)


def force_parity(parity: dict[str, Any], span: tuple[float, float]) -> str:
    """Draw predicted against labelled force components as hexagons, darker where there are more.

    :param parity: forces and reference_forces in eV/Å
    :param span: common range of both axes, so that two figures can be compared
    """
    canvas, x, y = _square("labelled force component (eV/Å)", "MACE (eV/Å)", span, "Parity of force components")
    keep = np.isfinite(parity["forces"]) & np.isfinite(parity["reference_forces"])
    px, py = x(parity["reference_forces"][keep]), y(np.clip(parity["forces"][keep], *span))
    for cx, cy, count, level in _hexagons(px, py, 6.0):
        canvas.mark(cx, cy, f"hexagon h{level}", shape="hexagon", size=6.2, tip=f"{count} components")
    _diagonal(canvas, x, y)
    return canvas.svg()


def _hexagons(px: NDArray[np.float64], py: NDArray[np.float64], radius: float) -> list[tuple[float, float, int, int]]:
    """Count points in a lattice of hexagons standing on a corner.

    :return: centre x, y, count and a shade from 1 to 5, logarithmic in the count
    """
    dx, dy = np.sqrt(3.0) * radius, 1.5 * radius
    centres = []
    for shift in (0.0, 0.5):
        row = np.round(py / (2 * dy) - shift)
        column = np.round(px / dx - shift)
        centres.append(np.stack([(column + shift) * dx, (row + shift) * 2 * dy], axis=1))
    points = np.stack([px, py], axis=1)
    distances = [np.square(points - centre).sum(axis=1) for centre in centres]
    nearest = np.where((distances[0] <= distances[1])[:, None], centres[0], centres[1])
    unique, counts = np.unique(np.round(nearest, 3), axis=0, return_counts=True)
    top = np.log(max(int(counts.max()), 2)) if len(counts) else 1.0
    levels = 1 + np.minimum((np.log(counts) / top * 5).astype(int), 4)
    return [(float(c[0]), float(c[1]), int(n), int(level)) for c, n, level in zip(unique, counts, levels, strict=True)]


def energy_parity(parity: dict[str, Any], span: tuple[float, float], centres: dict[int, float]) -> str:
    """Draw predicted against labelled energies per atom, relative to the mean labelled energy at the same loading.

    :param parity: energies and reference_energies in eV/atom, loadings
    :param span: common range of both axes in meV/atom
    :param centres: mean labelled energy of each loading in eV/atom
    """
    canvas, x, y = _square("labelled energy (meV/atom)", "MACE (meV/atom)", span, "Parity of energies per atom")
    _diagonal(canvas, x, y)
    entries = []
    for index, loading in enumerate(sorted(centres)):
        at = parity["loadings"] == loading
        true = 1000.0 * (parity["reference_energies"][at] - centres[loading])
        predicted = np.clip(1000.0 * (parity["energies"][at] - centres[loading]), *span)
        css = f"s{1 + index % 4}"
        canvas.cloud(x(true), y(predicted), css, 6.0)
        entries.append(LegendEntry(f"loading {loading}", css))
    canvas.legend(_LEFT + 18, 32, entries)
    return canvas.svg()


def _square(x_label: str, y_label: str, span: tuple[float, float], title: str) -> tuple[Canvas, Axis, Axis]:
    canvas = Canvas(WIDTH, 400, title)
    x, y = _axes(400, Axis(*span, x_label), Axis(*span, y_label))
    canvas.frame(x, y)
    return canvas, x, y


def _diagonal(canvas: Canvas, x: Axis, y: Axis) -> None:
    canvas.segment(x.at(x.low), y.at(x.low), x.at(x.high), y.at(x.high), "reference")


def selection_map(selection: dict[str, Any]) -> str:
    """Draw the two-dimensional map of pool, training set and selected frames.

    :param selection: xy (m, 2), kind (m,): 0 pool, 1 training set, 2 selected
    """
    canvas = Canvas(WIDTH, 400, "Map of the candidate frames, the training set and the selected frames")
    xy, kind = np.asarray(selection["xy"], dtype=float), np.asarray(selection["kind"])
    x = Axis(*limits(xy[:, 0], 0.04), first_pixel=10, last_pixel=WIDTH - 10)
    y = Axis(*limits(xy[:, 1], 0.04), first_pixel=390, last_pixel=34)
    series = (("pool", 0, "muted", 3.2), ("training set", 1, "s1", 4.6), ("selected", 2, "s2", 6.4))
    canvas.rectangle(1, 26, WIDTH - 2, 373, css="panel")
    entries = []
    for name, code, css, size in series:
        rows = xy[kind == code]
        if len(rows):
            kept = rows[:: int(np.ceil(len(rows) / _MOST_DOTS))]
            canvas.cloud(x(kept[:, 0]), y(kept[:, 1]), css, size)
            entries.append(LegendEntry(f"{name} ({len(rows)})", css))
    for column, entry in enumerate(entries):
        canvas.legend(12 + 150 * column, 10, [entry])
    return canvas.svg()


def deviation_figure(deviations: Sequence[dict[str, Any]]) -> str:
    """Draw a histogram of the largest force deviation for each evaluation, the window shaded.

    :param deviations: rows with name, sigma_max (eV/Å) and window (eV/Å)
    """
    strip, gap = 78.0, 26.0
    height = 20 + len(deviations) * (strip + gap) + 34
    canvas = Canvas(WIDTH, height, "Histogram of the committee's largest force deviation, with the window shaded")
    values = [row["sigma_max"][row["sigma_max"] > 0] for row in deviations]
    low, high = _window_limits(values, [row["window"] for row in deviations])
    x = Axis(low, high, "largest force deviation of a frame (eV/Å)", log=True, first_pixel=24, last_pixel=WIDTH - 14)
    edges = np.geomspace(low, high, 49)
    for index, (row, sigma) in enumerate(zip(deviations, values, strict=True)):
        top = 20 + index * (strip + gap) + gap - 8
        counts, _ = np.histogram(sigma, edges)
        left, right = x.at(max(row["window"][0], low)), x.at(min(row["window"][1], high))
        canvas.rectangle(left, top, right - left, strip, css="window")
        for count, first, last in zip(counts, x(edges[:-1]), x(edges[1:]), strict=True):
            bar = strip * count / max(int(counts.max()), 1)
            if count:
                tip = f"{count} frames"
                canvas.rectangle(first + 0.4, top + strip - bar, last - first - 0.8, bar, css="bar", tip=tip)
        canvas.segment(x.first_pixel, top + strip, x.last_pixel, top + strip, "axis")
        inside = int(((sigma >= row["window"][0]) & (sigma <= row["window"][1])).sum())
        canvas.text(24, top - 5, row["name"], "strip")
        canvas.text(WIDTH - 14, top - 5, f"{inside} of {len(sigma)} in the window", "tick", anchor="end")
    _bottom_axis(canvas, x, height - 42)
    return canvas.svg()


def _window_limits(values: Sequence[NDArray[np.float64]], windows: Sequence[Sequence[float]]) -> tuple[float, float]:
    every = np.concatenate([*values, np.array([edge for window in windows for edge in window])])
    every = every[np.isfinite(every) & (every > 0)]
    return float(every.min()) / 1.15, float(every.max()) * 1.15


def _bottom_axis(canvas: Canvas, x: Axis, y: float) -> None:
    for tick in x.ticks():
        canvas.segment(x.at(tick), y, x.at(tick), y + 4, "axis")
        canvas.text(x.at(tick), y + 17, number(tick), "tick", anchor="middle")
    canvas.text((x.first_pixel + x.last_pixel) / 2, y + 36, x.label, "label", anchor="middle")


def isotherm_figure(isotherm: dict[str, Any], uff: dict[str, Any], experiment: dict[str, Any], log: bool) -> str:
    """Draw the isotherm with error bars beside that of UFF and the measurements; hollow points did not converge.

    :param isotherm: points with pressure_Pa, loading_mol_per_kg and its standard error; empty if there is none
    :param uff: the same of a rigid framework with UFF; empty if there is none
    :param experiment: measured isotherms
    :param log: whether the pressure axis is logarithmic
    """
    points, others, curves = isotherm.get("points", []), uff.get("points", []), experiment["isotherms"]
    canvas = Canvas(WIDTH, 400, "Adsorption isotherm with error bars, and measured isotherms")
    pressures = np.array([point["pressure_Pa"] / BAR for point in [*points, *others]])
    high = float(pressures.max()) * 1.6
    shown = [_visible(curve, float(pressures.min()) / 4 if log else 0.0, high) for curve in curves]
    every = np.concatenate([pressures, *(pressure for pressure, _ in shown)])
    tops = [point["loading_mol_per_kg"] + (point["loading_mol_per_kg_error"] or 0.0) for point in [*points, *others]]
    top = max([*tops, *(loading for _, loadings in shown for loading in loadings)])
    x = Axis(float(every.min()) / 1.5, high, "pressure (bar)", True) if log else Axis(0.0, high, "pressure (bar)")
    entries = _isotherm_legend(isotherm, uff, curves)
    x, y = _axes(400, x, Axis(0.0, top * 1.05 or 1.0, "loading (mol/kg)"), 20 + 17 * len(entries))
    canvas.frame(x, y)
    for index, (curve, (pressure, loading)) in enumerate(zip(curves, shown, strict=True)):
        shape, css = _EXPERIMENT_MARKS[index % 3], f"s{2 + index % 3}"
        canvas.line(x(pressure), y(loading), f"{css} thin")
        for px, value in zip(pressure, loading, strict=True):
            tip = f"{curve['source']}: {value:.2f} mol/kg at {px:.3g} bar"
            canvas.mark(x.at(px), y.at(value), f"mark {css}", shape=shape, size=4.5, tip=tip)
    for series, css, shape in ((others, "muted", "diamond"), (points, "s1", "circle")):
        at = np.array([point["pressure_Pa"] / BAR for point in series])
        canvas.line(x(at), y([point["loading_mol_per_kg"] for point in series]), f"{css} thin")
        for point in series:
            _isotherm_point(canvas, x, y, point, css=css, shape=shape)
    canvas.legend(_LEFT + 18, 10, entries)
    return canvas.svg()


def _isotherm_legend(
    isotherm: dict[str, Any], uff: dict[str, Any], curves: Sequence[dict[str, Any]]
) -> list[LegendEntry]:
    entries = []
    if isotherm.get("points"):
        entries.append(LegendEntry(f"MACE MD-GCMC, {isotherm['temperature_K']:g} K", "s1"))
    if not all(point["converged"] for point in isotherm.get("points", [])):
        entries.append(LegendEntry("not converged", "s1", hollow=True))
    if uff.get("points"):
        entries.append(LegendEntry(f"UFF, rigid framework, {uff['temperature_K']:g} K", "muted", "diamond"))
    for index, curve in enumerate(curves):
        name = f"{curve['source']}, {curve['temperature_K']:g} K"
        entries.append(LegendEntry(name, f"s{2 + index % 3}", _EXPERIMENT_MARKS[index % 3]))
    return entries


def _visible(curve: dict[str, Any], low: float, high: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    pressure, loading = np.array(curve["pressure_bar"]), np.array(curve["loading_mol_per_kg"])
    keep = (pressure >= low) & (pressure <= high)
    return pressure[keep], loading[keep]


def _isotherm_point(canvas: Canvas, x: Axis, y: Axis, point: dict[str, Any], *, css: str, shape: str) -> None:
    px, loading = x.at(point["pressure_Pa"] / BAR), point["loading_mol_per_kg"]
    error = point["loading_mol_per_kg_error"]
    if error is not None:
        low, high = y.at(max(loading - error, 0.0)), y.at(loading + error)
        canvas.segment(px, low, px, high, f"error {css}")
        for end in (low, high):
            canvas.segment(px - 4, end, px + 4, end, f"error {css}")
    hollow = "" if point.get("converged", True) else " hollow"
    tip = f"{with_error(loading, error, 2, 'mol/kg')} at {point['pressure_Pa'] / BAR:.4g} bar"
    if point.get("hole_fraction"):
        tip += f", {100 * point['hole_fraction']:.1f} % of the time in holes of the model"
    canvas.mark(px, y.at(loading), f"mark {css}{hollow}", shape=shape, tip=tip)


def loading_figure(series: Sequence[dict[str, Any]], isotherm: dict[str, Any]) -> str:
    """Draw the number of molecules against the step, a strip for each run, with the mean at its pressure and its error.

    :param series: rows with pressure_Pa, replica, step and loading
    :param isotherm: the points that the series led to, or an empty dictionary
    """
    strip, gap = 64.0, 24.0
    height = 12 + len(series) * (strip + gap) + 46
    canvas = Canvas(WIDTH, height, "Number of gas molecules against the simulation step, for each pressure")
    x = Axis(0.0, max(float(row["step"][-1]) for row in series) or 1.0, "step", first_pixel=44, last_pixel=WIDTH - 18)
    means = {round(p["pressure_Pa"], 6): p for p in isotherm.get("points", [])}
    for index, row in enumerate(series):
        top = 12 + index * (strip + gap) + gap - 6
        y = Axis(
            0.0, max(float(np.max(row["loading"])), 1.0) * 1.08, whole=True, first_pixel=top + strip, last_pixel=top
        )
        for tick in y.ticks(2):
            canvas.segment(x.first_pixel, y.at(tick), x.last_pixel, y.at(tick), "grid")
            canvas.text(x.first_pixel - 6, y.at(tick) + 4, number(tick), "tick", anchor="end")
        replica = f", replica {row['replica']}" if row.get("replica") else ""
        canvas.text(x.first_pixel, top - 4, f"{row['pressure_Pa'] / BAR:.4g} bar{replica}", "strip")
        thin = slice(None, None, int(np.ceil(len(row["step"]) / _MOST_STEPS)))
        canvas.line(x(row["step"][thin]), y(row["loading"][thin]), f"s{1 + index % 4} thin")
        point = means.get(round(row["pressure_Pa"], 6))
        if point:
            mean, error = point["loading_per_cell"], point["loading_per_cell_error"]
            canvas.segment(x.first_pixel, y.at(mean), x.last_pixel, y.at(mean), "reference")
            text = f"mean {with_error(mean, error)} per cell"
            canvas.text(WIDTH - 18, top - 4, text, "tick", anchor="end")
    _bottom_axis(canvas, x, height - 52)
    return canvas.svg()


def timeline_figure(phases: Sequence[dict[str, Any]]) -> str:
    """Draw when each phase ran.

    :param phases: rows with name, depth, start_seconds, wall_seconds, state and exit_status
    """
    step = 21.0
    height = 10 + step * len(phases) + 44
    canvas = Canvas(WIDTH, height, "When each phase of the run was running")
    end = max(row["start_seconds"] + row["wall_seconds"] for row in phases) / 60.0
    x = Axis(0.0, end or 1.0, "minutes since the start", first_pixel=176, last_pixel=WIDTH - 46)
    for tick in x.ticks(4):
        canvas.segment(x.at(tick), 6, x.at(tick), height - 44, "grid")
    for index, row in enumerate(phases):
        y = 10 + index * step
        first, last = x.at(row["start_seconds"] / 60), x.at((row["start_seconds"] + row["wall_seconds"]) / 60)
        failed = not row["is_well"] and row["state"] in ("finished", "excepted", "killed")
        css = "bar failed" if failed else ("bar" if row["depth"] == 1 else "bar nested")
        name = ("" if row["depth"] == 1 else "    ") + row["name"]
        canvas.text(4 if row["depth"] == 1 else 16, y + 13, name.strip(), "strip" if row["depth"] == 1 else "tick")
        canvas.rectangle(first, y + 3, max(last - first, 1.5), step - 7, css=css, tip=f"{row['process']} <{row['pk']}>")
        canvas.text(last + 5, y + 13, duration(row["wall_seconds"]), "tick")
    _bottom_axis(canvas, x, height - 44)
    return canvas.svg()
