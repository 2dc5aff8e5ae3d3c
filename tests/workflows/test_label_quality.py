"""The sanity filter of labels, and equal structures among those to be labelled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from aiida import engine, orm

from aiida_mofmace.data.label import DftLabelData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.protocols import load_protocol, protocol_names
from aiida_mofmace.workflows.functions import append_labels
from aiida_mofmace.workflows.label import LabelWorkChain
from aiida_mofmace.workflows.label_quality import judge_labels, quality_bounds
from aiida_mofmace.workflows.label_twins import twins

LEVEL = LevelOfTheory.load("gfn1-xtb").summary
BOUNDS = {"max_force": 50.0, "max_energy_deviation": 0.5, "minimum_distance": 0.6, "include_flagged": False}


def label(energy: float, force: float = 1.0, symbols: str = "OHH", distance: float | None = 0.97) -> DftLabelData:
    forces = np.zeros((len(symbols), 3))
    forces[0, 1] = force
    return DftLabelData(
        energy=energy, forces=forces, level_of_theory=LEVEL, symbols=list(symbols), minimum_distance=distance
    )


def test_each_bound_has_its_reason(aiida_profile: Any) -> None:
    labels = {
        "a": label(-30.0),
        "b": label(-30.3),
        "c": label(-29.9, force=-50.1),
        "d": label(-28.4),
        "e": label(-31.4, distance=0.59),
        "f": label(-30.1, force=50.0),
    }
    reasons = judge_labels(labels, BOUNDS)
    # The median of the six energies is -30.05 eV, that is -10.0167 eV/atom; the bound is 1.5 eV for three atoms.
    assert reasons == {
        "c": ["a force of 50.10 eV/Å is above 50 eV/Å"],
        "d": ["the energy is +0.550 eV/atom from the median of H2O, bound 0.5"],
        "e": ["two atoms are 0.590 Å apart, nearer than 0.6 Å"],
    }


def test_energies_are_compared_within_a_composition_only(aiida_profile: Any) -> None:
    water = {f"water_{i}": label(-30.0 - 0.1 * i) for i in range(3)}
    others = {"hydroxide": label(-500.0, symbols="OH"), "far": label(-100.0, symbols="OH")}
    assert judge_labels(water | others, BOUNDS) == {}
    reasons = judge_labels(water | others | {"third": label(-500.5, symbols="OH")}, BOUNDS)
    assert list(reasons) == ["far"]


def test_a_missing_bound_is_none(aiida_profile: Any) -> None:
    assert judge_labels({"a": label(-1.0, force=1e6, distance=0.1)}, {}) == {}


@pytest.mark.parametrize("name", protocol_names())
def test_every_protocol_has_the_bounds(name: str) -> None:
    bounds = quality_bounds(load_protocol(name)["labels"])
    assert bounds["max_force"] > 10
    assert bounds["include_flagged"] is False


def test_equal_structures_are_found(water: orm.StructureData, carbon_dioxide: orm.StructureData) -> None:
    moved = water.get_ase()
    moved.positions[2, 0] += 1e-6
    structures = {
        "d": water.clone().store(),
        "a": carbon_dioxide.store(),
        "b": water.store(),
        "c": orm.StructureData(ase=moved).store(),
        "e": water.clone().store(),
    }
    assert twins(structures) == {"d": "b", "e": "b"}


@pytest.mark.cp2k
def test_equal_structures_are_computed_once_and_flagged_labels_stay_out(
    cp2k_code: orm.InstalledCode, water: orm.StructureData, options: dict[str, Any]
) -> None:
    stretched = water.get_ase()
    stretched.positions[1] = stretched.positions[0] + 0.55 * (stretched.positions[1] - stretched.positions[0])
    structures = {
        "frame_0000": water,
        "frame_0001": orm.StructureData(ase=stretched),
        "frame_0002": water.clone(),
    }
    outputs, node = engine.run_get_node(
        LabelWorkChain,
        structures=structures,
        level=orm.Dict(LevelOfTheory.load("gfn1-xtb").to_dict()),
        cp2k_code=cp2k_code,
        max_concurrent=orm.Int(2),
        min_success_fraction=orm.Float(1.0),
        bounds=orm.Dict(BOUNDS),
        options=orm.Dict(options),
    )
    assert node.is_finished_ok, node.exit_message
    assert len([called for called in node.called if called.process_label == "Cp2kLabelCalculation"]) == 2
    labels = outputs["labels"]
    assert list(labels) == sorted(structures)
    assert labels["frame_0002"].uuid != labels["frame_0000"].uuid
    assert labels["frame_0002"].energy == labels["frame_0000"].energy
    np.testing.assert_array_equal(labels["frame_0002"].forces, labels["frame_0000"].forces)
    assert labels["frame_0002"].structure.uuid == structures["frame_0002"].uuid
    flagged = outputs["flagged"].get_dict()
    assert list(flagged) == ["frame_0001"]
    assert flagged["frame_0001"]["label"] == labels["frame_0001"].uuid
    assert any("Å apart, nearer than 0.6 Å" in reason for reason in flagged["frame_0001"]["reasons"])
    frames = {"group": "md", "loading": 0, "framework_atoms": 3}
    inputs = {"selection": orm.Dict({"selected": [frames] * 3}), "structures": structures, "labels": labels}
    dataset = append_labels(flagged=outputs["flagged"], **inputs)
    assert dataset.base.attributes.get("label_uuids") == [labels["frame_0000"].uuid, labels["frame_0002"].uuid]
    kept = {key: row | {"left_out": False} for key, row in flagged.items()}
    assert append_labels(flagged=orm.Dict(kept), **inputs).n_frames == 3


@pytest.mark.cp2k
def test_nothing_but_flagged_labels_is_a_failure(
    cp2k_code: orm.InstalledCode, water: orm.StructureData, options: dict[str, Any]
) -> None:
    inputs = {
        "structures": {"frame_0000": water},
        "level": orm.Dict(LevelOfTheory.load("gfn1-xtb").to_dict()),
        "cp2k_code": cp2k_code,
        "max_concurrent": orm.Int(1),
        "min_success_fraction": orm.Float(1.0),
        "options": orm.Dict(options),
    }
    tight = {"max_force": 1e-6, "include_flagged": False}
    outputs, node = engine.run_get_node(LabelWorkChain, bounds=orm.Dict(tight), **inputs)
    assert node.exit_status == 503
    assert "All 1 labels are outside of the bounds" in node.exit_message
    assert list(outputs["labels"]) == ["frame_0000"]
