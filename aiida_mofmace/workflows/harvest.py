"""What simulations that have ended are good for: frames where there are some, words where there are none."""

from __future__ import annotations

from collections.abc import Mapping

from aiida.engine import WorkChain
from aiida.orm import ProcessNode

__all__ = ["cause", "handle", "reason", "runs_with_frames"]

#: Characters of a UUID that AiiDA takes for the whole; behind the hyphen, so that digits alone are no PK.
_HANDLE = 13


def handle(node: ProcessNode) -> str:
    """Return the beginning of a process's UUID: stored messages are read in other profiles, where its PK is another."""
    return str(node.uuid)[:_HANDLE]


def cause(node: ProcessNode) -> str:
    """Return the exit message of a process, of one that excepted the last line of its exception; empty without any."""
    said = str(node.exit_message or node.exception or "").strip()
    return said if node.exit_message else said.rpartition("\n")[2]


def reason(node: ProcessNode) -> str:
    """Say in a few words how a process ended that did not end well."""
    state = node.process_state.value if node.process_state else "unknown state"
    ended = [] if node.exit_message else [state]
    return f"<{handle(node)}> {': '.join([*ended, *filter(None, [cause(node)])])}"


def runs_with_frames(chain: WorkChain, nodes: Mapping[str, ProcessNode]) -> dict[str, ProcessNode]:
    """Return the simulations that gave frames; report those that failed, were stopped or blew up.

    A run that was stopped or blew up later on has frames from before, and they are as good as any.
    """
    for key, node in nodes.items():
        results = node.outputs.results.get_dict() if "results" in node.outputs else {}
        if not node.is_finished_ok:
            chain.report(f"{key} {reason(node)}")
        elif results.get("explosion"):
            chain.report(f"{key} <{handle(node)}> blew up: {results['explosion'].get('message', '')}")
    return {key: node for key, node in nodes.items() if "trajectory" in node.outputs}
