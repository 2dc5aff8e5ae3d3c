"""``mofmace model``: look into model files without opening them."""

from __future__ import annotations

from pathlib import Path

import click

__all__ = ["model"]


@click.group()
def model() -> None:
    """Look into MACE model files."""


@model.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def inspect(file: Path) -> None:
    """Print what model FILE says about itself.

    A model file is a pickle, and opening a pickle runs whatever code is in it. This command reads the file with an
    inert reader: nothing of it is run, so a file from anywhere may be looked at.
    """
    from aiida_mofmace.data.model_file import read_model_metadata

    try:
        metadata = read_model_metadata(file)
    except ValueError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"sha256       {metadata.sha256}")
    click.echo(f"elements     {' '.join(metadata.elements)}")
    click.echo(f"r_max        {metadata.r_max:g} Å")
    click.echo(f"dtype        {metadata.dtype}")
    click.echo(f"parameters   {metadata.n_parameters}")
    for head in metadata.heads:
        energies = metadata.atomic_energies.get(head, {})
        listed = "  ".join(f"{symbol} {energy:.4f}" for symbol, energy in energies.items())
        click.echo(f"head         {head}: atomic energies (eV) {listed or 'not stated'}")
