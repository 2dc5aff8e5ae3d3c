"""Labelled datasets as nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.common.exceptions import ValidationError
from ase import Atoms
from ase.io import write

from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.label import DftLabelData

LEVEL = {"name": "PBE", "hash": "abc", "program": "cp2k"}
Pair = tuple[orm.StructureData, DftLabelData]


def pair(seed: int, symbols: str = "OH2", **changes: Any) -> Pair:
    rng = np.random.default_rng(seed)
    atoms = Atoms(symbols, positions=rng.uniform(0, 5, (len(Atoms(symbols)), 3)), cell=np.eye(3) * 5, pbc=True)
    arguments: dict[str, Any] = {
        "energy": float(rng.normal()) - 1 / 3,
        "forces": rng.normal(size=(len(atoms), 3)),
        "stress": np.diag(rng.normal(size=3)),
        "symbols": atoms.get_chemical_symbols(),
        "level_of_theory": LEVEL,
    }
    return orm.StructureData(ase=atoms).store(), DftLabelData(**(arguments | changes)).store()


def test_frames_name_where_they_come_from(aiida_profile: Any) -> None:
    pairs = [pair(0), pair(1, "CO2")]
    infos = [{"group": "md_300k_0", "loading": 0}, {"group": "md_300k_1", "loading": 1, "framework_atoms": 0}]
    node = orm.load_node(LabelledDatasetData.from_labels(pairs, infos=infos).store().pk)
    frames = node.get_atoms()
    for atoms, (structure, label), info in zip(frames, pairs, infos, strict=True):
        assert atoms.info["structure_uuid"] == structure.uuid
        assert atoms.info["label_uuid"] == label.uuid
        assert atoms.info["REF_energy"] == label.energy
        assert (atoms.info["group"], atoms.info["loading"]) == (info["group"], info["loading"])
        np.testing.assert_allclose(atoms.arrays["REF_forces"], label.forces, atol=1e-8)
        np.testing.assert_allclose(atoms.info["REF_stress"], label.stress, atol=1e-12)
        np.testing.assert_allclose(atoms.positions, structure.get_ase().positions, atol=1e-8)
        assert atoms.calc is None
    assert [atoms.info["framework_atoms"] for atoms in frames] == [3, 0]
    assert (node.n_frames, node.species, node.rounds, node.has_stress) == (2, ["H", "C", "O"], [2], True)
    assert node.level_of_theory == LEVEL


def test_a_dataset_only_grows(aiida_profile: Any) -> None:
    first = LabelledDatasetData.from_labels([pair(0), pair(1)]).store()
    second = LabelledDatasetData.from_labels([pair(2), pair(3, stress=None)], previous=first).store()
    assert second.content.startswith(first.content)
    assert (second.n_frames, second.rounds, second.has_stress) == (4, [2, 2], False)
    assert [atoms.info["round"] for atoms in second.get_atoms()] == [0, 0, 1, 1]
    assert orm.QueryBuilder().append(LabelledDatasetData, filters={"attributes.n_frames": 4}).count() >= 1


def test_equal_labels_with_other_uuids_make_an_equal_training_set(aiida_profile: Any) -> None:
    """A label from the cache is a copy with a UUID of its own; a training on it must be found in the cache as well."""
    first, copied, other = (LabelledDatasetData.from_labels([pair(seed)]).store() for seed in (0, 0, 1))
    assert first.base.attributes.get("label_uuids") != copied.base.attributes.get("label_uuids")
    assert first.content == copied.content
    assert first.base.caching.compute_hash() == copied.base.caching.compute_hash()
    assert first.base.caching.compute_hash() != other.base.caching.compute_hash()
    uuid = copied.get_atoms()[0].info["label_uuid"]
    found = orm.QueryBuilder().append(LabelledDatasetData, filters={"attributes.label_uuids": {"contains": [uuid]}})
    assert found.all(flat=True) == [copied]


def test_two_levels_of_theory_are_refused(aiida_profile: Any) -> None:
    other = pair(1, level_of_theory={**LEVEL, "name": "xTB", "hash": "def"})
    with pytest.raises(ValueError, match=r"several levels of theory in one dataset: PBE \(abc\), xTB \(def\)"):
        LabelledDatasetData.from_labels([pair(0), other])
    first = LabelledDatasetData.from_labels([pair(0)])
    with pytest.raises(ValueError, match="several levels of theory"):
        LabelledDatasetData.from_labels([other], previous=first)


def test_a_label_twice_is_refused(aiida_profile: Any) -> None:
    once = pair(0)
    with pytest.raises(ValueError, match=f"{once[1].uuid} would stand in the dataset twice"):
        LabelledDatasetData.from_labels([once], previous=LabelledDatasetData.from_labels([once]))


def test_a_label_of_other_atoms_is_refused(aiida_profile: Any) -> None:
    with pytest.raises(ValueError, match="does not fit the atoms"):
        LabelledDatasetData.from_labels([(pair(0, "HOH")[0], pair(0)[1])])


def test_an_unconverged_label_is_refused(aiida_profile: Any) -> None:
    with pytest.raises(ValueError, match="is not converged"):
        LabelledDatasetData.from_labels([pair(0, converged=False)])


def test_nothing_makes_no_dataset(aiida_profile: Any) -> None:
    with pytest.raises(ValueError, match="at least one label"):
        LabelledDatasetData.from_labels([])
    with pytest.raises(ValueError, match="1 labels with 2 infos"):
        LabelledDatasetData.from_labels([pair(0)], infos=[{}, {}])
    with pytest.raises(ValueError, match="at least one frame"):
        LabelledDatasetData.from_atoms([], LEVEL)
    with pytest.raises(ValidationError, match="from_labels"):
        LabelledDatasetData.from_string("x").store()


def test_a_file_from_elsewhere(aiida_profile: Any, tmp_path: Path) -> None:
    atoms = pair(0)[0].get_ase()
    write(tmp_path / "bare.extxyz", atoms, format="extxyz")
    with pytest.raises(
        ValueError, match="frame 0 lacks REF_energy or REF_forces; without them MACE would train on zeros"
    ):
        LabelledDatasetData.from_file(tmp_path / "bare.extxyz", LEVEL)
    atoms.info["REF_energy"] = -1.0
    atoms.set_array("REF_forces", np.ones((3, 3)))
    write(tmp_path / "good.extxyz", [atoms, atoms], format="extxyz")
    node = LabelledDatasetData.from_file(tmp_path / "good.extxyz", LEVEL).store()
    assert (node.n_frames, node.rounds, node.has_stress) == (2, [2], False)


def test_mace_reads_the_labels(aiida_profile: Any, tmp_path: Path) -> None:
    from mace.data.utils import KeySpecification, load_from_xyz

    structure, label = pair(5)
    (tmp_path / "set.extxyz").write_bytes(LabelledDatasetData.from_labels([(structure, label)]).content)
    keys = KeySpecification(
        info_keys={"energy": "REF_energy", "stress": "REF_stress", "head": "head"}, arrays_keys={"forces": "REF_forces"}
    )
    _, configurations = load_from_xyz(str(tmp_path / "set.extxyz"), key_specification=keys)
    properties = configurations[0].properties
    assert properties["energy"] == label.energy
    np.testing.assert_allclose(properties["forces"], label.forces, atol=1e-8)
    np.testing.assert_allclose(np.reshape(properties["stress"], (3, 3)), label.stress, atol=1e-12)
