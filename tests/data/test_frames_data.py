"""Trajectories as nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.common.exceptions import ValidationError
from ase import Atoms

from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.worker.kernels.frames import Frames


def frames() -> Frames:
    images = []
    for loading, symbols in ((0, "Al2O"), (2, "Al2OCO2CO2"), (1, "Al2OCO2")):
        atoms = Atoms(symbols, positions=np.random.default_rng(loading).uniform(0, 4, (len(Atoms(symbols)), 3)))
        atoms.set_cell(np.eye(3) * 6)
        atoms.pbc = True
        atoms.info = {"loading": loading, "group": f"md_300K_{loading}", "framework_atoms": 3, "step": 10}
        images.append(atoms)
    return Frames.from_atoms(images)


def test_frames_come_back(aiida_profile: Any) -> None:
    before = frames()
    node = orm.load_node(FramesData.from_frames(before).store().pk)
    after = node.get_frames()
    np.testing.assert_array_equal(after.positions, before.positions)
    assert after.groups == before.groups
    assert (node.n_frames, node.loadings, node.species) == (3, [0, 1, 2], ["C", "O", "Al"])
    assert node.groups == ["md_300K_0", "md_300K_1", "md_300K_2"]


def test_equal_frames_are_equal_nodes(aiida_profile: Any) -> None:
    hashes = {FramesData.from_frames(frames()).store().base.caching.get_hash() for _ in range(2)}
    assert len(hashes) == 1


def test_trajectories_can_be_queried(aiida_profile_clean: Any) -> None:
    node = FramesData.from_frames(frames()).store()
    filters = {"attributes.loadings": {"contains": [2]}, "attributes.n_frames": {">": 2}}
    assert orm.QueryBuilder().append(FramesData, filters=filters).all(flat=True)[0].uuid == node.uuid


def test_what_is_no_trajectory_is_refused(aiida_profile: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        FramesData.from_frames(frames().select([]))
    (tmp_path / "x.npz").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"write it with Frames\.save"):
        FramesData.from_file(tmp_path / "x.npz")
    np.savez(tmp_path / "pickled.npz", numbers=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="no file of frames"):
        FramesData.from_file(tmp_path / "pickled.npz")
    with pytest.raises(ValidationError, match="from_frames"):
        FramesData.from_bytes(b"x").store()
