"""What a user is told where a file, a value or a profile does not do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiida import load_profile, orm
from aiida.manage import get_manager
from aiida.storage.sqlite_zip.backend import SqliteZipBackend
from aiida.tools.archive import create_archive
from click.testing import CliRunner

from aiida_mofmace.cli import mofmace

from ..report.fake_run import CIF


def refused(*arguments: object, code: int = 1) -> str:
    result = CliRunner().invoke(mofmace, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.output


@pytest.fixture
def worker(aiida_profile: Any, aiida_computer_local: Any) -> orm.InstalledCode:
    aiida_profile.reset_storage()
    computer = aiida_computer_local(label="localhost")
    return orm.InstalledCode(
        label="worker",
        computer=computer,
        filepath_executable="/usr/bin/python3",
        default_calc_job_plugin="mofmace.mace_md",
    ).store()


def test_a_framework_without_hydrogen_is_remarked_on(aiida_profile: Any, tmp_path: Path) -> None:
    bare = tmp_path / "bare.cif"
    lines = CIF.read_text(encoding="utf-8").splitlines()
    bare.write_text("\n".join(line for line in lines if not line.startswith("  H ")), encoding="utf-8")
    assert "note: bare.cif has carbon but no hydrogen" in refused("run", bare, "--gas", "CO3")
    assert "note:" not in refused("run", CIF, "--gas", "CO3")


def test_a_model_that_cannot_be_downloaded(worker: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    text = refused("run", CIF, "--model", "MACE-MP-0b2-medium")
    assert "Error: MACE-MP-0b2-medium could not be had" in text
    assert "give its path: `--model FILE`" in text


def test_a_seed_below_zero_is_named(worker: Any) -> None:
    assert "Invalid value for '--seed': -1" in refused("run", CIF, "--seed", -1, code=2)


def test_overrides_that_are_no_text_are_named(worker: Any, tmp_path: Path) -> None:
    file = tmp_path / "latin.yaml"
    file.write_bytes("level: gfn1-xtb  # mögen\n".encode("latin-1"))
    assert f"{file} is neither YAML nor JSON" in refused("run", CIF, "--overrides", file)


def test_the_examples_in_the_help_stand_line_by_line() -> None:
    text = refused("--help", code=0)
    assert "\\b" not in text
    assert "  mofmace status PK                 how far a run is\n" in text


def test_an_archive_that_is_opened_as_a_profile_cannot_be_written_to(worker: Any, tmp_path: Path) -> None:
    """What `verdi profile setup core.sqlite_zip` opens; a command that makes nodes says what to do."""
    archive, file = tmp_path / "run.aiida", tmp_path / "cu.extxyz"
    file.write_text(
        '1\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3:REF_forces:R:3 REF_energy=-1.0 pbc="T T T"\n'
        "Cu 0 0 0 0 0 0\n",
        encoding="utf-8",
    )
    create_archive(None, filename=archive)
    here, opened = get_manager().get_profile(), SqliteZipBackend.create_profile(archive)
    opened.default_user_email = here.default_user_email
    load_profile(opened, allow_switch=True)
    try:
        imported = refused("labels", "import", file, "--level", "pbe-d3", "--origin", "x")
        submitted = refused("run", CIF)
    finally:
        load_profile(here, allow_switch=True)
    for text in (imported, submitted):
        assert "is read-only: import its archive into one of your own" in text
