"""Structural units of trajectories that are there already: ``mofmace units``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click
from aiida.cmdline.params.types import DataParamType
from aiida.cmdline.utils.decorators import with_dbenv

if TYPE_CHECKING:
    from aiida import orm

__all__ = ["units"]


@click.command()
@click.argument("trajectories", nargs=-1, required=True, type=DataParamType(), metavar="TRAJECTORY...")
@click.option(
    "-s", "--sites", default="MIL-120", show_default=True, help="Site definition: a known name or a YAML file."
)
@with_dbenv()
def units(trajectories: tuple[orm.Data, ...], sites: str) -> None:
    """Print the structural units of trajectories, given by PK or UUID.

    Each becomes a step of the provenance graph, whose outputs hold the fractions, also frame by frame. An asterisk
    stands where a fraction changed too rarely for an error bar to be relied on.
    """
    from aiida import orm

    from aiida_mofmace.data.frames import FramesData
    from aiida_mofmace.protocols import load_sites
    from aiida_mofmace.workflows.structural_functions import find_structural_units, validate_sites

    try:
        definition = orm.Dict(load_sites(sites))
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    message = validate_sites(definition, None)
    wrong = [str(node.pk) for node in trajectories if not isinstance(node, FramesData)]
    if message or wrong:
        raise click.ClickException(message or f"no trajectories: {', '.join(wrong)}")
    for trajectory in cast("tuple[FramesData, ...]", trajectories):
        try:
            found = find_structural_units(trajectory, definition)["fractions"]
        except ValueError as error:
            raise click.ClickException(f"trajectory <{trajectory.pk}>: {error}") from error
        click.echo(f"trajectory <{trajectory.pk}> {', '.join(trajectory.groups)}: fractions <{found.pk}>")
        for line in _lines(found.get_dict()):
            click.echo(line)


def _lines(fractions: dict[str, Any]) -> list[str]:
    from aiida_mofmace.report.summary import with_error

    def shown(name: str, value: dict[str, Any]) -> str:
        return f"  {name:<12}{with_error(value['mean'], value['error'], 3)}{' *' if value['too_short'] else ''}"

    kinds = {**fractions["orientation"], **fractions["units"]}
    head = f"  {fractions['n_frames']} frames, {fractions['n_hydroxyls']} hydroxyl groups, {fractions['flips']} flips"
    return [head, *(shown(name, value) for name, value in kinds.items())]
