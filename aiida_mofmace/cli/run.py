"""``mofmace run``: submit the whole workflow for one framework and one gas, and follow it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import yaml
from aiida.cmdline.utils.decorators import with_dbenv

from aiida_mofmace.cli.look import shell_status
from aiida_mofmace.data.charged_cif import charges_of_cif

__all__ = ["run"]

_DEFAULT_CODES = {"worker": "worker@localhost", "cp2k": "cp2k@localhost", "raspa": "raspa@localhost"}


@click.command()
@click.argument("cif", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="CIF")
@click.option("--gas", default="CO2", show_default=True, help="Name of the gas.")
@click.option("--protocol", default="fast", show_default=True, help="Set of parameters; see `mofmace protocols list`.")
@click.option(
    "--overrides",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="YAML or JSON file with the keys of the protocol to change.",
)
@click.option("--worker-code", metavar="LABEL", help="Python with mace-torch. Default: worker@localhost.")
@click.option("--cp2k-code", metavar="LABEL", help="CP2K. Default: cp2k@localhost where it is set up.")
@click.option("--uff", is_flag=True, help="Also the isotherm of UFF and a rigid framework; charges are those in CIF.")
@click.option("--model", metavar="NAME|FILE", help="Foundation model. Default: the protocol's.")
@click.option("--seed", default=0, show_default=True, help="Of everything that is drawn at random.")
@click.option("--no-follow", is_flag=True, help="Submit and return at once.")
@with_dbenv()
def run(
    *,
    cif: Path,
    gas: str,
    protocol: str,
    overrides: Path | None,
    worker_code: str | None,
    cp2k_code: str | None,
    uff: bool,
    model: str | None,
    seed: int,
    no_follow: bool,
) -> None:
    """Submit the whole workflow for the framework in CIF, and follow it until it has ended.

    A daemon does the work (`verdi daemon start`), so the terminal may be closed: `mofmace status PK --follow` looks
    again. At the end a summary is printed and the report is written.
    """
    from aiida.engine import submit

    from aiida_mofmace.report.html import write_report
    from aiida_mofmace.report.progress import INTERRUPTED, follow
    from aiida_mofmace.report.summary import print_summary
    from aiida_mofmace.workflows.inputs import structure_from_cif
    from aiida_mofmace.workflows.main import MofMaceWorkChain

    try:
        builder = MofMaceWorkChain.get_builder_from_protocol(
            codes=_codes(worker_code, cp2k_code),
            structure=structure_from_cif(cif),
            gas=gas,
            model=model,
            charges=_charges(cif) if uff else None,
            seed=seed,
            protocol=protocol,
            overrides=_read_overrides(overrides),
        )
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from error
    _require_daemon()
    process = submit(builder)
    click.echo(f"submitted MofMaceWorkChain <{process.pk}>  {process.uuid}")
    if no_follow:
        click.echo(f"follow it with `mofmace status {process.pk} --follow`")
        return
    exit_status = follow(process)
    if exit_status != INTERRUPTED:
        print_summary(process)
        click.echo(f"\nreport: {write_report(process, f'mofmace-report-{process.pk}.html')}")
    sys.exit(shell_status(exit_status))


def _codes(worker: str | None, cp2k: str | None) -> dict[str, Any]:
    """Load the codes; CP2K and RASPA may be missing by default, and what is asked for must not need them then.

    :raises click.ClickException: if a code is not set up
    """
    from aiida.common.exceptions import MultipleObjectsError, NotExistent
    from aiida.orm import load_code

    found = {}
    for key, label in (("worker", worker), ("cp2k", cp2k), ("raspa", None)):
        try:
            found[key] = load_code(label or _DEFAULT_CODES[key])
        except (NotExistent, MultipleObjectsError) as error:
            if key != "worker" and label is None:
                continue
            hint = "make it with `mofmace setup` or `verdi code create`"
            raise click.ClickException(f"no code {label or _DEFAULT_CODES[key]!r} ({error}); {hint}") from error
    return found


def _charges(cif: Path) -> list[float]:
    """Read the charges of the framework.

    :raises ValueError: if there are none
    """
    charges = charges_of_cif(cif)
    if charges is None:
        raise ValueError(f"{cif.name} holds no charges; make them with Cp2kChargesCalculation")
    return charges


def _read_overrides(path: Path | None) -> dict[str, Any] | None:
    """Read a YAML or JSON file.

    :raises ValueError: if it is neither, or no mapping
    """
    if path is None:
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is neither YAML nor JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a mapping of the protocol's keys; `mofmace protocols show fast` lists them")
    return content


def _require_daemon() -> None:
    from aiida.engine.daemon.client import get_daemon_client

    if not get_daemon_client().is_daemon_running:
        raise click.ClickException("the daemon is not running: start it with `verdi daemon start`")
