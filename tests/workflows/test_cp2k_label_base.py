"""The restart layer of a CP2K label: each handler fires, on the real CP2K wherever that takes seconds."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from aiida import engine, orm
from aiida.common.links import LinkType
from aiida.engine.utils import instantiate_process
from aiida.manage import get_manager
from aiida.manage.caching import enable_caching
from ase import Atoms, units
from ase.io import read

from aiida_mofmace.calculations.cp2k_charges import Cp2kChargesCalculation, fit_of_charges
from aiida_mofmace.calculations.cp2k_label import Cp2kLabelCalculation
from aiida_mofmace.data.label import DftLabelData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.workflows import cp2k_label_base
from aiida_mofmace.workflows.cp2k_charges_base import Cp2kChargesBaseWorkChain
from aiida_mofmace.workflows.cp2k_label_base import Cp2kLabelBaseWorkChain, apply_scf_remedy, scf_remedies

RECORDED = Path(__file__).parents[1] / "fixtures" / "cp2k"
CODES = Cp2kLabelCalculation.exit_codes


@pytest.fixture
def skewed_water(aiida_profile: Any) -> orm.StructureData:
    """The recorded water in its skewed cell: no symmetry hides an error."""
    atoms = read(RECORDED / "water_converged" / "aiida.coords.xyz")
    atoms.set_cell([[8.0, 0, 0], [0, 9.0, 0], [0, 0.5, 8.5]])
    atoms.pbc = True
    return orm.StructureData(ase=atoms)


def level_with(path: str | None = None, value: Any = None) -> orm.Dict:
    """GFN1-xTB with one setting changed."""
    content = LevelOfTheory.load("gfn1-xtb").to_dict()
    if path is not None:
        del content["hash"]
        *sections, key = path.split(".")
        inner = content["cp2k_input"]
        for section in sections:
            inner = inner[section]
        inner[key] = value
        content = LevelOfTheory.from_dict(content).to_dict()
    return orm.Dict(content)


def run(code: orm.AbstractCode, structure: orm.StructureData, level: orm.Dict, options: dict[str, Any]) -> Any:
    return engine.run_get_node(
        Cp2kLabelBaseWorkChain, code=code, structure=structure, level=level, options=orm.Dict(options)
    )


def called(node: orm.ProcessNode) -> list[orm.CalcJobNode]:
    links = node.base.links.get_outgoing(link_type=LinkType.CALL_CALC).all()
    return [link.node for link in sorted(links, key=lambda link: link.link_label)]


@pytest.mark.cp2k
def test_label_agrees_with_the_recorded_one(
    cp2k_code: orm.InstalledCode, skewed_water: orm.StructureData, options: dict[str, Any]
) -> None:
    resources = {"num_machines": 1, "num_mpiprocs_per_machine": 2}
    outputs, node = run(cp2k_code, skewed_water, level_with(), {**options, "resources": resources})
    assert node.is_finished_ok, node.exit_message
    label = outputs["label"]
    assert label.energy == pytest.approx(-156.94442627629158, abs=1e-6)
    np.testing.assert_allclose(label.forces[0], [-0.13915839796, 1.08086716765, 0.05590092913], atol=1e-4)
    assert label.flags == []
    assert label.structure.uuid == skewed_water.uuid
    (calculation,) = called(node)
    # A CP2K without MPI is one process: it has the cores of two.
    assert "export OMP_NUM_THREADS=2" in calculation.base.repository.get_object_content("_aiidasubmit.sh")
    # No input of the label: with more time it is the same one.
    assert "WALLTIME" not in calculation.inputs.parameters["GLOBAL"]
    assert "   WALLTIME 540\n" in calculation.base.repository.get_object_content("aiida.inp")
    assert re.fullmatch(r"CP2K 20\d\d\.\d+", label.base.attributes.get("program_version"))


@pytest.mark.cp2k
def test_the_same_label_is_not_computed_twice(
    cp2k_code: orm.InstalledCode, skewed_water: orm.StructureData, options: dict[str, Any]
) -> None:
    """Nor where more wall time is allowed."""
    first = run(cp2k_code, skewed_water, level_with(), options)[1]
    with enable_caching(identifier="aiida.calculations:mofmace.*"):
        outputs, second = run(cp2k_code, skewed_water.clone(), level_with(), {**options, "max_wallclock_seconds": 1200})
    assert called(second)[0].base.caching.is_created_from_cache
    assert outputs["label"].energy == first.outputs.label.energy
    assert outputs["label"].structure.pk != skewed_water.pk


def skewed_hydrogen() -> orm.StructureData:
    """H2 in a small triclinic cell."""
    cell = [[4.0, 0.0, 0.0], [0.6, 3.8, 0.0], [-0.3, 0.5, 4.2]]
    return orm.StructureData(ase=Atoms("H2", [[0.3, 0.1, 0.2], [0.5, 0.3, 1.0]], cell=cell, pbc=True))


@pytest.mark.cp2k
@pytest.mark.parametrize("name", ["gfn1-xtb", pytest.param("pbe-d3", marks=pytest.mark.slow)])
def test_forces_and_stress_are_derivatives_of_the_energy(
    name: str, cp2k_code: orm.InstalledCode, skewed_water: orm.StructureData, options: dict[str, Any]
) -> None:
    """Central differences: dE/dx of one atom, dE/d(strain) = V times stress for a stretch and a shear."""
    level = LevelOfTheory.load(name)
    given = skewed_water if name == "gfn1-xtb" else skewed_hydrogen()

    def label(change: Callable[[Any], None] | None = None) -> DftLabelData:
        atoms = given.get_ase()
        if change is not None:
            change(atoms)
        structure = orm.StructureData(ase=atoms)
        outputs = engine.run(
            Cp2kLabelCalculation,
            code=cp2k_code,
            structure=structure,
            level=orm.Dict(level.to_dict()),
            parameters=orm.Dict(level.cp2k_parameters(structure)),
            metadata={"options": options},
        )
        return outputs["label"]

    def strained(i: int, j: int, size: float) -> Callable[[Any], None]:
        strain = np.zeros((3, 3))
        strain[i, j] += size / 2
        strain[j, i] += size / 2
        return lambda atoms: atoms.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)

    def moved(size: float) -> Callable[[Any], None]:
        def move(atoms: Any) -> None:
            atoms.positions[1, 0] += size

        return move

    reference = label()
    step, volume = 0.004, given.get_cell_volume()
    force = -(label(moved(step)).energy - label(moved(-step)).energy) / (2 * step)
    assert force == pytest.approx(reference.forces[1, 0], abs=2e-3)
    assert abs(reference.forces[1, 0]) > 0.05
    assert reference.stress is not None
    for i, j in ((0, 0), (0, 1)):
        stress = (label(strained(i, j, step)).energy - label(strained(i, j, -step)).energy) / (2 * step * volume)
        assert stress == pytest.approx(reference.stress[i, j], abs=2e-5)
        assert abs(reference.stress[i, j]) > 5e-4


@pytest.mark.cp2k
def test_scf_that_does_not_converge_gets_other_mixing(
    cp2k_code: orm.InstalledCode, skewed_water: orm.StructureData, options: dict[str, Any]
) -> None:
    outputs, node = run(cp2k_code, skewed_water, level_with("FORCE_EVAL.DFT.SCF.MAX_SCF", 3), options)
    assert node.is_finished_ok, node.exit_message
    first, second = called(node)
    assert first.exit_status == 450
    assert second.inputs.parameters["FORCE_EVAL"]["DFT"]["SCF"]["MIXING"]["ALPHA"] == 0.1
    assert outputs["label"].energy == pytest.approx(-156.94442627629158, abs=1e-6)
    assert outputs["label"].flags == ["scf_remedy: direct mixing in smaller steps"]
    assert outputs["label"].level_of_theory == LevelOfTheory.load("gfn1-xtb").summary


@pytest.mark.cp2k
def test_wrong_input_is_not_tried_again(
    cp2k_code: orm.InstalledCode, skewed_water: orm.StructureData, options: dict[str, Any]
) -> None:
    _, node = run(cp2k_code, skewed_water, level_with("FORCE_EVAL.DFT.NO_SUCH_KEYWORD", 1), options)
    assert node.exit_status == 310
    assert "NO_SUCH_KEYWORD" in node.exit_message
    assert len(called(node)) == 1


def test_lost_output_is_computed_once_more(
    aiida_code_installed: Callable[..., orm.InstalledCode], skewed_water: orm.StructureData, options: dict[str, Any]
) -> None:
    loses_everything = aiida_code_installed(
        label="true", default_calc_job_plugin="cp2k", filepath_executable="/bin/true"
    )
    _, node = run(loses_everything, skewed_water, level_with(), options)
    assert node.exit_status == 311
    assert [calculation.exit_status for calculation in called(node)] == [210, 210]


@pytest.mark.cp2k
def test_lost_output_is_had_the_second_time(
    cp2k_code: orm.InstalledCode,
    aiida_code_installed: Callable[..., orm.InstalledCode],
    skewed_water: orm.StructureData,
    options: dict[str, Any],
    tmp_path: Path,
) -> None:
    """The real CP2K, of whose first run nothing is left."""
    script = tmp_path / "cp2k.sh"
    first = f"[ -e {tmp_path}/tried ] || {{ touch {tmp_path}/tried; exit 0; }}"
    script.write_text(f'#!/bin/bash\n{first}\nexec {cp2k_code.filepath_executable} "$@"\n')
    script.chmod(0o700)
    code = aiida_code_installed(label="once-lost", default_calc_job_plugin="cp2k", filepath_executable=str(script))
    outputs, node = run(code, skewed_water, level_with(), options)
    assert node.is_finished_ok, node.exit_message
    assert [calculation.exit_status for calculation in called(node)] == [210, 0]
    assert outputs["label"].energy == pytest.approx(-156.94442627629158, abs=1e-6)


@pytest.mark.cp2k
def test_orbital_transformation_is_reached_and_named(
    cp2k_code: orm.InstalledCode, hydrogen: orm.StructureData, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mixing gets too few steps, twice: the real CP2K converges by orbital transformation, to the same energy."""
    known = yaml.safe_load(cp2k_label_base._REMEDIES.read_text())
    known["GPW"][0]["scf"]["MAX_SCF"] = 2
    text = yaml.safe_dump(known)
    monkeypatch.setattr(cp2k_label_base, "_REMEDIES", SimpleNamespace(read_text=lambda encoding: text))
    reference = label_of(cp2k_code, hydrogen, functional(), options)
    label = label_of(cp2k_code, hydrogen, functional(MAX_SCF=2), options)
    assert label.flags == ["scf_remedy: Broyden mixing in smaller steps", "scf_remedy: orbital transformation"]
    assert label.energy == pytest.approx(reference.energy, abs=1e-5)
    assert label.creator.inputs.rescue.get_list() == [flag.partition(": ")[2] for flag in label.flags]


