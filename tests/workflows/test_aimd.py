"""Ab initio dynamics on the real CP2K: going on after a stop, labels of its frames, and their way into a dataset."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import engine, orm
from aiida.common.links import LinkType

from aiida_mofmace.calculations.cp2k_md import md_parameters
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.report.collect import collect
from aiida_mofmace.workflows.aimd import AimdWorkChain
from aiida_mofmace.workflows.cp2k_md_base import Cp2kMdBaseWorkChain
from aiida_mofmace.workflows.functions import append_labels
from aiida_mofmace.workflows.label_frames import join_runs
from aiida_mofmace.workflows.main import MofMaceWorkChain
from aiida_mofmace.workflows.sampling import SamplingWorkChain

from .steps import dataset_of, finished, label_of, loaded, mil_120, process_of, trajectory

SETTINGS = {"temperature": 300.0, "timestep_fs": 0.5, "steps": 24, "stride": 2, "thermostat_time_fs": 50.0}
#: The first job is held after its third frame until its wall time is over; it gets more of it until it comes that far.
OUT_OF_TIME = """
for seconds in 2 4 8 16; do
  sed "s/WALLTIME .*/WALLTIME $seconds/" aiida.inp > limited.inp
  {cp2k} -i limited.inp > limited.out & job=$!
  until [ "$(grep -c time aiida-pos-1.xyz 2> /dev/null)" -ge 3 ] 2> /dev/null; do
    kill -0 $job 2> /dev/null || break
    sleep 0.02
  done
  kill -STOP $job 2> /dev/null && sleep $seconds && kill -CONT $job
  wait $job
  [ -e aiida-1.restart ] && break
