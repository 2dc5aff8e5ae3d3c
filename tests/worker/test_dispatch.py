"""The dispatcher: whatever happens, output.json tells."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from aiida_mofmace import worker
from aiida_mofmace.worker.__main__ import main
from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.results import to_plain
from aiida_mofmace.worker.stopping import StopRequest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "input.json").write_text(json.dumps({"program": "md", "parameters": {}}), encoding="utf-8")
    return tmp_path


def outcome(folder: Path, monkeypatch: pytest.MonkeyPatch, run) -> tuple[int, dict]:
    class Program:
        pass

    Program.run = staticmethod(run)
    monkeypatch.setattr("importlib.import_module", lambda name, package=None: Program)
    code = main(["md", "input.json"])
    return code, json.loads((folder / "output.json").read_text(encoding="utf-8"))


def test_results_versions_and_time_are_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = {"energy": np.float32(1.5), "many": np.arange(3), "unknown": float("nan"), "flag": np.bool_(True)}
    code, output = outcome(folder, monkeypatch, lambda inputs, stop: results)
    assert code == 0
    assert output["status"] == "finished"
    assert output["results"] == {"energy": 1.5, "many": [0, 1, 2], "unknown": None, "flag": True}
    assert output["versions"]["numpy"] == np.__version__
    assert output["wall_seconds"] >= 0


def test_a_failure_on_purpose_keeps_its_kind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(inputs, stop):
        raise WorkerError("bad_input", "no model; give one")

    code, output = outcome(folder, monkeypatch, run)
    assert (code, output["status"]) == (1, "failed")
    assert output["error"] == {"type": "bad_input", "message": "no model; give one"}


def too_much_for_numpy() -> None:
    np.zeros((2**20, 2**20, 2**10))


def too_much_for_torch() -> None:
    import torch

    torch.zeros(2**50)


def too_much_for_cublas() -> None:
    raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")


def too_much_for_a_gpu() -> None:
    raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")


@pytest.mark.parametrize("take", [too_much_for_a_gpu, too_much_for_cublas, too_much_for_numpy, too_much_for_torch])
def test_lack_of_memory_is_told_as_such(
    folder: Path, monkeypatch: pytest.MonkeyPatch, take: Callable[[], None]
) -> None:
    def run(inputs, stop):
        take()

    code, output = outcome(folder, monkeypatch, run)
    assert (code, output["error"]["type"]) == (1, "out_of_memory")


def test_a_graceful_stop_is_marked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "input.json").write_text(json.dumps({"max_wall_seconds": 0.0}), encoding="utf-8")
    code, output = outcome(folder, monkeypatch, lambda inputs, stop: {"steps": 3, "stopped_early": True})
    assert (code, output["status"], output["reason"]) == (0, "stopped", "walltime")
    assert output["results"] == {"steps": 3}


def test_misuse_prints_how_to_use_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nonsense"]) == 2
    assert "usage" in capsys.readouterr().err


def test_stop_request_by_signal() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)
    try:
        stop = StopRequest()
        stop.listen()
        assert stop.reason() is None
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert stop.reason() == "SIGTERM"
    finally:
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGUSR1, before[1])


def test_json_holds_no_infinity() -> None:
    assert to_plain({"a": [np.inf, 1.0], 2: (np.int64(3),)}) == {"a": [None, 1.0], "2": [3]}


def test_the_package_runs_under_another_name_without_the_project(tmp_path: Path) -> None:
    """A compute machine has neither aiida nor this project: only the shipped folder."""
    source = Path(worker.__file__).parent
    shutil.copytree(source, tmp_path / "mofmace_worker", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "input.json").write_text(json.dumps({"parameters": {}, "files": {}}), encoding="utf-8")
    blocker = "import sys; sys.modules['aiida'] = None; sys.modules['aiida_mofmace'] = None"
    run = "runpy.run_module('mofmace_worker', run_name='__main__')"
    script = f"{blocker}; import runpy; sys.argv = ['mofmace_worker', 'md', 'input.json']; {run}"
    result = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    output = json.loads((tmp_path / "output.json").read_text(encoding="utf-8"))
    assert result.returncode == 1
    assert output["error"]["type"] != "ModuleNotFoundError", output["error"]
