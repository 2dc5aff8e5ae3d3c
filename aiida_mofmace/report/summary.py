"""The outcome of a run in one screen of text."""

from __future__ import annotations

import math
from typing import Any

from aiida import orm

from aiida_mofmace.report.collect import BAR, collect
from aiida_mofmace.report.progress import duration

__all__ = ["print_summary", "summary", "with_error", "with_power"]

_WORTH_A_WORD = 0.005  # share of their time that molecules sat in holes of the model
_HIGH = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def with_error(value: float | None, error: float | None, digits: int = 2, unit: str = "") -> str:
    """Write ``1.23 ± 0.04 unit``; a missing value is a dash, a missing error is left out."""
    if value is None:
        return "-"
    text = f"{value:.{digits}f}" if error is None else f"{value:.{digits}f} ± {error:.{digits}f}"
    return f"{text} {unit}".rstrip()


def with_power(value: float | None, error: float | None, unit: str = "") -> str:
    """Write ``(1.23 ± 0.04)·10⁻⁵ unit``; a missing value is a dash, a missing error is left out."""
    size = max(abs(value or 0.0), error or 0.0)
    if value is None or size == 0.0:
        return with_error(value, error, 2, unit)
    power = math.floor(math.log10(size))
    scaled = with_error(value / 10.0**power, None if error is None else error / 10.0**power)
    text = scaled if error is None else f"({scaled})"
    return f"{text}·10{str(power).translate(_HIGH)} {unit}".rstrip()


def summary(process: orm.ProcessNode) -> str:
    """Return labels made and failed, errors before and after fine-tuning, isotherm, heat, wall times and the PK.

    :param process: the run, finished or not
    :return: the text, several lines
    """
    return render(collect(process))


def print_summary(process: orm.ProcessNode) -> None:
    """Print :func:`summary`."""
    print(summary(process))


def render(data: dict[str, Any]) -> str:
    """Write the summary of collected data.

    :param data: what :func:`~aiida_mofmace.report.collect.collect` gave
    """
    header = data["header"]
    what = f"{header['material'] or 'unknown material'} + {header['gas'] or 'unknown gas'}"
    protocol = f", protocol {header['protocol']}" if header["protocol"] else ""
    ended = f" [{header['exit_status']}]" if header["exit_status"] is not None else ""
    lines = [
        f"{what}{protocol}",
        f"{header['process']} <{header['pk']}> {header['state']}{ended}  {header['uuid']}",
    ]
    if header["cause"]:
        lines.append(f"  {header['cause']}")
    parts = {
        "MDGCMCIsothermWorkChain": (_isotherm, _heat_and_henry),
        "UffIsothermWorkChain": (_uff_alone,),
        "LabelWorkChain": (_labels,),
        "ValidationWorkChain": (_labels, _validation),
    }
    # Of a part that runs by itself nothing is missing that only the whole has.
    sections = (*parts.get(header["process"], (_labels, _validation, _isotherm, _heat_and_henry)), _times)
    return "\n".join([*lines, *(line for section in sections for line in ("", *section(data)))])


def _labels(data: dict[str, Any]) -> list[str]:
    labels = data["labels"]
    levels = ", ".join(f"{level['count']} at {level['name']}" for level in labels["levels"])
    lines = [f"Labels      {labels['made']} made{f' ({levels})' if levels else ''}, {labels['failed']} failed"]
    lines += [f"  {row['where']}, {row['key']}: {row.get('reason', 'no reason given')}" for row in data["failures"]]
    if labels["flagged"]:
        lines.append(f"            {labels['flagged']} flagged, {labels['left_out']} of them left out of the dataset")
    lines += [f"  {row['where']}, {row['key']}: {'; '.join(row['reasons'])}" for row in data["flagged"]]
    if data["stop_reason"]:
        lines.append(f"Rounds      {len(data['learning_curve'])}, ended: {data['stop_reason']}")
    return lines


def _validation(data: dict[str, Any]) -> list[str]:
    if "parity" in data["missing"]:
        return [data["missing"]["parity"]]
    lines = [f"{'Validation':<12}{'energy MAE':>18}{'force MAE':>16}"]
    for stage, name in (("before", "foundation"), ("after", "fine-tuned")):
        parity = data["parity"][stage]
        energy, force = parity["energy_mae_mev_per_atom"], parity["force_mae_mev_per_ang"]
        lines.append(f"{name:<12}{energy:>9.2f} meV/atom{force:>10.1f} meV/Å")
    lines += [f"WARNING: {warning}" for warning in data["warnings"]]
    return [*lines, *_calibration(data["parity"]["after"]["calibration"]), *_replay(data["members"])]


def _calibration(calibration: dict[str, float | None]) -> list[str]:
    if calibration["ratio"] is None:
        return []
    figures = [f"{name} {with_error(calibration[name], None)}" for name in ("correlation", "slope", "miscalibration")]
    ratio = calibration["ratio"]
    return [f"Calibration the committee's force error is {ratio:.1f} times its deviation ({', '.join(figures)})"]


