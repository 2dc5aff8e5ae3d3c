"""Frames: what goes in comes out, whatever the compositions."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.kernels.whole_files import save_arrays


def images(count: int = 5) -> list[Atoms]:
    rng = np.random.default_rng(7)
    result = []
    for index in range(count):
        atoms = molecule("H2O")
        for _ in range(index):
            atoms += molecule("CO2")
        atoms.positions += rng.normal(scale=0.3, size=(len(atoms), 3))
        atoms.set_cell(np.diag([8.0, 9.0, 10.0]) + rng.normal(scale=0.1, size=(3, 3)))
        atoms.pbc = True
        atoms.info = {"step": 10 * index, "loading": index, "framework_atoms": 3, "group": f"md_{index}"}
        if index:
            atoms.info["energy"] = -index / 3
        result.append(atoms)
    return result


def test_round_trip_through_a_file_is_exact(tmp_path: Path) -> None:
    originals = images()
    Frames.from_atoms(originals).save(tmp_path / "frames.npz")
    frames = Frames.load(tmp_path / "frames.npz")
    assert len(frames) == 5
    for index, original in enumerate(originals):
        atoms = frames.atoms(index)
        assert atoms.get_chemical_symbols() == original.get_chemical_symbols()
        assert np.array_equal(atoms.positions, original.positions)
        assert np.array_equal(atoms.cell.array, original.cell.array)
        assert atoms.pbc.all()
        assert atoms.info == original.info


def test_a_full_disk_leaves_the_frames_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of a run are written again and again; the disk that fills up while they are takes none of them along."""
    path = tmp_path / "frames.npz"
    Frames.from_atoms(images(3)).save(path)

    def fill(handle: IO[bytes], **arrays: np.ndarray) -> None:
        handle.write(b"PK half an archive")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(np, "savez_compressed", fill)
        patched.setattr(np, "savez", fill)
        with pytest.raises(OSError, match="No space left"):
            Frames.from_atoms(images(5)).save(path)
        with pytest.raises(OSError, match="No space left"):
            save_arrays(tmp_path / "observables.npz", step=np.arange(3))
    assert len(Frames.load(path)) == 3
    assert [file.name for file in tmp_path.iterdir()] == ["frames.npz"]
    Frames.from_atoms(images(5)).save(path)
    assert len(Frames.load(path)) == 5


def test_arrays_are_stored_as_they_are_and_objects_are_not(tmp_path: Path) -> None:
    """An argument that an older NumPy does not know would be stored as an array of that name."""
    save_arrays(tmp_path / "a.npz", step=np.arange(3), energy=np.zeros(3))
    with np.load(tmp_path / "a.npz") as archive:
        assert sorted(archive.files) == ["energy", "step"]
    with pytest.raises(ValueError, match="energy: objects cannot be stored"):
        save_arrays(tmp_path / "a.npz", step=np.arange(3), energy=np.array([None, 1.0], dtype=object))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert archive["energy"].tolist() == [0.0] * 3


def test_select_keeps_the_order_asked_for() -> None:
    chosen = Frames.from_atoms(images()).select([4, 0, 4])
    assert chosen.loadings.tolist() == [4, 0, 4]
    assert np.diff(chosen.offsets).tolist() == [15, 3, 15]
    assert np.array_equal(chosen.atoms(0).positions, chosen.atoms(2).positions)


def test_concatenate_is_the_inverse_of_select() -> None:
    frames = Frames.from_atoms(images())
    again = Frames.concatenate([frames.select([0, 1]), frames.select([2, 3, 4])])
    assert np.array_equal(again.positions, frames.positions)
    assert np.array_equal(again.offsets, frames.offsets)
    assert again.groups == frames.groups
    assert np.isnan(again.energies[0])
    assert again.energies[3] == -1.0


def test_no_frames_at_all(tmp_path: Path) -> None:
    for empty in (Frames.from_atoms([]), Frames.concatenate([]), Frames.from_atoms(images()).select([])):
        empty.save(tmp_path / "empty.npz")
        assert len(Frames.load(tmp_path / "empty.npz")) == 0


def test_species_ascend() -> None:
    assert Frames.from_atoms(images()).species == [1, 6, 8]


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    frames = Frames.from_atoms(images())
    with pytest.raises(ValueError, match="'groups': 4"):
        Frames(**(vars(frames) | {"groups": frames.groups[:-1]}))
    with pytest.raises(ValueError, match="45 atoms expected"):
        Frames(**(vars(frames) | {"positions": frames.positions[:-1]}))


def test_a_pickled_array_is_not_opened(tmp_path: Path) -> None:
    arrays = vars(Frames.from_atoms(images())) | {"groups": np.array(["a", None], dtype=object)}
    np.savez(tmp_path / "evil.npz", **arrays)
    with pytest.raises(ValueError, match="allow_pickle"):
        Frames.load(tmp_path / "evil.npz")
