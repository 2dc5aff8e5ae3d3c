"""What the commands that submit have in common: codes, overrides and charges read, the run submitted and followed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
import yaml

from aiida_mofmace.cli.group import read_only
from aiida_mofmace.cli.look import shell_status
from aiida_mofmace.data.charged_cif import charges_of_cif

if TYPE_CHECKING:
    from aiida import orm
    from aiida.engine.processes.builder import ProcessBuilder

__all__ = [
    "charges_of",
    "charges_option",
    "framework_of",
    "load_codes",
    "overrides_of",
    "submission_options",
    "submit_and_follow",
]

_DEFAULT_CODES = {"worker": "worker@localhost", "cp2k": "cp2k@localhost", "raspa": "raspa@localhost"}
_MAKE_CODE = "make it with `mofmace -p {0} setup` or `verdi -p {0} code create`"
#: Å; positions of one structure that went through a file.
_SAME_PLACE = 1e-3

charges_option = click.option(
    "--charges",
    metavar="NODE",
    help="For UFF: PK or UUID of the charges, or of the run that made them. Default: those in CIF.",
)


def submission_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the argument and the options that every submission of a framework has."""
    for option in (
        click.option("--no-follow", is_flag=True, help="Submit and return at once."),
        click.option(
            "--seed",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="Of everything that is drawn at random.",
        ),
        click.option(
            "--overrides",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            metavar="FILE",
            help="YAML or JSON file with the keys of the protocol to change.",
        ),
        click.option(
            "--protocol", default="fast", show_default=True, help="Set of parameters; see `mofmace protocols list`."
        ),
        click.option("--gas", default="CO2", show_default=True, help="Name of the gas."),
        click.argument("cif", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="CIF"),
    ):
        command = option(command)
    return command


def framework_of(cif: Path) -> orm.StructureData:
    """Return the framework in a CIF; say so where its hydrogen atoms seem to be missing.

    :raises ValueError: if it is refused
    """
    from aiida_mofmace.workflows.inputs import structure_from_cif

    structure = structure_from_cif(cif)
    elements = structure.get_symbols_set()
    if "C" in elements and "H" not in elements:
        click.echo(
            f"note: {cif.name} has carbon but no hydrogen. X-ray structures often lack the hydrogen atoms: add them, "
            "unless the framework has none",
            err=True,
        )
    return structure


def load_codes(given: dict[str, str | None], needed: str) -> dict[str, orm.AbstractCode]:
    """Load codes by key; one that was not named may be missing, but for the needed one.

    :param given: label by key, None for the label that `mofmace setup` gives
    :raises click.ClickException: if a code is not set up
    """
    from aiida.common.exceptions import MultipleObjectsError, NotExistent
    from aiida.orm import load_code

    found: dict[str, orm.AbstractCode] = {}
    for key, label in given.items():
        try:
            found[key] = load_code(label or _DEFAULT_CODES[key])
        except (NotExistent, MultipleObjectsError) as error:
            if key != needed and label is None:
                continue
            raise click.ClickException(_no_code(label or _DEFAULT_CODES[key], error)) from error
    return found


def _no_code(label: str, error: Exception) -> str:
    """Say that there is no such code here, and where there is one."""
    from aiida.manage import get_manager

    profile = get_manager().get_profile()
    here = profile.name if profile else ""
    others = [f"`mofmace -p {name} ...`" for name in _profiles_with(label)]
    hint = f"take the profile that has it: {' or '.join(others)}" if others else _MAKE_CODE.format(here)
    return f"no code {label!r} in profile `{here}` ({error}); {hint}"


def _profiles_with(label: str) -> list[str]:
    """Return the names of the other profiles that have a code; what cannot be opened has none."""
    from aiida.manage import get_manager
    from aiida.manage.configuration import get_config, load_profile
    from aiida.orm import load_code

    here, found = get_manager().get_profile(), []
    for name in get_config().profile_names:
        if here is None or name == here.name:
            continue
        with contextlib.suppress(Exception):
            load_profile(name, allow_switch=True)
            load_code(label)
            found.append(name)
    if here is not None:
        load_profile(here.name, allow_switch=True)
    return found


