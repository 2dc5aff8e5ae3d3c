"""Every DFT label of a profile as a table, chosen by what it is of and how good it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiida import orm
from ase.formula import Formula

from aiida_mofmace.data.label import DftLabelData
from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.report.label_origins import FrameOrigin, copies_of_labels, frame_origins, structures_of_labels
from aiida_mofmace.report.label_origins import reasons_of_labels as _reasons
from aiida_mofmace.report.tree import ProcessTree

__all__ = ["FLAGGED", "GOOD", "LabelFilter", "LabelRecord", "find_labels", "levels_of", "values_of"]

GOOD, FLAGGED = "good", "flagged"
_MOST_VALUES = 12
_KEYS = ("formula", "symbols", "energy", "max_force", "converged", "level_of_theory", "flags", "origin")


@dataclass(frozen=True)
class LabelRecord:
    """One label with the structure it belongs to.

    :param label_uuid: UUID of the label
    :param structure_uuid: UUID of the structure that the label belongs to; None for a label that no process made
    :param energy: total energy in eV
    :param max_force: greatest force on an atom in eV/Å
    :param level: name, program and hash of the level of theory
    :param flags: how the label was rescued
    :param reasons: why the sanity filter flagged it; empty for a good one
    :param origin: loading, round and group, of a label that stands in a dataset
    :param elsewhere: where it comes from, of a label that was imported
    """

    pk: int
    label_uuid: str
    structure_uuid: str | None
    formula: str
    energy: float
    max_force: float
    converged: bool
    level: dict[str, str]
    flags: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    origin: FrameOrigin = field(default_factory=FrameOrigin)
    framework: str = ""
    elsewhere: str | None = None


@dataclass(frozen=True)
class LabelFilter:
    """What labels are wanted; None means all of them.

    :param level: name, name of its file in the package, or beginning of the hash, of the level of theory
    :param system: formula of all atoms, or of the framework without the gas; in any order of the elements
    :param loading: gas molecules in the structure
    :param round: round of labels that it came with in its dataset, from 0
    :param purpose: "training" or "validation": what its dataset is for
    :param quality: "good" for those that the sanity filter lets pass and that converged, "flagged" for the others, or
        the beginning of a flag such as "restarted" or "scf_remedy"
    """

    level: str | None = None
    system: str | None = None
    loading: int | None = None
    round: int | None = None
    purpose: str | None = None
    quality: str | None = None

    def takes(self, record: LabelRecord) -> bool:
        """Return whether a label is wanted."""
        return (
            self._takes_level(record)
            and (self.system is None or hill(self.system) in (record.formula, record.framework))
            and self.loading in (None, record.origin.loading)
            and self.round in (None, record.origin.round)
            and self.purpose in (None, record.origin.purpose)
            and self._takes_quality(record)
        )

    def _takes_level(self, record: LabelRecord) -> bool:
        if self.level is None:
            return True
        level = self.level.lower()
        names = {level, LevelOfTheory.load(level).name.lower()} if level in LevelOfTheory.names() else {level}
        return record.level["name"].lower() in names or record.level["hash"].startswith(level)

    def _takes_quality(self, record: LabelRecord) -> bool:
        if self.quality in (None, GOOD, FLAGGED):
            return self.quality in (None, _quality(record))
        return any(flag.startswith(str(self.quality)) for flag in record.flags)


def _quality(record: LabelRecord) -> str:
    return GOOD if record.converged and not record.reasons else FLAGGED


def _kinds_of_flags(record: LabelRecord) -> set[str]:
    return {flag.partition(":")[0] for flag in record.flags}


def levels_of(records: Iterable[LabelRecord]) -> dict[str, int]:
    """Count labels by level of theory: the name and the beginning of the hash, for the same name may hide two."""
    return dict(sorted(Counter(f"{record.level['name']} {record.level['hash'][:8]}" for record in records).items()))


def values_of(records: Iterable[LabelRecord]) -> str:
    """Say in a few lines by what labels may be chosen and how many of each there are."""
    found = list(records)
    columns: dict[str, Mapping[Any, int]] = {
        "levels": levels_of(found),
        "systems": Counter(record.framework or record.formula for record in found),
        "loadings": Counter(r.origin.loading for r in found if r.origin.loading is not None),
        "rounds": Counter(r.origin.round for r in found if r.origin.round is not None),
        "purposes": Counter(record.origin.purpose for record in found if record.origin.purpose),
        "qualities": Counter(word for record in found for word in (_quality(record), *_kinds_of_flags(record))),
    }
    lines = []
    for name, counts in columns.items():
        shown = [f"{value} ({count})" for value, count in sorted(counts.items())][:_MOST_VALUES]
        more = ["…"] if len(counts) > _MOST_VALUES else []
        lines.append(f"  {name}: {', '.join([*shown, *more]) or 'none'}")
    return "\n".join(lines)


def hill(formula: str) -> str:
    """Return a formula in Hill's order.

    :raises ValueError: if it is no formula
    """
    try:
        return str(Formula(formula).format("hill"))
    except Exception as error:  # ase raises whatever its parser stumbles over
        raise ValueError(f"{formula!r} is no chemical formula; write e.g. C10H10Al4O16") from error


def find_labels(
    level: str | None = None, process: orm.ProcessNode | None = None, wanted: LabelFilter | None = None
) -> list[LabelRecord]:
    """Return labels of the profile, in order of their UUID.

    Where AiiDA took a job from its cache, the label is a copy; so is that of a structure that equals another. Over a
    whole profile only the first is given; of one process all are, as it used them.

    :param level: name or hash (or its beginning) of the level of theory; None for all
    :param process: only labels made by this process or by what it called; None for all
    :param wanted: further conditions
    :raises ValueError: if a condition cannot be read
    """
    wanted = wanted or LabelFilter()
    if wanted.system is not None:
        hill(wanted.system)
    builder = orm.QueryBuilder().append(DftLabelData, project=["id", "uuid", *(f"attributes.{key}" for key in _KEYS)])
    tables = _Tables()
    made = None if process is None else _made_by(process)
    records = [
        tables.record(pk, uuid, dict(zip(_KEYS, values, strict=True)))
        for pk, uuid, *values in builder.iterall()
        if (made is None and pk not in tables.copies) or (made is not None and pk in made)
    ]
    chosen = [r for r in records if wanted.takes(r) and LabelFilter(level).takes(r)]
    return sorted(chosen, key=lambda record: record.label_uuid)


class _Tables:
    """What other nodes say of labels, each read with one query."""

    def __init__(self) -> None:
        self.structures = structures_of_labels()
        self.copies = copies_of_labels()
        self.reasons = _reasons()
        self.origins = frame_origins()
        self.originals: dict[str, list[str]] = {}
        uuids = dict(orm.QueryBuilder().append(DftLabelData, project=["id", "uuid"]).all()) if self.copies else {}
        for copy, first in self.copies.items():
            self.originals.setdefault(uuids[first], []).append(uuids[copy])

    def record(self, pk: int, uuid: str, values: Mapping[str, Any]) -> LabelRecord:
        """Return one row; what stands in a dataset or is flagged may be a copy of this label."""
        names = [uuid, *self.originals.get(uuid, [])]
        origin = next((self.origins[name] for name in names if name in self.origins), FrameOrigin())
        framework = values["symbols"][: origin.framework_atoms] if origin.framework_atoms else []
        return LabelRecord(
            pk=pk,
            label_uuid=uuid,
            structure_uuid=self.structures.get(pk),
            formula=values["formula"],
            energy=values["energy"],
            max_force=values["max_force"],
            converged=bool(values["converged"]),
            level=values["level_of_theory"],
            flags=tuple(values["flags"] or ()),
            reasons=next((self.reasons[name] for name in names if name in self.reasons), ()),
            origin=origin,
            framework=Formula.from_list(framework).format("hill") if framework else "",
            elsewhere=values["origin"],
        )


def _made_by(process: orm.ProcessNode) -> set[int]:
    """Return the PKs of the labels that a process or one of its descendants made."""
    pks = list(ProcessTree(int(process.pk or 0)).records)
    builder = orm.QueryBuilder().append(orm.CalculationNode, filters={"id": {"in": pks}}, tag="job")
    return set(builder.append(DftLabelData, with_incoming="job", project="id").all(flat=True))
