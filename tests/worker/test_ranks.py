"""A training that is spread over several processes, on a CPU: what torchrun does with GPUs, over another wire."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import write

from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.programs import fine_tune
from aiida_mofmace.worker.stopping import StopRequest
from aiida_mofmace.worker.training.ranks import Ranks

from .selection_fixtures import labelled, water_box, write_tiny_model

REPOSITORY = Path(__file__).parents[2]
PARAMETERS: dict[str, Any] = {
    "name": "member",
    "valid_fraction": 0.2,
    "e0s": "foundation",
    "multihead": False,
    "batch_size": 2,
    "valid_batch_size": 32,
    "max_epochs": 3,
    "patience": 10,
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "forces_weight": 100.0,
    "energy_weight": 1.0,
    "stress_weight": 1.0,
    "processes": 2,
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    write_tiny_model(tmp_path / "foundation.model")
    write(tmp_path / "dataset.extxyz", [labelled(water_box(rng)) for _ in range(10)], format="extxyz")
    write(tmp_path / "replay.extxyz", [labelled(water_box(rng)) for _ in range(14)], format="extxyz")
    return tmp_path


def inputs(checkpoint: str | None = None, **changes: Any) -> dict[str, Any]:
    files = {"foundation": "foundation.model", "dataset": "dataset.extxyz", "replay_train": "replay.extxyz"}
    files |= {"checkpoint": checkpoint} if checkpoint else {}
    return {"seed": 1, "device": "cpu", "dtype": "float64", "files": files, "parameters": PARAMETERS | changes}


def start(folder: Path, **changes: Any) -> subprocess.Popen[str]:
    """Start two processes as the job of a training does."""
    document = {"program": "fine_tune", "max_wall_seconds": None, **inputs(**changes)}
    (folder / "input.json").write_text(json.dumps(document), encoding="utf-8")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [*launcher, "-m", "aiida_mofmace.worker", "fine_tune", "input.json"]
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    _, errors = process.communicate(timeout=300)
    output: dict[str, Any] = json.loads((folder / "output.json").read_text(encoding="utf-8"))
    assert output["error"] is None, errors
    return output


def weights(path: Path) -> dict[str, np.ndarray]:
    import mace  # noqa: F401  # before torch opens a model
    import torch

    state = torch.load(path, weights_only=False, map_location="cpu").state_dict()
    return {name: tensor.numpy() for name, tensor in state.items()}


def test_two_processes_take_the_steps_of_one_with_twice_the_batch(here: Path) -> None:
    """Eight frames train: two processes with four frames each step, or one with all eight; the sum is the same."""
    output = finish(start(here, batch_size=4), here)
    assert (output["results"]["stopped_by"], output["results"]["epochs"]) == ("max_epochs", 3)
    first, second = weights(here / "model.model"), weights(here / "rank_1" / "model.model")
    shared = json.loads((here / "history.json").read_text())
    assert all(np.array_equal(first[name], second[name]) for name in first)
    fine_tune.run(inputs(batch_size=8, processes=1), StopRequest())
    alone = weights(here / "model.model")
    before = weights(here / "foundation.model")
    floating = [name for name, values in alone.items() if values.size and values.dtype.kind == "f"]
    comparable = [name for name in floating if name in before and alone[name].shape == before[name].shape]
    moved = max(np.abs(alone[name] - before[name]).max() for name in comparable)
    assert moved > 1e-3
    for name in floating:
        np.testing.assert_allclose(first[name], alone[name], atol=1e-3 * moved, err_msg=name)
    history = json.loads((here / "history.json").read_text())
    assert [record["loss"] for record in shared] == pytest.approx([record["loss"] for record in history], rel=1e-3)


def test_processes_stop_together_and_go_on_from_their_checkpoint(here: Path) -> None:
    """A signal to one of them ends all, with model and checkpoint; the next start goes on from there."""
    replay = {"multihead": True, "n_replay": 8, "pseudolabel_replay": True, "max_epochs": 12, "patience": 20}
    process = start(here, **replay)
    deadline = time.monotonic() + 200.0
    while not (here / "progress.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    children = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    workers = [pid for pid in children if b"aiida_mofmace.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 2
    os.kill(workers[1], signal.SIGTERM)
    output = finish(process, here)
    assert (output["status"], output["results"]["stopped_by"]) == ("stopped", "SIGTERM")
    before = json.loads((here / "history.json").read_text())
    (here / "checkpoint.pt").rename(here / "from.pt")
    output = finish(start(here, checkpoint="from.pt", **replay), here)
    assert (output["status"], output["results"]["stopped_by"]) == ("finished", "max_epochs")
    history = json.loads((here / "history.json").read_text())
    assert 2 < len(before) < len(history)
    assert history[: len(before)] == before
    first, second = weights(here / "model.model"), weights(here / "rank_1" / "model.model")
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_without_torchrun_there_is_one_process(here: Path) -> None:
    """Whatever a scheduler calls its ranks."""
    assert Ranks.from_environment({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "3"}) == Ranks()
    with pytest.raises(WorkerError, match="processes is 2, but 1 run"):
        fine_tune.run(inputs(), StopRequest())
