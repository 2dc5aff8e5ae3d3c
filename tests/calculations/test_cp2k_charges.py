"""Charges by REPEAT on the real CP2K, and the CIF they are written to."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import engine, orm
from ase.io import read

from aiida_mofmace.calculations.cp2k_charges import Cp2kChargesCalculation, charges_parameters
from aiida_mofmace.cli.setup import find_raspa
from aiida_mofmace.data.charged_cif import charged_cif, charges_of_cif
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.workflows.label_references import equilibrated_charges

_RASPA_SAYS = ("smallest", "largest", "net")


def cheap_functional() -> LevelOfTheory:
    content = LevelOfTheory.load("pbe-d3").to_dict()
    del content["hash"]
    content["cp2k_input"]["FORCE_EVAL"]["DFT"]["MGRID"]["CUTOFF"] = 120
    return LevelOfTheory.from_dict(content)


@pytest.mark.cp2k
def test_charges_of_carbon_dioxide(
    cp2k_code: orm.InstalledCode, carbon_dioxide: orm.StructureData, options: dict[str, Any], tmp_path: Path
) -> None:
    """Point charges of CO2 that give its quadrupole moment (4.3 D Å) have 0.66 e on C; TraPPE takes 0.70 e."""
    level = cheap_functional()
    outputs, node = engine.run_get_node(
        Cp2kChargesCalculation,
        code=cp2k_code,
        structure=carbon_dioxide,
        level=orm.Dict(level.to_dict()),
        parameters=orm.Dict(charges_parameters(level, carbon_dioxide)),
        metadata={"options": options},
    )
    assert node.is_finished_ok, node.exit_message
    by_element = {
        symbol: [q for s, q in zip(carbon_dioxide.get_ase().symbols, outputs["charges"], strict=True) if s == symbol]
        for symbol in "CO"
    }
    assert by_element["C"] == pytest.approx([0.68], abs=0.12)
    assert by_element["O"][0] == pytest.approx(by_element["O"][1], abs=0.01)
    assert sum(outputs["charges"]) == pytest.approx(0.0, abs=1e-3)
    assert outputs["label"].formula == "CO2"
    file = tmp_path / "charged.cif"
    file.write_text(outputs["cif"].get_content())
    assert charges_of_cif(file) == pytest.approx(outputs["charges"].get_list(), abs=1e-3)


def test_raspa_reads_the_charges_of_the_cif(carbon_dioxide: orm.StructureData, tmp_path: Path) -> None:
    """What RASPA says of a framework it has read: number of atoms, smallest, largest and net charge."""
    raspa = find_raspa()
    if raspa is None:
        pytest.skip("RASPA IS NOT INSTALLED: pip install RASPA2")
    charges = [0.68, -0.3401, -0.3399]
    (tmp_path / "framework.cif").write_text(charged_cif(carbon_dioxide, charges))
    lines = ["SimulationType MonteCarlo", "NumberOfCycles 0", "PrintEvery 1", "Forcefield GenericMOFs", "CutOff 3.9"]
    lines += ["Framework 0", "FrameworkName framework", "UseChargesFromCIFFile yes", "UnitCells 1 1 1"]
    (tmp_path / "simulation.input").write_text("\n".join([*lines, ""]))
    subprocess.run([raspa, "simulation.input"], cwd=tmp_path, check=True, capture_output=True, timeout=120)
    (output,) = (tmp_path / "Output" / "System_0").iterdir()
    text = output.read_text()
    assert "Number of framework atoms" in text
    numbers = {name: float(re.search(rf"{name} charge[^\d-]*(-?[\d.]+)", text).group(1)) for name in _RASPA_SAYS}
    assert numbers == pytest.approx({"smallest": -0.3401, "largest": 0.68, "net": 0.0}, abs=1e-5)


def test_quick_charges(carbon_dioxide: orm.StructureData) -> None:
    pytest.importorskip("pyeqeq", reason="PYEQEQ IS NOT INSTALLED: see docs/howto/labels.md")
    carbon, *oxygen = equilibrated_charges(carbon_dioxide).get_list()
    assert 0.3 < carbon < 1.5
    assert oxygen == pytest.approx([-carbon / 2] * 2, abs=2e-3)


def test_cif_keeps_cell_places_and_charges(water: orm.StructureData, tmp_path: Path) -> None:
    atoms = water.get_ase()
    atoms.set_cell([[8.0, 0, 0], [1.0, 9.0, 0], [0.3, 0.5, 8.5]], scale_atoms=True)
    structure = orm.StructureData(ase=atoms)
    file = tmp_path / "water.cif"
    file.write_text(charged_cif(structure, [-0.8000004, 0.4000001, 0.4]))
    again = read(file)
    np.testing.assert_allclose(again.cell.cellpar(), atoms.cell.cellpar(), atol=1e-6)
    np.testing.assert_allclose(again.get_all_distances(mic=True), atoms.get_all_distances(mic=True), atol=1e-6)
    charges = charges_of_cif(file)
    assert charges == pytest.approx([-0.8, 0.4, 0.4], abs=2e-6)
    assert round(sum(charges or []), 6) == 0


def test_charges_in_the_other_column() -> None:
    charges = charges_of_cif(Path(__file__).parents[1] / "fixtures" / "CALF-20_44atoms.cif")
    assert charges is not None
    assert len(charges) == 44
    assert charges[:2] == pytest.approx([0.833504, 0.833395])
    assert sum(charges) == pytest.approx(0.0, abs=1e-4)


def test_charges_that_do_not_fit_are_refused(water: orm.StructureData, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"3 charges that add up to 0\.300 e do not fit"):
        charged_cif(water, [-0.5, 0.4, 0.4])
    with pytest.raises(ValueError, match="2 charges"):
        charged_cif(water, [-0.4, 0.4])
    text = charged_cif(water, [-0.8, 0.4, 0.4])
    file = tmp_path / "a.cif"
    file.write_text(text.replace("_atom_site_charge", "_atom_site_occupancy").replace("-0.800000", "1.0"))
    assert charges_of_cif(file) is None
    file.write_text(text.replace("-0.800000", "?"))
    with pytest.raises(ValueError, match="a charge that is no number"):
        charges_of_cif(file)


def test_inputs_without_a_potential_to_fit_are_refused(water: orm.StructureData) -> None:
    validate = Cp2kChargesCalculation.spec().inputs.validator

    def message(name: str, parameters: dict[str, Any]) -> str | None:
        level = LevelOfTheory.load(name)
        return validate(
            {"structure": water, "level": orm.Dict(level.to_dict()), "parameters": orm.Dict(parameters)}, None
        )

    tight, functional = LevelOfTheory.load("gfn1-xtb"), LevelOfTheory.load("pbe-d3")
    assert "take a level of a density functional" in str(message("gfn1-xtb", charges_parameters(tight, water)))
    assert "ask for no charges" in str(message("pbe-d3", functional.cp2k_parameters(water)))
    assert message("pbe-d3", charges_parameters(functional, water)) is None
