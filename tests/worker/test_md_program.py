"""The md program as a job runs it: files in, files out, stops and restarts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.worker.programs.md import run
from aiida_mofmace.worker.stopping import StopRequest

from .engine_fixtures import CO2, write_tiny_mace

REPOSITORY = Path(__file__).parents[2]
PARAMETERS = {
    "temperature": 300.0,
    "timestep_fs": 0.5,
    "steps": 40,
    "stride": 4,
    "equilibration_steps": 8,
    "thermostat_time_fs": 50.0,
    "loading": 1,
    "gas": CO2,
    "group": "md_300K_1CO2",
    "max_temperature_factor": 4.0,
    "minimum_distance": 0.5,
    "insertion_minimum_distance": 2.0,
}


@pytest.fixture
def inputs(tiny_model: Path, framework: Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What input.json holds, in a job folder of its own."""
    monkeypatch.chdir(tmp_path)
    framework.write("structure.extxyz")
    files = {"model": str(tiny_model), "structure": "structure.extxyz"}
    return {"program": "md", "seed": 11, "device": "cpu", "dtype": "float32", "files": files, "parameters": PARAMETERS}


def change(inputs: dict[str, Any], **parameters: Any) -> dict[str, Any]:
    return inputs | {"parameters": inputs["parameters"] | parameters}


def test_frames_and_means(inputs: dict[str, Any], tiny_model: Path) -> None:
    results = run(inputs, StopRequest())
    frames = Frames.load("frames.npz")
    assert results["n_frames"] == len(frames) == 8
    assert list(frames.steps) == list(range(12, 41, 4))
    assert set(frames.groups) == {"md_300K_1CO2"}
    assert set(frames.framework_atoms) == {40}
    assert set(frames.loadings) == {1}
    last = frames.atoms(7)
    energy = MaceEvaluator(tiny_model).evaluate([last], forces=False)[0].energy
    assert last.info["energy"] == pytest.approx(energy, abs=1e-5)
    with np.load("observables.npz") as observables:
        assert list(observables["step"]) == list(range(4, 41, 4))
        kept = observables["step"] > 8
        assert results["mean_temperature"] == pytest.approx(observables["kinetic_temperature"][kept].mean())
        assert np.ptp(observables["conserved_energy"]) < 0.02
        assert observables["potential_energy"][-1] == last.info["energy"]
        assert observables["potential_energy"][kept].min() <= results["mean_energy"]
    assert (results["steps_done"], results["steps_total"], results["too_short"]) == (40, 40, True)
    assert "explosion" not in results
    assert "stopped_early" not in results


def test_a_restart_changes_no_bit(inputs: dict[str, Any], tmp_path: Path) -> None:
    """One run of 40 steps, and one of 18 and 22, end in the same checkpoint."""
    whole = run(inputs, StopRequest())
    with np.load("checkpoint.npz") as archive:
        expected = {name: archive[name] for name in archive.files}
    expected_frames = Frames.load("frames.npz")
    run(change(inputs, steps=18), StopRequest())
    Path("checkpoint.npz").rename("restart.npz")
    first_frames = Frames.load("frames.npz")
    restarted = inputs | {"files": inputs["files"] | {"checkpoint": "restart.npz"}, "seed": 99}
    parts = run(restarted, StopRequest())
    with np.load("checkpoint.npz") as archive:
        assert sorted(archive.files) == sorted(expected)
        for name, array in expected.items():
            assert np.array_equal(archive[name], array), name
    frames = Frames.concatenate([first_frames, Frames.load("frames.npz")])
    assert np.array_equal(frames.positions, expected_frames.positions)
    for name in ("mean_energy", "mean_energy_error", "mean_temperature", "correlation_steps"):
        assert parts[name] == whole[name]


def test_sigterm_writes_a_checkpoint_to_go_on_from(inputs: dict[str, Any]) -> None:
    inputs = change(inputs, equilibration_steps=0)
    endless = change(inputs, steps=10**7, checkpoint_seconds=0.1)
    Path("input.json").write_text(json.dumps(endless), encoding="utf-8")
    command = [sys.executable, "-W", "ignore", "-m", "aiida_mofmace.worker", "md", "input.json"]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 90
    while not Path("checkpoint.npz").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 0
    output = json.loads(Path("output.json").read_text(encoding="utf-8"))
    assert (output["status"], output["reason"]) == ("stopped", "SIGTERM")
    assert output["results"]["reason_if_stopped"] == "SIGTERM"
    done = output["results"]["steps_done"]
    assert 0 < done < 10**7
    Path("checkpoint.npz").rename("restart.npz")
    restarted = change(inputs, steps=done + 2) | {"files": inputs["files"] | {"checkpoint": "restart.npz"}}
    assert run(restarted, StopRequest())["steps_done"] == done + 2


def test_walltime_stops_after_a_step(inputs: dict[str, Any]) -> None:
    results = run(change(inputs, equilibration_steps=0), StopRequest(max_wall_seconds=0.0))
    assert results["stopped_early"]
    assert (results["steps_done"], results["reason_if_stopped"]) == (1, "walltime")
    assert results["mean_energy"] is None
    assert Path("checkpoint.npz").exists()


