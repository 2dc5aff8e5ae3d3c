"""What the provenance graph says of labels beyond the labels themselves, each with one query over the profile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aiida import orm

from aiida_mofmace.data.dataset import LabelledDatasetData
from aiida_mofmace.data.label import DftLabelData

__all__ = [
    "TRAINING",
    "VALIDATION",
    "FrameOrigin",
    "copies_of_labels",
    "datasets_with_label",
    "frame_origins",
    "reasons_of_labels",
    "structures_of_labels",
    "validation_datasets",
]

#: What a label was made for, as far as the datasets that hold it say.
TRAINING, VALIDATION = "training", "validation"

_JOB = ["attributes.remote_workdir", "ctime", "uuid"]
_TWIN, _CHECK, _VALIDATES = "label_twin", "check_labels", "ValidationWorkChain"
_INFO = re.compile(r'(?:^|\s)(group|loading|framework_atoms|round)=(?:"([^"]*)"|(\S+))')


@dataclass(frozen=True)
class FrameOrigin:
    """What a dataset says of the frame that a label belongs to.

    :param loading: gas molecules in it
    :param round: round of training labels that it came with, from 0; None for a label that a model was validated on
    :param group: the simulation it was taken from
    :param framework_atoms: number of its first atoms that are the framework
    :param purpose: "training", or "validation" for a label that only validations hold
    """

    loading: int | None = None
    round: int | None = None
    group: str | None = None
    framework_atoms: int | None = None
    purpose: str | None = None


def structures_of_labels() -> dict[int, str]:
    """Return the UUID of the structure of every label, by the label's PK."""
    builder = orm.QueryBuilder().append(orm.StructureData, tag="structure", project="uuid")
    builder.append(
        orm.CalculationNode, with_incoming="structure", edge_filters={"label": "structure"}, tag="job"
    ).append(DftLabelData, with_incoming="job", project="id")
    return {pk: uuid for uuid, pk in builder.iterall()} | _structures_of_imports()


def _structures_of_imports() -> dict[int, str]:
    """Return the same for labels that came out of a file together with their structures."""
    found: dict[type[orm.Data], dict[tuple[int, str], Any]] = {DftLabelData: {}, orm.StructureData: {}}
    for kind, project in ((DftLabelData, "id"), (orm.StructureData, "uuid")):
        builder = orm.QueryBuilder().append(orm.CalcFunctionNode, tag="import", project="id")
        builder.append(kind, with_incoming="import", project=project, edge_project="label")
        for function, value, link in builder.iterall():
            found[kind][function, link.partition("__")[2]] = value
    structures = found[orm.StructureData]
    return {pk: structures[key] for key, pk in found[DftLabelData].items() if key in structures}


def copies_of_labels() -> dict[int, int]:
    """Return for each label that is a copy of an earlier one the PK of that one.

    Copies by AiiDA's cache are told by the job's folder on the computer, which they share: AiiDA's own mark of a cached
    node does not survive an archive. Copies for equal structures are told by the function that made them.
    """
    builder = orm.QueryBuilder().append(
        orm.CalcJobNode, filters={"attributes": {"has_key": "remote_workdir"}}, tag="job", project=_JOB
    )
    builder.append(DftLabelData, with_incoming="job", project="id").append(
        orm.Computer, with_node="job", project="uuid"
    )
    first: dict[tuple[str, str], int] = {}
    copies: dict[int, int] = {}
    for folder, _, _, pk, computer in sorted(builder.all(), key=lambda row: (row[1], row[2])):
        if first.setdefault((computer, folder), pk) != pk:
            copies[pk] = first[computer, folder]
    twins = orm.QueryBuilder().append(DftLabelData, tag="first", project="id")
    twins.append(
        orm.CalcFunctionNode, filters={"attributes.process_label": _TWIN}, with_incoming="first", tag="function"
    ).append(DftLabelData, with_incoming="function", project="id")
    return copies | {twin: copies.get(original, original) for original, twin in twins.iterall()}


def reasons_of_labels() -> dict[str, tuple[str, ...]]:
    """Return why the sanity filter flagged labels, by the label's UUID; the latest judgement counts."""
    builder = orm.QueryBuilder().append(
        orm.CalcFunctionNode, filters={"attributes.process_label": _CHECK}, tag="check", project="ctime"
    )
    builder.append(orm.Dict, with_incoming="check", project="attributes")
    rows = [row for _, content in sorted(builder.all(), key=lambda row: row[0]) for row in content.values()]
    return {row["label"]: tuple(row["reasons"]) for row in rows}


def frame_origins() -> dict[str, FrameOrigin]:
    """Return what datasets say of labels, by the label's UUID; a dataset that another one begins with is not read.

    Of a label in datasets of both kinds the one for training counts.
    """
    builder = orm.QueryBuilder().append(LabelledDatasetData, project=["uuid", "attributes.label_uuids"])
    validating = validation_datasets()
    rows = sorted(builder.all(), key=lambda row: (row[0] in validating, -len(row[1] or ()), row[0]))
    origins: dict[str, FrameOrigin] = {}
    for uuid, labels in rows:
        if not any(label is not None and label not in origins for label in labels or ()):
            continue
        dataset, purpose = orm.load_node(uuid=uuid), VALIDATION if uuid in validating else TRAINING
        for label, comment in zip(labels, _comments(dataset.get_content()), strict=True):
            if label is not None:
                origins.setdefault(label, _origin(comment, purpose))
    return origins


def validation_datasets() -> set[str]:
    """Return the UUIDs of the datasets that validations gave, which nothing is trained on."""
    builder = orm.QueryBuilder().append(
        orm.WorkChainNode, filters={"attributes.process_label": _VALIDATES}, tag="validation"
    )
    return set(builder.append(LabelledDatasetData, with_incoming="validation", project="uuid").all(flat=True))


def _comments(text: str) -> Iterator[str]:
    """Yield the comment line of each frame of an extended-XYZ file."""
    lines = text.splitlines()
    position = 0
    while position < len(lines) and lines[position].strip():
        yield lines[position + 1]
        position += int(lines[position]) + 2


def _origin(comment: str, purpose: str) -> FrameOrigin:
    info = {key: quoted or plain for key, quoted, plain in _INFO.findall(comment)}
    numbers = {key: int(info[key]) for key in ("loading", "round", "framework_atoms") if key in info}
    if purpose == VALIDATION:
        numbers.pop("round", None)
    return FrameOrigin(group=info.get("group") or None, purpose=purpose, **numbers)


def datasets_with_label(uuid: str) -> list[tuple[int, str, int]]:
    """Return PK, UUID and index of the frame of every dataset that holds a label, oldest first."""
    columns = ["ctime", "id", "uuid", "attributes.label_uuids"]
    rows = sorted(orm.QueryBuilder().append(LabelledDatasetData, project=columns).all(), key=lambda row: row[:2])
    return [(pk, name, labels.index(uuid)) for _, pk, name, labels in rows if uuid in (labels or ())]