@pytest.fixture
def chain(aiida_localhost: orm.Computer, skewed_water: orm.StructureData) -> Callable[..., Cp2kLabelBaseWorkChain]:
    """A work chain before its first calculation."""

    def of(
        level: str, theory: LevelOfTheory | None = None, structure: orm.StructureData = skewed_water
    ) -> Cp2kLabelBaseWorkChain:
        code = orm.InstalledCode(label="any", computer=aiida_localhost, filepath_executable="/bin/true")
        inputs = {
            "code": code.store(),
            "structure": structure,
            "level": orm.Dict((theory or LevelOfTheory.load(level)).to_dict()),
            "options": orm.Dict({"max_wallclock_seconds": 100}),
        }
        process = instantiate_process(get_manager().get_runner(), Cp2kLabelBaseWorkChain, **inputs)
        process.setup()
        return process

    return of


def ended(
    computer: orm.Computer, code: engine.ExitCode, scf_steps: int | None = None, path: str = "/scratch"
) -> orm.CalcJobNode:
    """A calculation that ended with this exit code."""
    node = orm.CalcJobNode(computer=computer, process_type="aiida.calculations:mofmace.cp2k_label")
    node.set_option("resources", {"num_machines": 1})
    node.store()
    node.set_process_state(engine.ProcessState.FINISHED)
    node.set_exit_status(code.status)
    node.set_exit_message(code.message)
    remote = orm.RemoteData(computer=computer, remote_path=path)
    remote.base.links.add_incoming(node, link_type=LinkType.CREATE, link_label="remote_folder")
    remote.store()
    if scf_steps is not None:
        parameters = orm.Dict({"scf_steps": scf_steps})
        parameters.base.links.add_incoming(node, link_type=LinkType.CREATE, link_label="output_parameters")
        parameters.store()
    return node


