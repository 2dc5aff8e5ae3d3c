"""From the files of a selection to nodes."""

from __future__ import annotations

from typing import Any

from aiida import orm

from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.worker.programs.select import FATES

from .base import WorkerParser

__all__ = ["DiversitySelectParser"]


class DiversitySelectParser(WorkerParser):
    """Attach a structure for every selected frame, the frames in one file, and the map."""

    def emit(self, results: dict[str, Any], finished: bool) -> None:
        """Attach the outputs of the program; each selected entry gets the name of its trajectory and its structure."""
        if not finished:
            return
        names = sorted(self.node.inputs.trajectories)
        node = FramesData.from_bytes_of_file(self.content("selected.npz"))
        frames = node.get_frames()
        if len(frames) != len(results["selected"]):
            raise ValueError(f"selected.npz holds {len(frames)} frames, but {len(results['selected'])} are selected")
        for index, entry in enumerate(results["selected"]):
            key = f"frame_{index:04d}"
            entry.update(trajectory=names[entry["file"]], structure=key)
            atoms = frames.atoms(index)
            structure = orm.StructureData(ase=atoms)
            structure.label = f"{atoms.info['group']} step {atoms.info['step']}"
            self.out(f"structures.{key}", structure)
        results |= {"trajectories": names, "fates": list(FATES)}
        self.out("selected", node)
        self.out_arrays("fates", "fates.npz")
        self.out_arrays("map", "map.npz")
