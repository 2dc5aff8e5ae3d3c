"""Following a run: messages in order, once each, the tally, and how it ends."""

from __future__ import annotations

import io
import re
from datetime import datetime, timezone

import pytest
from aiida import orm
from aiida.common.links import LinkType

from aiida_mofmace.report import progress
from aiida_mofmace.report.progress import INTERRUPTED, duration, follow, tally
from aiida_mofmace.report.tree import ProcessTree


@pytest.fixture
def world(aiida_profile):
    aiida_profile.reset_storage()


def stored(kind: type[orm.ProcessNode], label: str, state: str, parent=None, call_label: str = "CALL", **links):
    node = kind()
    node.set_process_label(label)
    node.set_process_state(state)
    if parent is not None:
        is_job = kind is orm.CalcJobNode
        node.base.links.add_incoming(parent, LinkType.CALL_CALC if is_job else LinkType.CALL_WORK, call_label)
    for name, data in links.items():
        node.base.links.add_incoming(data, LinkType.INPUT_WORK, name)
    return node.store()


def finish(node: orm.ProcessNode, exit_status: int = 0) -> None:
    node.set_process_state("finished")
    node.set_exit_status(exit_status)


def say(node: orm.ProcessNode, text: str, level: str = "REPORT") -> None:
    orm.Log(datetime.now(timezone.utc), "aiida.orm", level, node.pk, f"[{node.pk}|{node.process_label}|step]: {text}")


@pytest.fixture
def run(world):
    """A run that labels five structures: two are done, one failed, one runs."""
    main = stored(orm.WorkChainNode, "MofMaceWorkChain", "waiting")
    structures = {f"structures__frame_{i}": orm.Int(i).store() for i in range(5)}
    chain = stored(orm.WorkChainNode, "LabelWorkChain", "waiting", main, "labels", **structures)
    jobs = [stored(orm.WorkChainNode, "Cp2kLabelBaseWorkChain", "running", chain, f"label_{i:04d}") for i in range(4)]
    for job, status in zip(jobs, (0, 0, 410), strict=False):
        finish(job, status)
    return main, chain, jobs


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (61.4, "1:01"), (3_725, "1:02:05"), (-3, "0:00")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_tally_counts_the_work_that_goes_on(run) -> None:
    main, _, jobs = run
    assert tally(ProcessTree(main.pk)) == "labels 2/5 done, 1 failed, 1 running"
    finish(jobs[3])
    assert tally(ProcessTree(main.pk)) == ""


def test_tree_sees_new_children_and_new_states(run) -> None:
    main, chain, jobs = run
    tree = ProcessTree(main.pk)
    assert len(tree.records) == 6
    assert tree.records[jobs[3].pk].name == "label_0003"
    assert tree.records[jobs[3].pk].depth == 2
    job = stored(orm.CalcJobNode, "Cp2kLabelCalculation", "running", jobs[3], "iteration_01")
    finish(jobs[3], 0)
    tree.refresh()
    assert tree.records[job.pk].parent == jobs[3].pk
    assert tree.records[jobs[3].pk].is_finished_ok
    assert tree.phase_of(tree.records[job.pk]).pk == chain.pk


def test_follow_prints_messages_as_they_come(run, monkeypatch) -> None:
    main, chain, jobs = run
    say(main, "from here")
    say(jobs[0], "launching Cp2kLabelCalculation<77> iteration #1")
    say(jobs[0], "remote folders will not be cleaned")
    say(chain, "two lines\nof which this is one")
    other = stored(orm.WorkChainNode, "MofMaceWorkChain", "running")
    say(other, "another run")
    looks = []

    def pass_time(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 1:
            late = stored(orm.WorkChainNode, "Cp2kLabelBaseWorkChain", "running", chain, "label_0004")
            say(late, "restarting", "WARNING")
            finish(late)
        if len(looks) == 2:
            finish(jobs[3])
            finish(chain)
            say(main, "the end")
            finish(main, 304)

    monkeypatch.setattr(progress.time, "sleep", pass_time)
    stream = io.StringIO()
    assert follow(main, stream, poll_seconds=0.5) == 304
    assert looks == [0.5, 0.5]
    lines = [re.sub(r"^ *\d+:\d\d  ", "", line) for line in stream.getvalue().splitlines()]
    assert lines[0] == f"MofMaceWorkChain <{main.pk}>  from here"
    assert lines[1:3] == [f"  labels <{chain.pk}>  two lines", "              of which this is one"]
    assert lines[3] == "-- labels 2/5 done, 1 failed, 1 running"
    assert re.fullmatch(r"    label_0004 <\d+>  WARNING: restarting", lines[4])
    assert lines[5:] == [
        f"MofMaceWorkChain <{main.pk}>  the end",
        f"MofMaceWorkChain <{main.pk}> finished (exit status 304)",
    ]


def test_follow_of_a_run_that_has_ended_tells_it_all(run) -> None:
    main, *_ = run
    say(main, "only this")
    finish(main)
    stream = io.StringIO()
    assert follow(main, stream) == 0
    assert stream.getvalue().count("only this") == 1


def test_follow_tells_of_a_paused_process_once(run, monkeypatch) -> None:
    main, _, jobs = run
    jobs[3].pause()
    calls = iter([None, None, lambda: finish(main)])

    def pass_time(_: float) -> None:
        step = next(calls)
        if step is not None:
            step()

    monkeypatch.setattr(progress.time, "sleep", pass_time)
    stream = io.StringIO()
    follow(main, stream)
    assert stream.getvalue().count(f"`verdi process play {jobs[3].pk}` lets it go on") == 1


def test_control_c_ends_the_looking_and_says_how_to_look_again(run, monkeypatch) -> None:
    main, *_ = run

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(progress.time, "sleep", interrupt)
    stream = io.StringIO()
    assert follow(main, stream) == INTERRUPTED
    assert f"mofmace status {main.pk} --follow" in stream.getvalue()


@pytest.mark.parametrize("state", ["excepted", "killed"])
def test_follow_of_a_run_without_exit_status(run, state: str) -> None:
    main, *_ = run
    main.set_process_state(state)
    stream = io.StringIO()
    assert follow(main, stream) == 1
    assert f"{state} (no exit status)" in stream.getvalue()