def test_remedies_of_a_density_functional_end_with_orbital_transformation(
    aiida_localhost: orm.Computer, chain: Callable[..., Cp2kLabelBaseWorkChain]
) -> None:
    process = chain("pbe-d3")
    failed = ended(aiida_localhost, CODES.ERROR_SCF_NOT_CONVERGED)
    scf = []
    for _ in range(2):
        report = process.handle_scf_not_converged(failed)
        assert (report.do_break, report.exit_code.status) == (True, 0)
        scf.append(process.ctx.inputs.parameters["FORCE_EVAL"]["DFT"]["SCF"])
    assert scf[0]["MIXING"]["ALPHA"] == 0.05
    assert "DIAGONALIZATION" in scf[0]
    assert "OT" not in scf[0]
    assert scf[1]["OT"]["PRECONDITIONER"] == "FULL_SINGLE_INVERSE"
    assert not {"MIXING", "DIAGONALIZATION"} & set(scf[1])
    assert scf[1]["OUTER_SCF"]["EPS_SCF"] == scf[1]["EPS_SCF"] == 1e-7
    report = process.handle_scf_not_converged(failed)
    assert (report.do_break, report.exit_code.status) == (True, 0)
    smeared = process.ctx.inputs.parameters["FORCE_EVAL"]["DFT"]["SCF"]
    assert smeared["SMEAR"]["ELECTRONIC_TEMPERATURE"] == 1000.0
    assert "OT" not in smeared
    report = process.handle_scf_not_converged(failed)
    assert report.exit_code.status == 501
    assert "none of 3 remedies" in report.exit_code.message


