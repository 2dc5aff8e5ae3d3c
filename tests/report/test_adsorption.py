"""Loadings against the step, of runs in jobs of their own and of runs that shared a job."""

from __future__ import annotations

from typing import Any

import numpy as np
from aiida import orm

from aiida_mofmace.report.adsorption import loading_series
from aiida_mofmace.report.collect import collect
from aiida_mofmace.report.figures import loading_figure
from aiida_mofmace.report.html import render
from aiida_mofmace.report.progress import tally
from aiida_mofmace.report.summary import summary
from aiida_mofmace.report.tree import ProcessTree

from .fake_run import FakeRun


def series(steps: list[int], loadings: list[int]) -> orm.ArrayData:
    return orm.ArrayData({"step": np.array(steps), "loading": np.array(loadings)})


def test_series_of_runs_that_shared_a_job(aiida_profile: Any) -> None:
    """Two chunks that go on from each other, of two replicas; the second was killed before it left anything."""
    run = FakeRun()
    chain = run.process("MDGCMCIsothermWorkChain", None, "isotherm", {})
    names = ["pressure_00_replica_00", "pressure_00_replica_01"]
    for number, steps in enumerate(([5, 10], [15, 20])):
        parameters = orm.Dict({"pressure": 1e4, "systems": {name: {"steps": steps[-1]} for name in names}})
        job = run.process("MdGcmcBatchCalculation", chain, f"batch_{number:02d}", {"parameters": parameters})
        left = names if number == 0 else names[:1]
        run.create(job, **{f"timeseries__{name}": series(steps, [number + 1] * 2) for name in left})
    first, second = loading_series(ProcessTree(chain.pk))
    assert [(row["pressure_Pa"], row["replica"]) for row in (first, second)] == [(1e4, 1), (1e4, 2)]
    assert first["step"].tolist() == [5, 10, 15, 20]
    assert first["loading"].tolist() == [1, 1, 2, 2]
    assert second["step"].tolist() == [5, 10]
    assert "0.1 bar, replica 2" in loading_figure([first, second], {})


def test_series_of_lammps(aiida_profile: Any) -> None:
    """The chain gives them, its jobs are no chunks of their own."""
    run = FakeRun()
    chain = run.process("MDGCMCIsothermWorkChain", None, "isotherm", {}, exit_status=None)
    chunk = run.process(
        "LammpsGcmcWorkChain", chain, "pressure_00_chunk_00", {"gcmc__parameters": orm.Dict({"pressure": 1e5})}
    )
    start = run.process("MdGcmcCalculation", chunk, "start", {"parameters": orm.Dict({"pressure": 1e5})})
    run.create(start, timeseries=series([7], [9]))
    run.process("LammpsRawCalculation", chunk, "lammps", {}, exit_status=None)
    run.process("LammpsGcmcWorkChain", chain, "pressure_01_chunk_00", {}, exit_status=None)
    run.give(chunk, timeseries=series([5, 10], [1, 2]))
    tree = ProcessTree(chain.pk)
    (row,) = loading_series(tree)
    assert tally(tree) == "MD-GCMC chunks 1 done, 1 running"
    assert (row["pressure_Pa"], row["step"].tolist(), row["loading"].tolist()) == (1e5, [5, 10], [1, 2])


def test_explorations_go_by_the_names_of_their_restart_layers(aiida_profile: Any) -> None:
    """Two rounds at one pressure, the first in two jobs: a series each, and each counts once."""
    run = FakeRun()
    chain = run.process("ActiveLearningWorkChain", None, "active_learning", {}, exit_status=None)
    for round_, parts in (("round_01", ([5, 10], [5, 10, 15])), ("round_02", ([5],))):
        status = 0 if round_ == "round_01" else None
        layer = run.process("MdGcmcBaseWorkChain", chain, f"{round_}_gcmc_00", {}, exit_status=status)
        for number, steps in enumerate(parts, 1):
            inputs = {"parameters": orm.Dict({"pressure": 1e4})}
            job = run.process("MdGcmcCalculation", layer, f"iteration_{number:02d}", inputs, exit_status=status)
            run.create(job, timeseries=series(steps, steps))
    tree = ProcessTree(chain.pk)
    assert [row["step"].tolist() for row in loading_series(tree)] == [[5, 10, 15], [5]]
    assert tally(tree) == "MD-GCMC chunks 1 done, 1 running"


def test_a_chunk_that_holds_what_came_before_takes_its_place(aiida_profile: Any) -> None:
    run = FakeRun()
    chain = run.process("MDGCMCIsothermWorkChain", None, "isotherm", {})
    for number, steps in enumerate(([5, 10], [5, 10, 15])):
        inputs = {"parameters": orm.Dict({"pressure": 1e4})}
        job = run.process("MdGcmcCalculation", chain, f"pressure_00_chunk_{number:02d}", inputs)
        run.create(job, timeseries=series(steps, steps))
    (row,) = loading_series(ProcessTree(chain.pk))
    assert row["step"].tolist() == [5, 10, 15]
    assert row["replica"] is None


def test_a_henry_coefficient_that_could_not_be_had_is_missed(aiida_profile: Any) -> None:
    """In summary and report, with the reason; of a run that asked for none nothing is said."""
    for outcome, words in ((0, "too few insertions had a weight"), (306, "it blew up"), (None, None)):
        run = FakeRun()
        chain = run.process("MDGCMCIsothermWorkChain", None, "isotherm", {"structure": run.structure}, exit_status=701)
        if outcome is not None:
            run.process("WidomCalculation", chain, "henry", {}, exit_status=outcome, message=words)
        run.set_times()
        data = collect(chain)
        said = f"The Henry coefficient was not computed: {words}."
        assert (said in summary(chain)) is (said in render(data)) is (words is not None)
