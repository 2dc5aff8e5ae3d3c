"""The group of commands: what it says where there is no profile, or one that cannot be written to."""

from __future__ import annotations

from typing import Any

import click
from aiida.common.exceptions import AiidaException
from aiida.manage import get_manager

__all__ = ["ProfileGroup", "load", "read_only"]


class ProfileGroup(click.Group):
    """Commands that work in a profile of AiiDA."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; say what to do where the profile is the trouble."""
        try:
            return super().invoke(ctx)
        except SystemExit:
            # AiiDA has said that there is no configuration or no default profile, and ends the program.
            if get_manager().get_profile() is None:
                click.echo("`mofmace setup` makes a profile, `mofmace -p NAME ...` takes another one", err=True)
            raise
        except AiidaException as error:
            from aiida.storage.sqlite_zip.utils import ReadOnlyError

            if not isinstance(error, ReadOnlyError):
                raise
            raise click.ClickException(read_only()) from error


def read_only() -> str:
    """Return what is said of a profile that is an archive, opened as it is."""
    profile = get_manager().get_profile()
    return (
        f"profile `{profile.name if profile else ''}` is read-only: import its archive into one of your own "
        "(`verdi -p NAME archive import FILE`) and work there (`mofmace -p NAME ...`)"
    )


def load(profile: str) -> None:
    """Load a profile.

    :raises click.ClickException: if there is none of that name
    """
    from aiida import load_profile
    from aiida.common.exceptions import ConfigurationError

    try:
        load_profile(profile, allow_switch=True)
    except ConfigurationError as error:
        hint = f"`verdi profile list` shows what there is, `mofmace -p {profile} setup` makes it"
        raise click.ClickException(f"{error}; {hint}") from error
