"""From the provenance of a run to plain data: what the report and the summary show.

Everything is read from nodes, so a run of somebody else's that came in an archive is as good as one's own. A run that
failed on the way gives what it had made; ``missing`` says for each other part why it is not there.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import asdict
from datetime import datetime
from typing import Any

import numpy as np
from aiida import orm
from aiida.common.links import LinkType

from aiida_mofmace.report.adsorption import isotherm, loading_series, uff_isotherm
from aiida_mofmace.report.experiments import NO_EXPERIMENT, measured
from aiida_mofmace.report.header import header as describe
from aiida_mofmace.report.provenance import array, dict_output, journal_name, load, output, output_of, setting, text
from aiida_mofmace.report.training import members, warnings
from aiida_mofmace.report.tree import PHASES, ProcessRecord, ProcessTree
from aiida_mofmace.report.units import binding_sites, structural_units
from aiida_mofmace.worker.kernels.uncertainty import calibrate
from aiida_mofmace.workflows.harvest import cause

__all__ = ["collect"]

BAR = 1.0e5
_METHODS = {"kmeans": "K-means, nearest to each centre", "fps": "farthest point sampling"}

#: Work chains whose outputs are labels.
_LABELLING = ("LabelWorkChain", "AimdWorkChain")
#: Jobs that are one row for all of a round where the phases of a run are listed.
_JOBS = {
    **dict.fromkeys(("MaceMdCalculation", "MaceMdBaseWorkChain"), "md"),
    **dict.fromkeys(("CommitteeCalculation", "CommitteeBaseWorkChain"), "committee"),
    **dict.fromkeys(("MdGcmcCalculation", "MdGcmcBaseWorkChain", "LammpsGcmcWorkChain"), "md_gcmc"),
}


def collect(process: orm.ProcessNode) -> dict[str, Any]:
    """Read what a run of ``MofMaceWorkChain`` (or of a part of it) has given so far.

    :param process: the run, finished or not
    :return: header, phases, labels, failures, flagged, learning_curve, parity, members, selections, deviations,
        isotherm, uff_isotherm, timeseries, heat_of_adsorption, henry_coefficient, structural_units, binding_sites,
        experiment, warnings and missing (part -> reason)
    """
    tree = ProcessTree(int(process.pk or 0))
    header = describe(process, tree)
    experiment = measured(header["counts"], header["gas"] or "") if header["counts"] else NO_EXPERIMENT
    header["material"] = experiment["material"] or header["material"]
    data: dict[str, Any] = {
        "header": header,
        "phases": _phases(tree),
        "labels": _labels(tree),
        "failures": _failures(tree),
        "flagged": _flagged(tree),
        "learning_curve": dict_output(tree, "learning_curve", "ActiveLearningWorkChain").get("rounds", []),
        "stop_reason": _stop_reason(tree),
        "parity": _parity(tree),
        "members": members(tree),
        "selections": _selections(tree),
        "deviations": _deviations(tree),
        "isotherm": isotherm(tree),
        "uff_isotherm": uff_isotherm(tree),
        "timeseries": loading_series(tree),
        "heat_of_adsorption": dict_output(tree, "heat_of_adsorption", "MDGCMCIsothermWorkChain"),
        "henry_coefficient": dict_output(tree, "henry_coefficient", "MDGCMCIsothermWorkChain"),
        "structural_units": structural_units(tree),
        "binding_sites": binding_sites(tree),
        "experiment": experiment,
    }
    data["warnings"] = warnings(data["parity"])
    data["missing"] = _missing(data, tree)
    return data


def _stop_reason(tree: ProcessTree) -> str | None:
    return text(output_of(tree, "stop_reason", "ActiveLearningWorkChain"), "reason")


def _phases(tree: ProcessTree) -> list[dict[str, Any]]:
    """List what the run called, and below it what these called, in order of time; like jobs of a round are one row."""
    rows: list[dict[str, Any]] = []
    records = sorted(tree.records.values(), key=lambda record: record.age)
    for record in records:
        if record.depth != 1 or record.is_function:
            continue
        groups: dict[str, list[ProcessRecord]] = {}
        for child in records:
            if child.parent == record.pk and not child.is_function:
                groups.setdefault(_group(child), []).append(child)
        rows.append(_phase(tree, record.name, [record]))
        rows += [_phase(tree, name, members) for name, members in groups.items() if name]
    return rows


def _group(record: ProcessRecord) -> str:
    """Return the name of the row of a process in the second rank; empty for one that is not shown."""
    if record.label in PHASES:
        return record.name
    noun = _JOBS.get(record.label, "")
    round_ = re.match(r"round_\d+", record.name)
    return f"{round_.group()}_{noun}" if noun and round_ else noun


def _phase(tree: ProcessTree, name: str, members: list[ProcessRecord]) -> dict[str, Any]:
    start, end = min(member.ctime for member in members), max(member.mtime for member in members)
    bad = [member for member in members if not member.is_well]
    shown = bad[0] if bad else members[0]
    return {
        "pk": shown.pk,
        "name": name if len(members) == 1 else f"{name} ({len(members)})",
        "process": shown.label,
        "depth": shown.depth,
        "start_seconds": _seconds(tree.root.ctime, start),
        "wall_seconds": _seconds(start, end),
        "state": shown.state,
        "exit_status": shown.exit_status,
        "is_well": shown.is_well,
    }


def _seconds(start: datetime, end: datetime) -> float:
    return max((end - start).total_seconds(), 0.0)


# --------------------------------------------------------------------------------------------------------- labels


def _labels(tree: ProcessTree) -> dict[str, Any]:
    """Count the labels that label work chains and ab initio MD returned, by level of theory."""
    pks = [record.pk for record in tree.labelled(*_LABELLING)]
    builder = orm.QueryBuilder().append(orm.WorkChainNode, filters={"id": {"in": pks or [-1]}}, tag="chain")
    edges = {"type": LinkType.RETURN.value, "label": {"like": "labels\\_\\_%"}}
    columns = ["uuid", "attributes.level_of_theory.name", "attributes.level_of_theory.hash"]
    builder.append(orm.Data, with_incoming="chain", edge_filters=edges, project=columns)
    labels = {uuid: (name, hash_) for uuid, name, hash_ in builder.iterall()}
    levels = Counter(labels.values())
    return {
        "made": len(labels),
        "failed": len(_failures(tree)),
        "flagged": len(_flagged(tree)),
        "left_out": sum(row["left_out"] for row in _flagged(tree)),
        "levels": [{"name": name, "hash": hash_, "count": count} for (name, hash_), count in sorted(levels.items())],
    }


def _failures(tree: ProcessTree) -> list[dict[str, Any]]:
    """List the labels that could not be had, from the work chains' own tables where they got that far."""
    rows: list[dict[str, Any]] = []
    for record in tree.labelled("LabelWorkChain"):
        where = journal_name(tree, record)
        node = output(record, "failures")
        if isinstance(node, orm.Dict):
            rows += [{"where": where, "key": key, **value} for key, value in sorted(node.get_dict().items())]
            continue
        for child in tree.records.values():
            if child.parent == record.pk and child.is_terminated and not child.is_finished_ok:
                failed = load(child)
                status = {"exit_status": child.exit_status, "uuid": failed.uuid, "reason": cause(failed) or child.state}
                rows.append({"where": where, "key": child.name, **status})
    return rows


