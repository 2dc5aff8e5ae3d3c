"""Grand-canonical Monte Carlo with UFF on the real RASPA, and its snapshots in single cells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from ase.geometry import cellpar_to_cell

from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.worker.kernels.geometry import closest_distance
from aiida_mofmace.workflows.inputs import gas_node

from ..worker.test_pockets import lta
from .steps import mil_120

pytest.importorskip("aiida_lsmo", reason="THE EXTRA `uff` IS NOT INSTALLED: install it with: make uff")
from aiida_mofmace.workflows.uff_functions import fold_snapshots, pore_geometry
from aiida_mofmace.workflows.uff_isotherm import UffIsothermWorkChain
from aiida_mofmace.workflows.uff_isotherm_base import molecule_settings

FIXTURES = Path(__file__).parents[1] / "fixtures"
CHARGES = json.loads((FIXTURES / "raspa" / "mil_120_charges.json").read_text())
SECTION = {
    "cutoff": 8.5,
    "pressures": [2e3, 1e5],
    "widom_cycles": 200,
    "initialization_cycles": 100,
    "cycles": 100,
    "movie_frames": 4,
    "snapshots": 12,
}


def test_isotherm_and_snapshots(raspa_code: orm.InstalledCode) -> None:
    framework = mil_120()
    builder = UffIsothermWorkChain.get_builder_from_protocol(
        {"raspa": raspa_code}, framework, CHARGES, overrides={"uff_gcmc": SECTION}, seed=4
    )
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    isotherm = outputs["isotherm"].get_dict()
    low, high = isotherm["points"]
    assert (low["pressure_Pa"], high["pressure_Pa"]) == pytest.approx((2e3, 1e5))
    # RASPA takes its seed from the clock and 100 cycles are few: the range is certain, the order within errors.
    # UFF and TraPPE are known to overbind: 4 to 5 mol/kg, where experiments have 0.5 to 3.2.
    assert 1.5 < low["loading_mol_per_kg"] < 6.5
    assert 2.5 < high["loading_mol_per_kg"] < 6.5
    noise = np.hypot(low["loading_mol_per_kg_error"], high["loading_mol_per_kg_error"])
    assert low["loading_mol_per_kg"] < high["loading_mol_per_kg"] + 0.5 + 3.0 * noise
    assert low["loading_per_cell"] == pytest.approx(low["loading_mol_per_kg"] * 0.4941, rel=1e-3)
    for point in (low, high):  # without a fluctuation of the loading there is no heat
        heat, error = point["isosteric_heat_kJ_per_mol"], point["isosteric_heat_error_kJ_per_mol"]
        assert heat is None or abs(heat - 45.0) < 25.0 + 3.0 * error
    assert isotherm["henry_coefficient_mol_per_kg_Pa"] > 1e-4
    assert set(outputs["trajectories"]) == {"pressure_00", "pressure_01"}
    frames = outputs["trajectories"]["pressure_01"].get_frames()
    assert len(frames) == 12
    assert frames.groups == [f"uff_303K_100000Pa_{loading}CO2" for loading in frames.loadings]
    # Fuller cells, whose images clash, are left out (about half of all here), so that what is drawn holds fewer.
    below = 1.0 + 3.0 * frames.loadings.std() / np.sqrt(len(frames))
    assert high["loading_per_cell"] - below < frames.loadings.mean() < high["loading_per_cell"] + 1.0
    check_snapshots(frames, framework.get_ase())
    counts = outputs["snapshots"].get_dict()
    assert set(counts) == {"pressure_00", "pressure_01"}
    for row in counts.values():
        assert row["snapshots"] >= 4
        assert row["cells"] % row["snapshots"] == 0
        assert 12 == row["drawn"] <= row["cells"] - row["clashing"]
        assert row["unreadable"] == []
    raspa_jobs = [job for job in node.called_descendants if isinstance(job, orm.CalcJobNode)]
    settings = raspa_jobs[-1].inputs.parameters["GeneralSettings"]
    assert settings["CutOffChargeCharge"] == settings["CutOff"] == 8.5


def movie_folder(text: str | None) -> orm.FolderData:
    folder = orm.FolderData()
    if text is not None:
        folder.base.repository.put_object_from_bytes(text.encode(), "Movies/System_0/Movie_1.1.1_component_CO2_0.pdb")
    return folder


def test_a_movie_that_is_cut_off_takes_no_other_along(aiida_profile: Any) -> None:
    """As a full disk leaves them: one whole, one cut off in a molecule, an empty one, and none at all."""
    movie = (FIXTURES / "raspa" / "movie_CO2.pdb").read_text()
    edges, repeats = np.array([28.430, 29.991, 33.273]), [4, 4, 5]
    framework = orm.StructureData(cell=cellpar_to_cell([*edges / repeats, 107.61, 106.37, 96.37]))
    framework.append_atom(position=(0.0, 0.0, 0.0), symbols="Al")
    parameters = {
        "repeats": repeats,
        "seed": 1,
        "snapshots": 1000,
        "minimum_distance": 2.0,
        "groups": {name: name for name in ("whole", "cut", "empty", "none")},
        "single_site": False,
    }
    folders = {"whole": movie, "cut": "\n".join(movie.splitlines()[:4]), "empty": "", "none": None}
    retrieved = {name: movie_folder(text) for name, text in folders.items()}
    found = fold_snapshots(framework, gas_node("CO2"), orm.Dict(parameters), **retrieved)
    assert set(found) == {"whole", "snapshots"}
    counts = found["snapshots"].get_dict()
    cells = 2 * int(np.prod(repeats))
    frames = found["whole"].get_frames()
    assert counts["whole"] == {
        "snapshots": 2,
        "cells": cells,
        "clashing": cells - len(frames),
        "drawn": len(frames),
        "unreadable": [],
    }
    assert frames.loadings.sum() <= 9
    for name in ("cut", "empty", "none"):
        assert (counts[name]["snapshots"], counts[name]["drawn"]) == (0, 0)
    assert "no whole number of molecules" in counts["cut"]["unreadable"][0]
    assert counts["none"]["unreadable"] == ["there is no Movies/System_0"]


def check_snapshots(frames: Any, framework: Any) -> None:
    """The framework is where it was, and the molecules are whole and apart from everything."""
    for index in range(len(frames)):
        atoms = frames.atoms(index)
        np.testing.assert_allclose(atoms.positions[:40], framework.positions, atol=1e-6)
        molecules = atoms.positions[40:].reshape(-1, 3, 3)
        assert atoms.get_chemical_symbols()[40:] == ["C", "O", "O"] * len(molecules)
        bonds = np.linalg.norm(molecules[:, 1:] - molecules[:, :1], axis=-1)
        np.testing.assert_allclose(bonds, 1.16, atol=0.01)
        for number, molecule in enumerate(molecules):
            others = np.concatenate([atoms.positions[:40], molecules[number + 1 :].reshape(-1, 3)])
            assert closest_distance(molecule, others, atoms.cell.array) >= 2.0


@pytest.mark.slow
def test_methane_a_united_atom(raspa_code: orm.InstalledCode) -> None:
    """The windows of MIL-120 are hardly wider than TraPPE's CH4: nothing is blocked, and the sites become molecules."""
    section = {**SECTION, "pressures": [1e7], "initialization_cycles": 300, "cycles": 100}
    builder = UffIsothermWorkChain.get_builder_from_protocol(
        {"raspa": raspa_code}, mil_120(), CHARGES, "CH4", overrides={"uff_gcmc": section}, seed=4
    )
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    assert "blocking_spheres" not in outputs
    assert outputs["isotherm"]["points"][0]["loading_mol_per_kg"] > 0.5
    frames = outputs["trajectories"]["pressure_00"].get_frames()
    assert frames.loadings.max() > 0
    atoms = frames.atoms(int(np.argmax(frames.loadings)))
    assert atoms.get_chemical_symbols()[40:45] == ["C", "H", "H", "H", "H"]
    np.testing.assert_allclose(np.linalg.norm(atoms.positions[41:45] - atoms.positions[40], axis=1), 1.09, atol=0.02)