def _replay(members: list[dict[str, Any]]) -> list[str]:
    """Say what the committee has forgotten: errors on the replay data, averaged over the members."""
    measured = [row for row in members if row["replay_before"] and row["replay_after"]]
    if not measured:
        return []
    changes = []
    for key, unit in (("energy_mae_mev_per_atom", "meV/atom"), ("force_mae_mev_per_ang", "meV/Å")):
        before, after = (sum(row[stage][key] for row in measured) for stage in ("replay_before", "replay_after"))
        changes.append(f"{before / len(measured):.1f} -> {after / len(measured):.1f} {unit}")
    return [f"Replay data {', '.join(changes)}, mean of {len(measured)} members"]


def _isotherm(data: dict[str, Any]) -> list[str]:
    if "isotherm" in data["missing"]:
        return [data["missing"]["isotherm"], *_uff(data)]
    isotherm = data["isotherm"]
    replicas = max((len(point.get("replicas", [])) for point in isotherm["points"]), default=0)
    lines = [
        f"Isotherm at {isotherm['temperature_K']:g} K" + (f", {replicas} runs at each pressure" if replicas else ""),
        f"{'pressure':>12}{'loading':>22}{'per cell':>18}{'samples':>9}{'isosteric heat':>22}",
    ]
    for point in isotherm["points"]:
        mark = "" if point["converged"] else "  not converged"
        holes = point.get("hole_fraction") or 0.0
        mark += f", {100 * holes:.0f} % of the time in holes of the model" if holes >= _WORTH_A_WORD else ""
        lines.append(f"{point['pressure_Pa'] / BAR:>8.4g} bar{_amounts(point)}{mark}")
        lines += [f"{name:>12}{_amounts(part)}" for name, part in point.get("components", {}).items()]
    failed = isotherm.get("failed", [])
    lines += [f"{point['pressure_Pa'] / BAR:>8.4g} bar  not available: {point['reason']}" for point in failed]
    return [*lines, *_uff(data)]


def _amounts(row: dict[str, Any]) -> str:
    """Write loading, independent samples and isosteric heat of a point or of one component."""
    loading = with_error(row["loading_mol_per_kg"], row["loading_mol_per_kg_error"], 2, "mol/kg")
    cell = with_error(row["loading_per_cell"], row["loading_per_cell_error"])
    heat = with_error(row.get("isosteric_heat_kJ_per_mol"), row.get("isosteric_heat_error_kJ_per_mol"), 1, "kJ/mol")
    samples = with_error(row.get("effective_samples"), None, 0)
    return f"{loading:>22}{cell:>18}{samples:>9}{heat:>22}"


def _uff(data: dict[str, Any]) -> list[str]:
    uff = data["uff_isotherm"]
    if not uff:
        return []
    lines = ["", f"Isotherm of UFF and a rigid framework at {uff['temperature_K']:g} K"]
    for point in uff["points"]:
        loading = with_error(point["loading_mol_per_kg"], point["loading_mol_per_kg_error"], 2, "mol/kg")
        lines.append(f"{point['pressure_Pa'] / BAR:>8.4g} bar{loading:>22}")
    return lines


def _uff_alone(data: dict[str, Any]) -> list[str]:
    return _uff(data)[1:] or ["There is no isotherm."]


def _heat(data: dict[str, Any]) -> list[str]:
    if "heat_of_adsorption" in data["missing"]:
        return [data["missing"]["heat_of_adsorption"]]
    heat = data["heat_of_adsorption"]
    value = with_error(heat["value_kJ_per_mol"], heat.get("error_kJ_per_mol"), 1, "kJ/mol")
    measured = [f"{row['value_kJ_per_mol']:g} ({row['source']})" for row in data["experiment"]["heats_of_adsorption"]]
    beside = f"; measured: {', '.join(measured)}" if measured else ""
    mark = "" if heat.get("converged", True) else ", not converged"
    return [f"Heat of adsorption at {heat['temperature_K']:g} K: {value}{mark}{beside}"]


def _henry(data: dict[str, Any]) -> list[str]:
    """Write each Henry coefficient, and the slope of the lowest point beside it."""
    if "henry_coefficient" in data["missing"]:
        return [data["missing"]["henry_coefficient"]]
    henry, slopes = data["henry_coefficient"], data["isotherm"].get("low_pressure_slope", {})
    lines = []
    for name, row in henry.get("gases", {}).items():
        value = with_power(row["value_mol_per_kg_Pa"], row["error_mol_per_kg_Pa"], "mol/(kg Pa)")
        mark = "" if row["converged"] else ", not converged"
        line = f"Henry coefficient of {name} at {henry['temperature_K']:g} K: {value}{mark}"
        slope = slopes.get(name)
        if slope:
            beside = with_power(slope["value_mol_per_kg_Pa"], slope["error_mol_per_kg_Pa"])
            mark = "" if slope["converged"] else ", not converged"
            line += f"; loading over fugacity at {slope['pressure_Pa'] / BAR:.4g} bar: {beside}{mark}"
        lines.append(line)
    return lines


def _heat_and_henry(data: dict[str, Any]) -> list[str]:
    return [*_heat(data), *_henry(data)]


def _times(data: dict[str, Any]) -> list[str]:
    lines = ["Wall time"]
    for phase in data["phases"]:
        if phase["depth"] != 1:
            continue
        status = "" if phase["exit_status"] is None else f" [{phase['exit_status']}]"
        ended = "" if phase["is_well"] else f"  {phase['state']}{status}"
        lines.append(f"  {phase['name']:<28}{duration(phase['wall_seconds']):>9}{ended}")
    return [*lines, f"  {'all':<28}{duration(data['header']['wall_seconds']):>9}"]
