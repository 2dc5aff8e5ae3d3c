"""The main job on real CP2K and real MACE with a tiny budget, its report, and its archive in another profile."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.manage import get_manager
from aiida.manage.caching import enable_caching
from aiida.tools.archive import create_archive
from ase import units
from click.testing import CliRunner

from aiida_mofmace.cli import mofmace
from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.label import DftLabelData
from aiida_mofmace.report.collect import collect
from aiida_mofmace.report.html import write_report
from aiida_mofmace.report.labels import find_labels
from aiida_mofmace.report.summary import summary
from aiida_mofmace.starter import STARTER_MODEL
from aiida_mofmace.workflows.main import MofMaceWorkChain

from .workflows.steps import mil_120

SHORT = {"steps": 60, "equilibration_steps": 20, "stride": 2}
TINY: dict[str, Any] = {
    "sampling": {"temperatures": [300.0], "loadings": [0, 1], **SHORT},
    "initial_set": {"n_empty": 5, "n_per_loading": 5},
    "selection": {"soap": {"n_max": 4, "l_max": 2}, "pca_components": 5, "coverage_cells": 4},
    "fine_tune": {"n_replay": 12, "max_epochs": 3, "valid_fraction": 0.2, "test_fraction": 0.2},
    "active_learning": {
        "committee_size": 2,
        "max_rounds": 1,
        "window": [1.0e-4, 10.0],
        "calibrate_deviation": True,
        "n_select": 3,
        "loadings": [1],
        "pressures": [1.0e6],
        **SHORT,
    },
    "validation": {"loadings": [0, 1], "n_frames": 2, **SHORT},
    "isotherm": {"pressures": [1.0e5, 1.0e6], "chunk_steps": 100, "min_steps": 200, "max_steps": 200, "stride": 10},
    "heat_of_adsorption": SHORT,
    "henry_coefficient": {"insertions": 0},
}
UFF = {
    "cutoff": 8.5,
    "pressures": [1.0e4, 1.0e5],
    "widom_cycles": 200,
    "initialization_cycles": 100,
    "cycles": 100,
    "movie_frames": 4,
    "snapshots": 12,
}
FIXTURES = Path(__file__).parent / "fixtures"


def run_main(codes: dict[str, orm.Code], structure: orm.StructureData, **changes: Any) -> orm.WorkChainNode:
    charges = changes.pop("charges", None)
    builder = MofMaceWorkChain.get_builder_from_protocol(
        codes, structure, "CO2", charges=charges, overrides=TINY | changes, seed=3
    )
    manager = get_manager()
    manager.set_runner(manager.create_runner(communicator=None))
    node = run_get_node(builder)[1]
    # A few hundred steps give no converged isotherm: the warning that says so is the right end.
    assert node.exit_status in (0, 701), f"{node.exit_status}: {node.exit_message}\n{journal(node)}"
    return node


def journal(node: orm.WorkChainNode) -> str:
    from aiida.cmdline.utils.common import get_workchain_report

    return get_workchain_report(node, "REPORT")


def check_dataset(node: orm.WorkChainNode) -> None:
    dataset = node.outputs.dataset
    assert isinstance(dataset, LabelledDatasetData)
    assert dataset.base.attributes.get("rounds") == [10, 3]
    assert dataset.level_of_theory["name"] == "GFN1-xTB"
    for atoms in dataset.get_atoms():
        label = orm.load_node(atoms.info["label_uuid"])
        assert label.structure.uuid == atoms.info["structure_uuid"]
        assert label.energy == pytest.approx(atoms.info["REF_energy"], abs=1e-6)
        assert np.allclose(atoms.arrays["REF_forces"], label.forces, atol=1e-6)
        assert np.allclose(atoms.positions, label.structure.get_ase().positions, atol=1e-6)


def check_provenance(node: orm.WorkChainNode) -> None:
    """Every label has a CP2K job and a structure that a selection made from trajectories of known models."""
    labels = orm.QueryBuilder().append(DftLabelData).all(flat=True)
    assert len(labels) == 10 + 3 + 4
    for label in labels:
        assert label.creator.process_type.endswith("mofmace.cp2k_label")
        assert label.creator.outputs.retrieved.base.repository.list_object_names()
        assert label.structure.creator.process_type.endswith(("mofmace.diversity_select", "pick_frames")) or (
            label.structure.creator.process_label in ("pick_frames", "random_frames", "draw_frames")
        ), label.structure.creator.process_label


def check_models(node: orm.WorkChainNode) -> None:
    models = dict(node.outputs.models)
    assert len(models) == 2
    assert len({model.sha256 for model in models.values()}) == 2
    for model in models.values():
        assert {"H", "C", "O"} <= set(model.elements)
        assert "pt_head" in model.heads


def check_calibration(node: orm.WorkChainNode) -> None:
    """Each committee is calibrated on its test frames, and the window of the round takes the scaled deviation."""
    first, last = node.outputs.learning_curve["rounds"]
    assert first["calibration"]["n_models"] == 2
    assert first["calibration"]["ratio"] > 0.0
    assert last["deviation_scale"] == first["calibration"]["ratio"]
    assert node.outputs.calibration.get_dict() == last["calibration"]


def check_validation(node: orm.WorkChainNode) -> None:
    """The errors before fine-tuning are those that mace's own calculator gives with the starter model."""
    from mace.calculators import MACECalculator

    errors = node.outputs.validation.errors.get_dict()
    assert set(errors["after"]["by_loading"]) == {"0", "1"}
    assert errors["after"]["n_models"] == 2
    calculator = MACECalculator(str(STARTER_MODEL), device="cpu", default_dtype="float32")
    frames = node.outputs.validation.dataset.get_atoms()
    assert len(frames) == 4
    forces, energies = [], []
    for frame in frames:
        alone = frame.copy()
        alone.calc = calculator
        forces.append(alone.get_forces() - frame.arrays["REF_forces"])
        energies.append((alone.get_potential_energy() - frame.info["REF_energy"]) / len(frame))
    expected = 1000 * np.abs(np.concatenate(forces)).mean(), 1000 * np.abs(energies).mean()
    found = errors["before"]["all"]
    assert found["force_mae_mev_per_ang"] == pytest.approx(expected[0], rel=1e-3)
    assert found["energy_mae_mev_per_atom"] == pytest.approx(expected[1], abs=0.05)


