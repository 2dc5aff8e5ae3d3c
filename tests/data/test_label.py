"""Labels as nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.common.exceptions import ValidationError
from aiida.common.links import LinkType

from aiida_mofmace.data.label import DftLabelData

LEVEL = {"name": "PBE", "hash": "abc", "program": "cp2k"}
FORCES = [[0.0, 0.0, 0.5], [0.3, 0.0, -0.4], [-0.3, 0.0, -0.1]]


def label(**changes: Any) -> DftLabelData:
    stress = np.diag([0.01, 0.02, 0.03])
    arguments = {"energy": -5.5, "forces": FORCES, "symbols": ["O", "H", "H"], "level_of_theory": LEVEL}
    return DftLabelData(**({**arguments, "stress": stress} | changes))


def test_values_survive_the_database(aiida_profile: Any) -> None:
    node = orm.load_node(label(warnings=["careful"], flags=["rescued"]).store().pk)
    assert node.energy == -5.5
    np.testing.assert_array_equal(node.forces, FORCES)
    np.testing.assert_array_equal(node.stress, np.diag([0.01, 0.02, 0.03]))
    assert (node.formula, node.n_atoms, node.symbols) == ("H2O", 3, ["O", "H", "H"])
    assert node.max_force == pytest.approx(0.5)
    aslant = label(forces=[[0.3, 0.4, 0.0], [-0.3, 0.0, 0.0], [0.0, -0.4, 0.0]])
    assert aslant.max_force == pytest.approx(0.5), "the length of a force, not a component"
    assert (node.converged, node.warnings, node.flags) == (True, ["careful"], ["rescued"])
    assert node.level_of_theory == LEVEL
    assert node.structure is None


def test_a_label_may_have_no_stress(aiida_profile: Any) -> None:
    assert label(stress=None).store().stress is None


def test_labels_can_be_queried(aiida_profile_clean: Any) -> None:
    nodes = [label(energy=energy).store() for energy in (-3.0, -2.0, -1.0)]
    label(level_of_theory={**LEVEL, "hash": "other"}).store()
    filters = {"attributes.energy": {"<": -1.5}, "attributes.level_of_theory.hash": "abc"}
    found = orm.QueryBuilder().append(DftLabelData, filters=filters, project="attributes.energy").all(flat=True)
    assert sorted(found) == [nodes[0].energy, nodes[1].energy]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"energy": float("nan")}, "energy hold a value that is not a number"),
        ({"forces": FORCES[:2]}, r"forces must have the shape \(3, 3\), not \(2, 3\)"),
        ({"forces": [[np.inf, 0, 0]] * 3}, "forces hold a value that is not a number"),
        ({"stress": [1, 2, 3, 4, 5, 6]}, r"stress must have the shape \(3, 3\), not \(6,\)"),
        ({"level_of_theory": {"name": "PBE"}}, "lacks hash, program"),
        ({"symbols": [], "forces": np.zeros((0, 3))}, "forces must have the shape"),
    ],
)
def test_refused_labels(aiida_profile: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        label(**changes)


def test_a_label_without_energy_cannot_be_stored(aiida_profile: Any) -> None:
    node = label()
    node.base.attributes.delete("energy")
    with pytest.raises(ValidationError, match="needs an energy and forces"):
        node.store()


def test_structure_is_the_input_of_the_job(aiida_localhost: orm.Computer, water: orm.StructureData) -> None:
    job = orm.CalcJobNode(computer=aiida_localhost, process_type="aiida.calculations:mofmace.cp2k_label")
    job.base.links.add_incoming(water.store(), link_type=LinkType.INPUT_CALC, link_label="structure")
    job.store()
    node = label()
    node.base.links.add_incoming(job, link_type=LinkType.CREATE, link_label="label")
    node.store()
    assert node.structure is not None
    assert node.structure.uuid == water.uuid
