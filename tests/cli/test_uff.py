"""``mofmace uff``: what it refuses, and the isotherm through a real daemon and RASPA, as a user gets it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiida import orm
from aiida.common.links import LinkType
from click.testing import CliRunner

from aiida_mofmace.cli import mofmace
from aiida_mofmace.cli.setup import find_raspa
from aiida_mofmace.cli.submission import charges_of
from aiida_mofmace.data.charged_cif import charged_cif
from aiida_mofmace.workflows.inputs import structure_from_cif

from ..report.fake_run import CIF

pytest.importorskip("aiida_lsmo", reason="THE EXTRA `uff` IS NOT INSTALLED: install it with: make uff")

CHARGES = json.loads((Path(__file__).parents[1] / "fixtures" / "raspa" / "mil_120_charges.json").read_text())
SHORT = {
    "cutoff": 8.5,
    "pressures": [1.0e5],
    "widom_cycles": 200,
    "initialization_cycles": 50,
    "cycles": 50,
    "movie_frames": 2,
    "snapshots": 4,
}


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(mofmace, ["uff", *map(str, arguments)])
    assert result.exit_code == 1, result.output
    return result.output


def charges_made_for(structure: orm.StructureData) -> orm.CalcJobNode:
    """REPEAT charges as a finished calculation leaves them."""
    made = orm.CalcJobNode(computer=None, process_type="aiida.calculations:mofmace.cp2k_charges")
    made.base.links.add_incoming(structure.store(), LinkType.INPUT_CALC, "structure")
    made.store()
    charges = orm.List(CHARGES)
    charges.base.links.add_incoming(made, LinkType.CREATE, "charges")
    charges.store()
    return made


def test_what_is_refused(aiida_profile_clean: object, raspa_code: orm.InstalledCode, water: orm.StructureData) -> None:
    code = ("--raspa-code", raspa_code.full_label)
    assert "no code 'other@localhost'" in refused(CIF, "--raspa-code", "other@localhost")
    assert "give charges, or codes['cp2k'] to make them" in refused(CIF, *code)
    assert "no charges '99999'" in refused(CIF, *code, "--charges", 99999)
    assert "neither a list of charges nor a process" in refused(CIF, *code, "--charges", water.store().pk)
    of_another = charges_made_for(water)
    assert "whose atoms are not those of the CIF" in refused(CIF, *code, "--charges", of_another.pk)
    short = orm.List([0.1, -0.1]).store()
    assert "2 charges do not fit 40 atoms" in refused(CIF, *code, "--charges", short.uuid)
    result = CliRunner().invoke(mofmace, ["run", str(CIF), "--charges", "1"])
    assert result.exit_code == 2
    assert "give --uff, too" in result.output


def test_charges_of_a_calculation(aiida_profile_clean: object) -> None:
    structure = structure_from_cif(CIF)
    made = charges_made_for(structure_from_cif(CIF))
    for node in (made, made.outputs.charges):
        assert charges_of(structure, CIF, str(node.pk)).get_list() == CHARGES


def test_no_page_of_warnings_stands_before_a_message(tmp_path: Path) -> None:
    """aiida-lsmo asks for nodes by the names that they had in AiiDA 1."""
    command = [sys.executable, "-c", "import aiida_mofmace.workflows.uff_isotherm"]
    environment = os.environ | {"AIIDA_PATH": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "Deprecation" not in done.stderr


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A configuration of its own with a running daemon."""
    if find_raspa() is None:
        pytest.skip("RASPA IS NOT INSTALLED: install it with: make uff")
    run(tmp_path, "mofmace", "setup")
    run(tmp_path, "verdi", "daemon", "start", "1")
    yield tmp_path
    run(tmp_path, "verdi", "daemon", "stop")


def run(home: Path, *command: str, limit: float = 300.0) -> str:
    scripts = str(Path(sys.executable).parent)
    environment = os.environ | {"AIIDA_PATH": str(home), "PATH": scripts + os.pathsep + os.environ["PATH"]}
    done = subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, timeout=limit, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_isotherm_from_a_cif(home: Path) -> None:
    """RASPA under a daemon with the charges of the CIF, the summary on the screen and the report beside it."""
    (home / "short.json").write_text(json.dumps({"uff_gcmc": SHORT}))
    (home / "charged.cif").write_text(charged_cif(structure_from_cif(CIF), CHARGES))
    text = run(home, "mofmace", "uff", "charged.cif", "--overrides", "short.json")
    assert "submitted UffIsothermWorkChain" in text
    assert "Isotherm of UFF and a rigid framework at 303 K" in text
    (report,) = home.glob("mofmace-report-*.html")
    assert "UFF, rigid framework, 303 K" in report.read_text(encoding="utf-8")