def check_isotherm(node: orm.WorkChainNode) -> None:
    isotherm = node.outputs.isotherm.get_dict()
    assert [point["pressure_Pa"] for point in isotherm["points"]] == [1.0e5, 1.0e6]
    water = 18.015
    assert isotherm["framework_mass_amu"] == pytest.approx(water, abs=0.01)
    for point in isotherm["points"]:
        assert point["steps"] == 200
        assert point["loading_mol_per_kg"] == pytest.approx(1000 * point["loading_per_cell"] / water, rel=1e-3)
    heat = node.outputs.heat_of_adsorption.get_dict()
    difference = heat["energy_loaded_eV"] - heat["energy_framework_eV"] - heat["energy_gas_eV"]
    expected = (difference - units.kB * heat["temperature_K"]) / (units.kJ / units.mol)
    assert heat["value_kJ_per_mol"] == pytest.approx(expected, abs=1e-6)


def check_archive(tmp_path: Path) -> None:
    """The archive of the run gives the same labels in a profile that has never seen it."""
    here = tmp_path / "here.extxyz"
    result = CliRunner().invoke(mofmace, ["labels", "export", "--out", str(here)])
    assert result.exit_code == 0, result.output
    create_archive(None, filename=tmp_path / "run.aiida", overwrite=True)
    environment = os.environ | {"AIIDA_PATH": str(tmp_path / "elsewhere")}
    there = tmp_path / "there.extxyz"
    command = Path(sys.executable).parent
    for arguments in (
        [command / "mofmace", "setup"],
        [command / "verdi", "-p", "mofmace", "archive", "import", tmp_path / "run.aiida"],
        [command / "mofmace", "-p", "mofmace", "labels", "export", "--out", there],
    ):
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert here.read_bytes() == there.read_bytes()
    assert here.read_text(encoding="utf-8").count("label_uuid") == 17


