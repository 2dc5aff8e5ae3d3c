"""Jobs of an isotherm that look finished."""

from __future__ import annotations

from typing import Any

import numpy as np
from aiida import orm

from aiida_mofmace.calculations.mace_md import MaceMdCalculation
from aiida_mofmace.calculations.md_gcmc import MdGcmcCalculation
from aiida_mofmace.calculations.md_gcmc_batch import MdGcmcBatchCalculation

from .steps import finished

ISOTHERM = {
    "pressures": [1e4, 1e5],
    "chunk_steps": 100,
    "min_steps": 200,
    "max_steps": 300,
    "error_target": 0.1,
    "min_effective_samples": 5,
    "min_exchanges": 4,
    "max_hole_fraction": 0.01,
}

NO_HENRY = {"insertions": 0}


def figures(steps: int, loading: float = 2.0, error: float | None = 0.01, **values: Any) -> dict[str, Any]:
    counts = {"attempted": 10, "accepted": 2}
    return {
        "steps_done": steps,
        "mean_loading": loading,
        "loading_error": error,
        "effective_samples": 8.0,
        "round_trips": 3,
        "too_short": False,
        "statistical_inefficiency": 3.0,
        "acceptance": {"insertion": counts, "deletion": counts},
        "isosteric_heat": 0.5,
        "isosteric_heat_error": 0.1,
        "model_holes": 0,
        **values,
    }


def chunk(exit_status: int = 0, checkpoint: bool = True, **values: Any) -> orm.ProcessNode:
    series = orm.ArrayData()
    series.set_array("loading", np.arange(3))
    outputs: dict[str, Any] = {"results": orm.Dict(figures(**values)), "timeseries": series}
    if checkpoint:
        outputs["checkpoint"] = orm.SinglefileData.from_string("state", "checkpoint.npz")
    return finished(MdGcmcCalculation, outputs, exit_status, "stopped" if exit_status else "")


def md(energy: float, error: float | None = 0.01, exit_status: int = 0, **values: Any) -> orm.ProcessNode:
    results = orm.Dict({"mean_energy": energy, "mean_energy_error": error, "too_short": False, **values})
    return finished(MaceMdCalculation, {"results": results}, exit_status, "it broke" if exit_status else "")


def run_heat(chain: Any, **nodes: orm.ProcessNode) -> None:
    runs = {"heat_loaded": md(-11.0), "heat_framework": md(-10.0), "heat_gas": md(-0.5), **nodes}
    for key, node in runs.items():
        chain.on_run_finished(key, node)
    chain.inspect_heat()
    chain.inspect_henry()


def run_points(chain: Any, *values: dict[str, Any]) -> Any:
    for index, given in enumerate(values):
        chain.on_run_finished(f"pressure_{index:02d}_chunk_00", chunk(**{"steps": 300, **given}))
    return chain.inspect_points()


def batch(*, exit_status: int = 0, **points: dict[str, Any]) -> orm.ProcessNode:
    """A job of several points, each with the figures given; those without a loading have failed."""
    spaces: dict[str, Any] = {"systems": {}, "timeseries": {}, "checkpoints": {}}
    for name, values in points.items():
        status = values.pop("status", "finished")
        content = {"message": "it blew up"} if status == "failed" else figures(**values)
        spaces["systems"][name] = orm.Dict({**content, "status": status})
        if status != "failed":
            spaces["timeseries"][name] = orm.ArrayData(np.arange(3))
            spaces["checkpoints"][name] = orm.SinglefileData.from_string(name, "checkpoint.npz")
    return finished(MdGcmcBatchCalculation, spaces, exit_status)
