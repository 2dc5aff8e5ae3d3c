from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.programs import label_tblite
from aiida_mofmace.worker.stopping import StopRequest

from .selection_fixtures import water_box


def label(atoms: Atoms, **parameters: Any) -> dict[str, Any]:
    write("structure.extxyz", atoms, format="extxyz")
    inputs = {"files": {"structure": "structure.extxyz"}, "parameters": {"method": "GFN1-xTB"} | parameters}
    return label_tblite.run(inputs, StopRequest())


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_forces_and_stress_are_derivatives_of_the_energy(here: Path) -> None:
    pytest.importorskip("tblite")
    atoms = water_box(np.random.default_rng(0))
    results = label(atoms, accuracy=0.01)
    assert results["converged"]
    with np.load("label.npz") as archive:
        energy, forces, stress = float(archive["energy"]), archive["forces"], archive["stress"]
    assert results["energy"] == energy
    step = 2e-3
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.positions[4, 1] += sign * step
        energies.append(label(moved, accuracy=0.01)["energy"])
    assert forces[4, 1] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=2e-4)
    energies = []
    for sign in (1, -1):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ np.diag([1 + sign * step, 1, 1]), scale_atoms=True)
        energies.append(label(strained, accuracy=0.01)["energy"])
    numerical = (energies[0] - energies[1]) / (2 * step * atoms.get_volume())
    assert stress[0, 0] == pytest.approx(numerical, rel=1e-2, abs=1e-6)
    assert stress.shape == (3, 3)


def test_an_unconverged_scf_leaves_no_label(here: Path) -> None:
    pytest.importorskip("tblite")
    assert label(water_box(np.random.default_rng(0)), max_iterations=2) == {"energy": None, "converged": False}
    assert not Path("label.npz").exists()


def test_bad_input_is_refused(here: Path) -> None:
    pytest.importorskip("tblite")
    with pytest.raises(WorkerError, match="acuracy"):
        label(water_box(np.random.default_rng(0)), acuracy=1.0)
    with pytest.raises(WorkerError, match="periodic"):
        label(Atoms("O", cell=[9, 9, 9], pbc=False))
    with pytest.raises(WorkerError, match="GFN9") as error:
        label(water_box(np.random.default_rng(0)), method="GFN9-xTB")
    assert error.value.kind == "bad_input"


def test_missing_tblite_tells_how_to_install_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tblite.ase", None)
    with pytest.raises(WorkerError, match="pip install") as error:
        label(water_box(np.random.default_rng(0)))
    assert error.value.kind == "bad_input"
