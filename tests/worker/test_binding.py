"""Binding energies at sites: a potential whose answer is known, and the starter model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from aiida_mofmace.protocols import load_gas, load_sites
from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.model import Evaluation
from aiida_mofmace.worker.kernels.sites import SiteDefinition
from aiida_mofmace.worker.programs.binding import BindingSites, run
from aiida_mofmace.worker.stopping import StopRequest

from .gcmc_proofs import STARTER

DEPTH = 0.4
PARAMETERS = {
    "units": ["str1", "str3"],
    "largest_force": 1e-3,
    "max_steps": 500,
    "minimum_distance": 1.5,
    "gas_phase_box": 15.0,
}


class Well:
    """A framework whose energy is that of its aluminium atoms, and one well for the carbon atom of CO2.

    :param centre: of the well in Å
    """

    r_max = 3.0

    def __init__(self, centre: np.ndarray[Any, np.dtype[np.float64]]):
        self.centre = centre

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        return [self._evaluate(np.asarray(c.numbers), np.asarray(c.positions)) for c in configurations]

    def _evaluate(self, numbers: Any, positions: Any) -> Evaluation:
        forces = np.zeros((len(positions), 3))
        energy = -10.0 * np.count_nonzero(numbers == 13)
        if len(numbers) > 40:
            away = positions[40] - self.centre
            energy -= DEPTH * np.exp(-0.5 * away @ away)
            forces[40] = -DEPTH * np.exp(-0.5 * away @ away) * away
        elif len(numbers) == 3:
            energy += 0.07
        return Evaluation(float(energy), forces=forces)


def test_energies_of_a_well(framework: Atoms) -> None:
    """E(both) - E(framework) - E(molecule) = -depth - 0.07 eV, wherever in the well the molecule is put."""
    definition = SiteDefinition.from_dict(load_sites("MIL-120"))
    site = definition.guests["parallel"]
    well = Well(site.centre @ framework.cell.array + 0.5)
    images: list[Atoms] = []
    sites = BindingSites(well, definition, Gas.from_dict(load_gas("CO2")), PARAMETERS)
    rows = list(sites.rows(framework, images))
    assert [(row["unit"], row["guest"]) for row in rows] == [
        (unit, guest) for unit in ("str1", "str3") for guest in ("parallel", "vertical")
    ]
    for row in rows:
        assert row["relaxed"]
        assert row["energy_eV"] == pytest.approx(-DEPTH - 0.07, abs=1e-5)
        assert row["energy_kJ_per_mol"] == pytest.approx(96.485 * row["energy_eV"], rel=1e-4)
        assert row["units_before"] == row["units_after"] == [definition.units[row["unit"]][0]]
    # Only the carbon atom is pulled: the molecule leans towards the well a bit, unless its axis is held.
    assert 0.1 < rows[0]["angle_to_rod"] < 30.0
    placed = sites.placed(images[1], definition.guests["vertical"], "vertical").positions[41:]
    relaxed = images[3].positions[41:]
    assert np.cross(placed[1] - placed[0], relaxed[1] - relaxed[0]) == pytest.approx(np.zeros(3), abs=1e-9)
    assert [row["axis_held"] for row in rows] == [False, True] * 2
    assert [image.info["group"] for image in images[:3]] == ["molecule", "framework_str1", "str1_parallel"]
    assert np.linalg.norm(images[2].positions[40] - well.centre) < 0.01


def test_a_molecule_in_an_atom_does_not_fit(framework: Atoms) -> None:
    content = load_sites("MIL-120")
    content["guests"] = {"inside": {"centre": [0.29, 0.29, 0.58], "axis": [1, -1, 0]}}
    sites = BindingSites(
        Well(np.zeros(3)), SiteDefinition.from_dict(content), Gas.from_dict(load_gas("CO2")), PARAMETERS
    )
    with pytest.raises(WorkerError, match="str1_inside: the molecule is"):
        list(sites.rows(framework, []))


class Loose(Well):
    """An atom of the empty framework is pulled wherever it goes; the molecule holds it."""

    def _evaluate(self, numbers: Any, positions: Any) -> Evaluation:
        answer = super()._evaluate(numbers, positions)
        if len(numbers) == 40 and answer.forces is not None:
            answer.forces[0, 0] = 0.5
            return Evaluation(answer.interaction_energy - 0.5 * float(positions[0, 0]), forces=answer.forces)
        return answer


def test_a_framework_that_is_no_minimum_shows(framework: Atoms) -> None:
    """The binding energy is a difference: the largest force is that of both parts of it."""
    content = load_sites("MIL-120")
    del content["guests"]["vertical"]
    definition = SiteDefinition.from_dict(content)
    well = Loose(definition.guests["parallel"].centre @ framework.cell.array)
    parameters = PARAMETERS | {"units": ["str1"], "max_steps": 1}
    (row,) = BindingSites(well, definition, Gas.from_dict(load_gas("CO2")), parameters).rows(framework, [])
    assert row["largest_force"] == pytest.approx(0.5)
    assert not row["relaxed"]


class Torsion(Well):
    """Beside the well for the carbon atom, a field that turns the molecule to one direction and stretches it."""

    def _evaluate(self, numbers: Any, positions: Any) -> Evaluation:
        answer = super()._evaluate(numbers, positions)
        if len(numbers) > 40 and answer.forces is not None:
            along = positions[42] - positions[41]
            # E = -a (d·x)² + b (|d| - 2.4)², d the vector between the two oxygen atoms
            length, wanted = float(np.linalg.norm(along)), np.array([1.0, 0.0, 0.0])
            pull = 0.2 * (along @ wanted) * wanted - 2.0 * (length - 2.4) * along / length
            answer.forces[42] += pull
            answer.forces[41] -= pull
            energy = -0.1 * (along @ wanted) ** 2 + (length - 2.4) ** 2
            return Evaluation(answer.interaction_energy + energy, forces=answer.forces)
        return answer


def test_a_held_axis_finds_the_lowest_energy_of_its_direction(framework: Atoms) -> None:
    """The length along the axis is free: -a d² c² + b (d - 2.4)² is least at d = 2.4 b / (b - a c²), c the cosine."""
    definition = SiteDefinition.from_dict(load_sites("MIL-120"))
    site = definition.guests["vertical"]
    assert site.hold_axis
    well = Torsion(site.centre @ framework.cell.array)
    parameters = PARAMETERS | {"units": ["str1"]}
    row = list(BindingSites(well, definition, Gas.from_dict(load_gas("CO2")), parameters).rows(framework, []))[1]
    axis = site.axis @ framework.cell.array
    cosine = axis[0] / np.linalg.norm(axis)
    length = 2.4 / (1.0 - 0.1 * cosine**2)
    expected = -0.1 * (length * cosine) ** 2 + (length - 2.4) ** 2
    assert 0.2 < abs(cosine) < 0.98
    assert row["relaxed"]
    assert row["energy_eV"] == pytest.approx(-DEPTH - 0.07 + expected, abs=1e-4)


def test_the_starter_model_binds_str2_more_than_str3(
    framework: Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in table 1 of the paper, though all energies are those of GFN1-xTB, which binds more."""
    monkeypatch.chdir(tmp_path)
    framework.write("structure.extxyz")
    sites = load_sites("MIL-120")
    del sites["guests"]["vertical"]
    parameters = {**PARAMETERS, "units": ["str2", "str3"], "largest_force": 0.1, "sites": sites, "gas": load_gas("CO2")}
    files = {"model": str(STARTER), "structure": "structure.extxyz"}
    results = run({"dtype": "float32", "files": files, "parameters": parameters}, StopRequest())
    low, high = (row["energy_kJ_per_mol"] for row in results["rows"])
    assert low < high - 5.0
    assert -70.0 < low < -40.0
    assert Frames.load("frames.npz").groups[0] == "molecule"
    with pytest.raises(WorkerError, match="str9"):
        run({"files": files, "parameters": {**parameters, "units": ["str9"]}}, StopRequest())
