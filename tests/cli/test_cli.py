"""The command line, as a user types it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import ase.build
import ase.io
import numpy as np
import pytest
import yaml
from aiida import orm
from aiida.common.links import LinkType
from aiida.manage import get_manager
from ase.calculators.singlepoint import SinglePointCalculator
from click.testing import CliRunner

from aiida_mofmace.cli import mofmace
from aiida_mofmace.cli.look import shell_status, tree_lines
from aiida_mofmace.data.charged_cif import charged_cif
from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.label import DftLabelData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.protocols import load_protocol, protocol_names
from aiida_mofmace.report.tree import ProcessTree
from aiida_mofmace.starter import STARTER_MODEL
from aiida_mofmace.worker.kernels.geometry import minimum_pair_distance
from aiida_mofmace.workflows.inputs import structure_from_cif
from aiida_mofmace.workflows.label_quality import check_labels

from ..report.fake_run import CIF, LEVEL, fake_run


def invoke(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(mofmace, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def commands(group=mofmace, names=()) -> list[tuple[str, ...]]:
    below = [commands(command, (*names, name)) for name, command in getattr(group, "commands", {}).items()]
    return [names, *(entry for entries in below for entry in entries)]


@pytest.mark.parametrize("names", commands(), ids=" ".join)
def test_every_command_and_option_has_help(names: tuple[str, ...]) -> None:
    command = mofmace
    for name in names:
        command = command.commands[name]
    assert command.help
    assert [option.name for option in command.params if option.param_type_name == "option" and not option.help] == []
    assert "Usage:" in invoke(*names, "--help")


def test_version() -> None:
    from aiida_mofmace import __version__

    assert invoke("--version") == f"mofmace, version {__version__}\n"


def test_unknown_profile(aiida_profile) -> None:
    assert "verdi profile list" in invoke("-p", "no-such-profile", "labels", "list", code=1)


# -------------------------------------------------------------------------------------------------------- protocols


def test_protocols_list() -> None:
    lines = invoke("protocols", "list").splitlines()
    assert [line.split()[0] for line in lines] == protocol_names()


def test_protocols_show_is_the_protocol() -> None:
    assert yaml.safe_load(invoke("protocols", "show", "fast")) == load_protocol("fast")
    assert "known are" in invoke("protocols", "show", "fats", code=1)


# ------------------------------------------------------------------------------------------------------------ models


def test_model_inspect_never_runs_code_of_the_file(tmp_path: Path) -> None:
    import pickle
    import zipfile

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    file = tmp_path / "bomb.model"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("bomb/data.pkl", pickle.dumps(Bomb()))
    assert "not a MACE model" in invoke("model", "inspect", file, code=1)
    assert not (tmp_path / "exploded").exists()


def test_model_inspect_of_the_starter_model() -> None:
    text = invoke("model", "inspect", STARTER_MODEL)
    assert {"H", "C", "O", "Al"} <= set(text.splitlines()[1].split()[1:])
    assert "atomic energies (eV)" in text


# ------------------------------------------------------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def run(aiida_profile) -> orm.WorkChainNode:
    aiida_profile.reset_storage()
    return fake_run(rounds=1)


def test_status_draws_the_tree(run: orm.WorkChainNode) -> None:
    lines = invoke("status", run.pk).splitlines()
    assert lines[0].startswith(f"MofMaceWorkChain <{run.pk}> finished [0]  ")
    assert lines[1].startswith("├── sampling  SamplingWorkChain <")
    assert any("label_0000  Cp2kLabelBaseWorkChain" in line and "finished [410]" in line for line in lines)
    assert lines[-1].lstrip().startswith("└── pressure_03_chunk_1")


def test_status_folds_long_rows_but_never_failures(run: orm.WorkChainNode) -> None:
    tree = ProcessTree(run.pk)
    parent = tree.labelled("LabelWorkChain")[0]
    for index in range(20):
        node = orm.WorkChainNode()
        node.set_process_label("Cp2kLabelBaseWorkChain")
        node.set_process_state("finished")
        node.set_exit_status(0 if index else 410)
        node.store()
        tree.records[node.pk] = type(parent)(node.pk, "Cp2kLabelBaseWorkChain", f"more_{index}", parent.pk, 2)
        tree.records[node.pk].state, tree.records[node.pk].exit_status = "finished", 0 if index else 410
    folded = list(tree_lines(tree))
    assert any("… 19 more finished" in line for line in folded)
    assert any("more_0 " in line and "[410]" in line for line in folded)
    assert any("more_19" in line for line in folded)
    assert not any("more_7 " in line for line in folded)
    assert sum("more_" in line for line in tree_lines(tree, show_all=True)) == 20


def test_status_follow_ends_with_the_run(run: orm.WorkChainNode) -> None:
    text = invoke("status", run.uuid, "--follow")
    assert "from MIL-120(Al) and CO2 to a potential and an isotherm" in text
    assert text.rstrip().endswith(f"MofMaceWorkChain <{run.pk}> finished (exit status 0)")


@pytest.mark.parametrize(("exit_status", "status"), [(0, 0), (701, 0), (304, 1), (1, 1), (130, 130)])
def test_shell_status(exit_status: int, status: int) -> None:
    assert shell_status(exit_status) == status


def test_summary(run: orm.WorkChainNode) -> None:
    assert "Labels      1 made (1 at GFN1-xTB), 2 failed" in invoke("summary", run.pk)


def test_report(run: orm.WorkChainNode, tmp_path: Path) -> None:
    out = tmp_path / "a.html"
    assert invoke("report", run.pk, "--out", out).startswith(str(out))
    assert out.read_text(encoding="utf-8").startswith("\n<!doctype html>") or "<!doctype html>" in out.read_text()


def test_a_report_where_nothing_can_be_written(run: orm.WorkChainNode) -> None:
    assert "the report cannot be written: " in invoke("report", run.pk, "--out", "/nonexist/a.html", code=1)


def test_a_node_that_is_no_process_is_refused(run: orm.WorkChainNode) -> None:
    assert "Invalid value for 'PROCESS'" in invoke("summary", run.inputs.structure.pk, code=2)


# ------------------------------------------------------------------------------------------------------------ labels


@pytest.fixture
def labels(aiida_profile) -> list[DftLabelData]:
    """Three labels with structures (one at another level), and one that no job made."""
    aiida_profile.reset_storage()
    generator = np.random.default_rng(5)
    made = []
    for index in range(4):
        atoms = ase.io.read(CIF)
        atoms.rattle(0.1, rng=generator)
        level = LEVEL if index != 1 else {"name": "PBE-D3", "hash": "0badc0ffee00", "program": "cp2k"}
        label = DftLabelData(
            energy=-2745.123456789 - index,
            forces=generator.normal(size=(len(atoms), 3)),
            stress=generator.normal(scale=0.01, size=(3, 3)) if index else None,
            level_of_theory=level,
            symbols=atoms.get_chemical_symbols(),
        )
        if index < 3:
            job = orm.CalcJobNode()
            job.set_process_label("Cp2kLabelCalculation")
            structure = orm.StructureData(ase=atoms).store()
            job.base.links.add_incoming(structure, LinkType.INPUT_CALC, "structure")
            job.store()
            label.base.links.add_incoming(job, LinkType.CREATE, "label")
        made.append(label.store())
    return made


def test_labels_list(labels: list[DftLabelData]) -> None:
    lines = invoke("labels", "list").splitlines()
    assert lines[-1] == "4 labels"
    shown = [line.split()[1] for line in lines[1:-1]]
    assert shown == sorted(label.uuid for label in labels)
    assert labels[0].structure.uuid in next(line for line in lines if labels[0].uuid in line)
    assert invoke("labels", "list", "--level", "PBE-D3").splitlines()[-1] == "1 labels"
    assert invoke("labels", "list", "--level", "5f0c").splitlines()[-1] == "3 labels"
    assert invoke("labels", "list", "--process", labels[0].creator.pk).splitlines()[-1] == "1 labels"


def test_labels_export_holds_every_label_as_it_is(labels: list[DftLabelData], tmp_path: Path) -> None:
    out = tmp_path / "all.extxyz"
    text = invoke("labels", "export", "--out", out, "--all-levels")
    assert f"3 labels written to {out}" in text
    assert f"left out: label {labels[3].uuid}" in text
    frames = ase.io.read(out, index=":")
    assert [frame.info["label_uuid"] for frame in frames] == sorted(label.uuid for label in labels[:3])
    by_uuid = {label.uuid: label for label in labels}
    for frame in frames:
        label = by_uuid[frame.info["label_uuid"]]
        assert frame.info["structure_uuid"] == label.structure.uuid
        assert frame.info["REF_energy"] == label.energy
        assert frame.info["level_of_theory"] == label.level_of_theory["name"]
        assert frame.info["level_of_theory_hash"] == label.level_of_theory["hash"]
        np.testing.assert_allclose(frame.arrays["REF_forces"], label.forces, atol=1e-8)
        np.testing.assert_allclose(frame.positions, label.structure.get_ase().positions, atol=1e-8)
        np.testing.assert_allclose(frame.cell, label.structure.cell, atol=1e-8)
        assert frame.pbc.all()
        if label.stress is None:
            assert "REF_stress" not in frame.info
        else:
            np.testing.assert_allclose(np.reshape(frame.info["REF_stress"], (3, 3)), label.stress)


def test_labels_export_is_the_same_every_time(labels: list[DftLabelData], tmp_path: Path) -> None:
    first, second = tmp_path / "first.extxyz", tmp_path / "second.extxyz"
    invoke("labels", "export", "--out", first, "--all-levels")
    invoke("labels", "export", "--out", second, "--all-levels")
    assert first.read_bytes() == second.read_bytes() != b""


def test_labels_export_mixes_no_levels_unasked(labels: list[DftLabelData], tmp_path: Path) -> None:
    out = tmp_path / "all.extxyz"
    out.write_text("from before", encoding="utf-8")
    text = invoke("labels", "export", "--out", out, code=1)
    assert "GFN1-xTB 5f0c9d1e: 3 labels" in text
    assert "PBE-D3 0badc0ff: 1 labels" in text
    assert out.read_text(encoding="utf-8") == "from before"
    assert "2 labels written" in invoke("labels", "export", "--out", out, "--level", "5f0c")


def test_labels_export_of_nothing_is_an_error_that_says_what_there_is(
    labels: list[DftLabelData], tmp_path: Path, aiida_profile
) -> None:
    out = tmp_path / "all.extxyz"
    out.write_text("from before", encoding="utf-8")
    text = invoke("labels", "export", "--out", out, "--level", "B3LYP", "--round", 3, code=1)
    assert "no label with --level B3LYP --round 3; of the 4" in text
    assert "levels: GFN1-xTB 5f0c9d1e (3), PBE-D3 0badc0ff (1)" in text
    assert "rounds: none" in text
    assert "qualities: good (4)" in text
    assert out.read_text(encoding="utf-8") == "from before"
    assert "levels: GFN1-xTB 5f0c9d1e (3)" in invoke("labels", "list", "--level", "B3LYP")
    aiida_profile.reset_storage()
    assert "there is no label in this profile" in invoke("labels", "export", "--out", out, code=1)


@pytest.mark.parametrize("name", ["gfn1-xtb", "GFN1-XTB", "5F0C"])
def test_a_level_is_found_in_small_letters_too(labels: list[DftLabelData], name: str) -> None:
    assert count_of("--level", name) == "3 labels"


def test_a_level_is_found_by_the_name_of_its_file(labels: list[DftLabelData], tmp_path: Path) -> None:
    file = tmp_path / "pbe.extxyz"
    invoke("labels", "export", "--out", file, "--level", "gfn1-xtb")
    invoke("labels", "import", file, "--level", "pbe-d3", "--origin", "a test")
    assert count_of("--level", "PBE-D3(BJ)/DZVP-MOLOPT-SR-GTH/600Ry") == "2 labels"
    assert count_of("--level", "pbe-d3") == "3 labels"  # and the one that is called PBE-D3


def count_of(*options: object) -> str:
    return invoke("labels", "list", *options).splitlines()[-1]


@pytest.fixture
def dataset(labels: list[DftLabelData]) -> LabelledDatasetData:
    """The first label in round 0 with no gas, the third in round 1 with "four" molecules behind 36 framework atoms."""
    infos = [{"group": "md 300K", "loading": 0, "framework_atoms": 40}, {"loading": 4, "framework_atoms": 36}]
    pairs = [(label.structure, label) for label in (labels[0], labels[2])]
    first = LabelledDatasetData.from_labels(pairs[:1], infos=infos[:1]).store()
    return LabelledDatasetData.from_labels(pairs[1:], previous=first, infos=infos[1:]).store()


def test_labels_are_chosen_by_system_loading_and_round(
    labels: list[DftLabelData], dataset: LabelledDatasetData
) -> None:
    assert count_of("--loading", 4) == count_of("--round", 1) == count_of("--round", 0) == "1 labels"
    assert labels[2].uuid in invoke("labels", "list", "--loading", 4)
    assert labels[0].uuid in invoke("labels", "list", "--round", 0, "--loading", 0)
    assert count_of("--loading", 2) == "0 labels"
    assert count_of("--system", "Al4O16C10H10") == "4 labels"
    framework = "".join(labels[2].symbols[:36])
    assert labels[2].uuid in invoke("labels", "list", "--system", framework)
    assert count_of("--system", framework) == "1 labels"
    assert "is no chemical formula" in invoke("labels", "list", "--system", "Al4(", code=1)


def test_labels_of_a_validation_are_told_from_those_to_train_on(
    labels: list[DftLabelData], dataset: LabelledDatasetData, tmp_path: Path
) -> None:
    """They are of no round, so that `--round 0` gives what the first round trained on."""
    info = {"group": "md_300K_1CO2", "loading": 1, "framework_atoms": 40}
    pairs = [(label.structure, label) for label in labels[:3:2]]
    apart = LabelledDatasetData.from_labels([(labels[1].structure, labels[1])], infos=[info]).store()
    also = LabelledDatasetData.from_labels(pairs, infos=[info, info]).store()
    validation = orm.WorkChainNode()
    validation.set_process_label("ValidationWorkChain")
    validation.store()
    for index, node in enumerate((apart, also)):
        node.base.links.add_incoming(validation, LinkType.RETURN, f"dataset_{index}")
    assert count_of("--round", 0) == count_of("--purpose", "validation") == "1 labels"
    assert count_of("--purpose", "training") == "2 labels"
    line = next(line for line in invoke("labels", "list").splitlines() if labels[1].uuid in line)
    assert line.split()[6:9] == ["1", "-", "validation"]
    out = tmp_path / "all.extxyz"
    assert "1 of them are what models were validated on" in invoke("labels", "export", "-o", out, "--all-levels")
    purposes = {frame.info["label_uuid"]: frame.info["purpose"] for frame in ase.io.read(out, index=":")}
    assert [purposes[label.uuid] for label in labels[:3]] == ["training", "validation", "training"]
    assert f"{apart.uuid} <{apart.pk}>, frame 0, of a validation" in invoke("labels", "show", labels[1].uuid)


def test_labels_are_chosen_by_quality(labels: list[DftLabelData], tmp_path: Path) -> None:
    bounds = {"max_force": sorted(label.max_force for label in labels)[-1] - 1e-6, "include_flagged": False}
    flagged = check_labels(orm.Dict(bounds), labels={f"frame_{i}": label for i, label in enumerate(labels)})
    (row,) = flagged.get_dict().values()
    assert count_of("--quality", "flagged") == "1 labels"
    assert count_of("--quality", "good") == "3 labels"
    assert count_of("--quality", "restarted") == "0 labels"
    line = next(line for line in invoke("labels", "list").splitlines() if row["label"] in line)
    assert "FLAGGED: a force of" in line
    out = tmp_path / "good.extxyz"
    invoke("labels", "export", "--out", out, "--quality", "good", "--all-levels")
    assert row["label"] not in out.read_text()


def test_labels_show_everything(labels: list[DftLabelData], dataset: LabelledDatasetData) -> None:
    label = labels[2]
    text = invoke("labels", "show", label.uuid)
    assert text == invoke("labels", "show", label.pk)
    lines = {line[:18].strip(): line[18:] for line in text.splitlines()}
    assert lines["energy"].startswith("-2747.123457 eV")
    assert lines["largest force"] == f"{label.max_force:.4f} eV/Å"
    assert lines["level of theory"] == "GFN1-xTB (settings 5f0c9d1e2a7b)"
    assert lines["rescued by"] == "nothing, it needed no help"
    assert lines["made by"].startswith(f"Cp2kLabelCalculation {label.creator.uuid}")
    assert lines["structure"].startswith(label.structure.uuid)
    assert lines["dataset"] == f"{dataset.uuid} <{dataset.pk}>, frame 1"
    row = text.splitlines()[-1].split()
    assert row[:2] == ["39", "O"]
    np.testing.assert_allclose([float(word) for word in row[5:]], label.forces[39], atol=1e-5)
    assert "is no label but StructureData" in invoke("labels", "show", label.structure.pk, code=1)


def test_labels_import_what_was_exported(labels: list[DftLabelData], tmp_path: Path) -> None:
    out, again = tmp_path / "all.extxyz", tmp_path / "again.extxyz"
    invoke("labels", "export", "--out", out, "--all-levels")
    text = invoke("labels", "import", out, "--level", "PBE/PAW", "--program", "VASP", "--origin", "A. Person 2020")
    assert "3 labels imported at PBE/PAW" in text
    invoke("labels", "export", "--out", again, "--level", "PBE/PAW")
    frames = {frame.info["REF_energy"]: frame for frame in ase.io.read(again, index=":")}
    assert len(frames) == 3
    for frame in ase.io.read(out, index=":"):
        other = frames[frame.info["REF_energy"]]
        np.testing.assert_allclose(other.arrays["REF_forces"], frame.arrays["REF_forces"])
        np.testing.assert_allclose(other.positions, frame.positions)
        assert other.info.get("REF_stress") == pytest.approx(frame.info.get("REF_stress"))
        assert (other.info["program"], other.info["origin"]) == ("VASP", "A. Person 2020")
    label = orm.load_node(uuid=other.info["label_uuid"])
    assert label.structure.uuid == other.info["structure_uuid"]
    assert label.creator.inputs.file.filename == "all.extxyz"
    assert "origin            A. Person 2020" in invoke("labels", "show", label.pk)
    assert label.minimum_distance == pytest.approx(minimum_pair_distance(other.positions, np.asarray(other.cell)))


def test_labels_import_takes_the_keys_of_the_file(labels: list[DftLabelData], tmp_path: Path) -> None:
    atoms = ase.build.bulk("Cu") * (2, 1, 1)
    atoms.calc = SinglePointCalculator(atoms, energy=-3.5, forces=np.full((2, 3), 0.25), stress=np.arange(6.0))
    file = tmp_path / "theirs.extxyz"
    ase.io.write(file, atoms)
    options = ("--level", "pbe-d3", "--origin", "a paper")
    assert "frame 0 lacks REF_energy or REF_forces" in invoke("labels", "import", file, *options, code=1)
    keys = ("--energy-key", "energy", "--forces-key", "forces", "--stress-key", "stress")
    invoke("labels", "import", file, *options, *keys)
    (label,) = orm.QueryBuilder().append(DftLabelData, filters={"attributes.formula": "Cu2"}).all(flat=True)
    assert (label.energy, label.forces[1, 2], label.flags) == (-3.5, 0.25, ["imported"])
    np.testing.assert_allclose(label.stress, [[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    assert label.level_of_theory == LevelOfTheory.load("pbe-d3").summary
    message = invoke("labels", "import", file, "--level", "B3LYP", "--origin", "x", *keys, code=1)
    assert "for a level of another program name the program, too" in message


def test_labels_are_not_imported_twice(labels: list[DftLabelData], tmp_path: Path) -> None:
    out = tmp_path / "all.extxyz"
    invoke("labels", "export", "--out", out, "--level", "gfn1-xtb")
    options = ("--level", "B3LYP", "--program", "CRYSTAL", "--origin", "x")
    assert "note: 2 frames say that they are of the level GFN1-xTB, not B3LYP" in invoke(
        "labels", "import", out, *options
    )
    text = invoke("labels", "import", out, *options, code=1)
    assert "2 of 2 frames are labels of this level here already (frame 0 is label " in text
    assert count_of("--level", "B3LYP") == "2 labels"
    assert "2 labels imported" in invoke("labels", "import", out, "--level", "PBE", *options[2:])


@pytest.mark.parametrize("value", ["unknown", "nan"])
def test_labels_import_refuses_what_is_no_number(labels: list[DftLabelData], tmp_path: Path, value: str) -> None:
    out = tmp_path / "all.extxyz"
    invoke("labels", "export", "--out", out, "--level", "PBE-D3")
    out.write_text(re.sub(r"REF_energy=\S+", f"REF_energy={value}", out.read_text(encoding="utf-8")), encoding="utf-8")
    text = invoke("labels", "import", out, "--level", "pbe-d3", "--origin", "x", code=1)
    assert "all.extxyz: frame 0 has an energy or a force that is not a number; leave it out" in text


# --------------------------------------------------------------------------------------------------------------- run


@pytest.fixture
def worker(aiida_profile, aiida_computer_local) -> orm.InstalledCode:
    aiida_profile.reset_storage()
    computer = aiida_computer_local(label="localhost")
    return orm.InstalledCode(
        label="worker",
        computer=computer,
        filepath_executable="/usr/bin/python3",
        default_calc_job_plugin="mofmace.mace_md",
    ).store()


def test_run_says_that_there_is_no_code(aiida_profile) -> None:
    aiida_profile.reset_storage()
    name = get_manager().get_profile().name
    text = invoke("run", CIF, code=1)
    assert f"no code 'worker@localhost' in profile `{name}`" in text
    assert f"`mofmace -p {name} setup`" in text


def test_run_asks_for_what_uff_needs(worker, tmp_path: Path) -> None:
    charged = tmp_path / "charged.cif"
    charged.write_text(charged_cif(structure_from_cif(CIF), [0.0] * 40))
    assert "holds no charges" in invoke("run", CIF, "--uff", code=1)
    assert "charges ask for Monte Carlo with UFF, which needs" in invoke("run", charged, "--uff", code=1)


def test_run_with_a_lammps_of_ones_own(worker, tmp_path: Path) -> None:
    """It is taken where it is asked for, and refused where nothing asks for it."""
    orm.InstalledCode(
        label="mofmace-lmp",
        computer=worker.computer,
        filepath_executable="/usr/bin/mofmace-lmp",
        default_calc_job_plugin="lammps.raw",
    ).store()
    given = ("--lammps-code", "mofmace-lmp@localhost")
    file = tmp_path / "overrides.json"
    file.write_text(json.dumps({"gcmc": {"engine": "lammps"}}))
    assert "neither sampling.engine nor gcmc.engine is lammps" in invoke("run", CIF, *given, code=1)
    assert "set trial_places to 1" in invoke("run", CIF, *given, "--overrides", file, code=1)
    assert "no code 'other@localhost'" in invoke("run", CIF, "--lammps-code", "other@localhost", code=1)
    assert "give codes['lammps']" in invoke("run", CIF, "--lammps-model", CIF, code=1)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"isotherm": {"temprature": 300.0}}, "did you mean 'isotherm.temperature'"),
        ({"isotherm": {"pressures": [-1.0]}}, "pressures is -1.0; give a number above 0 in Pa"),
        (["isotherm"], "must hold a mapping of the protocol's keys"),
    ],
)
def test_run_refuses_overrides_that_make_no_sense(worker, tmp_path: Path, overrides, message: str) -> None:
    file = tmp_path / "overrides.json"
    file.write_text(json.dumps(overrides))
    assert message in invoke("run", CIF, "--overrides", file, code=1)


def test_run_refuses_unreadable_overrides_and_unknown_names(worker, tmp_path: Path) -> None:
    file = tmp_path / "overrides.yaml"
    file.write_text("a: [")
    assert "neither YAML nor JSON" in invoke("run", CIF, "--overrides", file, code=1)
    assert "unknown gas 'CO3'" in invoke("run", CIF, "--gas", "CO3", code=1)
    assert "unknown protocol 'fats'" in invoke("run", CIF, "--protocol", "fats", code=1)


def test_write_to_stdout(labels: list[DftLabelData]) -> None:
    result = CliRunner().invoke(mofmace, ["labels", "export", "--out", "-", "--level", "PBE-D3"])
    frames = ase.io.read(io.StringIO(result.stdout), index=":", format="extxyz")
    assert [frame.info["label_uuid"] for frame in frames] == [labels[1].uuid]
