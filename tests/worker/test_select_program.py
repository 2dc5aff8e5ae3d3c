from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.io import write

from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.programs import select
from aiida_mofmace.worker.stopping import StopRequest

from .selection_fixtures import run_worker, trajectory

PARAMETERS: dict[str, Any] = {
    "soap": {"r_cut": 4.0, "n_max": 3, "l_max": 2, "sigma": 1.0, "average": "inner"},
    "environments": "all",
    "n_select": 6,
    "method": "kmeans",
    "quotas": None,
    "pca_components": 10,
    "pca_sample": 4096,
    "minimum_distance": 0.5,
    "duplicate_tolerance": 1e-5,
    "tsne": {"perplexity": 30, "max_points": 40},
    "coverage_cells": 6,
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    near, far = trajectory(0, 30, "md_300K_1CO2"), trajectory(1, 20, "md_500K_1CO2", shift=0.5)
    crashed = trajectory(2, 1, "md_300K_1CO2")
    crashed.positions[1] = crashed.positions[0] + 0.1
    Frames.concatenate([near, crashed, near.select([4, 7])]).save("a.npz")
    far.save("b.npz")
    held = [near.atoms(index) for index in range(5)]
    write("dataset.extxyz", held, format="extxyz")
    return tmp_path


def select_with(dataset: str | None = None, **changes: Any) -> dict[str, Any]:
    inputs = {
        "seed": 7,
        "files": {"frames": ["a.npz", "b.npz"], "dataset": dataset},
        "parameters": PARAMETERS | changes,
    }
    return select.run(inputs, StopRequest())


def test_selected_frames_are_what_the_results_say(folder: Path) -> None:
    results = select_with()
    assert results["pool"] == 53
    assert {reason: n for reason, n in results["refused"].items() if n} == {"duplicate": 2, "too_close": 1}
    assert results["by_group"]["md_300K_1CO2"]["duplicate"] == 2
    assert sum(results["by_group"]["md_500K_1CO2"].values()) == 20
    assert results["explained_variance"] > 0.95
    chosen, sources = Frames.load("selected.npz"), [Frames.load("a.npz"), Frames.load("b.npz")]
    assert len(chosen) == len(results["selected"]) == 6
    for position, entry in enumerate(results["selected"]):
        source = sources[entry["file"]].select([entry["index"]])
        assert np.array_equal(chosen.select([position]).positions, source.positions)
        assert (entry["group"], entry["loading"], entry["framework_atoms"]) == (source.groups[0], 1, 3)
    with np.load("map.npz") as archive:
        assert archive["xy"].shape == (40, 2)
        assert np.count_nonzero(archive["kind"] == 2) == 6


def test_kmeans_covers_more_cells_than_random_picks(folder: Path) -> None:
    figures = select_with(n_select=8, coverage_cells=8)["coverage"]
    assert figures["cells"] == 8
    assert figures["selected_cells"] > figures["random_cells_mean"]
    assert figures["covering_radius"] < figures["random_covering_radius"]


def test_every_frame_that_was_left_out_has_its_reason(folder: Path) -> None:
    lost = trajectory(3, 2, "md_300K_1CO2")
    lost.positions[0] += 30.0 * np.array([0.1, 0.1, 0.1])
    Frames.concatenate([Frames.load("a.npz"), lost]).save("a.npz")
    results = select_with(detached_distance=2.0)
    with np.load("fates.npz") as fates:
        named = [select.FATES[fate] for fate in fates["fate"]]
        places = list(zip(fates["trajectory"].tolist(), fates["index"].tolist(), strict=True))
        distances = fates["distance"]
    assert named[30:35] == ["too_close", "duplicate", "duplicate", "detached", named[34]]
    assert [places[i] for i, name in enumerate(named) if name == "selected"] == sorted(
        (entry["file"], entry["index"]) for entry in results["selected"]
    )
    assert all(distances[i] < 1e-6 for i, name in enumerate(named) if name == "selected")
    assert np.nanmax(distances) == pytest.approx(results["coverage"]["covering_radius"])
    assert np.isnan(distances[30])


def test_the_other_method_is_run_for_comparison(folder: Path) -> None:
    results = select_with(compare=True, n_select=8, coverage_cells=8)
    assert set(results["comparison"]) == {"kmeans", "fps"}
    assert results["comparison"]["kmeans"]["covering_radius"] == results["coverage"]["covering_radius"]
    assert results["comparison"]["fps"]["covering_radius"] < results["coverage"]["random_covering_radius"]
    alone = select_with(method="fps", n_select=8, coverage_cells=8)
    assert alone["coverage"]["covering_radius"] == results["comparison"]["fps"]["covering_radius"]
    with np.load("fates.npz") as fates:
        assert fates["picked_by_fps"].sum() == 8
    assert select_with(n_select=8, coverage_cells=8)["selected"] == results["selected"]


def test_gas_environments_leave_out_frames_without_gas(folder: Path) -> None:
    empty = trajectory(5, 3, "md_300K_0CO2")
    empty.framework_atoms[:], empty.loadings[:] = 6, 0
    Frames.concatenate([empty, Frames.load("b.npz")]).save("b.npz")
    write("dataset.extxyz", [Frames.load("b.npz").atoms(index) for index in (0, 5)], format="extxyz")
    results = select_with("dataset.extxyz", environments="gas")
    assert results["refused"]["no_centres"] == 3
    assert {entry["group"] for entry in results["selected"]} <= {"md_300K_1CO2", "md_500K_1CO2"}
    assert results["refused"]["duplicate"] == 3  # the copies of frames 4 and 7, and the frame of the dataset


def test_components_of_a_sample_change_little(folder: Path) -> None:
    whole, part = select_with(method="fps"), select_with(method="fps", pca_sample=25)
    assert part["explained_variance"] > 0.9
    assert part["coverage"]["covering_radius"] == pytest.approx(whole["coverage"]["covering_radius"], rel=0.2)
    assert part["refused"] == whole["refused"]


@pytest.mark.parametrize("method", ["kmeans", "fps"])
def test_quotas_are_met_and_shortfalls_told(folder: Path, method: str) -> None:
    results = select_with(method=method, n_select=10, quotas={"md_500K_*": 4, "gcmc_*": 2})
    groups = [entry["group"] for entry in results["selected"]]
    assert groups[:4] == ["md_500K_1CO2"] * 4
    assert len(groups) == 10
    assert results["quota_shortfalls"] == {"gcmc_*": 2}
    others = {group: row for group, row in results["by_group"].items() if not group.startswith("md_500K_")}
    assert set(results["without_quota"]) == set(others)
    assert sum(results["without_quota"].values()) < sum(sum(row.values()) for row in others.values())  # some refused
    origins = {(entry["file"], entry["index"]) for entry in results["selected"]}
    assert len(origins) == 10


def test_a_quota_whose_frames_an_earlier_one_took_is_told_too(folder: Path) -> None:
    """Snapshots of Monte Carlo have a quota of their own, and that of their loading, which comes first, takes some."""
    results = select_with(n_select=50, quotas={"md_*": 45, "md_500K_*": 5})
    taken = [entry["group"] for entry in results["selected"][:45]].count("md_500K_1CO2")
    assert 20 - taken < 5
    assert results["quota_shortfalls"] == {"md_500K_*": 5 - (20 - taken)}
    assert len(results["selected"]) == 50
    assert select_with(n_select=60, quotas={"*": 52})["quota_shortfalls"] == {"*": 2}


def test_picks_keep_away_from_those_of_an_earlier_quota(folder: Path) -> None:
    """On a line: the quota takes the point at 0; of the others that at 10 is the farthest from it, then that at 5."""
    inputs = {"seed": 7, "files": {"frames": ["a.npz"], "dataset": None}}
    parameters = PARAMETERS | {"n_select": 3, "quotas": {"md_*": 1}}
    selection = select.Selection(inputs | {"parameters": parameters}, StopRequest())
    points, groups = np.array([[0.0], [1.0], [5.0], [10.0]]), ["md_300K", "gcmc", "gcmc", "gcmc"]
    chosen, shortfalls = selection.pick("fps", points, groups, np.zeros((0, 1)))
    assert (chosen.tolist(), shortfalls) == ([0, 3, 2], {})


def test_farthest_points_keep_away_from_the_dataset(folder: Path) -> None:
    free = select_with(method="fps", n_select=3)
    results = select_with("dataset.extxyz", method="fps", n_select=3)
    assert results["refused"]["duplicate"] == 5 + 2  # the dataset's own frames, and the copies of frames 4 and 7
    assert all(entry["file"] == 1 or entry["index"] > 4 for entry in results["selected"])
    assert results["selected"][0]["file"] == 1, "the other trajectory is the farthest from the dataset"
    assert free["selected"] != results["selected"]
    with np.load("map.npz") as archive:
        assert np.count_nonzero(archive["kind"] == 1) > 0
        assert len(archive["kind"]) == results["map"]["shown"] == 40  # max_points of the settings
    assert results["map"]["left_out"] > 0


def test_a_small_pool_is_taken_whole(folder: Path) -> None:
    results = select_with(n_select=500, coverage_cells=500)
    assert results["took_all"]
    assert len(results["selected"]) == 50
    assert results["coverage"]["selected_cells"] == 50


def test_result_does_not_depend_on_the_number_of_threads(folder: Path) -> None:
    digests = set()
    for threads in (1, 2):
        code, output = run_worker(
            folder,
            "select",
            threads=threads,
            files={"frames": ["a.npz", "b.npz"], "dataset": "dataset.extxyz"},
            parameters=PARAMETERS,
        )
        assert code == 0, output["stderr"]
        arrays = np.load(folder / "map.npz")
        digests.add((str(output["results"]), hashlib.sha256(arrays["xy"].tobytes()).hexdigest()))
    assert len(digests) == 1


def test_another_seed_gives_other_kmeans_picks(folder: Path) -> None:
    first = select_with()
    inputs = {"seed": 8, "files": {"frames": ["a.npz", "b.npz"], "dataset": None}, "parameters": PARAMETERS}
    second = select.run(inputs, StopRequest())
    assert select_with() == first
    assert second["selected"] != first["selected"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "random"}, "fps"),
        ({"quotas": {"*": 99}}, "quotas"),
        ({"minimum_distance": 5.0}, "too_close"),
        ({"environments": "gases"}, "framework_and_gas"),
        ({"n_selct": 3}, "n_selct"),
        ({"n_select": 0}, "n_select"),
    ],
)
def test_bad_input_is_refused(folder: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkerError, match=message) as error:
        select_with(**change)
    assert error.value.kind == "bad_input"


def test_a_pool_that_repeats_the_dataset_is_refused(folder: Path) -> None:
    write("dataset.extxyz", [frame.atoms(i) for frame in [Frames.load("a.npz")] for i in range(5)], format="extxyz")
    trajectory(0, 5, "md").save("a.npz")
    inputs = {"seed": 7, "files": {"frames": ["a.npz"], "dataset": "dataset.extxyz"}, "parameters": PARAMETERS}
    with pytest.raises(WorkerError, match="differs from the dataset") as error:
        select.run(inputs, StopRequest())
    assert error.value.kind == "nothing_new"


def test_a_stop_request_ends_the_program(folder: Path) -> None:
    inputs = {"seed": 7, "files": {"frames": ["a.npz"], "dataset": None}, "parameters": PARAMETERS}
    assert select.run(inputs, StopRequest(max_wall_seconds=0.0)) == {"stopped_early": True}
    assert not Path("selected.npz").exists()


@pytest.mark.parametrize("environments", ["all", "framework", "framework_and_gas", "species"])
def test_all_environments_select(folder: Path, environments: str) -> None:
    assert len(select_with(environments=environments)["selected"]) == 6