done
cat limited.out
"""
#: The first job is killed after its third frame.
KILLED = """
{cp2k} "$@" & job=$!
until [ "$(grep -c time aiida-pos-1.xyz 2> /dev/null)" -ge 3 ] 2> /dev/null; do sleep 0.02; done
kill -9 $job
"""


@pytest.fixture
def troubled(
    cp2k_code: orm.InstalledCode, aiida_code_installed: Callable[..., orm.InstalledCode], tmp_path: Path
) -> Callable[[str], orm.InstalledCode]:
    """CP2K as a script in which the first job of a run meets some trouble."""

    def of(trouble: str) -> orm.InstalledCode:
        script, cp2k = tmp_path / "cp2k.sh", str(cp2k_code.filepath_executable)
        first = trouble.replace("{cp2k}", cp2k)
        script.write_text(f'#!/bin/bash\nif [ -e parent_calc ]; then exec {cp2k} "$@"; fi\n{first}')
        script.chmod(0o700)
        return aiida_code_installed(
            label=tmp_path.name, default_calc_job_plugin="cp2k", filepath_executable=str(script)
        )

    return of


def run(code: orm.InstalledCode, structure: orm.StructureData, options: dict[str, Any]) -> Any:
    theory = LevelOfTheory.load("gfn1-xtb")
    parameters = md_parameters(theory, structure, SETTINGS, seed=7)
    md = {
        "code": code,
        "structure": structure,
        "level": orm.Dict(theory.to_dict()),
        "parameters": orm.Dict(parameters),
        "metadata": {"options": options},
    }
    return engine.run_get_node(Cp2kMdBaseWorkChain, md=md)


def jobs_of(node: orm.ProcessNode) -> list[orm.CalcJobNode]:
    links = node.base.links.get_outgoing(link_type=LinkType.CALL_CALC).all()
    return [
        link.node for link in sorted(links, key=lambda link: link.node.pk) if isinstance(link.node, orm.CalcJobNode)
    ]


@pytest.mark.cp2k
def test_a_run_that_was_stopped_goes_on(
    troubled: Callable[[str], orm.InstalledCode],
    cp2k_code: orm.InstalledCode,
    water: orm.StructureData,
    options: dict[str, Any],
) -> None:
    """Stopped by its wall time, or killed: the frames are those of a run in one go."""
    whole = run(cp2k_code, water, options)[0]
    reference = whole["trajectory"].get_frames()
    assert reference.steps.tolist() == list(range(0, 25, 2))
    for trouble, status in ((OUT_OF_TIME, 400), (KILLED, 303)):
        outputs, node = run(troubled(trouble), water, options)
        assert node.is_finished_ok, node.exit_message
        first, second = jobs_of(node)
        assert first.exit_status == status
        done = first.outputs.output_parameters["last_step"]
        assert 2 <= done < 24
        assert second.inputs.parameters["MOTION"]["MD"]["STEPS"] == 24 - done
        frames = outputs["trajectory"].get_frames()
        assert frames.steps.tolist() == reference.steps.tolist()
        np.testing.assert_allclose(frames.positions, reference.positions, atol=1e-5)
        np.testing.assert_allclose(frames.energies, reference.energies, atol=1e-5)
        np.testing.assert_allclose(
            outputs["forces"].get_array("forces"), whole["forces"].get_array("forces"), atol=1e-3
        )
        stress = outputs["forces"].get_array("stress")
        known = np.isfinite(stress).all(axis=(1, 2))
        # A job that is killed takes along what it had not written to its output: the stress of its own frames.
        assert known[frames.steps > (done if trouble is KILLED else -1)].all()
        np.testing.assert_allclose(stress[known], whole["forces"].get_array("stress")[known], atol=1e-3)


def job(code: Any, last_step: int) -> orm.ProcessNode:
    process = Cp2kMdBaseWorkChain._process_class
    outputs = {
        "output_parameters": orm.Dict({"last_step": last_step}),
        "remote_folder": orm.RemoteData(computer=orm.load_computer("localhost"), remote_path="/scratch"),
        "trajectory": trajectory(0, 2),
        "forces": orm.ArrayData({"forces": np.zeros((2, 3, 3))}),
    }
    return finished(process, outputs, code.status, code.message)


def test_a_stress_that_one_job_lacks_is_not_lost_for_the_others(aiida_profile: Any) -> None:
    """The first job was killed before it had written any stress."""
    forces = [{"forces": np.zeros((2, 3, 3))}, {"forces": np.ones((2, 3, 3)), "stress": np.ones((2, 3, 3))}]
    later = trajectory(0, 2).get_frames()
    later.steps = later.steps + 100
    trajectories = {"part_00": trajectory(0, 2).store(), "part_01": FramesData.from_frames(later).store()}
    arrays = {f"part_{i:02d}": orm.ArrayData(each).store() for i, each in enumerate(forces)}
    joined = join_runs(trajectories=trajectories, forces=arrays)["forces"].get_array("stress")
    assert np.isnan(joined[:2]).all()
    assert (joined[2:] == 1.0).all()


def test_a_run_without_progress_ends_with_its_frames(cp2k_code: orm.InstalledCode, water: orm.StructureData) -> None:
    theory, codes = LevelOfTheory.load("gfn1-xtb"), Cp2kMdBaseWorkChain._process_class.exit_codes

    def chain() -> Any:
        parameters = orm.Dict(md_parameters(theory, water, SETTINGS, seed=7))
        md = {"code": cp2k_code, "structure": water, "level": orm.Dict(theory.to_dict()), "parameters": parameters}
        md["metadata"] = {"options": {"resources": {"num_machines": 1}}}
        process = process_of(Cp2kMdBaseWorkChain, md=md, max_iterations=orm.Int(3))
        process.setup()
        return process

    for code in (codes.ERROR_OUT_OF_WALLTIME, codes.ERROR_OUTPUT_INCOMPLETE):
        process, lost = chain(), job(code, 0)
        process.ctx.children, process.ctx.iteration = [lost], 1
        assert process.handle_stopped(lost).exit_code.status == 0
        assert "EXT_RESTART" not in process.ctx.inputs.parameters.get_dict()
        report = process.handle_stopped(lost)
        assert report.exit_code.status == 311
        assert process.outputs["trajectory"].n_frames == 2
    # Killed before CP2K began: there is nothing, not even figures.
    process, nothing = chain(), finished(Cp2kMdBaseWorkChain._process_class, {}, 400, "out of wall time")
    process.ctx.children, process.ctx.iteration = [nothing], 1
    assert process.handle_stopped(nothing).exit_code.status == 0
    process = chain()
    for iteration, last_step in ((1, 8), (2, 10)):
        stopped = job(codes.ERROR_OUT_OF_WALLTIME, last_step)
        process.ctx.children, process.ctx.iteration = [stopped], iteration
        assert process.handle_stopped(stopped).exit_code.status == 0
        assert process.ctx.inputs.parameters["MOTION"]["MD"]["STEPS"] == 24 - last_step
    process.ctx.iteration = 3
    report = process.handle_stopped(stopped)
    assert (report.exit_code.status, "Only 10 of 24 steps" in report.exit_code.message) == (701, True)
    process, wrong = chain(), job(codes.ERROR_OUTPUT_CONTAINS_ABORT, 0)
    process.ctx.children, process.ctx.iteration = [wrong], 1
    assert process.handle_impossible(wrong).exit_code.status == 312


AIMD = {"loadings": [0, 1], "steps": 6, "equilibration_steps": 2, "stride": 2, "labels": 2}


@pytest.mark.cp2k
def test_labels_of_every_loading(cp2k_code: orm.InstalledCode, water: orm.StructureData) -> None:
    build = AimdWorkChain.get_builder_from_protocol
    outputs, node = engine.run_get_node(build({"cp2k": cp2k_code}, water, overrides={"aimd": AIMD}, seed=3))
    assert node.is_finished_ok, node.exit_message
    assert {key: run.get_frames().steps.tolist() for key, run in outputs["trajectories"].items()} == {
        "aimd_0": [0, 2, 4, 6],
        "aimd_1": [0, 2, 4, 6],
    }
    rows = outputs["selection"]["selected"]
    assert [(row["trajectory"], row["index"], row["group"], row["framework_atoms"]) for row in rows] == [
        ("aimd_0", 1, "aimd_300K_0CO2", 3),
        ("aimd_0", 3, "aimd_300K_0CO2", 3),
        ("aimd_1", 1, "aimd_300K_1CO2", 3),
        ("aimd_1", 3, "aimd_300K_1CO2", 3),
    ]
    labels = outputs["labels"]
    assert [label.formula for label in labels.values()] == ["H2O", "H2O", "CH2O3", "CH2O3"]
    assert all(label.level_of_theory == LevelOfTheory.load("gfn1-xtb").summary for label in labels.values())
    assert labels["frame_0002"].structure.uuid == outputs["structures"]["frame_0002"].uuid
    dataset = append_labels(
        selection=outputs["selection"],
        structures=dict(outputs["structures"]),
        labels=dict(labels),
        flagged=outputs["flagged"],
    )
    assert (dataset.n_frames, dataset.has_stress) == (4, True)


@pytest.mark.cp2k
def test_labels_come_out_of_sampling(
    worker_code: orm.InstalledCode, cp2k_code: orm.InstalledCode, water: orm.StructureData
) -> None:
    """Beside MD with the model, in one run of the real CP2K and MACE."""
    md = {"temperatures": [300.0], "loadings": [0], "steps": 20, "equilibration_steps": 10, "stride": 5}
    codes, overrides = {"worker": worker_code, "cp2k": cp2k_code}, {"aimd": AIMD | {"loadings": [0]}, "sampling": md}
    outputs, node = engine.run_get_node(
        SamplingWorkChain.get_builder_from_protocol(codes, water, overrides=overrides, seed=3)
    )
    assert node.is_finished_ok, node.exit_message
    assert set(outputs["trajectories"]) == {"md_300k_0"}
    ab_initio = outputs["aimd"]
    assert ab_initio["trajectories"]["aimd_0"].get_frames().steps.tolist() == [0, 2, 4, 6]
    assert [row["index"] for row in ab_initio["selection"]["selected"]] == [1, 3]
    for name, label in ab_initio["labels"].items():
        assert label.structure.uuid == ab_initio["structures"][name].uuid
        assert label.level_of_theory == LevelOfTheory.load("gfn1-xtb").summary
    counted = collect(node)["labels"]
    assert (counted["made"], [level["count"] for level in counted["levels"]]) == (2, [2])


def test_sampling_and_main_chain_take_it_in(codes: dict[str, Any]) -> None:
    overrides = {"aimd": {"loadings": [0, 2]}}
    sampling = process_of(SamplingWorkChain.get_builder_from_protocol(codes, mil_120(), overrides=overrides, seed=5))
    sampling.setup()
    sampling.submit_md("aimd")
    process_class, inputs = sampling.submitted[-1]
    assert process_class is AimdWorkChain
    assert AimdWorkChain.spec().inputs.validate(inputs) is None
    structures = {f"frame_{i:04d}": orm.StructureData(ase=loaded(i)) for i in range(2)}
    rows = [{"group": f"aimd_300K_{i}CO2", "loading": i, "framework_atoms": 3} for i in range(2)]
    made = {
        "trajectories": {"aimd_0": trajectory(0)},
        "structures": structures,
        "labels": {name: label_of(structure) for name, structure in structures.items()},
        "selection": orm.Dict({"selected": rows}),
        "flagged": orm.Dict({"frame_0001": {"left_out": True}}),
    }
    node = finished(AimdWorkChain, made)
    sampling._inspect_ab_initio(node)
    assert sampling.outputs["aimd"]["selection"].uuid == node.outputs.selection.uuid
    main = process_of(MofMaceWorkChain.get_builder_from_protocol(codes, mil_120(), overrides=overrides, seed=1))
    main.setup()
    main.run_sampling()
    assert SamplingWorkChain.spec().inputs.validate(main.submitted[0][1]) is None
    before = dataset_of([0, 1]).store()
    sampled = finished(SamplingWorkChain, {"aimd": made})
    assert main._with_ab_initio(before, sampled.outputs.aimd).n_frames == 3, "one of both is flagged"
    given = dict(sampled.outputs.aimd) | {"flagged": orm.Dict({name: {"left_out": True} for name in structures})}
    assert main._with_ab_initio(before, given) is before
    assert main._with_ab_initio(None, given) is None


def test_what_cannot_be_run_is_refused(codes: dict[str, Any]) -> None:
    def build(**change: Any) -> Any:
        return SamplingWorkChain.get_builder_from_protocol(codes, mil_120(), overrides=change)

    with pytest.raises(ValueError, match=r"does not compute GFN1-xTB\(tblite\)"):
        build(level="gfn1-xtb-tblite", aimd={"loadings": [0]})
    with pytest.raises(ValueError, match="60 CO2 do not fit"):
        build(aimd={"loadings": [60]})
    with pytest.raises(ValueError, match=r"ab initio MD needs cp2k_code"):
        SamplingWorkChain.get_builder_from_protocol(
            {"worker": codes["worker"]}, mil_120(), overrides={"aimd": {"loadings": [0]}}
        )
