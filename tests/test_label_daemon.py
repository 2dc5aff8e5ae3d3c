"""Labels through a daemon whose workers are killed: nothing is lost, and a kill doubles one job at most."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "label_daemon.py"


@pytest.mark.parametrize("count", [14, pytest.param(300, marks=pytest.mark.slow)])
def test_no_label_is_lost_when_workers_are_killed(count: int) -> None:
    """Two workers, both killed with SIGKILL on the way; the broker overlooks it, the guard beside the daemon does not.

    The script compares every label with its structure.
    """
    command = [sys.executable, str(BENCHMARK), "--count", str(count), "--concurrent", "12", "--kill", "2", "--deaf"]
    command += ["--limit", str(300 + 6 * count)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600 + 6 * count)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" killed after ") == 2
    assert f"finished {count}, lost 0, doubled " in done.stdout
    assert "labels in the order of the structures" in done.stdout
