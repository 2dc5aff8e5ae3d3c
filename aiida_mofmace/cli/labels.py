"""``mofmace labels``: every DFT label of the profile."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import click
from aiida.cmdline.params.types import ProcessParamType
from aiida.cmdline.utils.decorators import with_dbenv

if TYPE_CHECKING:
    from aiida import orm

__all__ = ["labels"]

level_option = click.option(
    "--level", metavar="NAME|HASH", help="Only this level of theory: its name, or the beginning of its hash."
)
process_option = click.option(
    "--process", type=ProcessParamType(), metavar="PROCESS", help="Only labels of this run: PK or UUID of a process."
)


@click.group()
def labels() -> None:
    """List and export DFT labels with the UUIDs of label and structure."""


@labels.command("list")
@level_option
@process_option
@with_dbenv()
def list_(level: str | None, process: orm.ProcessNode | None) -> None:
    """List the labels in order of their UUID: energy (eV), greatest force (eV/Å), level of theory."""
    from aiida_mofmace.report.labels import find_labels

    records = find_labels(level, process)
    click.echo(
        f"{'PK':>7}  {'label':36}  {'structure':36}  {'formula':18}{'energy':>14}{'max force':>11}  level of theory"
    )
    for record in records:
        mark = "" if record.converged else "  NOT CONVERGED"
        click.echo(
            f"{record.pk:>7}  {record.label_uuid}  {record.structure_uuid or '-':36}  {record.formula:18}"
            f"{record.energy:>14.4f}{record.max_force:>11.3f}  {record.level['name']} {record.level['hash'][:8]}{mark}"
        )
    click.echo(f"{len(records)} labels")


@labels.command()
@click.option(
    "-o", "--out", type=click.File("w", encoding="utf-8", lazy=True), required=True, help="File to write; - for stdout."
)
@level_option
@process_option
@with_dbenv()
def export(out: IO[str], level: str | None, process: orm.ProcessNode | None) -> None:
    """Write every label as a frame of one extended-XYZ file.

    Each frame has REF_energy (eV), REF_forces (eV/Å), REF_stress (eV/Å³, where the program gave it), structure_uuid,
    label_uuid, and name and hash of the level of theory. Frames stand in order of the label's UUID: the nodes of one
    archive give the same file in every profile.
    """
    from aiida_mofmace.report.labels import find_labels, write_labels

    count, left_out = write_labels(find_labels(level, process), out)
    click.echo(f"{count} labels written to {out.name}", err=True)
    for record in left_out:
        click.echo(f"left out: label {record.label_uuid} was not made by a job, its structure is not known", err=True)
