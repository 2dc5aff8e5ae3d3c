"""What work chains say of processes that ended badly: stored, so it must be right in another profile, too."""

from __future__ import annotations

from typing import Any

import pytest
from aiida import orm

from aiida_mofmace.workflows.harvest import cause, reason

TRACEBACK = 'Traceback (most recent call last):\n  File "a.py", line 3, in f\nValueError: no cell\n'


def ended(state: str, message: str | None = None, exception: str | None = None) -> orm.ProcessNode:
    node = orm.WorkChainNode()
    node.set_process_state(state)
    if message:
        node.set_exit_message(message)
    if exception:
        node.set_exception(exception)
    return node.store()


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (("finished", "too hot"), "too hot"),
        (("excepted", None, TRACEBACK), "excepted: ValueError: no cell"),
        (("killed",), "killed"),
    ],
)
def test_a_reason_names_process_and_cause(aiida_profile: Any, node: tuple[str, ...], words: str) -> None:
    """AiiDA's commands load a process by what stands in the brackets, however its PK has changed."""
    process = ended(*node)
    text = reason(process)
    identifier = text[1:].partition(">")[0]
    assert text == f"<{identifier}> {words}"
    assert orm.load_node(identifier).uuid == process.uuid


def test_a_uuid_of_digits_is_no_pk(aiida_profile: Any) -> None:
    process = ended("killed")
    process.backend_entity.bare_model.uuid = "12345678-9012-4345-8678-901234567890"
    assert reason(process) == "<12345678-9012> killed"
    assert orm.load_node("12345678-9012").pk == process.pk


def test_a_process_that_is_well_has_no_cause(aiida_profile: Any) -> None:
    assert cause(ended("finished")) == ""