@pytest.fixture
def hydrogen(aiida_profile: Any) -> orm.StructureData:
    """H2 in a cubic cell of 4 Å."""
    return orm.StructureData(ase=Atoms("H2", [[0, 0, 0], [0.1, 0.2, 0.72]], cell=[4.0] * 3, pbc=True))


def functional(**scf: Any) -> LevelOfTheory:
    """PBE-D3 at a cut-off that is good enough for a comparison with itself."""
    content = LevelOfTheory.load("pbe-d3").to_dict()
    del content["hash"]
    content["cp2k_input"]["FORCE_EVAL"]["DFT"]["MGRID"]["CUTOFF"] = 150
    content["cp2k_input"]["FORCE_EVAL"]["DFT"]["SCF"].update(scf)
    return LevelOfTheory.from_dict(content)


def label_of(code: orm.AbstractCode, structure: orm.StructureData, level: LevelOfTheory, options: Any) -> Any:
    outputs, node = run(code, structure, orm.Dict(level.to_dict()), options)
    assert node.is_finished_ok, node.exit_message
    return outputs["label"]


@pytest.mark.cp2k
def test_a_density_functional_goes_on_from_its_wave_function_and_through_smearing(
    cp2k_code: orm.InstalledCode,
    hydrogen: orm.StructureData,
    chain: Callable[..., Cp2kLabelBaseWorkChain],
    options: dict[str, Any],
) -> None:
    reference = label_of(cp2k_code, hydrogen, functional(), options)
    assert reference.flags == []
    assert reference.band_gap == pytest.approx(15.0, abs=1.0)
    rescued = label_of(cp2k_code, hydrogen, functional(MAX_SCF=3), options)
    assert rescued.flags == ["restarted", "scf_remedy: Broyden mixing in smaller steps"]
    assert rescued.energy == pytest.approx(reference.energy, abs=1e-6)
    process = chain("pbe-d3", functional(), hydrogen)
    process.ctx.scf_remedies_tried = 2
    process.handle_scf_not_converged(ended(reference.creator.computer, CODES.ERROR_SCF_NOT_CONVERGED))
    metadata = {"options": options}
    _, smeared = engine.run_get_node(
        Cp2kLabelCalculation, **{**process.ctx.inputs, "code": cp2k_code, "metadata": metadata}
    )
    assert smeared.exit_status == 402
    report = process.handle_intermediate_settings(smeared)
    assert (report.do_break, report.exit_code.status) == (True, 0)
    inputs = {**process.ctx.inputs, "code": cp2k_code, "metadata": metadata}
    label = engine.run(Cp2kLabelCalculation, **inputs)["label"]
    assert label.energy == pytest.approx(reference.energy, abs=1e-6)
    assert label.flags == ["restarted", "scf_remedy: smearing on, then off"]