def _flagged(tree: ProcessTree) -> list[dict[str, Any]]:
    """List the labels that the sanity filter flagged, with the reasons."""
    rows: list[dict[str, Any]] = []
    for record in tree.labelled(*_LABELLING):
        node = output(record, "flagged")
        content = node.get_dict() if isinstance(node, orm.Dict) else {}
        where = journal_name(tree, record)
        rows += [{"where": where, "key": key, **value} for key, value in sorted(content.items())]
    return rows


# -------------------------------------------------------------------------------------------------------- the model


def _parity(tree: ProcessTree) -> dict[str, dict[str, Any]]:
    found = {}
    for stage in ("before", "after"):
        node = output_of(tree, f"parity_{stage}", "ValidationWorkChain")
        if isinstance(node, orm.ArrayData):
            found[stage] = _parity_of(node)
    return found


def _parity_of(node: orm.ArrayData) -> dict[str, Any]:
    """Compare the committee's mean prediction with the labels.

    :return: energies in eV/atom (n_frames,), forces in eV/Å (n_components,), loadings (n_frames,), the mean absolute
        errors in meV/atom and meV/Å, and the calibration of the committee's force deviation
    """
    n_atoms = np.diff(node.get_array("offsets")).astype(float)
    predicted = np.asarray(node.get_array("energies"), dtype=float).mean(axis=0) / n_atoms
    reference = np.asarray(node.get_array("reference_energies"), dtype=float) / n_atoms
    all_forces = np.asarray(node.get_array("forces"), dtype=float)
    forces = all_forces.mean(axis=0).ravel()
    reference_forces = np.asarray(node.get_array("reference_forces"), dtype=float).ravel()
    loadings = node.get_array("loadings") if "loadings" in node.get_arraynames() else np.zeros(len(n_atoms), dtype=int)
    return {
        "pk": node.pk,
        "energies": predicted,
        "reference_energies": reference,
        "forces": forces,
        "reference_forces": reference_forces,
        "loadings": np.asarray(loadings),
        "n_models": int(node.get_array("energies").shape[0]),
        "calibration": asdict(calibrate(all_forces, reference_forces.reshape(-1, 3))),
        "energy_mae_mev_per_atom": 1000.0 * float(np.abs(predicted - reference).mean()),
        "force_mae_mev_per_ang": 1000.0 * float(np.abs(forces - reference_forces).mean()),
    }


