"""``mofmace uff``: the isotherm of a generic force field and a rigid framework, by itself."""

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

__all__ = ["uff"]


@click.command()
@submission_options
@charges_option
@click.option("--raspa-code", metavar="LABEL", help="RASPA2. Default: raspa@localhost.")
@click.option("--cp2k-code", metavar="LABEL", help="CP2K, for charges. Default: cp2k@localhost where it is set up.")
@with_dbenv()
def uff(
    *,
    cif: Path,
    gas: str,
    overrides: Path | None,
    charges: str | None,
    raspa_code: str | None,
    cp2k_code: str | None,
    no_follow: bool,
    **options: Any,
) -> None:
    """Submit the isotherm that UFF gives for the rigid framework in CIF, and follow it until it has ended.

    No model and no DFT: what a screening would say, to be seen beside the isotherm of a trained potential. Pressures,
    temperature and cycles are the section `uff_gcmc` of the protocol. Where CIF holds no charges and none are given,
    CP2K fits them first (REPEAT; minutes to hours). Needs RASPA (`make uff`).
    """
    try:
        from aiida_mofmace.workflows.uff_isotherm import UffIsothermWorkChain
    except ImportError as error:
        raise click.ClickException(f"{error.name} is missing: install the extra `uff` (`make uff`)") from error

    def build() -> ProcessBuilder:
        codes = load_codes({"raspa": raspa_code, "cp2k": cp2k_code}, needed="raspa")
        structure = framework_of(cif)
        return UffIsothermWorkChain.get_builder_from_protocol(
            codes, structure, charges_of(structure, cif, charges), gas, overrides=overrides_of(overrides), **options
        )

    submit_and_follow(build, no_follow=no_follow)