def test_the_first_frame_is_that_of_ase(inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    results = run(change(inputs, check_first_frame=True, steps=10), StopRequest())
    assert results["first_frame"]["energy_per_atom"] < 1e-5
    assert results["first_frame"]["force"] < 1e-4
    original = MaceEvaluator.evaluate

    def wrong(self: MaceEvaluator, *arguments: Any, **options: Any) -> Any:
        return [replace(found, forces=1.01 * found.forces) for found in original(self, *arguments, **options)]

    monkeypatch.setattr(MaceEvaluator, "evaluate", wrong)
    with pytest.raises(WorkerError, match="differs from ASE's MACE calculator") as caught:
        run(change(inputs, check_first_frame=True, steps=10), StopRequest())
    assert caught.value.kind == "wrong_engine"


def test_an_explosion_keeps_what_was_good(inputs: dict[str, Any]) -> None:
    """A distance that cannot be kept ends the run; what came before it is kept, but nothing to restart from."""
    hot = change(inputs, loading=0, timestep_fs=2.0, steps=400, temperature=3000.0, minimum_distance=0.75, stride=1)
    results = run(change(hot, equilibration_steps=0), StopRequest())
    explosion = results["explosion"]
    assert explosion["reason"] == "distance"
    assert explosion["value"] < 0.75
    assert results["n_frames"] == explosion["step"] - 1 == results["steps_done"] - 1 > 0
    assert "two atoms were" in explosion["message"]
    assert not Path("checkpoint.npz").exists()
    assert len(Frames.load("frames.npz")) == results["n_frames"]
    with pytest.raises(WorkerError, match="not stable here") as caught:
        run(change(hot, equilibration_steps=399), StopRequest())
    assert caught.value.kind == "explosion"


def test_temperature_guard(inputs: dict[str, Any]) -> None:
    """The limit leaves room for the natural fluctuation of few degrees of freedom."""
    with pytest.raises(WorkerError, match="kinetic temperature was") as caught:
        run(change(inputs, loading=0, max_temperature_factor=0.05, thermostat_time_fs=1e4), StopRequest())
    assert caught.value.kind == "explosion"
    assert "limit of 250 K" in str(caught.value)  # 300 K (0.05 + 6 sqrt(2 / 117))


def test_a_model_that_gives_no_numbers(inputs: dict[str, Any]) -> None:
    """Is said to do so, whatever the search for neighbours makes of the positions that it leads to."""
    write_tiny_mace(Path("broken.model"), atomic_inter_scale=[float("nan")])
    broken = inputs | {"files": inputs["files"] | {"model": "broken.model"}}
    with (
        pytest.warns(UserWarning, match="are off by nan"),
        pytest.raises(WorkerError, match="no longer a number") as caught,
    ):
        run(change(broken, loading=0), StopRequest())
    assert caught.value.kind == "nan"


def test_a_molecule_alone(inputs: dict[str, Any]) -> None:
    alone = inputs | {"files": {"model": inputs["files"]["model"], "structure": None}}
    alone = change(alone, loading=0, gas_phase_box=12.0, relax_first=True, group="gas")
    results = run(alone, StopRequest())
    frames = Frames.load("frames.npz")
    assert results["n_frames"] == 8
    assert np.all(frames.numbers.reshape(8, 3) == [6, 8, 8])
    assert set(frames.framework_atoms) == {0}
    assert set(frames.loadings) == {1}
    with pytest.raises(WorkerError, match="gas_phase_box must be at least 7"):
        run(change(alone, gas_phase_box=6.0), StopRequest())


@pytest.mark.parametrize(
    ("parameters", "kind", "message"),
    [
        ({"loading": 30}, "does_not_fit", "30 CO2 do not fit"),
        ({"gas": None}, "bad_input", "needs gas"),
        ({"temperature": -1.0}, "bad_input", "must be positive"),
        ({"equilibration_steps": 40}, "bad_input", "fewer than steps"),
        ({"head": "mp0"}, "bad_input", "no head mp0"),
    ],
)
def test_bad_input(inputs: dict[str, Any], parameters: dict[str, Any], kind: str, message: str) -> None:
    with pytest.raises(WorkerError, match=message) as caught:
        run(change(inputs, **parameters), StopRequest())
    assert caught.value.kind == kind


def test_files_that_are_wrong(inputs: dict[str, Any]) -> None:
    missing = inputs | {"parameters": {k: v for k, v in PARAMETERS.items() if k != "steps"}}
    with pytest.raises(WorkerError, match="missing: steps"):
        run(missing, StopRequest())
    with pytest.raises(WorkerError, match="cannot be read"):
        run(inputs | {"files": inputs["files"] | {"structure": "nowhere.extxyz"}}, StopRequest())
    np.savez("frames.npz", numbers=np.zeros(3))
    with pytest.raises(WorkerError, match="no checkpoint of this program"):
        run(inputs | {"files": inputs["files"] | {"checkpoint": "frames.npz"}}, StopRequest())
