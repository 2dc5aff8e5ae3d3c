"""The tree of calls, as it is drawn of an imported archive and of a run that broke off."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from aiida import orm
from aiida.common.links import LinkType
from click.testing import CliRunner

from aiida_mofmace.cli import mofmace
from aiida_mofmace.cli.look import tree_lines
from aiida_mofmace.report.summary import summary
from aiida_mofmace.report.tree import ProcessTree

START = datetime(2026, 11, 20, 9, 30, tzinfo=timezone.utc)


def called(parent: orm.WorkChainNode | None, name: str, label: str, minutes: int) -> orm.WorkChainNode:
    node = orm.WorkChainNode()
    node.set_process_label(label)
    node.set_process_state("finished")
    node.set_exit_status(0)
    if parent is not None:
        node.base.links.add_incoming(parent, LinkType.CALL_WORK, name)
    node.store()
    model = node.backend_entity.bare_model
    model.ctime = START + timedelta(minutes=minutes)
    model.mtime = model.ctime + timedelta(minutes=1)
    return node


@pytest.fixture
def imported(aiida_profile: Any) -> orm.WorkChainNode:
    """A run whose children got their PKs in another order than they were called in."""
    aiida_profile.reset_storage()
    main = called(None, "", "MofMaceWorkChain", 0)
    for name, label, minutes in (
        ("validation", "ValidationWorkChain", 3),
        ("round_1", "LabelWorkChain", 2),
        ("round_0", "LabelWorkChain", 1),
    ):
        called(main, name, label, minutes)
    return main


def test_the_tree_is_in_order_of_time(imported: orm.WorkChainNode) -> None:
    tree = ProcessTree(imported.pk)
    drawn = [line.split()[1] for line in tree_lines(tree)][1:]
    assert drawn == ["round_0", "round_1", "validation"]
    assert [record.name for record in tree.records.values()][1:] == drawn
    assert [record.name for record in tree.labelled("LabelWorkChain")] == drawn[:2]


@pytest.fixture
def excepted(imported: orm.WorkChainNode) -> orm.WorkChainNode:
    for node in (imported, *imported.called):
        node.set_process_state("excepted")
        node.base.attributes.delete("exit_status")
        node.set_exception("Traceback\n  in a step\nValueError: no cell")
    return imported


def test_a_run_that_excepted_says_why(excepted: orm.WorkChainNode) -> None:
    text = CliRunner().invoke(mofmace, ["status", str(excepted.pk)]).output
    assert text.endswith("\n\nValueError: no cell\n")
    lines = summary(excepted).splitlines()
    assert lines[1].startswith(f"MofMaceWorkChain <{excepted.pk}> excepted  ")
    assert lines[2] == "  ValueError: no cell"
    assert "None" not in summary(excepted)
    assert any(line.startswith("  validation") and line.endswith("excepted") for line in lines)
