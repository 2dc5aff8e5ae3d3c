"""Several simulations of hybrid MD-GCMC in one process, which may share the calls of the model."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import WorkerError, describe_error
from ..kernels.batched import BatchedPotential, Seat
from ..stopping import StopRequest
from .md_gcmc import Point, potentials, read_point, simulate
from .simulation import open_model

__all__ = ["run", "run_together"]

Outcome = dict[str, Any]


def run_together(points: Mapping[str, Point], table: BatchedPotential, stop: StopRequest) -> dict[str, Outcome]:
    """Run simulations side by side, with the potential that evaluates for all of them.

    :param points: what each simulation starts from, by name
    :param table: with a seat for each
    :param stop: ends all of them
    :return: outcome of each, by name
    """
    outcomes = table.run([partial(_outcome, point, stop) for point in points.values()])
    return dict(zip(points, outcomes, strict=True))


def _outcome(point: Point, stop: StopRequest, seat: Seat) -> Outcome:
    """Run one simulation; whatever ends it ends it alone."""
    try:
        results = simulate(point, seat, stop)
    except Exception as error:
        return _failure(error)
    status = "stopped" if results.pop("stopped_early", False) else "finished"
    return {"status": status, "error": None, "results": results}


def _seed(seed: int, name: str) -> int:
    """Return the seed of a system that states none: a function of the job's and its name, not of the others."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:4], "big")


def _failure(error: Exception) -> Outcome:
    traceback.print_exception(error)
    return {"status": "failed", "error": describe_error(error), "results": {}}


def run(inputs: dict[str, Any], stop: StopRequest) -> dict[str, Any]:
    """Run all systems that the parameters name; each leaves its files in a folder of its name.

    A system's parameters are the common ones with its own put over them, which may hold a seed of its own. On a GPU the
    systems share each call of the model. On a CPU each has calls of its own, and its numbers are bit for bit those of a
    run by itself, unless ``share_calls`` is true.

    :raises WorkerError: kind no_model; that of the first system, if all have failed
    """
    common = {key: value for key, value in inputs["parameters"].items() if key != "systems"}
    model = open_model(inputs, common.get("head"))
    files = inputs["files"]
    points: dict[str, Point] = {}
    outcomes: dict[str, Outcome] = {}
    for name, own in inputs["parameters"]["systems"].items():
        system = {"parameters": common | own, "seed": own["seed"] if "seed" in own else _seed(inputs["seed"], name)}
        system["files"] = {"structure": files["structure"], "checkpoint": (files.get("checkpoints") or {}).get(name)}
        folder = Path(name)
        folder.mkdir(exist_ok=True)
        try:
            points[name] = read_point(system, model, folder)
        except WorkerError as error:
            outcomes[name] = _failure(error)
    joint = model if model.device != "cpu" or common.get("share_calls", False) else None
    table = BatchedPotential([model] * len(points) if joint else potentials(model, points.values()), joint)
    outcomes |= run_together(points, table, stop)
    failures = [outcome["error"] for outcome in outcomes.values() if outcome["error"]]
    if len(failures) == len(outcomes):
        raise WorkerError(failures[0]["type"], failures[0]["message"])
    stopped = any(outcome["status"] == "stopped" for outcome in outcomes.values())
    results = {"systems": outcomes, "device": model.device, "together": joint is not None, "rounds": table.rounds}
    return results | ({"stopped_early": True} if stopped else {})
