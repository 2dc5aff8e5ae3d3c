"""``mofmace``: run, follow, look at, export."""

from __future__ import annotations

import click

import aiida_mofmace
from aiida_mofmace.cli.group import ProfileGroup, load
from aiida_mofmace.cli.labels import labels
from aiida_mofmace.cli.look import report, status, summary
from aiida_mofmace.cli.model import model
from aiida_mofmace.cli.protocols import protocols
from aiida_mofmace.cli.run import run
from aiida_mofmace.cli.setup import setup
from aiida_mofmace.cli.uff import uff
from aiida_mofmace.cli.units import units

__all__ = ["mofmace"]

# Behind \b click leaves a paragraph as it is; in a docstring it would have to be a raw one, which click does not read.
_HELP = """From a flexible MOF and a gas to a fine-tuned MACE potential and an adsorption isotherm with error bars.

\b
  mofmace setup                     make a profile, a computer and the codes, once
  mofmace run FRAMEWORK.cif         submit the whole workflow and follow it
  mofmace status PK                 how far a run is
  mofmace report PK                 write the HTML report of a run
  mofmace labels export             every DFT label in one file
  mofmace uff FRAMEWORK.cif         the isotherm of a generic force field alone
"""


@click.group(cls=ProfileGroup, help=_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(aiida_mofmace.__version__, prog_name="mofmace")
@click.option("-p", "--profile", metavar="NAME", help="AiiDA profile to work in. Default: AiiDA's default profile.")
@click.pass_context
def mofmace(context: click.Context, profile: str | None) -> None:
    """Load the profile that is asked for; `mofmace setup` makes it."""
    context.obj = profile
    if profile is not None and context.invoked_subcommand != setup.name:
        load(profile)


for command in (setup, run, status, summary, report, labels, protocols, model, units, uff):
    mofmace.add_command(command)