@pytest.mark.cp2k
def test_smearing_is_the_last_remedy_and_is_taken_back(
    cp2k_code: orm.InstalledCode,
    aiida_code_installed: Callable[..., orm.InstalledCode],
    hydrogen: orm.StructureData,
    options: dict[str, Any],
    tmp_path: Path,
) -> None:
    """The real CP2K is given one step where there is no smearing, until there was."""
    script, smeared = tmp_path / "cp2k.sh", tmp_path / "smeared"
    script.write_text(
        f"""#!/bin/bash
if grep -q SMEAR aiida.inp; then touch {smeared}; fi
if [ ! -e {smeared} ]; then sed -i "s/MAX_SCF .*/MAX_SCF 1/" aiida.inp; fi
exec {cp2k_code.filepath_executable} "$@"
"""
    )
    script.chmod(0o700)
    code = aiida_code_installed(label="hasty", default_calc_job_plugin="cp2k", filepath_executable=str(script))
    outputs, node = run(code, hydrogen, orm.Dict(functional().to_dict()), options)
    assert node.is_finished_ok, node.exit_message
    assert [calculation.exit_status for calculation in called(node)] == [450, 450, 450, 402, 0]
    reference = label_of(cp2k_code, hydrogen, functional(), options)
    assert outputs["label"].energy == pytest.approx(reference.energy, abs=1e-6)
    assert outputs["label"].flags[:1] == ["restarted"]
    assert "smearing on, then off" in outputs["label"].flags[-1]


@pytest.mark.cp2k
def test_k_points_are_those_of_a_longer_cell(
    cp2k_code: orm.InstalledCode, hydrogen: orm.StructureData, options: dict[str, Any]
) -> None:
    """A mesh of three points is the Γ point of three cells in a row."""
    gamma = functional()
    one = label_of(cp2k_code, hydrogen, gamma.with_kpoints([3, 1, 1]), options)
    three = label_of(cp2k_code, orm.StructureData(ase=hydrogen.get_ase() * (3, 1, 1)), gamma, options)
    alone = label_of(cp2k_code, hydrogen, gamma, options)
    assert one.energy == pytest.approx(three.energy / 3, abs=2e-3)
    assert abs(one.energy - alone.energy) > 0.05
    np.testing.assert_allclose(one.forces, three.forces[:2], atol=5e-3)


@pytest.mark.cp2k
def test_spin_and_charge_change_the_energy_as_they_must(
    cp2k_code: orm.InstalledCode, aiida_profile: Any, options: dict[str, Any]
) -> None:
    """The PBE energy of a hydrogen atom is -13.60 eV, without spin 1 eV more; a doublet is refused if not stated."""
    atom = orm.StructureData(ase=Atoms("H", cell=[6.0] * 3, pbc=True))
    assert "multiplicity 1 cannot be" in str(functional().refusal(atom))
    content = functional().with_charge(0, 2).to_dict()
    del content["hash"]
    # The short-ranged double-zeta basis is made for molecules: it misses 1 eV of a lone atom.
    content["kinds"]["H"]["BASIS_SET"] = "TZV2P-MOLOPT-GTH-q1"
    label = label_of(cp2k_code, atom, LevelOfTheory.from_dict(content), options)
    assert label.energy == pytest.approx(-13.60, abs=0.1)


