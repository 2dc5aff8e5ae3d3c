"""The restart layer of a CP2K label, on the real CP2K."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from aiida import engine, orm

from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.workflows.cp2k_label_base import Cp2kLabelBaseWorkChain


@pytest.mark.cp2k
def test_water_is_labelled(cp2k_code: orm.InstalledCode, water: orm.StructureData, options: dict[str, Any]) -> None:
    level = LevelOfTheory.load("gfn1-xtb")
    outputs, node = engine.run_get_node(
        Cp2kLabelBaseWorkChain,
        code=cp2k_code,
        structure=water,
        level=orm.Dict(level.to_dict()),
        options=orm.Dict(options),
    )
    assert node.is_finished_ok, node.exit_message
    label = outputs["label"]
    assert label.energy == pytest.approx(-156.97, abs=0.05)
