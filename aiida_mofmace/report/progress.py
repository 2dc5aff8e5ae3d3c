"""Follow a run in the terminal: its messages as they are written, and how far each kind of work is."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TextIO

from aiida import orm
from aiida.common.links import LinkType

from aiida_mofmace.report.daemon import mend_daemon, profile_option
from aiida_mofmace.report.tree import ProcessRecord, ProcessTree

__all__ = ["INTERRUPTED", "duration", "follow", "tally"]

#: What :func:`follow` returns after Ctrl-C, as a shell would.
INTERRUPTED = 130

#: Whose own jobs are not counted.
_COUNTED_AS_ONE = (
    "Cp2kLabelBaseWorkChain",
    "LammpsGcmcWorkChain",
    "MaceMdBaseWorkChain",
    "MdGcmcBaseWorkChain",
    "CommitteeBaseWorkChain",
    "DiversitySelectBaseWorkChain",
)

#: Work that is counted while its phase runs.
_COUNTED = {
    "MaceMdCalculation": "MD runs",
    "MaceMdBaseWorkChain": "MD runs",
    "LammpsRawCalculation": "LAMMPS jobs",
    "DiversitySelectCalculation": "selections",
    "DiversitySelectBaseWorkChain": "selections",
    "Cp2kLabelBaseWorkChain": "labels",
    "Cp2kLabelCalculation": "labels",
    "TbliteLabelCalculation": "labels",
    "FineTuneWorkChain": "trainings",
    "CommitteeCalculation": "committee evaluations",
    "CommitteeBaseWorkChain": "committee evaluations",
    "MdGcmcCalculation": "MD-GCMC chunks",
    "MdGcmcBaseWorkChain": "MD-GCMC chunks",
    "LammpsGcmcWorkChain": "MD-GCMC chunks",
}

# What aiida-core's restart layer says of every process that needed no restart.
_CHATTER = re.compile(r"launching \S+ iteration #1$|work chain completed after|remote folders will not be cleaned")
_PREFIX = re.compile(r"^\[\d+\|[^|\]]+\|[^\]]+\]:\s*")
# Workers write at once and a database may hand out identifiers before it commits: look back this far.
_LOOK_BACK = 200
_SECONDS_BETWEEN_TALLIES = 5.0
_SECONDS_BETWEEN_LOOKS_AT_THE_DAEMON = 30.0


def duration(seconds: float) -> str:
    """Write a time span as ``m:ss`` or ``h:mm:ss``."""
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def tally(tree: ProcessTree) -> str:
    """Say in one line how far the work is that is going on, e.g. ``labels 34/60 done, 2 running``.

    :param tree: the run
    :return: the line, empty if nothing countable is running
    """
    counts: dict[str, tuple[int, int, int]] = {}
    totals: dict[str, int] = {}
    for record in _last_words(tree):
        phase = tree.phase_of(record)
        if phase.is_terminated:
            continue
        noun = _COUNTED[record.label]
        done, failed, running = counts.setdefault(noun, (0, 0, 0))
        counts[noun] = (
            done + record.is_finished_ok,
            failed + (record.is_terminated and not record.is_finished_ok),
            running + (not record.is_terminated),
        )
    if "labels" in counts:
        totals["labels"] = sum(_n_structures(r.pk) for r in tree.labelled("LabelWorkChain") if not r.is_terminated)
    lines = [_count(noun, numbers, totals.get(noun, 0)) for noun, numbers in counts.items() if numbers[-1]]
    return " · ".join(lines)


def _last_words(tree: ProcessTree) -> Iterator[ProcessRecord]:
    """Yield what is counted, of a label that was tried more than once only what it ends with.

    That is the restart layer, which calls jobs or follows one that has failed. Of a chunk by LAMMPS it is the chain.
    """
    names = {(record.parent, record.name) for record in tree.records.values()}
    for record in tree.records.values():
        parent = tree.records.get(record.parent or 0)
        is_part = parent is not None and parent.label in _COUNTED_AS_ONE
        if record.label in _COUNTED and not is_part and (record.parent, f"{record.name}_rescue") not in names:
            yield record


def _count(noun: str, numbers: tuple[int, int, int], total: int) -> str:
    done, failed, running = numbers
    text = f"{noun} {done}/{total} done" if total else f"{noun} {done} done"
    if failed:
        text += f", {failed} failed"
    return f"{text}, {running} running" if running else text


def _n_structures(pk: int) -> int:
    """Count the structures a label work chain was given."""
    builder = orm.QueryBuilder().append(orm.WorkChainNode, filters={"id": pk}, tag="chain")
    edges = {"type": LinkType.INPUT_WORK.value, "label": {"like": "structures\\_\\_%"}}
    return builder.append(orm.Data, with_outgoing="chain", edge_filters=edges).count()


class _Follower:
    """Prints what is new since it looked last.

    :param tree: the run
    :param stream: where to print
    """

    def __init__(self, tree: ProcessTree, stream: TextIO) -> None:
        self.tree = tree
        self.stream = stream
        self._seen: set[int] = set()
        self._last_log = 0
        self._last_tally = ""
        self._tally_time = float("-inf")
        self._told_paused: set[int] = set()
        self._last_trouble: str | None = None

    def print(self, text: str, when: datetime | None = None) -> None:
        """Print a line behind the time since the run began."""
        elapsed = (when or datetime.now(timezone.utc)) - self.tree.root.ctime
        self.stream.write(f"{duration(elapsed.total_seconds()):>8}  {text}\n")
        self.stream.flush()

    def look(self, final: bool = False) -> bool:
        """Print new messages, paused processes and the tally; return whether there was any change."""
        # Messages first: whoever wrote one before this query is found by the refresh after it.
        rows = self._new_logs()
        self.tree.refresh()
        messages = [row for row in rows if row[1] in self.tree.records and not _CHATTER.search(row[4])]
        for pk, node, when, level, text in messages:
            self._seen.add(pk)
            self.print(self._message(self.tree.records[node], level, text), when)
        return bool(messages) | self._tell_paused() | self._tell_tally(final)

    def look_at_daemon(self) -> None:
        """Print what keeps the daemon from its work, if it is not what was printed last."""
        trouble = mend_daemon()
        if trouble and trouble != self._last_trouble:
            self.print(trouble)
        self._last_trouble = trouble

    def _new_logs(self) -> list[tuple[int, int, datetime, str, str]]:
        columns = ["id", "dbnode_id", "time", "levelname", "message"]
        filters = {"id": {">": self._last_log - _LOOK_BACK}, "time": {">=": self.tree.root.ctime}}
        builder = orm.QueryBuilder().append(orm.Log, filters=filters, project=columns)
        rows = [tuple(row) for row in builder.order_by({orm.Log: "id"}).iterall() if row[0] not in self._seen]
        self._last_log = max((row[0] for row in rows), default=self._last_log)
        return rows

    @staticmethod
    def _message(record: ProcessRecord, level: str, text: str) -> str:
        indent = "  " * record.depth
        mark = "" if level in ("REPORT", "INFO") else f"{level}: "
        lines = _PREFIX.sub("", text).rstrip().splitlines() or [""]
        follow_up = "".join(f"\n{'':>10}{indent}  {line}" for line in lines[1:])
        return f"{indent}{record.name} <{record.pk}>  {mark}{lines[0]}{follow_up}"

    def _tell_paused(self) -> bool:
        paused = [r for r in self.tree.records.values() if r.paused and not r.is_terminated]
        new = [record for record in paused if record.pk not in self._told_paused]
        for record in new:
            self._told_paused.add(record.pk)
            verdi = f"verdi{profile_option()} process"
            self.print(
                f"{'  ' * record.depth}{record.name} <{record.pk}>  is paused: `{verdi} report {record.pk}` says "
                f"why, `{verdi} play {record.pk}` lets it go on"
            )
        return bool(new)

    def _tell_tally(self, final: bool) -> bool:
        line = tally(self.tree)
        due = final or time.monotonic() - self._tally_time >= _SECONDS_BETWEEN_TALLIES
        if not line or line == self._last_tally or not due:
            return False
        self._last_tally, self._tally_time = line, time.monotonic()
        self.print(f"-- {line}")
        return True


def follow(process: orm.ProcessNode, stream: TextIO | None = None, poll_seconds: float = 2.0) -> int:
    """Print the messages of a run and of all it called until it has ended.

    Only the database is asked, so the run may be anybody's: a daemon's, or one that ended long ago. Where nothing moves
    the daemon is looked at too: it may not run, or wait for a worker that died. Ctrl-C ends the looking, not the run.

    :param process: the run
    :param stream: where to print, standard output if None
    :param poll_seconds: seconds between two looks
    :return: exit status of the process, 1 if it excepted or was killed, 130 after Ctrl-C
    """
    pk = int(process.pk or 0)
    follower = _Follower(ProcessTree(pk), stream if stream is not None else sys.stdout)
    root = follower.tree.root
    looked = time.monotonic()
    try:
        while True:
            is_new = follower.look()
            if root.is_terminated:
                break
            if is_new:
                looked = time.monotonic()
            elif time.monotonic() - looked > _SECONDS_BETWEEN_LOOKS_AT_THE_DAEMON:
                looked = time.monotonic()
                follower.look_at_daemon()
            time.sleep(poll_seconds)
        follower.look(final=True)
    except KeyboardInterrupt:
        again = f"mofmace{profile_option()} status {pk} --follow"
        follower.print(f"no longer looking; the run goes on. Look again with `{again}`")
        return INTERRUPTED
    ended = f"exit status {root.exit_status}" if root.state == "finished" else "no exit status"
    follower.print(f"{root.label} <{pk}> {root.state} ({ended})", root.mtime)
    if root.state == "finished":
        return int(root.exit_status or 0)
    return 1
