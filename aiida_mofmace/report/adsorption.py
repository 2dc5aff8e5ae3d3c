"""What the report shows of the gas: isotherm and loadings against the step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from aiida import orm
from numpy.typing import NDArray

from aiida_mofmace.report.provenance import array, dict_output, load, output, setting
from aiida_mofmace.report.tree import ProcessRecord, ProcessTree

__all__ = ["isotherm", "loading_series", "uff_isotherm"]

_FEWEST_SAMPLES = 2
_JOB, _BATCH, _LAMMPS = "MdGcmcCalculation", "MdGcmcBatchCalculation", "LammpsGcmcWorkChain"
_UFF = "UffIsothermWorkChain"


def isotherm(tree: ProcessTree) -> dict[str, Any]:
    """Read the isotherm; a single independent sample has no error, so a zero that stands for it is left out."""
    if tree.root.label == _UFF:
        return {}
    content = dict_output(tree, "isotherm", "MDGCMCIsothermWorkChain")
    for point in content.get("points", []):
        samples = point.get("effective_samples")
        if samples is not None and samples < _FEWEST_SAMPLES:
            point["loading_mol_per_kg_error"] = point["loading_per_cell_error"] = None
    return content


def uff_isotherm(tree: ProcessTree) -> dict[str, Any]:
    """Read the isotherm of UFF and a rigid framework: a part of the run, or the run itself."""
    if tree.root.label == _UFF:
        return dict_output(tree, "isotherm", _UFF)
    return dict_output(tree, "uff_isotherm", "SamplingWorkChain")


def loading_series(tree: ProcessTree) -> list[dict[str, Any]]:
    """Join the chunks of each run, whether they were done in jobs of their own or together with others.

    :return: by rising pressure and replica: pressure_Pa, replica (from 1; None for a single run), step and loading
    """
    chunks: dict[tuple[float, str], list[tuple[NDArray[Any], NDArray[Any]]]] = {}
    for record in tree.labelled(_JOB, _BATCH, _LAMMPS):
        caller = next(tree.callers(record), tree.root)
        if caller.label == _LAMMPS or tree.phase_of(record).label not in ("MDGCMCIsothermWorkChain", tree.root.label):
            continue
        for name, pressure, node in _series(tree, record):
            step, loading = array(node, "step"), array(node, "loading")
            if pressure is not None and step is not None and loading is not None and len(step):
                chunks.setdefault((float(pressure), name), []).append((step, loading))
    return [{"pressure_Pa": key[0], "replica": _replica(key[1]), **_joined(chunks[key])} for key in sorted(chunks)]


def _series(tree: ProcessTree, record: ProcessRecord) -> Iterator[tuple[str, Any, orm.Data | None]]:
    """List name of the run, pressure in Pa and series of all that a job simulated."""
    if record.label in (_JOB, _LAMMPS):
        name = tree.journal_record(record).name.partition("_chunk_")[0]
        yield name, setting(record, "pressure"), output(record, "timeseries")
        return
    outputs = load(record).outputs
    series = dict(outputs.timeseries) if "timeseries" in outputs else {}
    for name, own in (setting(record, "systems") or {}).items():
        yield name, own.get("pressure", setting(record, "pressure")), series.get(name)


def _replica(name: str) -> int | None:
    found = re.search(r"_replica_(\d+)$", name)
    return int(found.group(1)) + 1 if found else None


def _joined(parts: list[tuple[NDArray[Any], NDArray[Any]]]) -> dict[str, Any]:
    """Put chunks behind one another; one that holds what came before it (its series goes on) takes their place."""
    steps: list[NDArray[Any]] = []
    loadings: list[NDArray[Any]] = []
    for step, loading in parts:
        if steps and step[0] <= steps[-1][-1]:
            steps, loadings = [], []
        steps.append(step)
        loadings.append(loading)
    return {"step": np.concatenate(steps), "loading": np.concatenate(loadings)}
