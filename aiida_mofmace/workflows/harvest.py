"""What simulations that have ended are good for: frames where there are some, words where there are none."""

from __future__ import annotations

from collections.abc import Mapping

from aiida.engine import WorkChain
from aiida.orm import ProcessNode

__all__ = ["reason", "runs_with_frames"]


def reason(node: ProcessNode) -> str:
    """Say in a few words how a process ended that did not end well."""
    state = node.process_state
    return f"<{node.pk}> {node.exit_message or (state.value if state else 'unknown state')}"


def runs_with_frames(chain: WorkChain, nodes: Mapping[str, ProcessNode]) -> dict[str, ProcessNode]:
    """Return the simulations that gave frames; report those that failed, were stopped or blew up.

    A run that was stopped or blew up later on has frames from before, and they are as good as any.
    """
    for key, node in nodes.items():
        results = node.outputs.results.get_dict() if "results" in node.outputs else {}
        if not node.is_finished_ok:
            chain.report(f"{key} {reason(node)}")
        elif results.get("explosion"):
            chain.report(f"{key} <{node.pk}> blew up: {results['explosion'].get('message', '')}")
    return {key: node for key, node in nodes.items() if "trajectory" in node.outputs}
