"""What a user is told where a file, a value or a profile does not do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from aiida import orm
from click.testing import CliRunner

from aiida_mofmace.cli import mofmace

from ..report.fake_run import CIF


def refused(*arguments: object, code: int = 1) -> str:
    result = CliRunner().invoke(mofmace, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    assert not isinstance(result.exception, (TypeError, AttributeError, RuntimeError)), result.exception
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
