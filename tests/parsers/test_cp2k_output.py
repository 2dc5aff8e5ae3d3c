"""The text parser on recorded outputs of CP2K."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import units

from aiida_mofmace.parsers.cp2k_output import parse_cp2k_output

RECORDED = Path(__file__).parents[1] / "fixtures" / "cp2k"


def parse(name: str) -> dict[str, Any]:
    return parse_cp2k_output((RECORDED / name / "aiida.out").read_text(encoding="utf-8"))


def test_converged_label_has_every_figure() -> None:
    parsed = parse("water_converged")
    assert parsed["energy"] == pytest.approx(-5.767601331874497 * units.Hartree, abs=1e-9)
    unit = units.Hartree / units.Bohr
    np.testing.assert_allclose(parsed["forces"][0], np.array([-0.00270620, 0.02101952, 0.00108710]) * unit, atol=1e-9)
    assert parsed["force_symbols"] == ["O", "H", "H"]
    assert parsed["stress"][0][0] == pytest.approx(-1.48302723476e-01 * units.GPa, rel=1e-9)
    assert parsed["stress"][0][1] == pytest.approx(9.23597540721e-02 * units.GPa, rel=1e-9)
    assert parsed["scf_converged"] is True
    assert parsed["scf_steps"] == 13
    assert parsed["version"] == "2023.1"
    assert parsed["finished"]
    assert parsed["wall_seconds"] > 0
    assert parsed["warnings"] == []


def test_density_functional_label() -> None:
    parsed = parse("hydrogen_pbe")
    assert parsed["energy"] == pytest.approx(-1.179193001642561 * units.Hartree, abs=1e-9)
    assert np.trace(parsed["stress"]) / 3 == pytest.approx(3.14028958329 * units.GPa, rel=1e-9)
    assert parsed["scf_steps"] == 8
    assert np.sum(parsed["forces"], axis=0) == pytest.approx([0, 0, 0], abs=1e-4)


def test_unconverged_run_says_so_though_it_reaches_its_end() -> None:
    parsed = parse("water_unconverged")
    assert parsed["finished"]
    assert parsed["energy"] is not None
    assert parsed["scf_converged"] is False
    assert parsed["scf_steps"] == 3
    assert parsed["warnings"] == ["SCF run NOT converged"]


def test_walltime_is_told_from_an_unconverged_field() -> None:
    parsed = parse("out_of_walltime")
    assert parsed["walltime_exceeded"]
    assert parsed["finished"]
    assert not parse("water_unconverged")["walltime_exceeded"]


def test_overflow_of_a_column_is_no_number() -> None:
    parsed = parse("forces_overflow")
    assert parsed["scf_converged"] is True
    assert math.isnan(parsed["forces"][0][2])
    assert math.isfinite(parsed["forces"][0][0])
    assert parsed["energy"] == pytest.approx(1163.676704757231846 * units.Hartree)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wrong_keyword", "found an unknown keyword NO_SUCH_KEYWORD in section SCF"),
        ("atoms_on_top", "GEOMETRY wrong or EMAX_SPLINE too small!"),
    ],
)
def test_abort_gives_its_reason(name: str, reason: str) -> None:
    parsed = parse(name)
    assert parsed["abort"].startswith(reason)
    assert not parsed["finished"]
    assert parsed["energy"] is None


def test_killed_run_is_not_finished() -> None:
    parsed = parse("killed")
    assert not parsed["finished"]
    assert parsed["energy"] is not None
    assert parsed["forces"] is None
    assert parsed["stress"] is None


def test_every_cut_of_an_output_is_taken_without_an_exception() -> None:
    text = (RECORDED / "water_converged" / "aiida.out").read_text(encoding="utf-8")
    keys = set(parse_cp2k_output(""))
    for end in range(0, len(text), 997):
        parsed = parse_cp2k_output(text[:end])
        assert set(parsed) == keys
        assert not parsed["finished"]


def test_lack_of_memory_is_seen() -> None:
    text = (RECORDED / "killed" / "aiida.out").read_text(encoding="utf-8")
    assert not parse_cp2k_output(text)["out_of_memory"]
    assert parse_cp2k_output(text + "\nslurmstepd: error: Detected 1 oom-kill event(s) in StepId=1\n")["out_of_memory"]
    assert parse_cp2k_output(text + "\nOperating system error: Cannot allocate memory\n")["out_of_memory"]
