"""Runs of an isotherm: what a crash or a stop leaves goes on, and replicas go on together."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import engine, orm
from ase import units

from aiida_mofmace.calculations.md_gcmc import MdGcmcCalculation
from aiida_mofmace.calculations.md_gcmc_batch import MdGcmcBatchCalculation
from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.starter import STARTER_MODEL
from aiida_mofmace.workflows.adsorption import pool_replicas
from aiida_mofmace.workflows.isotherm import MDGCMCIsothermWorkChain

from .isotherm_fixtures import ISOTHERM, NO_HENRY, batch, chunk, figures, md, run_heat
from .steps import finished, mil_120, process_of


def start(codes: dict[str, Any], **section: Any) -> Any:
    overrides = {"isotherm": {**ISOTHERM, "max_restarts": 2, **section}, "henry_coefficient": NO_HENRY}
    process = process_of(
        MDGCMCIsothermWorkChain.get_builder_from_protocol(codes, mil_120(), overrides=overrides, seed=2)
    )
    process.setup()
    return process


@pytest.fixture
def single(codes: dict[str, Any]) -> Any:
    """One pressure, nothing queued but what ends of jobs bring about."""
    process = start(codes, pressures=[1e4])
    process.close_window()
    return process


def state(name: str = "state") -> orm.SinglefileData:
    return orm.SinglefileData.from_string(name, "checkpoint.npz")


# -- what is stopped or killed -----------------------------------------------------------------------------------------


def test_jobs_that_a_crash_left_unrecorded_are_taken_as_they_are(codes: dict[str, Any]) -> None:
    """The point has its fugacity though nobody made the inputs of its job in this life of the work chain."""
    process = start(codes, pressures=[2e6], equation_of_state="peng_robinson")
    process.ctx.window["size"] = 9
    keys = list(process.ctx.window["queue"])
    energies = {"heat_loaded": -11.0, "heat_framework": -10.0, "heat_gas": -0.5}
    for key in keys:
        outputs = md(energies[key]).outputs if key in energies else chunk(steps=300).outputs
        copies = {name: outputs[name].clone() for name in outputs}
        finished(MdGcmcCalculation, copies, caller=(process.node, key))
    process.run_chunks()
    assert process.submitted == []
    process.run_chunks()
    assert not process.should_run_chunks()
    process.inspect_heat()
    process.inspect_henry()
    assert process.inspect_points() is None
    assert process.outputs["isotherm"]["points"][0]["fugacity_Pa"] == pytest.approx(0.90 * 2e6, rel=0.02)


def test_a_chunk_that_was_stopped_goes_on(single: Any) -> None:
    """To the same last step; after three that got no further the point is given up, with what there is of it."""
    single.on_run_finished("pressure_00_chunk_00", chunk(exit_status=400, steps=60))
    for number in (1, 2):
        assert single.ctx.window["queue"] == [f"pressure_00_chunk_{number:02d}"]
        single.submit_run(f"pressure_00_chunk_{number:02d}")
        assert single.submitted[-1][1]["parameters"]["steps"] == 100
        single.close_window()
        single.on_run_finished(f"pressure_00_chunk_{number:02d}", chunk(exit_status=400, steps=60))
    single.close_window()
    single.on_run_finished("pressure_00_chunk_03", chunk(exit_status=400, steps=60))
    assert single.ctx.window["queue"] == []
    run_heat(single)
    assert single.inspect_points().status == 701
    assert "2 restarts brought nothing" in single.outputs["isotherm"]["points"][0]["reason"]


def test_a_chunk_stopped_before_it_has_any_statistics_goes_on(single: Any) -> None:
    """As a program leaves it that was stopped in the middle of its first block: a checkpoint and no mean loading."""
    left = {"results": orm.Dict(figures(3, mean_loading=None)), "checkpoint": state()}
    single.on_run_finished("pressure_00_chunk_00", finished(MdGcmcCalculation, left, 400, "stopped"))
    assert single.ctx.window["queue"] == ["pressure_00_chunk_01"]
    single.submit_run("pressure_00_chunk_01")
    inputs = single.submitted[-1][1]
    assert inputs["checkpoint"].uuid == left["checkpoint"].uuid
    assert inputs["parameters"]["steps"] == 100
    single.close_window()
    single.on_run_finished("pressure_00_chunk_01", chunk(steps=100))
    assert single.ctx.window["queue"] == ["pressure_00_chunk_02"]


@pytest.mark.parametrize("status", [301, 400])
def test_a_job_that_was_killed_goes_on_from_its_checkpoint(single: Any, status: int) -> None:
    """It leaves no results; a second one that leaves nothing at all begins from the same checkpoint."""
    left = state()
    single.on_run_finished("pressure_00_chunk_00", chunk(steps=100))
    single.close_window()
    single.on_run_finished("pressure_00_chunk_01", finished(MdGcmcCalculation, {"checkpoint": left}, status, "killed"))
    single.close_window()
    single.on_run_finished("pressure_00_chunk_02", finished(MdGcmcCalculation, {}, 301, "killed"))
    assert single.ctx.window["queue"] == ["pressure_00_chunk_03"]
    single.submit_run("pressure_00_chunk_03")
    inputs = single.submitted[-1][1]
    assert inputs["checkpoint"].uuid == left.uuid
    assert inputs["parameters"]["steps"] == 200
    single.on_run_finished("pressure_00_chunk_03", finished(MdGcmcCalculation, {}, 306, "it blew up"))
    run_heat(single)
    assert single.inspect_points().status == 701
    point = single.outputs["isotherm"]["points"][0]
    assert (point["steps"], point["chunks"]) == (100, 4), "what the first chunk brought is kept"
    assert "it blew up" in point["reason"]


def test_a_job_that_is_killed_again_and_again_is_given_up(codes: dict[str, Any]) -> None:
    """Of several points in one job, none of which has left anything."""
    process = start(codes, batch=True)
    for number in range(3):
        process.close_window()
        process.on_run_finished(f"batch_{number:02d}", finished(MdGcmcBatchCalculation, {}, 301, "killed"))
        assert process.ctx.window["queue"] == ([f"batch_{number + 1:02d}"] if number < 2 else [])
    run_heat(process)
    code = process.inspect_points()
    assert code.status == 301
    assert "killed; 2 restarts brought nothing" in code.message


def test_a_shared_job_that_was_killed_goes_on_from_what_it_left(codes: dict[str, Any]) -> None:
    process = start(codes, batch=True)
    process.close_window()
    left = {"checkpoints": {"pressure_01": state("one")}}
    process.on_run_finished("batch_00", finished(MdGcmcBatchCalculation, left, 400, "killed"))
    process.submit_run("batch_01")
    inputs = process.submitted[-1][1]
    assert list(inputs["parameters"]["systems"]) == ["pressure_00", "pressure_01"]
    assert {name: node.uuid for name, node in inputs["checkpoints"].items()} == {
        "pressure_01": left["checkpoints"]["pressure_01"].uuid
    }


def test_a_run_for_the_heat_that_gets_no_further_is_given_up(single: Any) -> None:
    nothing = {"results": orm.Dict({"steps_done": 0}), "checkpoint": state()}
    for number, key in enumerate(("heat_gas", "heat_gas_part_01", "heat_gas_part_02")):
        single.close_window()
        copies = {"results": nothing["results"].clone(), "checkpoint": nothing["checkpoint"].clone()}
        single.on_run_finished(key, finished(MdGcmcCalculation, copies, 400, "stopped"))
        assert bool(single.ctx.window["queue"]) == (number < 2)


# -- replicas ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def replicas(codes: dict[str, Any]) -> Any:
    return start(codes, pressures=[1e4, 1e5], replicas=2)


NAMES = ("pressure_00_replica_00", "pressure_00_replica_01")


def test_each_replica_has_a_seed_of_its_own(replicas: Any) -> None:
    queue = [key for key in replicas.ctx.window["queue"] if not key.startswith("heat")]
    assert queue == [f"pressure_{p:02d}_replica_{r:02d}_chunk_00" for p in range(2) for r in range(2)]
    seeds = set()
    for key in queue:
        replicas.submit_run(key)
        process_class, inputs = replicas.submitted[-1]
        assert process_class.spec().inputs.validate(inputs) is None
        assert inputs["parameters"]["pressure"] == (1e4 if key.startswith("pressure_00") else 1e5)
        seeds.add(inputs["seed"].value)
    assert len(seeds) == 4


def test_replicas_wait_for_each_other_and_are_judged_together(replicas: Any) -> None:
    """Each alone would do after 200 steps; together they disagree, and both go on to the limit."""
    window = replicas.ctx.window
    replicas.close_window()
    replicas.on_run_finished(f"{NAMES[0]}_chunk_00", chunk(steps=100, loading=1.0))
    assert window["queue"] == []
    replicas.on_run_finished(f"{NAMES[1]}_chunk_00", chunk(exit_status=400, steps=60, loading=1.0))
    assert window["queue"] == [f"{NAMES[1]}_chunk_01"]
    replicas.close_window()
    replicas.on_run_finished(f"{NAMES[1]}_chunk_01", chunk(steps=100, loading=1.0))
    assert window["queue"] == [f"{NAMES[0]}_chunk_01", f"{NAMES[1]}_chunk_02"]
    replicas.submit_run(f"{NAMES[1]}_chunk_02")
    assert replicas.submitted[-1][1]["parameters"]["steps"] == 200
    replicas.close_window()
    for name, key, loading in ((NAMES[0], "01", 1.0), (NAMES[1], "02", 2.0)):
        replicas.on_run_finished(f"{name}_chunk_{key}", chunk(steps=200, loading=loading))
    assert window["queue"] == [f"{NAMES[0]}_chunk_02", f"{NAMES[1]}_chunk_03"]
    replicas.close_window()
    for name, key in ((NAMES[0], "02"), (NAMES[1], "03")):
        replicas.on_run_finished(f"{name}_chunk_{key}", chunk(steps=300, loading=1.5))
    assert window["queue"] == []


def test_a_replica_that_broke_is_left_out_and_named(replicas: Any) -> None:
    replicas.close_window()
    replicas.on_run_finished(f"{NAMES[0]}_chunk_00", chunk(steps=300, loading=1.0))
    blown = chunk(steps=200, loading=9.0, explosion={"message": "too hot"}, checkpoint=False)
    replicas.on_run_finished(f"{NAMES[1]}_chunk_00", blown)
    run_heat(replicas)
    assert replicas.inspect_points().status == 702
    point = replicas.outputs["isotherm"]["points"][0]
    assert (point["loading_per_cell"], point["converged"]) == (1.0, False)
    assert point["reason"] == f"{NAMES[1]}: too hot"
    assert [row["counted"] for row in point["replicas"]] == [True, False]


def test_replicas_share_a_job_too(codes: dict[str, Any]) -> None:
    """One whose loading is good enough leaves with its twin, the other pressure goes on."""
    process = start(codes, pressures=[1e4, 1e5], replicas=2, batch=True)
    process.close_window()
    process.submit_run("batch_00")
    process_class, inputs = process.submitted[-1]
    assert process_class is MdGcmcBatchCalculation
    assert process_class.spec().inputs.validate(inputs) is None
    systems = inputs["parameters"]["systems"]
    assert sorted(systems) == [f"pressure_{p:02d}_replica_{r:02d}" for p in range(2) for r in range(2)]
    assert len({own["seed"] for own in systems.values()}) == 4
    values = {name: {"steps": 200, "loading": 1.0} for name in systems}
    values["pressure_01_replica_01"]["loading"] = 3.0
    process.on_run_finished("batch_00", batch(**values))
    assert process.ctx.due == ["pressure_01_replica_00", "pressure_01_replica_01"]
    assert process.ctx.window["queue"] == ["batch_01"]


def test_pooled_by_hand() -> None:
    """Errors within are 0.3 and 0.4, so 0.25 of their mean; loadings 2 and 3 spread by more, heats do not."""
    one = figures(100, loading=2.0, error=0.3, isosteric_heat=0.5, isosteric_heat_error=0.3)
    two = figures(200, loading=3.0, error=0.4, isosteric_heat=0.6, isosteric_heat_error=0.4)
    components = {"CO2": {key: value for key, value in one.items() if key != "acceptance"}}
    pooled = pool_replicas([one | {"components": components}, two | {"components": components}])
    assert (pooled["mean_loading"], pooled["loading_error"]) == pytest.approx((2.5, np.sqrt(0.5) / np.sqrt(2)))
    assert (pooled["isosteric_heat"], pooled["isosteric_heat_error"]) == pytest.approx((0.55, 0.25))
    assert (pooled["steps_done"], pooled["effective_samples"]) == (100, 16.0)
    assert pooled["acceptance"]["insertion"] == {"attempted": 20, "accepted": 4}
    assert pooled["components"]["CO2"]["loading_error"] == pytest.approx(0.3 / np.sqrt(2))
    assert not pooled["too_short"]
    assert pool_replicas([one]) == one
    apart = pool_replicas([one | {"loading_error": 0.01}, two | {"loading_error": None}])
    assert apart["too_short"]
    assert apart["loading_error"] is None
    assert pool_replicas([one, two | {"isosteric_heat": None}])["isosteric_heat"] is None


def test_an_isotherm_of_replicas(replicas: Any) -> None:
    replicas.close_window()
    for point, loading in (("pressure_00", 1.0), ("pressure_01", 2.0)):
        for index in range(2):
            values = {"steps": 300, "loading": loading + 0.01 * index}
            replicas.on_run_finished(f"{point}_replica_{index:02d}_chunk_00", chunk(**values))
    run_heat(replicas)
    assert replicas.inspect_points() is None
    low, high = replicas.outputs["isotherm"]["points"]
    assert (low["loading_per_cell"], high["loading_per_cell"]) == pytest.approx((1.005, 2.005))
    assert [row["loading_per_cell"] for row in high["replicas"]] == pytest.approx([2.0, 2.01])
    assert (low["steps"], low["chunks"], low["effective_samples"]) == (300, 2, 16.0)
    assert low["isosteric_heat_kJ_per_mol"] == pytest.approx(0.5 * units.mol / units.kJ)
    assert sorted(replicas.outputs["timeseries"]) == [
        f"pressure_{p:02d}_replica_{r:02d}" for p in range(2) for r in range(2)
    ]


STOPS = """#!{python}
# The program, which is told to stop whenever it has asked so many times.
import runpy, sys
sys.path.insert(0, ".")
from mofmace_worker.stopping import StopRequest
asked, whole = [], StopRequest.reason
def reason(self):
    asked.append(1)
    return "walltime" if len(asked) > {times} else whole(self)
