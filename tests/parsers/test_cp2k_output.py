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


NEWER_FORCES = """ FORCES| Atomic forces [hartree/bohr]
 FORCES|   Atom     x               y               z               |f|
 FORCES|      1 -2.70620000E-03  2.10195200E-02  1.08710000E-03   2.12208728E-02
 FORCES|      2  1.05637300E-02 -9.74898000E-03 -5.61260000E-04   1.43857087E-02
 FORCES|      3 -7.85753000E-03 -1.12705500E-02 -5.25840000E-04   1.37492838E-02
 FORCES| Sum     0.00000000E+00  0.00000000E+00  0.00000000E+00
 FORCES| Total atomic force                                       0.00000000E+00
"""


def newer(text: str) -> str:
    """The output as CP2K 2025.1 and later print it: other units in the headings, another table of forces."""
    start, end = text.index(" ATOMIC FORCES in"), text.index(" STRESS| Analytical")
    text = text[:start] + NEWER_FORCES + "\n" + text[end:]
    return text.replace("energy [a.u.]:  ", "energy [hartree]").replace("tensor [GPa]", "tensor [bar]")


def test_output_of_newer_versions() -> None:
    text = (RECORDED / "water_converged" / "aiida.out").read_text(encoding="utf-8")
    old, new = parse_cp2k_output(text), parse_cp2k_output(newer(text))
    assert new["energy"] == old["energy"]
    np.testing.assert_allclose(new["forces"], old["forces"], atol=1e-12)
    assert new["force_symbols"] is None
    # The same digits, but bar: a pressure of one GPa is 10,000 of them.
    np.testing.assert_allclose(np.array(new["stress"]) * 1e4, old["stress"], rtol=1e-12)
    bar = 1e5 * units.Pascal
    assert new["stress"][0][0] == pytest.approx(-1.48302723476e-01 * bar, rel=1e-9)


def test_the_last_table_of_forces_counts() -> None:
    first = NEWER_FORCES.replace("-2.70620000E-03", "-9.00000000E-03")
    for tables in (first + NEWER_FORCES, NEWER_FORCES):
        assert len(parse_cp2k_output(tables)["forces"]) == 3
        assert parse_cp2k_output(tables)["forces"][0][0] == pytest.approx(-2.7062e-3 * units.Hartree / units.Bohr)


def test_the_smallest_gap_of_all_spins() -> None:
    """Of the alpha and the beta orbitals; where one has no empty orbitals, stars are printed."""
    row = " MO| Band gap:            0.551044 a.u.         {:>9} eV\n"
    gaps = [row.format(gap) for gap in ("14.994661", "2.500000", "*********")]
    assert parse_cp2k_output("".join(gaps))["band_gap"] == pytest.approx(2.5)
    assert parse_cp2k_output(gaps[2])["band_gap"] is None


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
