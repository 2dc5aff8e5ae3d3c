"""``mofmace labels``: every DFT label of the profile."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
from aiida.cmdline.params.types import DataParamType, ProcessParamType
from aiida.cmdline.utils.decorators import with_dbenv

if TYPE_CHECKING:
    from aiida import orm

    from aiida_mofmace.report.labels import LabelRecord
    from aiida_mofmace.workflows.label_import import Frame

__all__ = ["labels"]

_FILTERS = (
    click.option(
        "--level",
        metavar="NAME|HASH",
        help="Only this level of theory: its name, that of the protocol's key `level`, or the beginning of its hash.",
    ),
    click.option(
        "--process",
        type=ProcessParamType(),
        metavar="PROCESS",
        help="Only labels of this run: its PK or UUID.",
    ),
    click.option(
        "--system", metavar="FORMULA", help="Only this formula, of all atoms or of the framework without the gas."
    ),
    click.option("--loading", type=int, metavar="N", help="Only labels with N gas molecules, as their dataset says."),
    click.option(
        "--round", "round_", type=int, metavar="N", help="Only labels that came with this round of training, from 0."
    ),
    click.option(
        "--purpose",
        type=click.Choice(["training", "validation"]),
        help="Only labels in datasets to train on, or those that models were validated on.",
    ),
    click.option(
        "--quality",
        metavar="good|flagged|FLAG",
        help="Only what the sanity filter lets pass, what it does not, or what was rescued: restarted, scf_remedy.",
    ),
)


def filtered(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that choose labels."""
    for option in reversed(_FILTERS):
        command = option(command)
    return command


def _find(level: str | None, process: orm.ProcessNode | None, **conditions: Any) -> list[LabelRecord]:
    """Return the labels that the options choose."""
    from aiida_mofmace.report.labels import LabelFilter, find_labels

    conditions["round"] = conditions.pop("round_")
    try:
        return find_labels(level, process, LabelFilter(**conditions))
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _nothing(process: orm.ProcessNode | None, **conditions: Any) -> str:
    """Say which filters no label met, and what there is."""
    from aiida_mofmace.report.labels import find_labels, values_of

    given = [f"--{name.rstrip('_')} {value}" for name, value in conditions.items() if value is not None]
    where = "this profile" if process is None else f"the run <{process.pk}>"
    there = find_labels(process=process)
    if not there or not given:
        return f"there is no label in {where}"
    return f"no label with {' '.join(given)}; of the {len(there)} in {where} there are\n{values_of(there)}"


@click.group()
def labels() -> None:
    """List, show, export and import DFT labels with the UUIDs of label and structure."""


@labels.command("list")
@filtered
@with_dbenv()
def list_(**conditions: Any) -> None:
    """List labels in order of their UUID: energy (eV), greatest force (eV/Å), level of theory, quality.

    Where a label stands in a dataset, its loading, round and purpose are listed. A label that the sanity filter flagged
    is marked with the reason.
    """
    records = _find(**conditions)
    click.echo(
        f"{'PK':>7}  {'label':36}  {'structure':36}  {'formula':18}{'energy':>14}{'max force':>11}"
        f"{'loading':>9}{'round':>7}  {'purpose':10}  level of theory"
    )
    for record in records:
        known = ["-" if value is None else str(value) for value in (record.origin.loading, record.origin.round)]
        click.echo(
            f"{record.pk:>7}  {record.label_uuid}  {record.structure_uuid or '-':36}  {record.formula:18}"
            f"{record.energy:>14.4f}{record.max_force:>11.3f}{known[0]:>9}{known[1]:>7}"
            f"  {record.origin.purpose or '-':10}  {record.level['name']} {record.level['hash'][:8]}{_marks(record)}"
        )
    if not records:
        click.echo(_nothing(**conditions), err=True)
    click.echo(f"{len(records)} labels")


def _marks(record: LabelRecord) -> str:
    marks = [] if record.converged else ["NOT CONVERGED"]
    marks += [f"FLAGGED: {reason}" for reason in record.reasons]
    return "".join(f"  {mark}" for mark in [*marks, *record.flags])


@labels.command()
@click.argument("label", type=DataParamType())
@with_dbenv()
def show(label: orm.Data) -> None:
    """Show everything of one label, given by PK or UUID.

    Energy, forces, level, program, how it was rescued, the job and the runs that called it, the structure, and the
    datasets that hold it.
    """
    from aiida_mofmace.data.label import DftLabelData
    from aiida_mofmace.report.label_details import describe_label

    if not isinstance(label, DftLabelData):
        raise click.ClickException(f"node {label.pk} is no label but {type(label).__name__}; see `mofmace labels list`")
    click.echo(describe_label(label))