def test_pores_of_a_closed_framework(aiida_profile: Any) -> None:
    """Half of the cell leaves no room for CO2; the real one does, and has no closed pockets."""
    molecule = molecule_settings("CO2")
    found = pore_geometry(mil_120(), molecule, orm.Int(2000))
    assert 0.03 < found["pores"]["POAV_Volume_fraction"] < 0.05
    assert found["pores"]["pocket_volume_fraction"] == found["pores"]["blocked_volume_fraction"] == 0.0
    assert "blocking_spheres" not in found
    atoms = mil_120().get_ase()
    atoms.set_cell(atoms.cell * 0.8, scale_atoms=True)
    assert not pore_geometry(orm.StructureData(ase=atoms), molecule, orm.Int(2000))["pores"]["is_porous"]


@pytest.mark.slow
def test_closed_pockets_stay_empty(raspa_code: orm.InstalledCode) -> None:
    """Silica LTA: without the spheres RASPA puts one CO2 into each of the sodalite cages, which are closed to it."""
    atoms = lta()
    section = {**SECTION, "pressures": [1e6], "cutoff": 5.9, "movie_frames": 10}
    builder = UffIsothermWorkChain.get_builder_from_protocol(
        {"raspa": raspa_code}, orm.StructureData(ase=atoms), [0.0] * len(atoms), overrides={"uff_gcmc": section}, seed=1
    )
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    assert outputs["pores"]["Number_of_blocking_spheres"] == 1
    assert outputs["pores"]["blocked_volume_fraction"] == pytest.approx(
        outputs["pores"]["pocket_volume_fraction"], abs=5e-4
    )
    frames = outputs["trajectories"]["pressure_00"].get_frames()
    carbons = [atom.position / 11.87 for index in range(len(frames)) for atom in frames.atoms(index)[72:]]
    from_cage = np.linalg.norm((np.array(carbons) - np.round(carbons)) * 11.87, axis=1)
    assert len(carbons) > 30
    assert from_cage.min() > 1.8


