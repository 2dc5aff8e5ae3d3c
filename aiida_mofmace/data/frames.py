"""The frames of one run as a node."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from aiida import orm
from aiida.common.exceptions import ValidationError
from aiida.common.links import LinkType
from ase.data import chemical_symbols

from aiida_mofmace.worker.kernels.frames import Frames

__all__ = ["FramesData"]

_FILENAME = "frames.npz"


class FramesData(orm.SinglefileData):
    """A trajectory in one ``npz`` file; frames may differ in composition. Never a node per frame of a simulation."""

    @classmethod
    def from_frames(cls, frames: Frames) -> FramesData:
        """Return a node for frames in memory.

        :param frames: at least one frame
        :return: unstored node
        :raises ValueError: if there is no frame
        """
        buffer = io.BytesIO()
        frames.save(buffer)
        return cls._describe(frames, buffer.getvalue())

    @classmethod
    def from_file(cls, path: str | Path) -> FramesData:
        """Return a node for a file that :meth:`Frames.save` wrote.

        :param path: the ``npz`` file
        :return: unstored node
        :raises ValueError: if the file holds no frames or cannot be read
        """
        return cls.from_bytes_of_file(Path(path).read_bytes())

    @classmethod
    def from_bytes_of_file(cls, content: bytes) -> FramesData:
        """Return a node for the bytes of a file that :meth:`Frames.save` wrote.

        :raises ValueError: if there are no frames or they cannot be read
        """
        try:
            frames = Frames.load(io.BytesIO(content))
        except Exception as error:
            raise ValueError(f"this is no file of frames ({error}); write it with Frames.save") from error
        return cls._describe(frames, content)

    @classmethod
    def _describe(cls, frames: Frames, content: bytes) -> FramesData:
        if len(frames) == 0:
            raise ValueError("a trajectory needs at least one frame")
        node = cls(file=io.BytesIO(content), filename=_FILENAME)
        attributes: dict[str, Any] = {
            "n_frames": len(frames),
            "groups": sorted(set(frames.groups)),
            "loadings": sorted({int(loading) for loading in frames.loadings}),
            "species": [chemical_symbols[number] for number in frames.species],
        }
        node.base.attributes.set_many(attributes)
        return node

    @staticmethod
    def origin_of(structure: orm.StructureData) -> tuple[FramesData, int]:
        """Return the trajectory that a selected structure was taken from, and its index in it.

        :raises ValueError: if the structure was not selected from a trajectory
        """
        for link in structure.base.links.get_incoming(link_type=LinkType.CREATE).all():
            job: Any = link.node
            results = job.outputs.results.get_dict() if "results" in job.outputs else {}
            for entry in results.get("selected", []):
                if f"structures__{entry.get('structure')}" == link.link_label:
                    return job.inputs.trajectories[entry["trajectory"]], int(entry["index"])
        raise ValueError(f"structure <{structure.pk}> was not selected from a trajectory")

    def get_frames(self) -> Frames:
        """Return the frames."""
        with self.open(mode="rb") as handle:
            return Frames.load(io.BytesIO(handle.read()))

    def _validate(self) -> bool:
        super()._validate()  # type: ignore[no-untyped-call]
        if "n_frames" not in self.base.attributes:
            raise ValidationError("n_frames not set: make the node with FramesData.from_frames or .from_file")
        return True

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return int(self.base.attributes.get("n_frames"))

    @property
    def groups(self) -> list[str]:
        """Names of the runs the frames come from, sorted."""
        return list(self.base.attributes.get("groups"))

    @property
    def loadings(self) -> list[int]:
        """Numbers of gas molecules that occur, ascending."""
        return list(self.base.attributes.get("loadings"))

    @property
    def species(self) -> list[str]:
        """Symbols of the elements that occur, in order of atomic number."""
        return list(self.base.attributes.get("species"))
