"""Structural units: which runs are made, what is handed out, and what is said of runs that are missing or too short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from click.testing import CliRunner

from aiida_mofmace.cli import mofmace
from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.protocols import load_sites
from aiida_mofmace.report.html import write_report
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.kernels.sites import SiteDefinition
from aiida_mofmace.worker.kernels.structural_units import oriented
from aiida_mofmace.workflows.mace_md_base import MaceMdBaseWorkChain
from aiida_mofmace.workflows.structural_units import StructuralUnitsWorkChain

from .steps import finished, loaded, mil_120, process_of

OVERRIDES = {"structural_units": {"temperatures": [300.0], "loadings": [0, 1], "steps": 6, "equilibration_steps": 2}}


@pytest.fixture
def chain(codes: dict[str, Any]) -> Any:
    builder = StructuralUnitsWorkChain.get_builder_from_protocol(codes, mil_120(), "MIL-120", overrides=OVERRIDES)
    process = process_of(builder)
    process.setup()
    return process


def turning(loading: int, sequences: list[str]) -> FramesData:
    """Frames of MIL-120 in these orientations."""
    sites = SiteDefinition.from_dict(load_sites("MIL-120"))
    images = []
    for step, sequence in enumerate(sequences):
        atoms = oriented(mil_120().get_ase(), sites, [sequence])
        atoms.info = {"step": step, "loading": loading, "framework_atoms": 40, "group": f"md_300K_{loading}CO2"}
        images.append(atoms)
    return FramesData.from_frames(Frames.from_atoms(images))


def ended(chain: Any, **trajectories: FramesData | None) -> Any:
    nodes = {
        key: finished(MaceMdBaseWorkChain, {} if found is None else {"trajectory": found}, 0 if found else 401)
        for key, found in trajectories.items()
    }
    finishes = {key: node.pk for key, node in nodes.items()}
    chain.ctx.window = {"queue": [], "running": {}, "finished": finishes, "size": 2}
    return chain.inspect_md()


def sequences_at_random(fraction: float) -> list[str]:
    picks = np.random.default_rng(5).random(200) < fraction
    return ["AAAADDDD" if pick else "ADDAADDA" for pick in picks]


def test_a_run_for_every_temperature_and_loading(chain: Any) -> None:
    chain.run_md()
    assert [inputs["metadata"]["call_link_label"] for _, inputs in chain.submitted] == ["md_300k_0", "md_300k_1"]
    for process_class, inputs in chain.submitted:
        assert process_class is MaceMdBaseWorkChain
        assert MaceMdBaseWorkChain.spec().inputs.validate(inputs) is None


def test_fractions_table_and_report(chain: Any, tmp_path: Path) -> None:
    picks = {"md_300k_0": sequences_at_random(0.3), "md_300k_1": sequences_at_random(0.6)}
    assert ended(chain, **{key: turning(int(key[-1]), value) for key, value in picks.items()}) is None
    rows = chain.outputs["table"]["rows"]
    assert [(row["temperature"], row["loading"]) for row in rows] == [(300.0, 0), (300.0, 1)]
    for row, sequences in zip(rows, picks.values(), strict=True):
        share = sequences.count("AAAADDDD") / 200
        assert row["units"]["str1"]["mean"] == pytest.approx(share)
        assert row["units"]["str2"]["mean"] == pytest.approx(1 - share)
        assert row["orientation"]["donor"]["mean"] == 0.5
    series = chain.outputs["series"]["md_300k_1"]
    assert series.get_array("str1").mean() == pytest.approx(picks["md_300k_1"].count("AAAADDDD") / 200)
    assert series.get_array("alpha_histogram").sum() == pytest.approx(1.0)
    outputs = {"table": chain.outputs["table"], "series": dict(chain.outputs["series"])}
    page = write_report(finished(StructuralUnitsWorkChain, outputs), tmp_path / "report.html").read_text()
    assert "Structural units" in page
    assert page.count("300 K, 1 molecules") == 2
    assert "nan" not in page[page.index('id="units"') : page.index('id="model"')]


def test_what_turned_too_rarely_is_a_warning(chain: Any) -> None:
    code = ended(chain, md_300k_0=turning(0, sequences_at_random(0.5)), md_300k_1=turning(1, ["ADDAADDA"] * 200))
    assert (code.status, "md_300k_1" in code.message, "md_300k_0" in code.message) == (701, True, False)


def test_missing_runs(chain: Any) -> None:
    code = ended(chain, md_300k_0=turning(0, sequences_at_random(0.5)), md_300k_1=None)
    assert code.status == 702
    assert len(chain.outputs["table"]["rows"]) == 1
    assert ended(chain, md_300k_0=None, md_300k_1=None).status == 301


def test_sites_of_another_framework_are_refused(codes: dict[str, Any]) -> None:
    atoms = mil_120().get_ase()
    atoms.set_cell(atoms.cell.array * 1.3, scale_atoms=True)
    with pytest.raises(ValueError, match="do not belong together"):
        StructuralUnitsWorkChain.get_builder_from_protocol(codes, orm.StructureData(ase=atoms), "MIL-120")
    wrong = orm.Dict({**load_sites("MIL-120"), "rod": [0, 0, 1]})
    with pytest.raises(ValueError, match="rod must lie"):
        StructuralUnitsWorkChain.get_builder_from_protocol(codes, mil_120(), wrong)


def test_units_of_a_trajectory_on_the_command_line(aiida_profile: Any) -> None:
    node = turning(0, sequences_at_random(0.5)).store()
    result = CliRunner().invoke(mofmace, ["units", str(node.pk)])
    assert result.exit_code == 0, result.output
    assert "200 frames, 8 hydroxyl groups" in result.output
    assert "str1        0.5" in result.output or "str1        0.4" in result.output
    assert "str3        0.000 *" in result.output
    other = FramesData.from_frames(Frames.from_atoms([loaded(0)])).store()
    for arguments, message in (
        (["units", str(other.pk)], "no supercell"),
        (["units", str(node.pk), "-s", "MIL-53"], "unknown site definition"),
        (["units", str(orm.Int(1).store().pk)], "no trajectories"),
    ):
        refused = CliRunner().invoke(mofmace, arguments)
        assert refused.exit_code == 1
        assert message in refused.output
