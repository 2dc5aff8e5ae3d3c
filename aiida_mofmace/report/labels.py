"""Every DFT label of a profile: a table, and one extended-XYZ file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, cast

from aiida import orm
from ase import Atoms

from aiida_mofmace.data.label import DftLabelData
from aiida_mofmace.report.tree import ProcessTree

__all__ = ["LabelRecord", "find_labels", "label_atoms", "write_labels"]


_JOB = ["attributes.remote_workdir", "ctime", "uuid"]


@dataclass(frozen=True)
class LabelRecord:
    """One label with the structure it belongs to.

    :param label_uuid: UUID of the label
    :param structure_uuid: UUID of the structure that the job was given; None for a label that no job made
    :param energy: total energy in eV
    :param max_force: greatest force on an atom in eV/Å
    :param level: name, program and hash of the level of theory
    """

    pk: int
    label_uuid: str
    structure_uuid: str | None
    formula: str
    energy: float
    max_force: float
    converged: bool
    level: dict[str, str]


def find_labels(level: str | None = None, process: orm.ProcessNode | None = None) -> list[LabelRecord]:
    """Return the labels of the profile, in order of their UUID.

    Where AiiDA took a job from its cache, the label is a copy. Over a whole profile only the first is given; of one
    process all are, as it used them.

    :param level: name or hash (or its beginning) of the level of theory; None for all
    :param process: only labels made by this process or by what it called; None for all
    """
    keys = ("formula", "energy", "max_force", "converged", "level_of_theory")
    builder = orm.QueryBuilder().append(
        DftLabelData, tag="label", project=["id", "uuid", *(f"attributes.{key}" for key in keys)]
    )
    structures = _structures()
    wanted = None if process is None else _made_by(process)
    copies = _copies() if process is None else set()
    records = [
        LabelRecord(pk, uuid, structures.get(pk), formula, energy, max_force, bool(converged), theory)
        for pk, uuid, formula, energy, max_force, converged, theory in builder.iterall()
        if pk not in copies and (wanted is None or pk in wanted)
    ]
    chosen = [r for r in records if level is None or r.level["name"] == level or r.level["hash"].startswith(level)]
    return sorted(chosen, key=lambda record: record.label_uuid)


def _structures() -> dict[int, str]:
    """Return the UUID of the structure of every label, by the label's PK."""
    builder = orm.QueryBuilder().append(orm.StructureData, tag="structure", project="uuid")
    builder.append(
        orm.CalculationNode, with_incoming="structure", edge_filters={"label": "structure"}, tag="job"
    ).append(DftLabelData, with_incoming="job", project="id")
    return {pk: uuid for uuid, pk in builder.iterall()}


def _copies() -> set[int]:
    """Return the PKs of the labels of jobs that are copies of an earlier one.

    They are told by their folder on the computer, which they share with it: AiiDA's own mark of a cached node does not
    survive an archive.
    """
    builder = orm.QueryBuilder().append(
        orm.CalcJobNode, filters={"attributes": {"has_key": "remote_workdir"}}, tag="job", project=_JOB
    )
    builder.append(DftLabelData, with_incoming="job", project="id").append(
        orm.Computer, with_node="job", project="uuid"
    )
    seen: set[tuple[str, str]] = set()
    copies: set[int] = set()
    for folder, _, _, pk, computer in sorted(builder.all(), key=lambda row: (row[1], row[2])):
        if (computer, folder) in seen:
            copies.add(pk)
        seen.add((computer, folder))
    return copies


def _made_by(process: orm.ProcessNode) -> set[int]:
    """Return the PKs of the labels that a process or one of its descendants made."""
    pks = list(ProcessTree(int(process.pk or 0)).records)
    builder = orm.QueryBuilder().append(orm.CalculationNode, filters={"id": {"in": pks}}, tag="job")
    return set(builder.append(DftLabelData, with_incoming="job", project="id").all(flat=True))


def label_atoms(record: LabelRecord) -> Atoms:
    """Return a labelled structure as ASE atoms, with the keys that MACE trains on.

    :param record: a label with a structure
    :raises ValueError: if the label has no structure
    """
    if record.structure_uuid is None:
        raise ValueError(f"label {record.label_uuid} was not made by a job, so its structure is not known")
    label = cast(DftLabelData, orm.load_node(record.pk))
    atoms = cast(orm.StructureData, orm.load_node(uuid=record.structure_uuid)).get_ase()
    atoms.set_tags(None)
    atoms.info = {
        "REF_energy": label.energy,
        "structure_uuid": record.structure_uuid,
        "label_uuid": record.label_uuid,
        "level_of_theory": record.level["name"],
        "level_of_theory_hash": record.level["hash"],
        "program": record.level["program"],
        "converged": record.converged,
    }
    if label.stress is not None:
        # Nine numbers, which every reader of extended XYZ knows; a matrix would be written as JSON.
        atoms.info["REF_stress"] = label.stress.reshape(9)
    atoms.set_array("REF_forces", label.forces)
    return cast(Atoms, atoms)


def write_labels(records: Iterable[LabelRecord], handle: IO[str]) -> tuple[int, list[LabelRecord]]:
    """Write labels as extended XYZ, one frame each, in the order given.

    The same nodes give the same bytes, in whichever profile they are.

    :param records: what :func:`find_labels` gave
    :param handle: open text file
    :return: number of frames written, and the labels left out because they have no structure
    """
    from ase.io.extxyz import write_xyz

    left_out: list[LabelRecord] = []
    count = 0
    for atoms in _frames(records, left_out):
        write_xyz(handle, [atoms], columns=["symbols", "positions", "REF_forces"], write_results=False)
        count += 1
    return count, left_out


def _frames(records: Iterable[LabelRecord], left_out: list[LabelRecord]) -> Iterator[Any]:
    for record in records:
        if record.structure_uuid is None:
            left_out.append(record)
        else:
            yield label_atoms(record)
