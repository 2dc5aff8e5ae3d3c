"""From recorded outputs of CP2K to labels and exit codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine import ExitCode
from ase.io import read

from aiida_mofmace.data.level import LevelOfTheory

from ..finished import finished_job, parse
from .test_cp2k_output import newer

RECORDED = Path(__file__).parents[1] / "fixtures" / "cp2k"
CELL = [[8.0, 0, 0], [0, 9.0, 0], [0, 0.5, 8.5]]


def label(
    computer: orm.Computer,
    retrieved: str | Mapping[str, bytes | str],
    atoms_of: str = "water_converged",
    level_name: str = "gfn1-xtb",
    *,
    options: Mapping[str, Any] | None = None,
    change: Callable[[dict[str, Any]], None] = lambda parameters: None,
    more: Mapping[str, orm.Data] | None = None,
) -> tuple[dict[str, Any], ExitCode]:
    """Parse a recorded output as the label of the recorded structure."""
    atoms = read(RECORDED / atoms_of / "aiida.coords.xyz")
    atoms.set_cell(CELL)
    atoms.pbc = True
    structure = orm.StructureData(ase=atoms)
    level = LevelOfTheory.load(level_name)
    parameters = level.cp2k_parameters(structure)
    change(parameters)
    inputs: dict[str, Any] = {
        "structure": structure,
        "level": orm.Dict(level.to_dict()),
        "parameters": orm.Dict(parameters),
        **(more or {}),
    }
    source = RECORDED / retrieved if isinstance(retrieved, str) else retrieved
    return parse(finished_job(computer, "mofmace.cp2k_label", inputs, source, options))


def test_label_of_water(aiida_localhost: orm.Computer) -> None:
    outputs, code = label(aiida_localhost, "water_converged")
    assert code.status == 0
    node = outputs["label"]
    assert node.energy == pytest.approx(-156.94442627629158)
    assert node.symbols == ["O", "H", "H"]
    assert node.forces.shape == (3, 3)
    assert node.stress is not None
    assert node.stress[0, 0] == pytest.approx(-0.0009256328019687952)
    assert node.level_of_theory == LevelOfTheory.load("gfn1-xtb").summary
    assert node.base.attributes.get("program_version") == "CP2K 2023.1"
    assert set(outputs) == {"label"}, "it holds all figures"
    convergence = node.base.attributes.get("scf_convergence")
    assert len(convergence) == 13
    assert convergence[-1] < 1e-7 < convergence[-2]
    assert node.base.attributes.get("scf_steps") == 13
    assert node.minimum_distance == pytest.approx(0.951315, abs=1e-6)
    assert node.wall_seconds == 0.322
    assert node.band_gap is None


def test_label_by_a_newer_cp2k(aiida_localhost: orm.Computer) -> None:
    outputs, code = label(aiida_localhost, {"aiida.out": newer(recorded_text())})
    assert code.status == 0
    expected = label(aiida_localhost, "water_converged")[0]["label"]
    assert outputs["label"].energy == expected.energy
    np.testing.assert_allclose(outputs["label"].forces, expected.forces, atol=1e-12)


def test_label_of_a_density_functional(aiida_localhost: orm.Computer) -> None:
    outputs, code = label(aiida_localhost, "hydrogen_pbe", "hydrogen_pbe", "pbe-d3")
    assert code.status == 0
    np.testing.assert_allclose(outputs["label"].forces[0], [0, 0, 0.39041330263], atol=1e-9)


def test_the_band_gap_is_in_the_label_where_it_is_printed(aiida_localhost: orm.Computer) -> None:
    outputs, code = label(aiida_localhost, "hydrogen_gap", "hydrogen_gap", "pbe-d3")
    assert code.status == 0
    # Eigenvalues of -9.830714 and 5.163947 eV.
    assert outputs["label"].band_gap == pytest.approx(14.994661)


def test_settings_that_change_the_energy_make_no_label(aiida_localhost: orm.Computer) -> None:
    def smear(parameters: dict[str, Any]) -> None:
        parameters["FORCE_EVAL"]["DFT"]["SCF"]["SMEAR"] = {"METHOD": "FERMI_DIRAC", "ELECTRONIC_TEMPERATURE": 1000.0}

    outputs, code = label(aiida_localhost, "hydrogen_pbe", "hydrogen_pbe", "pbe-d3", change=smear)
    assert code.status == 402
    assert "label" not in outputs


def test_flags_name_what_was_tried(aiida_localhost: orm.Computer) -> None:
    rescue = {"rescue": orm.List(["first", "second"])}
    outputs, _ = label(aiida_localhost, "hydrogen_pbe", "hydrogen_pbe", "pbe-d3", more=rescue)
    assert outputs["label"].flags == ["scf_remedy: first", "scf_remedy: second"]


@pytest.mark.parametrize(
    ("recorded", "atoms_of", "status", "message"),
    [
        ("water_unconverged", "water_converged", 450, "did not converge in 3 steps"),
        ("out_of_walltime", "out_of_walltime", 400, "ran out of wall time"),
        ("forces_overflow", "forces_overflow", 307, "The forces of CP2K's output hold a value that is not a number"),
        ("wrong_keyword", "water_converged", 304, "NO_SUCH_KEYWORD"),
        ("atoms_on_top", "atoms_on_top", 304, "GEOMETRY wrong"),
        ("killed", "water_converged", 303, "stops before its end"),
        ("water_converged", "forces_overflow", 306, "3 rows for 4 atoms"),
        ("wrong_order", "water_converged", 306, "the elements stand in another order"),
        ("no_stress", "water_converged", 305, "has no stress"),
        ("out_of_memory", "out_of_walltime", 401, "out of memory"),
    ],
)
def test_what_is_no_label_has_an_exit_code(
    aiida_localhost: orm.Computer, recorded: str, atoms_of: str, status: int, message: str
) -> None:
    outputs, code = label(aiida_localhost, recorded, atoms_of)
    assert code.status == status
    assert message in code.message
    assert "label" not in outputs
    assert "scf_convergence" in outputs["output_parameters"].get_dict()


def recorded_text() -> str:
    return (RECORDED / "water_converged" / "aiida.out").read_text(encoding="utf-8")


def test_not_a_number_as_energy(aiida_localhost: orm.Computer) -> None:
    text = recorded_text().replace("-5.767601331874497", "               NaN")
    _, code = label(aiida_localhost, {"aiida.out": text})
    assert (code.status, "energy" in code.message) == (307, True)


def test_a_field_that_diverges_has_not_converged(aiida_localhost: orm.Computer) -> None:
    """Fortran prints stars for what has too many digits; the remedies must have their chance."""
    text = (RECORDED / "water_unconverged" / "aiida.out").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if " P_Mix/Diag." in line)
    stars = row.replace(row.split()[4], "*" * len(row.split()[4]))
    outputs, code = label(aiida_localhost, {"aiida.out": text.replace(row, stars)})
    assert code.status == 450
    found = outputs["output_parameters"].store().get_dict()["scf_convergence"]
    assert found[0] is None and found[1] > 0.0


@pytest.mark.parametrize("files", [{}, {"aiida.out": ""}, {"aiida.out": "  \n"}])
def test_no_output(aiida_localhost: orm.Computer, files: dict[str, str]) -> None:
    outputs, code = label(aiida_localhost, files)
    assert code.status == 210
    assert not outputs


def test_binary_rubbish_does_not_raise(aiida_localhost: orm.Computer) -> None:
    _, code = label(aiida_localhost, {"aiida.out": bytes(range(256)) * 9})
    assert code.status == 303


def test_a_broken_input_node_ends_in_an_exit_code_not_in_an_exception(aiida_localhost: orm.Computer) -> None:
    atoms = read(RECORDED / "water_converged" / "aiida.coords.xyz")
    atoms.set_cell(CELL)
    inputs = {
        "structure": orm.StructureData(ase=atoms),
        "level": orm.Dict({"name": "nonsense"}),
        "parameters": orm.Dict({"FORCE_EVAL": {}}),
    }
    node = finished_job(aiida_localhost, "mofmace.cp2k_label", inputs, RECORDED / "water_converged")
    _, code = parse(node)
    assert code.status == 350
