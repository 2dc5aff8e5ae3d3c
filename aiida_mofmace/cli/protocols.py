"""``mofmace protocols``: the sets of parameters that come with the package."""

from __future__ import annotations

import click

__all__ = ["protocols"]


@click.group()
def protocols() -> None:
    """List and show protocols: every physical parameter of a run, by name."""


@protocols.command("list")
def list_() -> None:
    """List the protocols and what each is for."""
    from aiida_mofmace.protocols import load_protocol, protocol_names

    for name in protocol_names():
        click.echo(f"{name:12}{load_protocol(name)['description']}")


@protocols.command()
@click.argument("name")
def show(name: str) -> None:
    """Print protocol NAME as YAML, with its comments.

    Copy the keys that you want to change into a file of your own and give it to `mofmace run --overrides`.
    """
    from importlib import resources

    from aiida_mofmace.protocols import protocol_names

    if name not in protocol_names():
        raise click.ClickException(f"unknown protocol {name!r}; known are {', '.join(protocol_names())}")
    file = resources.files("aiida_mofmace.protocols").joinpath(f"{name}.yaml")
    click.echo(file.read_text(encoding="utf-8").rstrip())
