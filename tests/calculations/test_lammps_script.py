"""Text that LAMMPS reads: structure in its orientation, and the script for each build with MACE."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import read

from aiida_mofmace.calculations.lammps_script import (
    first_script,
    model_name,
    restart_script,
    rotation,
    structure_file,
)
from aiida_mofmace.worker.kernels.dynamics import MdState
from aiida_mofmace.worker.lmp import Script

PARAMETERS: dict[str, Any] = {
    "temperature": 300.0,
    "timestep_fs": 0.5,
    "steps": 1000,
    "stride": 50,
    "thermostat_time_fs": 50.0,
    "barostat_time_fs": 1000.0,
    "pressure": None,
    "max_temperature_factor": 5.0,
    "minimum_distance": 0.6,
    "check_first_frame": True,
    "pair_style": "mliap unified",
    "model": "model.pt",
    "wall_seconds": 3725.4,
}


@pytest.fixture
def state() -> MdState:
    """Water in a cell that is not oriented as LAMMPS wants it, one atom outside."""
    rng = np.random.default_rng(3)
    atoms = Atoms("OH2", rng.uniform(0.0, 4.0, (3, 3)), cell=rng.uniform(-1.0, 1.0, (3, 3)) + 6.0 * np.eye(3), pbc=True)
    atoms.rotate(50.0, (1.0, 2.0, 3.0), rotate_cell=True)
    atoms.positions[0] += 2.0 * atoms.cell[1]
    vectors = rng.normal(size=(2, 3, 3))
    masses, cell = atoms.get_masses(), np.array(atoms.cell.array)
    return MdState(atoms.numbers, masses, atoms.positions, vectors[0], cell, vectors[1], -3.5, -10.0, 3, step=1)


def test_the_structure_is_turned_and_nothing_else(state: MdState) -> None:
    """ASE reads the same distances, speeds and elements, in a cell that is lower triangular."""
    text = structure_file(state)
    atoms = read(io.StringIO(text.partition("Reference")[0]), format="lammps-data", units="metal", sort_by_id=True)
    assert list(atoms.numbers) == [8, 1, 1]
    np.testing.assert_allclose(np.triu(atoms.cell.array, k=1), 0.0, atol=1e-12)
    turn = rotation(state.cell)
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(atoms.cell.array @ turn.T, state.cell, atol=1e-10)
    np.testing.assert_allclose(atoms.positions @ turn.T, state.positions, atol=1e-10)
    np.testing.assert_allclose(atoms.get_momenta() @ turn.T, state.momenta, rtol=1e-6)
    rows = np.array([line.split() for line in text.partition("Reference")[2].split("\n") if line], dtype=float)
    np.testing.assert_allclose(rows[:, 1:] @ turn.T, state.forces, atol=1e-12)


@pytest.mark.parametrize(
    ("pair_style", "lines"),
    [
        ("mace", "pair_style mace no_domain_decomposition\npair_coeff * * model.pt H O\n"),
        ("mliap unified", "pair_style mliap unified model.pt 0\npair_coeff * * H O\n"),
        ("symmetrix/mace", "pair_style symmetrix/mace\npair_coeff * * model.pt H O\n"),
    ],
)
def test_each_build_gets_its_lines(state: MdState, pair_style: str, lines: str) -> None:
    """As the builds' own manuals have them; and the launcher finds model and elements in all of them."""
    text = first_script({**PARAMETERS, "pair_style": pair_style}, state)
    assert lines in text
    script = Script(text)
    assert (script.model, script.elements) == ("model.pt", ["H", "O"])


def test_the_script(state: MdState) -> None:
    first, again = first_script(PARAMETERS, state), restart_script(PARAMETERS, state)
    assert "read_data structure.data fix reference NULL Reference\nreset_timestep 1\n" in first
    assert "(abs(pe-(-13.5))<=0.0003" in first and "(abs(pe-(-3.5))<=0.0003" in first
    assert "read_restart state.restart\n" in again and "reference" not in again and "quit" not in again
    for text in (first, again):
        assert "fix bath all nvt temp 300.0 300.0 0.05 tchain 3\n" in text
        assert "fix distance all halt 5 v_closest < 0.6 error soft message yes\n" in text
        # 5 times 300 K and six standard deviations of six degrees of freedom
        assert f"fix temperature all halt 1 v_temperature > {300.0 * (5.0 + 6.0 * (2.0 / 6.0) ** 0.5)!r} " in text
        assert "timer timeout 1:02:05 every 1\nrun 1000 upto\n" in text
        assert text.endswith("write_restart state.restart\nprint 'last step: $(step)'\n")
    assert "reference" not in first_script({**PARAMETERS, "check_first_frame": False}, state).partition("reset")[2]
    pressed = first_script({**PARAMETERS, "pressure": 1e5}, state)
    assert "fix bath all npt temp 300.0 300.0 0.05 tchain 3 tri 1.0 1.0 1.0 mtk yes\n" in pressed


def test_the_model_keeps_its_ending() -> None:
    """LAMMPS takes a file for pickled or for PyTorch's by it."""
    assert [model_name(name) for name in ("a b.model-mliap_lammps.pt", "x-1-8.json", "mace")] == [
        "model.pt",
        "model.json",
        "model",
    ]