def _selections(tree: ProcessTree) -> list[dict[str, Any]]:
    rows = []
    for record in tree.labelled("DiversitySelectCalculation"):
        node = output(record, "map")
        xy, kind = array(node, "xy"), array(node, "kind")
        if xy is None or kind is None:
            continue
        results = output(record, "results")
        content = results.get_dict() if isinstance(results, orm.Dict) else {}
        row = {"pk": record.pk, "name": journal_name(tree, record), "xy": xy, "kind": kind}
        row |= {"coverage": content.get("coverage") or {}, "methods": _methods(content, setting(record, "method"))}
        row |= {name: content.get(name) or {} for name in ("quota_shortfalls", "without_quota")}
        refused = {reason: count for reason, count in (content.get("refused") or {}).items() if count}
        left_out = (content.get("map") or {}).get("left_out", 0)
        rows.append({**row, "pool": content.get("pool"), "refused": refused, "left_out": left_out})
    return rows


def _methods(results: dict[str, Any], chosen: str | None) -> list[dict[str, Any]]:
    """List what the picks of each method cover, and random ones of the same number.

    :param chosen: method whose picks were taken
    """
    coverage = results.get("coverage") or {}
    if not coverage:
        return []
    rows = [
        {"name": _METHODS.get(method, method), "taken": method == chosen, "cells": row["selected_cells"], "error": None}
        | {"radius": row["covering_radius"]}
        for method, row in sorted((results.get("comparison") or {}).items())
    ]
    random = {"cells": coverage["random_cells_mean"], "error": coverage["random_cells_std"]}
    return [*rows, {"name": "random", "taken": False, **random, "radius": coverage.get("random_covering_radius")}]


def _deviations(tree: ProcessTree) -> list[dict[str, Any]]:
    rows = []
    for record in tree.labelled("CommitteeCalculation"):
        window = setting(record, "window")
        sigma_max = array(output(record, "predictions"), "sigma_max")
        if window is None or sigma_max is None or not len(sigma_max):
            continue
        name = journal_name(tree, record)
        results = output(record, "results")
        scale = results.get_dict().get("deviation_scale", 1.0) if isinstance(results, orm.Dict) else 1.0
        values = scale * np.asarray(sigma_max, dtype=float)
        rows.append({"pk": record.pk, "name": name, "sigma_max": values, "window": [float(v) for v in window]})
    return rows


# ------------------------------------------------------------------------------------------------ what is not there

_MAKERS = {
    "learning_curve": ("The learning curve was not written", "ActiveLearningWorkChain"),
    "parity": ("The model was not validated", "ValidationWorkChain"),
    "selections": ("No frames were selected", "DiversitySelectCalculation"),
    "deviations": ("The committee's force deviation was not computed", "CommitteeCalculation"),
    "isotherm": ("The isotherm was not computed", "MDGCMCIsothermWorkChain"),
    "timeseries": ("There is no grand-canonical simulation", "MdGcmcCalculation"),
    "heat_of_adsorption": ("The heat of adsorption was not computed", "MDGCMCIsothermWorkChain"),
    "labels": ("No label was made", "LabelWorkChain"),
}


def _missing(data: dict[str, Any], tree: ProcessTree) -> dict[str, str]:
    present = {**data, "labels": data["labels"]["made"]}
    present["parity"] = len(data["parity"]) == 2
    missing = {part: f"{what}: {_why(tree, maker)}" for part, (what, maker) in _MAKERS.items() if not present[part]}
    tried = [record for record in tree.labelled("WidomCalculation") if record.is_terminated]
    if tried and not data["henry_coefficient"]:
        why = "too few insertions had a weight" if tried[-1].is_well else cause(load(tried[-1])) or tried[-1].state
        missing["henry_coefficient"] = f"The Henry coefficient was not computed: {why}."
    return missing


def _why(tree: ProcessTree, maker: str) -> str:
    made = tree.labelled(maker)
    record = made[-1] if made else tree.root
    if not made and not record.is_terminated:
        return f"{maker} has not started yet."
    before = "" if made else f"{maker} was never started; "
    if not record.is_terminated:
        return f"{record.label} <{record.pk}> is {record.state}."
    reason = cause(load(record))
    if record.is_well:
        return f"{before}{record.label} <{record.pk}> finished without giving it."
    status = f" with exit status {record.exit_status}" if record.exit_status is not None else ""
    return f"{before}{record.label} <{record.pk}> {record.state}{status}{': ' + reason if reason else ''}."
