"""A set of labelled structures as a node: what a MACE model is trained on."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from aiida import orm
from aiida.common.exceptions import ValidationError
from ase import Atoms
from ase.data import atomic_numbers
from ase.io import read, write

from .label import LEVEL_KEYS, DftLabelData

__all__ = ["LabelledDatasetData"]

_FILENAME = "dataset.extxyz"

# Where a frame comes from: key of ASE's info -> attribute of the node. Not in the file, which is what MACE trains on.
_ORIGINS = {"structure_uuid": "structure_uuids", "label_uuid": "label_uuids"}


class LabelledDatasetData(orm.SinglefileData):
    """Labelled structures in one extended-XYZ file with the keys ``REF_energy``, ``REF_forces`` and ``REF_stress``.

    The UUIDs of structure and label of each frame are the attributes ``structure_uuids`` and ``label_uuids`` (None for
    a frame from elsewhere). A dataset only ever grows: the frames of the one before stand first, byte by byte, and the
    labels of one round follow. All frames are of one level of theory.
    """

    # A label that AiiDA took from its cache is a copy with a UUID of its own. The same numbers make the same training
    # set, and a model trained on it is to be found in the cache as well.
    _hash_ignored_attributes = (*orm.SinglefileData._hash_ignored_attributes, *_ORIGINS.values())

    @classmethod
    def from_labels(
        cls,
        pairs: Sequence[tuple[orm.StructureData, DftLabelData]],
        previous: LabelledDatasetData | None = None,
        infos: Sequence[Mapping[str, Any]] | None = None,
    ) -> LabelledDatasetData:
        """Return a dataset of the labels of one round, behind those of an earlier dataset.

        :param pairs: structure and label of each new frame, at least one
        :param previous: dataset to append to; None to begin one
        :param infos: group, loading and framework_atoms of each new frame, as far as known
        :return: unstored node
        :raises ValueError: if there is no pair, a label occurs twice, atoms and label do not fit, a label is not
            converged, or the levels of theory differ
        """
        infos = infos if infos is not None else [{}] * len(pairs)
        if not pairs or len(infos) != len(pairs):
            raise ValueError(
                f"{len(pairs)} labels with {len(infos)} infos: give at least one label and one info for each"
            )
        number = len(previous.rounds) if previous is not None else 0
        images = [_frame(*pair, info, number) for pair, info in zip(pairs, infos, strict=True)]
        levels = [label.level_of_theory for _, label in pairs]
        if previous is None:
            return cls._build(images, levels, b"", [])
        return cls._build(
            images, [previous.level_of_theory, *levels], previous.content, previous.rounds, previous.get_atoms()
        )

    @classmethod
    def from_atoms(cls, images: Sequence[Atoms], level_of_theory: Mapping[str, Any]) -> LabelledDatasetData:
        """Return a dataset of labelled ASE atoms from elsewhere, e.g. replay data.

        :param images: atoms with ``REF_energy`` (eV) and perhaps ``REF_stress`` (eV/Å³, shape (3, 3)) in ``info`` and
            ``REF_forces`` (eV/Å) in ``arrays``
        :param level_of_theory: name, program and hash
        :return: unstored node
        :raises ValueError: if there is no frame or a frame lacks energy or forces
        """
        if not images:
            raise ValueError("a dataset needs at least one frame")
        for index, atoms in enumerate(images):
            if "REF_energy" not in atoms.info or "REF_forces" not in atoms.arrays:
                raise ValueError(
                    f"frame {index} lacks REF_energy or REF_forces; without them MACE would train on zeros"
                )
        return cls._build(images, [level_of_theory], b"", [])

    @classmethod
    def from_file(cls, path: str | Path, level_of_theory: Mapping[str, Any]) -> LabelledDatasetData:
        """Return a dataset of a labelled extended-XYZ file; see :meth:`from_atoms`."""
        return cls.from_atoms(cast("list[Atoms]", read(path, index=":", format="extxyz")), level_of_theory)

    @classmethod
    def _build(
        cls,
        images: Sequence[Atoms],
        levels: Sequence[Mapping[str, Any]],
        content: bytes,
        rounds: Sequence[int],
        earlier: Sequence[Atoms] = (),
    ) -> LabelledDatasetData:
        """Return the node for earlier content and new frames behind it."""
        level = _one_level(levels)
        everything = [*earlier, *images]
        uuids = [atoms.info["label_uuid"] for atoms in everything if "label_uuid" in atoms.info]
        twice = sorted({uuid for uuid in uuids if uuids.count(uuid) > 1}) if len(set(uuids)) < len(uuids) else []
        if twice:
            raise ValueError(f"labels {', '.join(twice)} would stand in the dataset twice; leave them out")
        origins = {name: [atoms.info.get(key) for atoms in everything] for key, name in _ORIGINS.items()}
        text = io.StringIO()
        write(text, [_without_origin(atoms) for atoms in images], format="extxyz")
        node = cls(file=io.BytesIO(content + text.getvalue().encode()), filename=_FILENAME)
        symbols = {symbol for atoms in everything for symbol in atoms.get_chemical_symbols()}
        node.base.attributes.set_many(
            {
                "n_frames": len(everything),
                "species": sorted(symbols, key=lambda symbol: atomic_numbers[symbol]),
                "level_of_theory": level,
                "rounds": [*rounds, len(images)],
                "has_stress": all("REF_stress" in atoms.info for atoms in everything),
                **origins,
            }
        )
        return node

    def get_atoms(self) -> list[Atoms]:
        """Return the frames in order; energies (eV), UUIDs and round in ``info``, forces (eV/Å) in ``arrays``."""
        with self.open(mode="r") as handle:
            images = cast("list[Atoms]", read(io.StringIO(handle.read()), index=":", format="extxyz"))
        for key, name in _ORIGINS.items():
            for atoms, uuid in zip(images, self.base.attributes.get(name), strict=True):
                if uuid is not None:
                    atoms.info[key] = uuid
        return images

    def _validate(self) -> bool:
        super()._validate()  # type: ignore[no-untyped-call]
        if "n_frames" not in self.base.attributes:
            raise ValidationError("n_frames not set: make the node with LabelledDatasetData.from_labels or .from_atoms")
        return True

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return int(self.base.attributes.get("n_frames"))

    @property
    def species(self) -> list[str]:
        """Symbols of the elements that occur, in order of atomic number."""
        return list(self.base.attributes.get("species"))

    @property
    def level_of_theory(self) -> dict[str, str]:
        """Name, program and hash of the one level of theory."""
        return dict(self.base.attributes.get("level_of_theory"))

    @property
    def rounds(self) -> list[int]:
        """Number of frames that each round brought."""
        return list(self.base.attributes.get("rounds"))

    @property
    def has_stress(self) -> bool:
        """Whether every frame has a stress."""
        return bool(self.base.attributes.get("has_stress"))


def _one_level(levels: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the one level of theory, or refuse."""
    names = {str(level["hash"]): str(level["name"]) for level in levels}
    if len(names) > 1:
        listed = ", ".join(f"{name} ({digest})" for digest, name in names.items())
        raise ValueError(f"labels of several levels of theory in one dataset: {listed}; make one dataset for each")
    return {key: str(levels[0][key]) for key in LEVEL_KEYS}


def _without_origin(atoms: Atoms) -> Atoms:
    """Return a copy that does not name its structure and label."""
    bare = cast(Atoms, atoms.copy())
    for key in _ORIGINS:
        bare.info.pop(key, None)
    return bare


def _frame(structure: orm.StructureData, label: DftLabelData, info: Mapping[str, Any], number: int) -> Atoms:
    """Return one labelled structure as ASE atoms."""
    atoms = structure.get_ase()
    if atoms.get_chemical_symbols() != label.symbols:
        raise ValueError(f"label {label.uuid} of {label.formula} does not fit the atoms of structure {structure.uuid}")
    if not label.converged:
        raise ValueError(f"label {label.uuid} is not converged; leave it out")
    atoms.set_tags(None)
    atoms.info = {
        "REF_energy": label.energy,
        "structure_uuid": structure.uuid,
        "label_uuid": label.uuid,
        "group": str(info.get("group", "")),
        "loading": int(info.get("loading", 0)),
        "framework_atoms": int(info.get("framework_atoms", len(atoms))),
        "round": number,
    }
    if label.stress is not None:
        atoms.info["REF_stress"] = np.asarray(label.stress)
    atoms.set_array("REF_forces", label.forces)
    return atoms