#: RASPA that ends without a word where a line stands in its input.
FAILING = """#!/bin/sh
if grep -q "{line}" simulation.input; then exit 1; fi
exec {executable} "$@"
"""


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        pytest.param(
            *("ExternalPressure 100000", 701, "1 of 2 pressures; RASPA failed at the next one"), marks=pytest.mark.slow
        ),
        ("ExternalPressure 2000", 301, "RASPA failed at the first pressure"),
    ],
)
def test_a_pressure_that_fails_takes_none_before_it_along(
    raspa_code: orm.InstalledCode, tmp_path: Path, line: str, status: int, message: str
) -> None:
    path = tmp_path / "simulate"
    path.write_text(FAILING.format(line=line, executable=raspa_code.filepath_executable))
    path.chmod(0o755)
    code = orm.InstalledCode(
        label="failing", computer=raspa_code.computer, filepath_executable=str(path), default_calc_job_plugin="raspa"
    ).store()
    section = {**SECTION, "widom_cycles": 50, "initialization_cycles": 10, "cycles": 10}
    builder = UffIsothermWorkChain.get_builder_from_protocol(
        {"raspa": code}, mil_120(), CHARGES, overrides={"uff_gcmc": section}, seed=4
    )
    outputs, node = run_get_node(builder)
    assert node.exit_status == status, node.exit_message
    assert message in node.exit_message
    if status == 301:
        assert set(outputs) == {"pores"}
        return
    (point,) = outputs["isotherm"]["points"]
    assert point["pressure_Pa"] == pytest.approx(2e3)
    assert point["loading_mol_per_kg"] > 0.0
    assert set(outputs["trajectories"]) == set(outputs["snapshots"].get_dict()) == {"pressure_00"}


@pytest.mark.parametrize(
    ("charges", "gas", "message"),
    [
        ([0.1, -0.1], "CO2", "2 charges do not fit 40 atoms"),
        ([1.0] * 40, "CO2", "add up to 40.000 e"),
        ([*CHARGES[:-1], float("nan")], "CO2", "is no number"),
        (CHARGES, "H2O2", "H2O2"),
    ],
)
def test_refused_inputs(raspa_code: orm.InstalledCode, charges: list[float], gas: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UffIsothermWorkChain.get_builder_from_protocol({"raspa": raspa_code}, mil_120(), charges, gas)


def test_charges_are_made_where_there_are_none(
    raspa_code: orm.InstalledCode,
    cp2k_code: orm.InstalledCode,
    carbon_dioxide: orm.StructureData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A molecule in a box as the framework: CP2K fits its charges on a coarse grid, RASPA takes them."""
    content = LevelOfTheory.load("pbe-d3").to_dict()
    del content["hash"]
    content["cp2k_input"]["FORCE_EVAL"]["DFT"]["MGRID"]["CUTOFF"] = 120
    monkeypatch.setattr(LevelOfTheory, "load", lambda name: LevelOfTheory.from_dict(content))
    section = {**SECTION, "pressures": [1e5], "cycles": 50, "initialization_cycles": 20}
    builder = UffIsothermWorkChain.get_builder_from_protocol(
        {"raspa": raspa_code, "cp2k": cp2k_code}, carbon_dioxide, overrides={"uff_gcmc": section}
    )
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    carbon, *oxygen = outputs["charges"].get_list()
    assert carbon == pytest.approx(0.68, abs=0.12)
    assert oxygen == pytest.approx([-carbon / 2] * 2, abs=0.01)
    (raspa_input,) = {job.inputs.framework.framework_1 for job in node.called_descendants if "framework" in job.inputs}
    assert f"{carbon:.6f}"[:6] in raspa_input.get_content()
    assert outputs["isotherm"]["points"][0]["loading_per_cell"] >= 0.0


def test_charges_cannot_be_made(raspa_code: orm.InstalledCode, cp2k_code: orm.InstalledCode) -> None:
    build = UffIsothermWorkChain.get_builder_from_protocol
    with pytest.raises(ValueError, match="there are no charges of the framework"):
        build({"raspa": raspa_code}, mil_120())
    for level, message in (("gfn1-xtb", "no electrostatic potential to fit"), ("pbe", "unknown level of theory 'pbe'")):
        overrides = {"uff_gcmc": {"charges_level": level}}
        with pytest.raises(ValueError, match=message):
            build({"raspa": raspa_code, "cp2k": cp2k_code}, mil_120(), overrides=overrides)
