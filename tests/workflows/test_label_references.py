"""References at the level of the labels: lone molecules and binding energies."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from aiida import orm

from aiida_mofmace.data.label import DftLabelData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.workflows.inputs import gas_node
from aiida_mofmace.workflows.label_references import binding_energy, equilibrated_charges, lone_molecule

CELL = [[7.1, 0.0, 0.0], [-0.8, 7.5, 0.0], [-3.1, -3.4, 10.1]]


def label(symbols: list[str], energy: float, level: str = "gfn1-xtb") -> DftLabelData:
    theory = LevelOfTheory.load(level).summary
    return DftLabelData(
        energy=energy, forces=np.ones((len(symbols), 3)), level_of_theory=theory, symbols=symbols
    ).store()


def test_lone_molecule_is_whole_in_whatever_cell(aiida_profile: Any) -> None:
    for cell in ([12.0], CELL):
        atoms = lone_molecule(gas_node("CO2"), orm.List(cell)).get_ase()
        assert sorted(atoms.get_chemical_symbols()) == ["C", "O", "O"]
        np.testing.assert_allclose(atoms.get_distances(0, [1, 2]), 1.163, atol=0.01)
        np.testing.assert_allclose(atoms.get_scaled_positions().mean(axis=0), 0.5, atol=1e-9)
        assert atoms.pbc.all()


def test_binding_energy_is_that_of_one_molecule(aiida_profile: Any) -> None:
    framework, molecule = ["Al", "O", "H"], ["C", "O", "O"]
    labels = {
        "loaded": label([*framework, *molecule, *molecule], -30.9),
        "framework": label(framework, -10.0),
        "molecule": label(molecule, -10.0),
    }
    result = binding_energy(**labels).get_dict()
    assert result["n_molecules"] == 2
    assert result["energy_eV"] == pytest.approx(-0.45)
    assert result["energy_kJ_per_mol"] == pytest.approx(-43.4184, abs=1e-3)
    with pytest.raises(ValueError, match="is not HAlO with molecules of CO"):
        binding_energy(**(labels | {"molecule": label(["C", "O"], -5.0)}))
    with pytest.raises(ValueError, match="different levels of theory"):
        binding_energy(**(labels | {"molecule": label(molecule, -5.0, "pbe-d3")}))


def test_quick_charges_say_what_they_need(water: orm.StructureData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyeqeq", None)
    with pytest.raises(ImportError, match=r"need the package pyeqeq, which cannot be imported .*pip install"):
        equilibrated_charges(water)
