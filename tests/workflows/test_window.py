"""The rolling window: how many run at once, when a slot is filled, and what a crash leaves behind."""

import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.manage import get_manager
from plumpy.process_states import ProcessState

from .toys import NapsWorkChain


@pytest.fixture
def bash(aiida_profile, aiida_code_installed):
    return aiida_code_installed("core.arithmetic.add", filepath_executable="/bin/bash")


def spans(node):
    """Start and end of every sub-process, by label."""
    links = node.base.links.get_outgoing(node_class=orm.CalcJobNode).all()
    return {link.link_label: (link.node.ctime, link.node.mtime) for link in links}


def busiest(intervals):
    """The largest number of intervals that overlap."""
    return max(sum(begin <= start < end for begin, end in intervals) for start, _ in intervals)


def run_naps(code, scripts, max_concurrent):
    inputs = {"code": code, "scripts": orm.List(scripts), "max_concurrent": orm.Int(max_concurrent)}
    _, node = run_get_node(NapsWorkChain, inputs)
    assert node.is_finished_ok, node.exit_message or node.exception
    return node


@pytest.mark.parametrize("size", [1, 2])
def test_never_more_than_allowed(bash, size):
    node = run_naps(bash, [""] * 4, size)
    assert busiest(list(spans(node).values())) == size
    assert len(spans(node)) == 4


def test_a_free_slot_is_filled_while_a_long_one_runs(bash, tmp_path):
    """The first lasts until the fourth has started; in batches of two the fourth would wait for the first."""
    flag = tmp_path / "fourth_has_started"
    wait = f"for i in $(seq 600); do [ -e {flag} ] && break; sleep 0.1; done; [ -e {flag} ] || exit 1"
    node = run_naps(bash, [wait, "", "", f"touch {flag}"], 2)
    assert node.outputs.order.get_list()[:2] == ["nap_01", "nap_02"]
    assert spans(node)["nap_03"][0] < spans(node)["nap_00"][1]


def test_a_subprocess_submitted_before_a_crash_is_found_again(bash):
    """The step is run again from the checkpoint before it: what it had submitted must not be submitted twice."""
    inputs = {"code": bash, "scripts": orm.List(["", ""]), "max_concurrent": orm.Int(2)}
    process = NapsWorkChain(inputs, runner=get_manager().get_runner())
    with process._process_scope():
        process.setup()
        process.run_naps()
        before = dict(process.ctx.window["running"])
        for pk in before.values():
            orm.load_node(pk).set_process_state("waiting")
        process.setup()
        process.run_naps()
    assert process.ctx.window["running"] == before


@pytest.mark.parametrize("state", [None, "created"])
def test_a_subprocess_without_a_checkpoint_is_submitted_again(bash, state):
    """The daemon worker was killed when the node was there, and nothing that would run it."""
    inputs = {"code": bash, "scripts": orm.List([""]), "max_concurrent": orm.Int(1)}
    process = NapsWorkChain(inputs, runner=get_manager().get_runner())
    with process._process_scope():
        process.setup()
        process.run_naps()
        (before,) = process.ctx.window["running"].values()
        node = orm.load_node(before)
        node.base.attributes.delete("process_state")
        if state is not None:
            node.set_process_state(state)
        assert node.process_state == (state and ProcessState(state))
        process.setup()
        process.run_naps()
    assert list(process.ctx.window["running"].values()) != [before]
