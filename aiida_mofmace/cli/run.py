"""``mofmace run``: submit the whole workflow for one framework and one gas, and follow it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from aiida.cmdline.utils.decorators import with_dbenv

from aiida_mofmace.cli.submission import (
    charges_of,
    charges_option,
    framework_of,
    load_codes,
    overrides_of,
    submission_options,
    submit_and_follow,
)

if TYPE_CHECKING:
    from aiida.engine.processes.builder import ProcessBuilder

__all__ = ["run"]


@click.command()
@submission_options
@click.option("--worker-code", metavar="LABEL", help="Python with mace-torch. Default: worker@localhost.")
@click.option("--cp2k-code", metavar="LABEL", help="CP2K. Default: cp2k@localhost where it is set up.")
@click.option(
    "--lammps-code",
    metavar="LABEL",
    help="LAMMPS for the engines that the overrides set to lammps, such as mofmace-lmp@localhost. Default: none.",
)
@click.option(
    "--lammps-model",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Foundation model as the code of LAMMPS reads it, unless that is mofmace-lmp.",
)
@click.option("--uff", is_flag=True, help="Also the isotherm of UFF and a rigid framework.")
@charges_option
@click.option("--model", metavar="NAME|FILE", help="Foundation model. Default: the protocol's.")
@with_dbenv()
def run(
    *,
    cif: Path,
    gas: str,
    overrides: Path | None,
    worker_code: str | None,
    cp2k_code: str | None,
    lammps_code: str | None,
    uff: bool,
    charges: str | None,
    no_follow: bool,
    **options: Any,
) -> None:
    """Submit the whole workflow for the framework in CIF, and follow it until it has ended.

    A daemon does the work (`verdi daemon start`), so the terminal may be closed: `mofmace status PK --follow` looks
    again. At the end a summary is printed and the report is written.
    """
    from aiida_mofmace.workflows.main import MofMaceWorkChain

    if charges is not None and not uff:
        raise click.UsageError("--charges are for the isotherm of UFF: give --uff, too")

    def build() -> ProcessBuilder:
        structure = framework_of(cif)
        found = charges_of(structure, cif, charges) if uff else None
        if uff and found is None:
            raise ValueError(
                f"{cif.name} holds no charges: have them made by `mofmace uff {cif.name}`, give its PK as --charges"
            )
        labels = {"worker": worker_code, "cp2k": cp2k_code, "raspa": None}
        labels |= {} if lammps_code is None else {"lammps": lammps_code}
        codes, changes = load_codes(labels, needed="worker"), overrides_of(overrides)
        if "cp2k" not in codes:
            changes = _without_cp2k(options["protocol"], changes)
        return MofMaceWorkChain.get_builder_from_protocol(
            codes=codes,
            structure=structure,
            gas=gas,
            charges=found,
            overrides=changes,
            **options,
        )

    submit_and_follow(build, no_follow=no_follow)


def _without_cp2k(protocol: str, overrides: dict[str, Any] | None) -> dict[str, Any]:
    """Return overrides for tblite in the place of CP2K, and say so.

    :raises click.ClickException: if the labels are of a level that only CP2K computes
    """
    from aiida_mofmace.data.level import LevelOfTheory
    from aiida_mofmace.workflows.inputs import without_cp2k
    from aiida_mofmace.workflows.protocols import resolve

    changes = without_cp2k(protocol, overrides)
    if LevelOfTheory.from_protocol(resolve(protocol, changes)).program == "cp2k":
        load_codes({"cp2k": None}, needed="cp2k")
    if changes != (overrides or {}):
        click.echo(
            "note: no code cp2k@localhost, so tblite makes the labels (GFN1-xTB, of the worker's Python)", err=True
        )
    return changes