@labels.command()
@click.option(
    "-o", "--out", type=click.File("w", encoding="utf-8", lazy=True), required=True, help="File to write; - for stdout."
)
@click.option("--all-levels", is_flag=True, help="Write several levels of theory into one file all the same.")
@filtered
@with_dbenv()
def export(out: IO[str], all_levels: bool, **conditions: Any) -> None:
    """Write labels as frames of one extended-XYZ file.

    Energies of two levels of theory have nothing in common, so only one is written unless you ask for all.

    Each frame has REF_energy (eV), REF_forces (eV/Å), REF_stress (eV/Å³, where the program gave it), structure_uuid,
    label_uuid, purpose (training or validation), and name and hash of the level of theory. Frames stand in order of
    the label's UUID: the nodes of one archive give the same file in every profile. `--quality good` leaves out what the
    sanity filter flagged, `--purpose training` what models were validated on.
    """
    from aiida_mofmace.report.label_export import write_labels
    from aiida_mofmace.report.label_origins import VALIDATION

    records = _find(**conditions)
    _refuse_export(records, all_levels, **conditions)
    count, left_out = write_labels(records, out)
    click.echo(f"{count} labels written to {out.name}", err=True)
    validating = sum(record.origin.purpose == VALIDATION for record in records)
    if 0 < validating < len(records):
        hint = "leave them out of a training with --purpose training"
        click.echo(f"{validating} of them are what models were validated on; {hint}", err=True)
    for record in left_out:
        click.echo(f"left out: label {record.label_uuid} was not made by a job, its structure is not known", err=True)


def _refuse_export(records: list[LabelRecord], all_levels: bool, **conditions: Any) -> None:
    """Refuse to write nothing, and to write what must not be mixed.

    :raises click.ClickException: before the file is touched
    """
    from aiida_mofmace.report.labels import levels_of

    if not records:
        raise click.ClickException(_nothing(**conditions))
    if all(record.structure_uuid is None for record in records):
        raise click.ClickException(f"of none of these {len(records)} labels the structure is known: nothing to write")
    levels = levels_of(records)
    if len(levels) > 1 and not all_levels:
        listed = "\n".join(f"  {level}: {count} labels" for level, count in levels.items())
        hint = "choose one with --level NAME or --level HASH, or write all with --all-levels"
        raise click.ClickException(f"labels of {len(levels)} levels of theory; {hint}\n{listed}")


@labels.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--level", required=True, metavar="NAME", help="Level of theory: one of the package's, or any other.")
@click.option("--program", metavar="NAME", help="Program that computed the labels; needed for another level.")
@click.option("--origin", required=True, metavar="TEXT", help="Where the labels come from: people, paper, DOI.")
@click.option("--energy-key", default="REF_energy", show_default=True, help="Key of the energy (eV) in the file.")
@click.option("--forces-key", default="REF_forces", show_default=True, help="Key of the forces (eV/Å) in the file.")
@click.option("--stress-key", default="REF_stress", show_default=True, help="Key of the stress (eV/Å³) in the file.")
@with_dbenv()
def import_(file: Path, level: str, program: str | None, origin: str, **keys: str) -> None:
    """Take the labels of an extended-XYZ file that somebody else computed.

    Every frame becomes a structure and a label, both made by a step of the provenance graph from the file, the stated
    level and the stated origin. State a level of the package only if the settings really were the same: such labels
    can stand in one dataset with those made here. What is here already is not taken a second time.
    """
    from aiida import orm

    from aiida_mofmace.workflows.label_import import BATCH, check_frames, foreign_level, import_labels

    named = {name.removesuffix("_key"): key for name, key in keys.items()}
    content = file.read_bytes()
    try:
        theory, found = foreign_level(level, program), check_frames(content, named)
    except ValueError as error:
        raise click.ClickException(f"{file.name}: {error}") from error
    _refuse_import(found, theory)
    count = len(found)
    source, stated = orm.SinglefileData(io.BytesIO(content), filename=file.name).store(), orm.Dict(theory).store()
    for first in range(0, count, BATCH):
        frames = [first, min(first + BATCH, count)]
        import_labels(source, stated, orm.Dict({"statement": origin, "keys": named, "frames": frames}))
    click.echo(f"{count} labels imported at {theory['name']} (settings {theory['hash']}); origin: {origin}")


def _refuse_import(frames: list[Frame], theory: dict[str, str]) -> None:
    """Refuse labels that are here already; remark on frames that state another level of theory.

    :raises click.ClickException: for the first of these
    """
    from aiida_mofmace.workflows.label_import import frames_known, levels_stated

    for stated, count in levels_stated(frames, theory).items():
        click.echo(f"note: {count} frames say that they are of the level {stated}, not {theory['name']}", err=True)
    known = frames_known(frames, theory)
    if known:
        index, uuid = next(iter(known.items()))
        raise click.ClickException(
            f"{len(known)} of {len(frames)} frames are labels of this level here already (frame {index} is label "
            f"{uuid}); leave them out of the file"
        )
