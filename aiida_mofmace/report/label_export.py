"""Labels as one extended-XYZ file: a few queries however many there are, and no node is loaded by itself."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO, Any

import numpy as np
from aiida import orm
from aiida.manage import get_manager
from ase import Atoms
from ase.io.extxyz import key_val_dict_to_str
from numpy.typing import NDArray

from aiida_mofmace.data.label import DftLabelData
from aiida_mofmace.report.labels import LabelRecord

__all__ = ["label_atoms", "write_labels"]

#: Labels read at once: keeps the memory small and the number of queries, too.
_CHUNK = 500
_STRUCTURE = [f"attributes.{key}" for key in ("sites", "kinds", "cell", "pbc1", "pbc2", "pbc3")]
_ROW = "%-2s" + " %16.8f" * 6


def label_atoms(record: LabelRecord) -> Atoms:
    """Return a labelled structure as ASE atoms, with the keys that MACE trains on.

    :param record: a label with a structure
    :raises ValueError: if the label has no structure
    """
    if record.structure_uuid is None:
        raise ValueError(f"label {record.label_uuid} was not made by a process, so its structure is not known")
    return next(_frames([record]))[1]


def write_labels(records: Iterable[LabelRecord], handle: IO[str]) -> tuple[int, list[LabelRecord]]:
    """Write labels as extended XYZ, one frame each, in the order given.

    The same nodes give the same bytes, in whichever profile they are.

    :param records: what :func:`~aiida_mofmace.report.labels.find_labels` gave
    :param handle: open text file
    :return: number of frames written, and the labels left out because they have no structure
    """
    everything = list(records)
    left_out = [record for record in everything if record.structure_uuid is None]
    known = iter([record for record in everything if record.structure_uuid is not None])
    count = 0
    while chunk := list(islice(known, _CHUNK)):
        for _, atoms in _frames(chunk):
            handle.write(_text(atoms))
            count += 1
    return count, left_out


def _frames(records: list[LabelRecord]) -> Iterator[tuple[LabelRecord, Atoms]]:
    """Yield labels as atoms, read with two queries for all of them; no node is built of any."""
    labels = _columns(DftLabelData, [record.label_uuid for record in records], ["repository_metadata"])
    structures = _columns(orm.StructureData, [str(record.structure_uuid) for record in records], _STRUCTURE)
    arrays = _arrays({uuid: metadata for uuid, (metadata,) in labels.items()})
    for record in records:
        yield record, _atoms(record, arrays[record.label_uuid], structures[str(record.structure_uuid)])


def _columns(kind: type[orm.Data], uuids: list[str], columns: list[str]) -> dict[str, list[Any]]:
    """Return columns of nodes by UUID."""
    builder = orm.QueryBuilder().append(kind, filters={"uuid": {"in": uuids}}, project=["uuid", *columns])
    return {uuid: values for uuid, *values in builder.iterall(batch_size=_CHUNK)}


def _arrays(metadata: dict[str, dict[str, Any]]) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Return forces and perhaps stress of labels by UUID, all files read in one go.

    :param metadata: list of the files of each label, as AiiDA's repository keeps it
    """
    keys = {uuid: {name: file["k"] for name, file in files["o"].items()} for uuid, files in metadata.items()}
    wanted = sorted({key for files in keys.values() for key in files.values()})
    repository = get_manager().get_profile_storage().get_repository()
    read = {key: np.load(io.BytesIO(stream.read())) for key, stream in repository.iter_object_streams(wanted)}
    return {uuid: {name.removesuffix(".npy"): read[key] for name, key in files.items()} for uuid, files in keys.items()}


def _atoms(record: LabelRecord, arrays: dict[str, NDArray[np.float64]], structure: list[Any]) -> Atoms:
    """Return a labelled structure.

    :param structure: sites, kinds, cell and the three flags of periodicity
    """
    sites, kinds, cell, *periodic = structure
    positions = np.array([site["position"] for site in sites], dtype=float)
    elements = {kind["name"]: kind["symbols"][0] for kind in kinds}
    atoms = Atoms([elements[site["kind_name"]] for site in sites], positions, cell=cell, pbc=periodic)
    atoms.info = _info(record, arrays.get("stress"))
    atoms.set_array("REF_forces", arrays["forces"])
    return atoms


def _info(record: LabelRecord, stress: NDArray[np.float64] | None) -> dict[str, Any]:
    """Return what stands in the comment line of a frame; what is not known is left out."""
    known: dict[str, Any] = {
        "REF_energy": record.energy,
        "structure_uuid": record.structure_uuid,
        "label_uuid": record.label_uuid,
        "level_of_theory": record.level["name"],
        "level_of_theory_hash": record.level["hash"],
        "program": record.level["program"],
        "converged": record.converged,
        "group": record.origin.group,
        "loading": record.origin.loading,
        "round": record.origin.round,
        "purpose": record.origin.purpose,
        "framework_atoms": record.origin.framework_atoms,
        "flags": "; ".join(record.flags) or None,
        "flagged": "; ".join(record.reasons) or None,
        "origin": record.elsewhere,
    }
    if stress is not None:
        # Nine numbers, which every reader of extended XYZ knows; a matrix would be written as JSON.
        known["REF_stress"] = stress.reshape(9)
    return {key: value for key, value in known.items() if value is not None}


def _text(atoms: Atoms) -> str:
    """Return a frame as ASE writes it, of which the rows of numbers take a tenth of the time."""
    numbers: NDArray[np.float64] = np.hstack([atoms.positions, atoms.arrays["REF_forces"]])
    lattice = " ".join(str(float(value)) for value in np.asarray(atoms.cell).reshape(9))
    periodic = " ".join("T" if flag else "F" for flag in atoms.pbc)
    comment = f'Lattice="{lattice}" Properties=species:S:1:pos:R:3:REF_forces:R:3 {key_val_dict_to_str(atoms.info)}'
    rows = [_ROW % (symbol, *row) for symbol, row in zip(atoms.symbols, numbers.tolist(), strict=True)]
    return "\n".join([str(len(atoms)), f'{comment} pbc="{periodic}"', *rows, ""])
