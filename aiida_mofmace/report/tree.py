"""The processes below one process, read from the database with a few queries however many there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone

from aiida import orm
from aiida.common.links import LinkType

__all__ = ["PHASES", "ProcessRecord", "ProcessTree"]

#: Work chains that stand for a phase of a run, and what a person calls them.
PHASES = {
    "MofMaceWorkChain": "whole run",
    "SamplingWorkChain": "sampling",
    "DiversitySelectBaseWorkChain": "selection",
    "DiversitySelectCalculation": "selection",  # of runs from before there was a restart layer
    "LabelWorkChain": "labels",
    "FineTuneCommitteeWorkChain": "fine-tuning",
    "ActiveLearningWorkChain": "active learning",
    "ValidationWorkChain": "validation",
    "MDGCMCIsothermWorkChain": "isotherm",
    "StructuralUnitsWorkChain": "structural units",
    "BindingSitesWorkChain": "binding sites",
    "UffIsothermWorkChain": "UFF isotherm",
}

#: Label by which AiiDA's restart layer calls its jobs.
_ITERATION = re.compile(r"iteration_\d+$")
#: Family of the exit statuses that come with usable outputs.
_WARNINGS = 7
_TERMINATED = ("finished", "excepted", "killed")
_COLUMNS = (
    "id",
    "attributes.process_label",
    "attributes.process_state",
    "attributes.exit_status",
    "attributes.paused",
    "ctime",
    "mtime",
    "node_type",
)


@dataclass
class ProcessRecord:
    """What the database says of one process.

    :param pk: primary key of the process node
    :param label: name of the process class
    :param call_label: label of the link by which its parent called it, empty for the root
    :param parent: primary key of the parent, None for the root
    :param depth: number of callers above it
    :param is_function: whether it is a calculation or work function
    """

    pk: int
    label: str
    call_label: str
    parent: int | None
    depth: int
    state: str = "created"
    exit_status: int | None = None
    paused: bool = False
    is_function: bool = False
    ctime: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    mtime: datetime = field(default_factory=lambda: datetime.now(timezone.utc))

    @property
    def age(self) -> tuple[datetime, int]:
        """What processes are ordered by, the oldest first: an imported archive hands out PKs in any order."""
        return self.ctime, self.pk

    @property
    def is_terminated(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in _TERMINATED

    @property
    def is_finished_ok(self) -> bool:
        """Whether it finished with exit status 0."""
        return self.state == "finished" and self.exit_status == 0

    @property
    def is_well(self) -> bool:
        """Whether it finished, perhaps with a warning (7xx)."""
        return self.state == "finished" and (self.exit_status == 0 or (self.exit_status or 0) // 100 == _WARNINGS)

    @property
    def name(self) -> str:
        """Name in the lab journal: the label of the call where there is one, else the class."""
        return self.call_label if self.call_label not in ("", "CALL") else self.label


class ProcessTree:
    """A process and everything it called; :meth:`refresh` looks only at what may have changed.

    :param root: primary key of the process
    """

    def __init__(self, root: int) -> None:
        self.records: dict[int, ProcessRecord] = {root: ProcessRecord(root, "", "", None, 0)}
        self.root = self.records[root]
        self._children_complete: set[int] = set()
        self.refresh()

    def refresh(self) -> None:
        """Read new descendants and the states of those that had not terminated."""
        alive = [record.pk for record in self.records.values() if not record.is_terminated]
        self._read_states(alive)
        parents = [pk for pk in self.records if pk not in self._children_complete]
        while parents:
            found = self._read_children(parents)
            self._children_complete.update(pk for pk in parents if self.records[pk].is_terminated)
            parents = found

    def _read_states(self, pks: list[int]) -> None:
        if not pks:
            return
        builder = orm.QueryBuilder().append(orm.ProcessNode, filters={"id": {"in": pks}}, project=list(_COLUMNS))
        for pk, *columns in builder.iterall():
            self._update(self.records[pk], columns)

    def _read_children(self, parents: list[int]) -> list[int]:
        builder = orm.QueryBuilder()
        builder.append(orm.ProcessNode, filters={"id": {"in": parents}}, tag="parent", project=["id"])
        builder.append(
            orm.ProcessNode,
            with_incoming="parent",
            edge_filters={"type": {"in": [LinkType.CALL_CALC.value, LinkType.CALL_WORK.value]}},
            edge_project=["label"],
            project=list(_COLUMNS),
        )
        found = []
        # Columns of the node come before those of its edge.
        for parent, pk, *columns, call_label in builder.iterall():
            if pk in self.records:
                continue
            record = ProcessRecord(pk, "", call_label, parent, self.records[parent].depth + 1)
            self._update(record, columns)
            found.append(record)
        found.sort(key=lambda record: record.age)
        self.records.update({record.pk: record for record in found})
        return [record.pk for record in found]

    @staticmethod
    def _update(record: ProcessRecord, columns: list[object]) -> None:
        label, state, exit_status, paused, ctime, mtime, node_type = columns
        record.label = str(label or "process")
        record.state = str(state or "created")
        record.exit_status = int(str(exit_status)) if exit_status is not None else None
        record.paused = bool(paused)
        record.is_function = "function" in str(node_type)
        if isinstance(ctime, datetime) and isinstance(mtime, datetime):
            record.ctime, record.mtime = ctime, mtime

    def labelled(self, *labels: str) -> list[ProcessRecord]:
        """Return the processes of these classes, the oldest first."""
        return sorted((record for record in self.records.values() if record.label in labels), key=lambda r: r.age)

    def phase_of(self, record: ProcessRecord) -> ProcessRecord:
        """Return the nearest caller that stands for a phase (the root if there is none)."""
        for caller in self.callers(record):
            if caller.label in PHASES:
                return caller
        return self.root

    def journal_record(self, record: ProcessRecord) -> ProcessRecord:
        """Return the process that bears the name of a job: the restart layer that called it, if one did."""
        while record.parent is not None and _ITERATION.match(record.name):
            record = self.records[record.parent]
        return record

    def callers(self, record: ProcessRecord) -> Iterator[ProcessRecord]:
        """Walk up from a process to the root."""
        while record.parent is not None:
            record = self.records[record.parent]
            yield record
