"""What a worker program leaves, good or bad, becomes nodes and an exit code."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine import ExitCode
from aiida.plugins import CalculationFactory
from ase import Atoms

from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.data.model_file import read_model_metadata
from aiida_mofmace.parsers.worker_output import parse_worker_output
from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.frames import Frames

from ..finished import finished_job, parse
from ..worker.engine_fixtures import write_tiny_mace


def output(**changes: Any) -> str:
    content = {
        "status": "finished",
        "reason": "",
        "error": None,
        "versions": {"numpy": "2.4"},
        "wall_seconds": 1.5,
        "results": {"steps_done": 4},
    }
    return json.dumps({**content, **changes})


def failed(kind: str, message: str) -> str:
    error = WorkerError(kind, message)
    return output(status="failed", error={"type": error.kind, "message": str(error)})


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def frames(n_frames: int) -> bytes:
    images = [Atoms("AlO", [[0, 0, 0], [1.8, 0, i / 10]], cell=[9, 9, 9], pbc=True) for i in range(n_frames)]
    for index, atoms in enumerate(images):
        atoms.info.update(group="md_300K_0", step=index)
    buffer = io.BytesIO()
    Frames.from_atoms(images).save(buffer)
    return buffer.getvalue()


MD_FILES = {
    "frames.npz": frames(3),
    "observables.npz": npz(step=np.arange(4), potential_energy=np.zeros(4)),
    "checkpoint.npz": npz(step=np.array(4)),
}


def run(
    computer: orm.Computer,
    plugin: str,
    files: Mapping[str, bytes | str],
    inputs: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], ExitCode]:
    return parse(finished_job(computer, plugin, inputs or {}, files))


def test_finished_run(aiida_localhost: orm.Computer) -> None:
    outputs, code = run(aiida_localhost, "mofmace.mace_md", {**MD_FILES, "output.json": output()})
    assert code.status == 0
    assert outputs["trajectory"].n_frames == 3
    assert outputs["observables"].get_shape("step") == (4,)
    assert outputs["checkpoint"].content == MD_FILES["checkpoint.npz"]
    assert outputs["results"].get_dict() == {
        "steps_done": 4,
        "versions": {"numpy": "2.4"},
        "wall_seconds": 1.5,
        "status": "finished",
        "reason": "",
    }


@pytest.mark.parametrize("name", MD_FILES)
def test_missing_file_of_a_finished_run(aiida_localhost: orm.Computer, name: str) -> None:
    files = {key: content for key, content in MD_FILES.items() if key != name}
    _, code = run(aiida_localhost, "mofmace.mace_md", {**files, "output.json": output()})
    assert (code.status, name in code.message) == (310, True)


def test_stopped_run_may_lack_frames_but_keeps_its_checkpoint(aiida_localhost: orm.Computer) -> None:
    files = {**MD_FILES, "frames.npz": frames(0), "output.json": output(status="stopped", reason="SIGTERM")}
    outputs, code = run(aiida_localhost, "mofmace.mace_md", files)
    assert code.status == 400
    assert "Stopped by SIGTERM" in code.message
    assert "trajectory" not in outputs
    assert outputs["checkpoint"].filename == "checkpoint.npz"


def test_a_run_stopped_before_its_first_average_keeps_its_checkpoint(aiida_localhost: orm.Computer) -> None:
    """Of the hybrid program, whose series and frames are empty then."""
    files = {
        "frames.npz": frames(0),
        "timeseries.npz": npz(step=np.zeros(0), loading=np.zeros(0)),
        "checkpoint.npz": MD_FILES["checkpoint.npz"],
        "output.json": output(status="stopped", reason="walltime", results={"steps_done": 1, "mean_loading": None}),
    }
    outputs, code = run(aiida_localhost, "mofmace.md_gcmc", files)
    assert code.status == 400
    assert outputs["checkpoint"].content == MD_FILES["checkpoint.npz"]
    assert outputs["results"]["mean_loading"] is None


def test_explosion_leaves_frames_and_no_checkpoint(aiida_localhost: orm.Computer) -> None:
    files = {key: content for key, content in MD_FILES.items() if key != "checkpoint.npz"}
    results = {"explosion": {"message": "too hot"}}
    outputs, code = run(aiida_localhost, "mofmace.mace_md", {**files, "output.json": output(results=results)})
    assert code.status == 0
    assert outputs["results"]["explosion"]["message"] == "too hot"
    assert "checkpoint" not in outputs


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("bad_input", 304),
        ("does_not_fit", 304),
        ("no_model", 304),
        ("nan", 305),
        ("explosion", 306),
        ("wrong_engine", 307),
        ("out_of_memory", 401),
        ("training_failed", 303),
        ("KeyError", 303),
    ],
)
def test_failures(aiida_localhost: orm.Computer, kind: str, status: int) -> None:
    outputs, code = run(aiida_localhost, "mofmace.md_gcmc", {"output.json": failed(kind, "what to do")})
    assert (code.status, "what to do" in code.message) == (status, True)
    assert outputs["results"]["status"] == "failed"


def test_killed_run_leaves_its_checkpoint(aiida_localhost: orm.Computer) -> None:
    outputs, code = run(aiida_localhost, "mofmace.mace_md", {"checkpoint.npz": MD_FILES["checkpoint.npz"]})
    assert code.status == 301
    assert list(outputs) == ["checkpoint"]
    assert run(aiida_localhost, "mofmace.diversity_select", {})[1].status == 301
    assert run(aiida_localhost, "mofmace.fine_tune", {"model.model": b"half a model"})[1].status == 301


@pytest.mark.parametrize(
    ("kind", "status", "kept"),
    [("engine_failed", 303, True), ("out_of_memory", 401, True), ("RuntimeError", 303, True), ("nan", 305, False)],
)
def test_what_a_run_sampled_before_it_broke_off_is_kept(
    aiida_localhost: orm.Computer, kind: str, status: int, kept: bool
) -> None:
    files = {**MD_FILES, "output.json": failed(kind, "what to do")}
    outputs, code = run(aiida_localhost, "mofmace.mace_md", files)
    assert code.status == status
    assert ({"checkpoint", "trajectory"} <= set(outputs)) is kept


@pytest.mark.parametrize(
    ("exit_status", "expected"),
    [(110, 401), (120, 400), (100, 301)],
)
def test_what_the_scheduler_says(aiida_localhost: orm.Computer, exit_status: int, expected: int) -> None:
    node = finished_job(aiida_localhost, "mofmace.committee", {}, {})
    node.set_exit_status(exit_status)
    assert parse(node)[1].status == expected


@pytest.mark.parametrize("exit_status", [110, 120, 140])
def test_a_whole_output_counts_for_more_than_what_the_scheduler_says(
    aiida_localhost: orm.Computer, exit_status: int
) -> None:
    """A job may be cut off when it has written everything."""
    node = finished_job(aiida_localhost, "mofmace.mace_md", {}, {**MD_FILES, "output.json": output()})
    node.set_exit_status(exit_status)
    outputs, code = parse(node)
    assert (code.status, outputs["trajectory"].n_frames) == (0, 3)


@pytest.mark.parametrize("plugin", ["mofmace.mace_md", "mofmace.cp2k_label", "mofmace.md_gcmc_batch"])
def test_what_may_be_the_fault_of_a_machine_is_not_cached(aiida_profile: Any, plugin: str) -> None:
    """It has been put right, perhaps; what follows from the inputs alone would come again."""
    codes = CalculationFactory(plugin).exit_codes
    cached = {label for label, code in codes.items() if not code.invalidates_cache}
    own = {"ERROR_WORKER_FAILED", "ERROR_BAD_INPUT", "ERROR_UNEXPECTED_PARSER_EXCEPTION", "ERROR_OUTPUT_CONTAINS_ABORT"}
    assert not cached & (own | {"ERROR_WRONG_ENGINE", "WARNING_SYSTEMS_FAILED", "ERROR_OUT_OF_MEMORY"})
    assert "ERROR_NOT_A_NUMBER" in cached


@pytest.mark.parametrize(
    "text", ["", "{", "[]", output(status="done"), output(results=None), output(status="failed"), output(error={})]
)
def test_unreadable_output(aiida_localhost: orm.Computer, text: str) -> None:
    """A disk that was full when the last file was written takes nothing else along."""
    outputs, code = run(aiida_localhost, "mofmace.mace_md", {**MD_FILES, "output.json": text})
    assert code.status == 302
    assert set(outputs) == {"trajectory", "observables", "checkpoint"}


def test_unreadable_arrays(aiida_localhost: orm.Computer) -> None:
    pickled = npz(step=np.array([{"a": 1}], dtype=object))
    for content in (b"rubbish", pickled, MD_FILES["observables.npz"][:-30]):
        files = {**MD_FILES, "observables.npz": content, "output.json": output()}
        _, code = run(aiida_localhost, "mofmace.mace_md", files)
        assert (code.status, "observables.npz" in code.message) == (302, True)


def test_candidates_may_be_missing(aiida_localhost: orm.Computer) -> None:
    files = {"output.json": output(), "predictions.npz": npz(sigma_max=np.zeros(2))}
    assert "candidates" not in run(aiida_localhost, "mofmace.committee", files)[0]
    outputs, code = run(aiida_localhost, "mofmace.committee", {**files, "candidates.npz": frames(2)})
    assert code.status == 0
    assert outputs["candidates"].n_frames == 2
    series = {"output.json": output(), "timeseries.npz": npz(step=np.arange(2)), "checkpoint.npz": npz(a=np.arange(2))}
    outputs, code = run(aiida_localhost, "mofmace.md_gcmc", {**series, "candidates.npz": frames(1)})
    assert (code.status, outputs["candidates"].n_frames) == (0, 1)


def test_selection_that_does_not_add_up(aiida_localhost: orm.Computer) -> None:
    entry = {"file": 0, "index": 1, "group": "md_300K_0", "loading": 0, "framework_atoms": 2}
    inputs = {"trajectories__only": FramesData.from_bytes_of_file(frames(3))}
    files = {"selected.npz": frames(1), "map.npz": npz(xy=np.zeros((3, 2))), "fates.npz": npz(fate=np.zeros(3))}
    results = {"selected": [dict(entry)]}
    good, code = run(
        aiida_localhost, "mofmace.diversity_select", {**files, "output.json": output(results=results)}, inputs
    )
    assert code.status == 0
    assert good["results"]["selected"] == [{**entry, "trajectory": "only", "structure": "frame_0000"}]
    assert good["results"]["trajectories"] == ["only"]
    assert good["results"]["fates"][good["fates"].get_array("fate").astype(int)[0]] == "not_selected"
    assert good["structures"]["frame_0000"].label == "md_300K_0 step 0"
    results = {"selected": [dict(entry), dict(entry)]}
    _, code = run(
        aiida_localhost, "mofmace.diversity_select", {**files, "output.json": output(results=results)}, inputs
    )
    assert (code.status, "holds 1 frames, but 2 are selected" in code.message) == (302, True)


def test_model_must_be_the_one_described(aiida_localhost: orm.Computer, tmp_path: Path) -> None:
    path = write_tiny_mace(tmp_path / "model.model")
    described = {"sha256": read_model_metadata(path).sha256, "mace_version": "0.3.16"}
    inputs = {"parameters": orm.Dict({"name": "member_1"})}
    files = {"output.json": output(), "history.json": "[]", "model.model": path.read_bytes()}
    outputs, code = run(aiida_localhost, "mofmace.fine_tune", {**files, "model.json": json.dumps(described)}, inputs)
    assert code.status == 0
    assert (outputs["model"].name, outputs["model"].mace_version) == ("member_1", "0.3.16")
    described["sha256"] = "0" * 64
    _, code = run(aiida_localhost, "mofmace.fine_tune", {**files, "model.json": json.dumps(described)}, inputs)
    assert (code.status, "sha256 differs" in code.message) == (302, True)


def test_tblite_that_did_not_converge(aiida_localhost: orm.Computer, water: orm.StructureData) -> None:
    inputs = {"structure": water, "level": orm.Dict(LevelOfTheory.load("gfn1-xtb-tblite").to_dict())}
    results = {"energy": None, "converged": False}
    outputs, code = run(aiida_localhost, "mofmace.tblite_label", {"output.json": output(results=results)}, inputs)
    assert code.status == 450
    assert "label" not in outputs


def test_the_text_function_alone() -> None:
    assert parse_worker_output(output())["results"] == {"steps_done": 4}
    with pytest.raises(ValueError, match="no proper 'versions'"):
        parse_worker_output(output(versions=None))
