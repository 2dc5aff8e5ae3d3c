"""Labels for several structures, on the real codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from aiida import engine, orm
from aiida.common.links import LinkType

from aiida_mofmace.data.label import DftLabelData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.workflows.label import LabelWorkChain


def _overlapping(structure: orm.StructureData) -> orm.StructureData:
    atoms = structure.get_ase()
    atoms.positions[1] = atoms.positions[0] + [0.0, 0.0, 1e-4]
    return orm.StructureData(ase=atoms)


def _level(name: str = "gfn1-xtb") -> orm.Dict:
    return orm.Dict(LevelOfTheory.load(name).to_dict())


@pytest.mark.cp2k
def test_one_of_three_fails(
    cp2k_code: orm.InstalledCode,
    water: orm.StructureData,
    carbon_dioxide: orm.StructureData,
    options: dict[str, Any],
) -> None:
    structures = {"water": water, "overlap": _overlapping(water), "carbon_dioxide": carbon_dioxide}
    outputs, node = engine.run_get_node(
        LabelWorkChain,
        structures=structures,
        level=_level(),
        cp2k_code=cp2k_code,
        max_concurrent=orm.Int(2),
        min_success_fraction=orm.Float(0.6),
        options=orm.Dict(options),
    )
    assert node.is_finished_ok, node.exit_message
    assert sorted(outputs["labels"]) == ["carbon_dioxide", "water"]
    assert outputs["labels"]["water"].formula == "H2O"
    assert outputs["labels"]["carbon_dioxide"].symbols == carbon_dioxide.get_ase().get_chemical_symbols()
    failures = outputs["failures"].get_dict()
    assert list(failures) == ["overlap"]
    assert failures["overlap"]["exit_status"] == 310
    assert "GEOMETRY wrong" in failures["overlap"]["reason"]
    called = node.base.links.get_outgoing(link_type=LinkType.CALL_WORK).all_link_labels()
    assert sorted(called) == ["label_0000", "label_0001", "label_0002"]
    print(outputs)