def charges_of(structure: orm.StructureData, cif: Path, identifier: str | None) -> orm.List | None:
    """Return the charges of a framework's atoms; None if there are none.

    :param structure: the one that was read from the file
    :param identifier: PK or UUID of charges or of the process that made them; None for those in the file
    :raises ValueError: if they are of another structure
    """
    from aiida import orm

    if identifier is not None:
        return _charges_node(identifier, structure)
    charges = charges_of_cif(cif)
    return None if charges is None else orm.List(charges)


def _charges_node(identifier: str, structure: orm.StructureData) -> orm.List:
    from aiida import orm
    from aiida.common.exceptions import MultipleObjectsError, NotExistent

    try:
        node = orm.load_node(identifier)
    except (NotExistent, MultipleObjectsError, ValueError) as error:
        raise ValueError(f"no charges {identifier!r}: {error}") from error
    if isinstance(node, orm.ProcessNode) and "charges" in node.outputs:
        node = node.outputs.charges
    if not isinstance(node, orm.List):
        raise ValueError(f"node <{node.pk}> is neither a list of charges nor a process that made one")
    if node.creator is not None and "structure" in node.creator.inputs:
        source = node.creator.inputs.structure
        if not _same_atoms(source, structure):
            raise ValueError(
                f"charges <{node.pk}> are of structure <{source.pk}>, whose atoms are not those of the CIF"
            )
    return node


def _same_atoms(first: orm.StructureData, second: orm.StructureData) -> bool:
    """Whether two structures list the same atoms in the same order and places."""
    one, other = first.get_ase(), second.get_ase()
    if one.get_chemical_symbols() != other.get_chemical_symbols():
        return False
    apart = one.get_scaled_positions() - other.get_scaled_positions()
    apart = (apart - np.round(apart)) @ other.cell.array
    near: bool = np.abs(apart).max() < _SAME_PLACE and np.abs(one.cell.array - other.cell.array).max() < _SAME_PLACE
    return near


def overrides_of(path: Path | None) -> dict[str, Any] | None:
    """Read a YAML or JSON file.

    :raises ValueError: if it is neither, or no mapping
    """
    if path is None:
        return None
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is neither YAML nor JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a mapping of the protocol's keys; `mofmace protocols show fast` lists them")
    return content


def submit_and_follow(build: Callable[[], ProcessBuilder], *, no_follow: bool) -> None:
    """Submit what is built, follow it to its end, print the summary and write the report; exit with its status.

    :param build: returns the builder; a ValueError, OSError or RuntimeError is shown as a refusal
    :raises click.ClickException: if the input is refused or no daemon runs
    """
    from aiida.engine import submit

    from aiida_mofmace.report.daemon import profile_option
    from aiida_mofmace.report.html import write_report
    from aiida_mofmace.report.progress import INTERRUPTED, follow
    from aiida_mofmace.report.summary import print_summary

    try:
        builder = build()
    except (ValueError, OSError, RuntimeError) as error:  # the last for a model that cannot be downloaded
        raise click.ClickException(str(error)) from error
    _require_daemon()
    process = submit(builder)
    click.echo(f"submitted {process.process_label} <{process.pk}>  {process.uuid}")
    if no_follow:
        click.echo(f"follow it with `mofmace{profile_option()} status {process.pk} --follow`")
        return
    exit_status = follow(process)
    if exit_status != INTERRUPTED:
        print_summary(process)
        click.echo(f"\nreport: {write_report(process, f'mofmace-report-{process.pk}.html')}")
    sys.exit(shell_status(exit_status))


def _require_daemon() -> None:
    from aiida.engine.daemon.client import get_daemon_client
    from aiida.manage import get_manager

    from aiida_mofmace.report.daemon import guard_daemon, profile_option

    if get_manager().get_profile_storage().read_only:
        raise click.ClickException(read_only())
    if not get_daemon_client().is_daemon_running:
        raise click.ClickException(f"the daemon is not running: start it with `verdi{profile_option()} daemon start`")
    guard_daemon()
