"""Structural units: constructed frameworks of each, real frames, and definitions that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from aiida_mofmace.protocols import load_sites, site_names
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.kernels.sites import SiteDefinition
from aiida_mofmace.worker.kernels.structural_units import classify_trajectory, hydroxyls_of_cells, oriented


@pytest.fixture
def sites() -> SiteDefinition:
    return SiteDefinition.from_dict(load_sites("MIL-120"))


def frames(*images: Atoms) -> Frames:
    return Frames.from_atoms(images)


def test_the_ordered_structure_is_str2(framework: Atoms, sites: SiteDefinition) -> None:
    """And its free groups point along the pore, its donors at a right angle to it."""
    found = classify_trajectory(frames(framework), sites)
    assert found.sequences == [["ADDAADDA"]]
    assert found.units()["str2"] == [1.0]
    angles = found.angles[0, 0]
    assert np.minimum(angles, 180 - angles)[[0, 3, 4, 7]] == pytest.approx(18.0, abs=1.5)
    assert angles[[1, 2, 5, 6]] == pytest.approx(90.0, abs=2.5)


@pytest.mark.parametrize("unit", ["str1", "str2", "str3"])
def test_constructed_units(unit: str, framework: Atoms, sites: SiteDefinition) -> None:
    """Every donor points at an oxygen of the next rod, so what is constructed is a network."""
    for sequence in sites.units[unit]:
        built = oriented(framework, sites, [sequence])
        found = classify_trajectory(frames(built), sites)
        assert found.sequences == [[sequence]]
        assert {name: values[0] for name, values in found.units().items()} == {
            name: float(name == unit) for name in (*sites.units, "other")
        }
        bonds = hydroxyls_of_cells(sites, built.numbers, built.positions, built.cell.array)[0]
        for (oxygen, hydrogen), letter in zip(bonds, sequence, strict=True):
            others = [o for o in bonds[:, 0] if o != oxygen]
            nearest = built.get_distances(hydrogen, others, mic=True).min()
            assert (nearest < 2.15) == (letter == "D"), (sequence, oxygen)


def test_str4_needs_rods_of_donors_beside_it(framework: Atoms, sites: SiteDefinition) -> None:
    """In 2 x 2 x 1 cells neighbouring rods alternate: half the cells are all acceptors, half all donors."""
    supercell = framework.repeat((2, 2, 1))
    cells = ["A" * 8 if (i + j) % 2 == 0 else "D" * 8 for i in range(2) for j in range(2)]
    built = oriented(supercell, sites, cells)
    found = classify_trajectory(frames(built), sites)
    assert found.sequences == [cells]
    assert (found.units()["str4"], found.units()["other"]) == ([0.5], [0.5])
    assert found.fractions()["donor"] == [0.5]
    bonds = hydroxyls_of_cells(sites, built.numbers, built.positions, built.cell.array)
    for oxygen, hydrogen in bonds[[letters[0] == "D" for letters in cells]].reshape(-1, 2):
        others = [o for o in bonds[..., 0].ravel() if o != oxygen]
        assert built.get_distances(hydrogen, others, mic=True).min() < 2.15


def test_images_order_and_orientation_do_not_matter(framework: Atoms, sites: SiteDefinition) -> None:
    """Also not thermal motion, a guest in the pore, strain or a rotation of everything."""
    built = oriented(framework.repeat((1, 2, 1)), sites, ["AAAADDDD", "DAADDAAD"])
    rng = np.random.default_rng(3)
    order = rng.permutation(len(built))
    moved = Atoms(built.numbers[order], built.positions[order], cell=built.cell, pbc=True)
    moved.positions += rng.integers(-1, 2, (len(moved), 3)) @ built.cell.array
    moved.set_cell(moved.cell.array * 1.02, scale_atoms=True)
    moved.rotate(40, "z", rotate_cell=True)
    moved.rotate(70, (1, 2, 0), rotate_cell=True)
    moved.info = {"framework_atoms": len(moved)}
    loaded = moved + Atoms("CO2", rng.random((3, 3)) + moved.cell.array.sum(axis=0) / 2)
    loaded.info = {"framework_atoms": len(moved), "loading": 1}
    found = classify_trajectory(frames(moved, loaded), sites)
    assert found.sequences == [["AAAADDDD", "DAADDAAD"]] * 2


def test_fractions_have_errors_and_what_never_changed_is_flagged(framework: Atoms, sites: SiteDefinition) -> None:
    rng = np.random.default_rng(1)
    kinds = {name: oriented(framework, sites, [sites.units[name][0]]) for name in ("str1", "str2")}
    picks = rng.choice(["str1", "str2"], size=400, p=[0.25, 0.75])
    summary = classify_trajectory(frames(*(kinds[name] for name in picks)), sites).summary()
    expected = float(np.mean(picks == "str1"))
    assert summary["units"]["str1"]["mean"] == pytest.approx(expected)
    assert summary["units"]["str1"]["error"] == pytest.approx(np.sqrt(0.25 * 0.75 / 400), rel=0.35)
    assert not summary["units"]["str1"]["too_short"]
    assert summary["units"]["str3"] == {
        "mean": 0.0,
        "error": None,
        "effective_samples": 1.0,
        "round_trips": 0,
        "too_short": True,
    }
    assert summary["sequences"] == pytest.approx({"ADDAADDA": 1 - expected, "AAAADDDD": expected})
    assert summary["orientation"]["donor"]["mean"] == 0.5
    assert summary["flips"] == 4 * np.count_nonzero(picks[1:] != picks[:-1])


def test_another_framework_is_refused(framework: Atoms, sites: SiteDefinition) -> None:
    other = framework.copy()
    other.set_cell(framework.cell.array * [[1.0], [1.3], [1.0]], scale_atoms=True)
    with pytest.raises(ValueError, match="no supercell"):
        classify_trajectory(frames(other), sites)
    shifted = framework.copy()
    shifted.positions += 0.25 * framework.cell.array[2]
    with pytest.raises(ValueError, match="nearest oxygen"):
        classify_trajectory(frames(shifted), sites)
    bare = framework[framework.numbers != 1]
    with pytest.raises(ValueError, match="no hydroxyl group"):
        classify_trajectory(frames(bare), sites)
    with pytest.raises(ValueError, match="no frame"):
        classify_trajectory(frames(), sites)
    with pytest.raises(ValueError, match="1 sequences of 8 letters"):
        oriented(framework, sites, ["ADDA"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": {"a": ["ADDAADDX"]}}, "a letter a site"),
        ({"units": {"a": ["ADDAADDA"], "b": ["ADDAADDA"]}}, "different sequences"),
        ({"units": {"other": ["ADDAADDA"]}}, "different sequences"),
        ({"donor_range": [135, 45]}, "must rise"),
        ({"tolerance": 0}, "positive"),
        ({"rod": [0, 0, 1]}, "rod must lie"),
        ({"rod": [0, 1]}, "shape"),
        ({"cell": ["a"] * 6}, "must be numbers"),
        ({"hydroxyls": [[0, 0]]}, "shape"),
        ({"hydroxyls": [[0, 0, float("nan")]]}, "shape"),
        ({"colour": "red"}, r"unknown keys \['colour'\]"),
        ({"guests": {"a": {"centre": [0, 0, 0]}}}, "axis must be numbers"),
        ({"guests": {"a": {"centre": [0, 0, 0], "axis": [1, 0, 0], "hold": True}}}, "unknown keys \\['hold'\\]"),
        ({"guests": {"a": {"centre": [0, 0, 0], "axis": [1, 0, 0], "hold_axis": 1}}}, "not true or false"),
    ],
)
def test_impossible_definitions_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SiteDefinition.from_dict({**load_sites("MIL-120"), **change})


def test_definitions_are_read_safely(tmp_path: Path) -> None:
    assert site_names() == ["MIL-120"]
    with pytest.raises(ValueError, match="unknown site definition"):
        load_sites("MIL-53")
    path = tmp_path / "own.yaml"
    path.write_text("!!python/object/apply:os.getcwd []")
    with pytest.raises(ValueError, match="no YAML"):
        load_sites(path)
    path.write_text("- 1")
    with pytest.raises(ValueError, match="no mapping"):
        load_sites(path)