@pytest.mark.cp2k
def test_antiferromagnetic_spins_are_reached(cp2k_code: orm.InstalledCode, options: dict[str, Any]) -> None:
    """H2 torn apart: two atoms of opposite spin, not the closed shell, which is several eV above."""
    far = orm.StructureData(ase=Atoms("H2", [[0, 0, 0], [0, 0, 4.0]], cell=[4.0, 4.0, 8.0], pbc=True))
    content = functional().to_dict()
    del content["hash"]
    transformed = apply_scf_remedy(content["cp2k_input"], scf_remedies(content["cp2k_input"])[1])
    level = LevelOfTheory.from_dict(content | {"cp2k_input": transformed})
    spins = label_of(cp2k_code, far, level.with_magnetization({"H": [1, -1]}), options)
    parallel = label_of(cp2k_code, far, level.with_charge(0, 3).with_magnetization({"H": 1}), options)
    closed = label_of(cp2k_code, far, level, options)
    assert spins.energy == pytest.approx(parallel.energy, abs=0.1)
    assert spins.energy < closed.energy - 1.0
    assert spins.base.attributes.get("absolute_spin") == pytest.approx(2.0, abs=0.2)
    assert closed.base.attributes.get("absolute_spin") is None
    assert spins.symbols == ["H", "H"]
    assert spins.level_of_theory["hash"] != closed.level_of_theory["hash"]


@pytest.mark.cp2k
def test_walltime_goes_on_from_the_wave_function(
    cp2k_code: orm.InstalledCode,
    skewed_water: orm.StructureData,
    chain: Callable[..., Cp2kLabelBaseWorkChain],
    options: dict[str, Any],
) -> None:
    _, node = run(cp2k_code, skewed_water, level_with(), options)
    (first,) = called(node)
    left = first.outputs.remote_folder.get_remote_path()
    stopped = ended(first.computer, CODES.ERROR_OUT_OF_WALLTIME, scf_steps=5, path=left)
    process = chain("gfn1-xtb")
    report = process.handle_out_of_walltime(stopped)
    assert (report.do_break, report.exit_code.status) == (True, 0)
    inputs = {**process.ctx.inputs, "code": cp2k_code, "metadata": {"options": options}}
    outputs = engine.run(Cp2kLabelCalculation, **inputs)
    assert outputs["label"].energy == pytest.approx(-156.94442627629158, abs=1e-6)
    steps = [label.base.attributes.get("scf_steps") for label in (outputs["label"], first.outputs.label)]
    assert steps[0] < steps[1] == 13
    assert outputs["label"].flags == ["restarted"]


@pytest.mark.cp2k
def test_a_run_that_meets_its_wall_time_is_taken_up(
    cp2k_code: orm.InstalledCode,
    aiida_code_installed: Callable[..., orm.InstalledCode],
    options: dict[str, Any],
    tmp_path: Path,
) -> None:
    """The first run of the real CP2K gets one second for 27 molecules of water, or as many as a first step needs."""
    atoms = read(RECORDED / "out_of_walltime" / "aiida.coords.xyz")
    atoms.set_cell([9.3] * 3)
    atoms.pbc = True
    cp2k, script = cp2k_code.filepath_executable, tmp_path / "cp2k.sh"
    script.write_text(
        f"""#!/bin/bash
if [ -e parent_calc ]; then exec {cp2k} "$@"; fi
for seconds in 1 2 4 8 16; do
  sed "s/WALLTIME .*/WALLTIME $seconds/" aiida.inp > limited.inp
  {cp2k} -i limited.inp > limited.out
  grep -q "P_Mix" limited.out && break
done
cat limited.out
"""
    )
    script.chmod(0o700)
    code = aiida_code_installed(label="limited", default_calc_job_plugin="cp2k", filepath_executable=str(script))
    outputs, node = run(code, orm.StructureData(ase=atoms), level_with(), options)
    assert node.is_finished_ok, node.exit_message
    if len(called(node)) == 1:
        pytest.skip("THIS MACHINE IS TOO FAST: the first run was done within a second")
    assert [calculation.exit_status for calculation in called(node)] == [400, 0]
    assert outputs["label"].flags == ["restarted"]
    # Of a run in one go.
    assert outputs["label"].energy == pytest.approx(-156.145368148641296 * units.Hartree, abs=1e-5)


