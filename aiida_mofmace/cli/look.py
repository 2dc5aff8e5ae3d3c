"""Look at a run: ``mofmace status``, ``mofmace summary`` and ``mofmace report``."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
from aiida.cmdline.params.types import ProcessParamType
from aiida.cmdline.utils.decorators import with_dbenv

if TYPE_CHECKING:
    from aiida import orm

    from aiida_mofmace.report.tree import ProcessRecord, ProcessTree

__all__ = ["report", "shell_status", "status", "summary"]

_MOST_LINES = 8

process_argument = click.argument("process", type=ProcessParamType(), metavar="PROCESS")


@click.command()
@process_argument
@click.option("-f", "--follow", "follow_it", is_flag=True, help="Print messages as they come until the run has ended.")
@click.option("-a", "--all", "show_all", is_flag=True, help="Show every process, also long rows of finished ones.")
@with_dbenv()
def status(process: orm.ProcessNode, follow_it: bool, show_all: bool) -> None:
    """Show how far a run is.

    PROCESS is the PK or UUID of any process of the run. With --follow the command ends with the run,
    with 0 if the run is well; Ctrl-C ends the looking, not the run.
    Processes that a dead worker of the daemon held are handed to the others.
    """
    from aiida_mofmace.report.daemon import mend_daemon
    from aiida_mofmace.report.progress import follow, tally
    from aiida_mofmace.report.tree import ProcessTree
    from aiida_mofmace.workflows.harvest import cause

    if follow_it:
        sys.exit(shell_status(follow(process)))
    tree = ProcessTree(int(process.pk or 0))
    for line in tree_lines(tree, show_all):
        click.echo(line)
    line = tally(tree)
    if line:
        click.echo(f"\n{line}")
    if not tree.root.is_terminated:
        trouble = mend_daemon()
        if trouble:
            click.echo(f"\n{trouble}")
    if tree.root.is_terminated and not tree.root.is_finished_ok and cause(process):
        click.echo(f"\n{cause(process)}")


def shell_status(exit_status: int) -> int:
    """Return what the shell is told: 0 for a run that is well (warnings are 7xx), 130 after Ctrl-C, else 1."""
    from aiida_mofmace.report.progress import INTERRUPTED

    if exit_status == INTERRUPTED:
        return INTERRUPTED
    return 0 if exit_status == 0 or exit_status // 100 == 7 else 1


def tree_lines(tree: ProcessTree, show_all: bool = False) -> Iterator[str]:
    """Draw the tree of calls; of a long row of siblings that are done, the last stand for all.

    :param tree: the run
    :param show_all: draw every process
    """
    children: dict[int | None, list[ProcessRecord]] = defaultdict(list)
    for record in sorted(tree.records.values(), key=lambda record: record.age):
        children[record.parent].append(record)

    def draw(record: ProcessRecord, prefix: str) -> Iterator[str]:
        below = [child for child in children[record.pk] if show_all or not child.is_function]
        quiet = [child for child in below if child.is_finished_ok]
        hidden = set() if show_all or len(below) <= _MOST_LINES else {child.pk for child in quiet[:-1]}
        if len(hidden) > 1:
            yield f"{prefix}├── … {len(hidden)} more finished"
            below = [child for child in below if child.pk not in hidden]
        for child in below:
            last = child is below[-1]
            yield f"{prefix}{'└── ' if last else '├── '}{_line(child)}"
            yield from draw(child, prefix + ("    " if last else "│   "))

    yield _line(tree.root)
    yield from draw(tree.root, "")


def _line(record: ProcessRecord) -> str:
    from aiida_mofmace.report.progress import duration

    ended = f" [{record.exit_status}]" if record.exit_status is not None else ""
    name = record.name if record.name == record.label else f"{record.name}  {record.label}"
    paused = " (paused)" if record.paused and not record.is_terminated else ""
    wall = f"  {duration((record.mtime - record.ctime).total_seconds())}" if record.is_terminated else ""
    return f"{name} <{record.pk}> {record.state}{ended}{paused}{wall}"


@click.command()
@process_argument
@with_dbenv()
def summary(process: orm.ProcessNode) -> None:
    """Print the outcome of a run: labels, errors, isotherm, heat of adsorption, wall times.

    PROCESS is the PK or UUID of a MofMaceWorkChain; of a run that failed, what it had made is shown.
    """
    from aiida_mofmace.report.summary import summary as text_of

    click.echo(text_of(process))


@click.command()
@process_argument
@click.option(
    "-o", "--out", type=click.Path(dir_okay=False, path_type=Path), help="Default: mofmace-report-PK.html here."
)
@with_dbenv()
def report(process: orm.ProcessNode, out: Path | None) -> None:
    """Write the report of a run as one HTML file that opens without network.

    PROCESS is the PK or UUID of a MofMaceWorkChain, finished or not; it may come from an imported archive.
    """
    from aiida_mofmace.report.html import write_report

    try:
        path = write_report(process, out or Path(f"mofmace-report-{process.pk}.html"))
    except OSError as error:
        raise click.ClickException(f"the report cannot be written: {error}") from error
    click.echo(f"{path} ({path.stat().st_size / 1024:.0f} kB)")