def check_report(node: orm.WorkChainNode, tmp_path: Path) -> None:
    text = summary(node)
    assert "17" in text
    assert str(node.pk) in text
    write_report(node, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<svg") >= 6


def check_second_run(node: orm.WorkChainNode, codes: dict[str, orm.Code], structure: orm.StructureData) -> None:
    """With caching, the same inputs run no job again, give the same result, and count no label twice."""
    with enable_caching(identifier="aiida.calculations:mofmace.*"):
        again = run_main(codes, structure)
    jobs = [called for called in again.called_descendants if isinstance(called, orm.CalcJobNode)]
    assert [job.process_label for job in jobs if not job.base.caching.is_created_from_cache] == []
    assert len(jobs) == len([called for called in node.called_descendants if isinstance(called, orm.CalcJobNode)])
    assert again.outputs.isotherm.get_dict() == node.outputs.isotherm.get_dict()
    assert len(find_labels()) == 17
    assert len(find_labels(process=again)) == 17


@pytest.mark.cp2k
@pytest.mark.usefixtures("aiida_profile_clean")
def test_main_job(worker_code: orm.Code, cp2k_code: orm.Code, water: orm.StructureData, tmp_path: Path) -> None:
    codes = {"worker": worker_code, "cp2k": cp2k_code}
    node = run_main(codes, water)
    check_dataset(node)
    check_provenance(node)
    check_models(node)
    check_calibration(node)
    check_validation(node)
    check_isotherm(node)
    check_report(node, tmp_path)
    check_archive(tmp_path)
    check_second_run(node, codes, water)


@pytest.mark.slow
@pytest.mark.usefixtures("aiida_profile_clean")
def test_main_job_without_cp2k(worker_code: orm.Code, water: orm.StructureData) -> None:
    """What the demo does where CP2K cannot be installed: labels of tblite, marked as such."""
    training = TINY["fine_tune"] | {"pseudolabel_replay": True, "e0s": "estimated"}
    node = run_main({"worker": worker_code}, water, level="gfn1-xtb-tblite", fine_tune=training)
    assert "tblite" in node.outputs.dataset.level_of_theory["name"]
    labels = orm.QueryBuilder().append(DftLabelData).all(flat=True)
    assert len(labels) == 17
    assert {label.creator.process_type.rpartition(":")[2] for label in labels} == {"mofmace.tblite_label"}


@pytest.mark.slow
@pytest.mark.cp2k
@pytest.mark.usefixtures("aiida_profile_clean")
def test_main_job_with_uff(worker_code: orm.Code, cp2k_code: orm.Code, raspa_code: orm.Code, tmp_path: Path) -> None:
    """MIL-120 with charges: snapshots of RASPA become labels, and the report shows both isotherms."""
    codes = {"worker": worker_code, "cp2k": cp2k_code, "raspa": raspa_code}
    charges = json.loads((FIXTURES / "raspa" / "mil_120_charges.json").read_text())
    # At these pressures the cells hold two to four molecules: loadings that dynamics sampled none of.
    initial = {"n_empty": 3, "n_per_loading": 3}
    sampling = TINY["sampling"] | {"loadings": [0, 1, 2]}
    node = run_main(codes, mil_120(), charges=charges, initial_set=initial, sampling=sampling, uff_gcmc=UFF)
    groups = [record.origin.group for record in find_labels(process=node)]
    assert any((group or "").startswith("uff_303K_") for group in groups), groups
    uff, mace = node.outputs.uff_isotherm.get_dict(), node.outputs.isotherm.get_dict()
    assert [point["pressure_Pa"] for point in uff["points"]] == pytest.approx([1.0e4, 1.0e5])
    assert all(2.0 < point["loading_mol_per_kg"] < 6.5 for point in uff["points"])
    assert len(mace["points"]) == 2
    text = summary(node)
    print(text)
    assert "Isotherm of UFF and a rigid framework at 303 K" in text
    write_report(node, tmp_path / "report.html")
    assert "UFF, rigid framework, 303 K" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.cp2k
def test_main_job_with_lammps_and_ab_initio_md(worker_code: orm.Code, cp2k_code: orm.Code) -> None:
    """LAMMPS samples and makes the isotherm, CP2K's own MD gives labels beside it; both are in the first dataset."""
    pytest.importorskip("aiida_lammps", reason="the extra `lammps` is not installed")
    lammps = orm.InstalledCode(
        label="mofmace-lmp",
        computer=worker_code.computer,
        filepath_executable=str(shutil.which("mofmace-lmp")),
        default_calc_job_plugin="lammps.raw",
    ).store()
    ab_initio = {"loadings": [0, 1], "steps": 24, "equilibration_steps": 4, "stride": 4, "labels": 3}
    node = run_main(
        {"worker": worker_code, "cp2k": cp2k_code, "lammps": lammps},
        mil_120(),
        sampling=TINY["sampling"] | {"engine": "lammps"},
        gcmc={"engine": "lammps", "trial_places": 1},
        aimd=ab_initio,
    )
    assert node.outputs.dataset.base.attributes.get("rounds") == [10, 6, 3]
    groups = [record.origin.group or "" for record in find_labels(process=node)]
    assert sum(group.startswith("aimd_300K_") for group in groups) == 6
    assert len(groups) == 10 + 6 + 3 + 4
    assert "23 made (23 at GFN1-xTB), 0 failed" in summary(node)
    chunks = [each for each in node.called_descendants if each.process_label == "LammpsGcmcWorkChain"]
    assert len(chunks) == 4 and all(each.is_finished_ok for each in chunks), [each.exit_message for each in chunks]
    loadings = [row["loading"] for row in collect(node)["timeseries"]]
    assert [len(series) for series in loadings] == [40, 40]
    trial = chunks[-1].outputs.results["comparison"]["deletion"]
    assert trial["engine"] == pytest.approx(trial["direct"], abs=1e-3)
