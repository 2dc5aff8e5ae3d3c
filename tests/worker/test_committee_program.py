from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import read, write

from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.worker.programs import committee
from aiida_mofmace.worker.stopping import StopRequest

from .selection_fixtures import labelled, trajectory, water_box, write_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("committee")
    for seed in range(3):
        write_tiny_model(folder / f"model_{seed}.model", seed=seed)
    trajectory(0, 30, "md_300K").save(folder / "a.npz")
    trajectory(1, 10, "md_500K", shift=0.4).save(folder / "b.npz")
    rng = np.random.default_rng(5)
    write(folder / "dataset.extxyz", [labelled(water_box(rng)) for _ in range(6)], format="extxyz")
    return folder


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    for name in ("candidates.npz", "predictions.npz"):
        (folder / name).unlink(missing_ok=True)
    return folder


def run(files: dict[str, Any], **parameters: Any) -> dict[str, Any]:
    models = [f"model_{seed}.model" for seed in range(3)]
    inputs = {"seed": 1, "device": "cpu", "dtype": "float64", "files": {"models": models} | files}
    return committee.run(inputs | {"parameters": parameters}, StopRequest())


def test_deviation_is_that_of_the_single_models(here: Path) -> None:
    results = run({"frames": ["a.npz", "b.npz"]}, window=None)
    frames = Frames.concatenate([Frames.load("a.npz"), Frames.load("b.npz")])
    with np.load("predictions.npz") as archive:
        predictions = dict(archive)
    assert predictions["energies"].shape == (3, 40)
    assert predictions["forces"].dtype == np.float32
    assert predictions["groups"][35] == "md_500K"
    models = [MaceEvaluator(f"model_{seed}.model", dtype="float64") for seed in range(3)]
    answers = [model.evaluate([frames.atoms(33)])[0] for model in models]
    np.testing.assert_allclose(predictions["energies"][:, 33], [answer.energy for answer in answers], rtol=1e-12)
    forces = np.stack([answer.forces for answer in answers])
    per_atom = [np.sqrt(np.mean([np.sum((f - forces.mean(0))[i] ** 2) for f in forces])) for i in range(6)]
    assert predictions["sigma_max"][33] == pytest.approx(max(per_atom), rel=1e-10)
    assert results["sigma_max_mean"] == pytest.approx(predictions["sigma_max"].mean(), rel=1e-12)
    assert results["sigma_max_quantiles"]["0.5"] == pytest.approx(np.median(predictions["sigma_max"]), rel=1e-12)
    assert results["errors"] is None
    assert results["inside"] is None
    assert not Path("candidates.npz").exists()


def test_window_writes_its_frames_with_mean_energies(here: Path) -> None:
    run({"frames": ["a.npz", "b.npz"]}, window=None)
    with np.load("predictions.npz") as archive:
        sigma, energies = archive["sigma_max"], archive["energies"]
    low, high = np.quantile(sigma, [0.25, 0.75])
    results = run({"frames": ["a.npz", "b.npz"]}, window=[low, high])
    inside = np.flatnonzero((sigma >= low) & (sigma <= high))
    assert (results["below"], results["inside"], results["above"]) == (10, len(inside), 10)
    frames = Frames.concatenate([Frames.load("a.npz"), Frames.load("b.npz")])
    candidates = Frames.load("candidates.npz")
    assert np.array_equal(candidates.positions, frames.select(inside).positions)
    np.testing.assert_allclose(candidates.energies, energies.mean(axis=0)[inside], rtol=1e-12)
    assert run({"frames": ["a.npz"]}, window=[low, high], max_candidates=4)["candidates"] == 4
    assert len(Frames.load("candidates.npz")) == 4