def test_walltime_without_a_single_step_gives_up(
    aiida_localhost: orm.Computer, chain: Callable[..., Cp2kLabelBaseWorkChain]
) -> None:
    report = chain("gfn1-xtb").handle_out_of_walltime(ended(aiida_localhost, CODES.ERROR_OUT_OF_WALLTIME))
    assert report.exit_code.status == 410


@pytest.mark.parametrize(
    "label",
    [
        "ERROR_OUTPUT_CONTAINS_ABORT",
        "ERROR_FORCES_MISSING",
        "ERROR_WRONG_ATOMS",
        "ERROR_NOT_A_NUMBER",
        "ERROR_OUT_OF_MEMORY",
        "ERROR_UNEXPECTED_PARSER_EXCEPTION",
    ],
)
def test_the_impossible_is_not_tried_again(
    aiida_localhost: orm.Computer, chain: Callable[..., Cp2kLabelBaseWorkChain], label: str
) -> None:
    report = chain("gfn1-xtb").handle_impossible(ended(aiida_localhost, CODES[label]))
    assert report.exit_code.status == 310
    assert CODES[label].message in report.exit_code.message


def test_an_incomplete_output_is_computed_once_more(
    aiida_localhost: orm.Computer, chain: Callable[..., Cp2kLabelBaseWorkChain]
) -> None:
    process = chain("gfn1-xtb")
    failed = ended(aiida_localhost, CODES.ERROR_OUTPUT_INCOMPLETE)
    assert process.handle_lost_output(failed).exit_code.status == 0
    assert process.handle_lost_output(failed).exit_code.status == 311


def test_every_handler_is_on() -> None:
    handlers = {name: handler for name, handler in vars(Cp2kLabelBaseWorkChain).items() if name.startswith("handle_")}
    assert len(handlers) == 5
    assert all(handler.enabled for handler in handlers.values())


# ----------------------------------------------------------------------------------------------------- fits of charges


def test_a_fit_of_charges_has_the_restarts_of_a_label(
    aiida_profile: Any, aiida_localhost: orm.Computer, water: orm.StructureData
) -> None:
    """Every remedy keeps the fit in the input; a fit that gave nothing is not tried again."""
    code = orm.InstalledCode(label="any", computer=aiida_localhost, filepath_executable="/bin/true").store()
    level = orm.Dict(LevelOfTheory.load("pbe-d3").to_dict())
    inputs = {"code": code, "structure": water, "level": level}
    process = instantiate_process(get_manager().get_runner(), Cp2kChargesBaseWorkChain, **inputs)
    process.setup()
    fit = fit_of_charges()
    for _ in scf_remedies(process.ctx.inputs.parameters.get_dict()):
        assert process.ctx.inputs.parameters["FORCE_EVAL"]["PROPERTIES"] == fit
        process.handle_scf_not_converged(ended(aiida_localhost, CODES.ERROR_SCF_NOT_CONVERGED))
    process.handle_intermediate_settings(ended(aiida_localhost, CODES.ERROR_INTERMEDIATE_SETTINGS))
    assert process.ctx.inputs.parameters["FORCE_EVAL"]["PROPERTIES"] == fit
    missing = Cp2kChargesCalculation.exit_codes.ERROR_CHARGES_MISSING.format(message="3 charges for 4 atoms")
    report = process.handle_charges_missing(ended(aiida_localhost, missing))
    assert report.exit_code.status == 310
    assert "3 charges for 4 atoms" in report.exit_code.message
