"""Dynamics on the real CP2K: frames, energies and forces, and labels made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import engine, orm
from ase import units
from ase.io import read

from aiida_mofmace.calculations.cp2k_label import Cp2kLabelCalculation
from aiida_mofmace.calculations.cp2k_md import Cp2kMdCalculation, md_parameters
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.parsers.cp2k_md import parse_cp2k_xyz
from aiida_mofmace.workflows.label_frames import labels_of_frames, labels_of_runs

from ..finished import finished_job, parse

RECORDED = Path(__file__).parents[1] / "fixtures" / "cp2k" / "md_unconverged"
SETTINGS = {"temperature": 300.0, "timestep_fs": 0.5, "steps": 12, "stride": 4, "thermostat_time_fs": 50.0}


@pytest.mark.cp2k
def test_frames_are_labels(cp2k_code: orm.InstalledCode, water: orm.StructureData, options: dict[str, Any]) -> None:
    """Every frame has the energy and the forces that a single point of its positions has."""
    theory = LevelOfTheory.load("gfn1-xtb")
    level = orm.Dict(theory.to_dict())
    outputs, node = engine.run_get_node(
        Cp2kMdCalculation,
        code=cp2k_code,
        structure=water,
        level=level,
        parameters=orm.Dict(md_parameters(theory, water, SETTINGS, seed=7)),
        group=orm.Str("aimd_300K"),
        metadata={"options": options},
    )
    assert node.is_finished_ok, node.exit_message
    frames = outputs["trajectory"].get_frames()
    assert frames.steps.tolist() == [0, 4, 8, 12]
    assert set(frames.groups) == {"aimd_300K"}
    np.testing.assert_allclose(frames.atoms(0).positions, water.get_ase().positions, atol=1e-6)
    assert 0.005 < np.abs(frames.atoms(3).positions - frames.atoms(0).positions).max() < 0.5
    made = labels_of_frames(outputs["trajectory"], outputs["forces"], level, orm.List([3]))
    (label,) = made["labels"].values()
    single = engine.run(
        Cp2kLabelCalculation,
        code=cp2k_code,
        structure=label.structure,
        level=level,
        parameters=orm.Dict(theory.cp2k_parameters(label.structure)),
        metadata={"options": options},
    )["label"]
    assert label.energy == pytest.approx(single.energy, abs=1e-5)
    np.testing.assert_allclose(label.forces, single.forces, atol=1e-3)
    np.testing.assert_allclose(label.stress, single.stress, atol=1e-6)
    assert np.abs(single.stress).max() > 1e-4
    assert np.abs(single.forces).max() > 0.1
    assert label.level_of_theory == single.level_of_theory
    assert label.flags == ["aimd"]


def test_a_file_that_is_cut_off_gives_its_complete_frames() -> None:
    frame = "2\n i =        {0}, time =        0.500, E =        -1.5000000000\n  H  0.0 0.0 {0}.5\n  H  0.0 0.0 1.0\n"
    text = frame.format(0) + frame.format(5) + frame.format(10)[:-12]
    steps, energies, symbols, vectors = parse_cp2k_xyz(text)
    assert (steps, energies, symbols) == ([0, 5], [-1.5, -1.5], ["H", "H"])
    assert vectors.shape == (2, 2, 3)
    assert vectors[1, 0, 2] == 5.5
    assert parse_cp2k_xyz("")[0] == []
    assert units.Hartree == pytest.approx(27.2114, abs=1e-4)


def test_a_step_that_did_not_converge_is_no_label(aiida_localhost: orm.Computer) -> None:
    """Recorded: of the frames 0 to 4 only the last one converged within seven iterations."""
    theory, atoms = LevelOfTheory.load("gfn1-xtb"), read(RECORDED / "aiida.coords.xyz")
    atoms.set_cell([[8.0, 0, 0], [0, 9.0, 0], [0, 0.5, 8.5]])
    atoms.pbc = True
    structure, level = orm.StructureData(ase=atoms), orm.Dict(theory.to_dict())
    parameters = orm.Dict(md_parameters(theory, structure, SETTINGS, seed=7))
    inputs = {"structure": structure, "level": level, "parameters": parameters}
    outputs, code = parse(finished_job(aiida_localhost, "mofmace.cp2k_md", inputs, RECORDED))
    assert code.status == 0
    figures = outputs["output_parameters"].get_dict()
    assert (figures["unconverged_steps"], figures["last_step"]) == ([0, 1, 2, 3], 4)
    frames = outputs["trajectory"].get_frames()
    assert frames.steps.tolist() == [0, 1, 2, 3, 4]
    assert np.isnan(frames.energies).tolist() == [True] * 4 + [False]
    runs = {"trajectories": {"aimd_0": outputs["trajectory"]}, "forces": {"aimd_0": outputs["forces"]}}
    made = labels_of_runs(level, orm.Int(0), orm.Int(5), **runs)
    assert [row["index"] for row in made["selection"]["selected"]] == [4]
    label = made["labels"]["frame_0000"]
    assert label.energy == pytest.approx(frames.energies[4])
    assert label.stress[0, 0] == pytest.approx(0.108620339715 * units.GPa)


def test_settings_and_inputs_that_are_refused(water: orm.StructureData, tmp_path: Path) -> None:
    theory = LevelOfTheory.load("gfn1-xtb")
    with pytest.raises(ValueError, match="settings of the dynamics"):
        md_parameters(theory, water, {"temperature": 300.0}, seed=1)
    validate = Cp2kMdCalculation.spec().inputs.validator
    inputs = {
        "structure": water,
        "level": orm.Dict(theory.to_dict()),
        "parameters": orm.Dict(theory.cp2k_parameters(water)),
    }
    assert "ask for no dynamics" in validate(inputs, None)
    inputs["parameters"] = orm.Dict(md_parameters(theory, water, SETTINGS, seed=1))
    assert validate(inputs, None) is None
    assert "more than the structure has" in validate(inputs | {"framework_atoms": orm.Int(4)}, None)