def test_scaled_deviation_is_held_against_the_window(here: Path) -> None:
    """A window of three times the deviation, with the deviation times three, takes the same frames."""
    run({"frames": ["a.npz"]}, window=None)
    with np.load("predictions.npz") as written:
        sigma_max = np.sort(written["sigma_max"])
    low, high = float(sigma_max[1:3].mean()), float(sigma_max[-3:-1].mean())
    plain = run({"frames": ["a.npz"]}, window=[low, high])
    scaled = run({"frames": ["a.npz"]}, window=[3.0 * low, 3.0 * high], deviation_scale=3.0)
    assert 0 < scaled["inside"] == plain["inside"] < len(sigma_max)
    assert (plain["deviation_scale"], scaled["deviation_scale"]) == (1.0, 3.0)
    assert scaled["sigma_max_mean"] == plain["sigma_max_mean"]
    with np.load("predictions.npz") as written:
        assert np.array_equal(np.sort(written["sigma_max"]), sigma_max)


def test_no_frame_in_the_window_writes_no_file(here: Path) -> None:
    results = run({"frames": ["a.npz"]}, window=[1e6, 2e6])
    assert (results["below"], results["inside"], results["candidates"]) == (30, 0, 0)
    assert not Path("candidates.npz").exists()


def test_errors_against_the_labels_of_a_dataset(here: Path) -> None:
    results = run({"dataset": "dataset.extxyz"}, window=None)
    labels = read("dataset.extxyz", index=":")
    reference = np.array([image.info["REF_energy"] for image in labels])
    reference_forces = np.concatenate([image.arrays["REF_forces"] for image in labels])
    assert np.ptp(reference) > 1e-3 and np.abs(reference_forces).max() > 0.05
    with np.load("predictions.npz") as archive:
        np.testing.assert_allclose(archive["reference_energies"], reference, rtol=1e-12)
        np.testing.assert_allclose(archive["reference_forces"], reference_forces, rtol=1e-6)
        difference = archive["energies"][1] - reference
        forces = archive["forces"][1] - reference_forces
    errors = results["errors"]
    assert errors["models"][1]["energy_mae_mev_per_atom"] == pytest.approx(1e3 * np.abs(difference / 6).mean())
    assert errors["models"][1]["force_mae_mev_per_ang"] == pytest.approx(1e3 * np.abs(forces).mean(), rel=1e-4)
    values = [model["force_mae_mev_per_ang"] for model in errors["models"]]
    assert errors["mean"]["force_mae_mev_per_ang"] == pytest.approx(np.mean(values))
    assert errors["committee"]["force_mae_mev_per_ang"] <= errors["mean"]["force_mae_mev_per_ang"]
    assert errors["calibration"]["ratio"] > 0.0


@pytest.mark.parametrize(
    ("files", "parameters", "message"),
    [
        ({"frames": ["a.npz"]}, {"window": [0.2, 0.1]}, "empty"),
        ({"frames": ["a.npz"]}, {"deviation_scale": 0.0}, "above 0"),
        ({"frames": ["a.npz"]}, {"heads": ["Default"]}, "one head for each"),
        ({"frames": ["a.npz"]}, {"heads": ["Default", "Default", "pt_head"]}, "pt_head"),
        ({"frames": []}, {}, "no frames"),
        ({"frames": ["a.npz"]}, {"windw": None}, "windw"),
    ],
)
def test_bad_input_is_refused(here: Path, files: dict[str, Any], parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkerError, match=message) as error:
        run(files, **parameters)
    assert error.value.kind == "bad_input"


def test_dataset_without_forces_is_refused(here: Path) -> None:
    frame = labelled(water_box(np.random.default_rng(0)))
    del frame.arrays["REF_forces"]
    write("no_forces.extxyz", [frame], format="extxyz")
    with pytest.raises(WorkerError, match="REF_forces"):
        run({"dataset": "no_forces.extxyz"})


def test_elements_unknown_to_a_model_are_refused(here: Path) -> None:
    frames = trajectory(0, 2, "md")
    frames.numbers[frames.numbers == 6] = 30
    frames.save("zinc.npz")
    with pytest.raises(WorkerError, match="Zn"):
        run({"frames": ["zinc.npz"]})


def test_a_stop_request_ends_the_program(here: Path) -> None:
    inputs = {"seed": 1, "device": "cpu", "dtype": "float64", "parameters": {}}
    files = {"models": ["model_0.model"], "frames": ["a.npz"]}
    assert committee.run(inputs | {"files": files}, StopRequest(max_wall_seconds=0.0)) == {"stopped_early": True}