StopRequest.reason = reason
sys.argv = sys.argv[2:]
runpy.run_module("mofmace_worker", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_a_chain_that_is_stopped_again_and_again_comes_to_the_same_end(
    codes: dict[str, Any], aiida_code_installed: Any, tmp_path: Path
) -> None:
    """Each job is stopped after a few steps; loadings, energies and heat are those of whole jobs, to the last bit."""
    path = tmp_path / "python-that-stops"
    path.write_text(STOPS.format(python=sys.executable, times=17))
    path.chmod(0o755)
    stopping = aiida_code_installed(label="stopping", filepath_executable=str(path))
    short = {"steps": 40, "equilibration_steps": 10, "stride": 5}
    overrides = {
        "isotherm": {"pressures": [1e6], "chunk_steps": 30, "min_steps": 60, "max_steps": 60, "stride": 5},
        "evaluation": {"device": "cpu", "dtype": "float64"},
        "heat_of_adsorption": short,
        "henry_coefficient": NO_HENRY,
    }
    model = MaceModelData.from_file(STARTER_MODEL)
    series, points, heats, jobs = [], [], [], []
    for worker in (codes["worker"], stopping):
        builder = MDGCMCIsothermWorkChain.get_builder_from_protocol(
            {"worker": worker}, mil_120(), "CO2", model, overrides=overrides, seed=3
        )
        outputs, node = engine.run_get_node(builder)
        assert node.exit_status == 701, node.exit_message
        jobs.append([called for called in node.called if isinstance(called, orm.CalcJobNode)])
        points.append(outputs["isotherm"]["points"][0])
        heats.append(outputs["heat_of_adsorption"].get_dict())
        series.append(outputs["timeseries"]["pressure_00"])
    assert {job.exit_status for job in jobs[0]} == {0}
    assert sum(job.exit_status == 400 for job in jobs[1]) >= 4
    assert len(jobs[1]) > len(jobs[0])
    for array in ("step", "loading", "potential_energy"):
        assert np.array_equal(series[0].get_array(array), series[1].get_array(array)), array
    assert points[0]["steps"] == points[1]["steps"] == 60
    assert points[0]["loading_per_cell"] == points[1]["loading_per_cell"]
    assert heats[0]["value_kJ_per_mol"] == heats[1]["value_kJ_per_mol"]
