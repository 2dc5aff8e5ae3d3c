"""Write the reference from the code: processes, protocols, levels of theory, gases, data and the command line."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import yaml
from aiida.engine import CalcJob, Process, WorkChain
from aiida.engine.processes.ports import PortNamespace

from aiida_mofmace.cli import mofmace
from aiida_mofmace.protocols import gas_names, load_gas, load_protocol, protocol_names

__all__ = ["write_all"]

_OF_AIIDA = ("metadata", "monitors", "remote_folder", "retrieved", "remote_stash", "clean_workdir", "handler_overrides")
_ORDER = ("fast", "balanced", "paper")


def write_all(folder: Path) -> None:
    """Write every page; a page that has not changed is left alone, so that a second build is quick.

    :param folder: where the pages go
    """
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "workflows.md": _processes("Work chains", "aiida.workflows"),
        "calculations.md": _processes("Calculation jobs", "aiida.calculations"),
        "data.md": _data(),
        "protocols.md": _protocols(),
        "levels.md": _yaml_files("Levels of theory", "levels", _LEVELS),
        "gases.md": _gases(),
        "command_line.md": _command_line(),
    }
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def _points(group: str) -> list[Any]:
    points = [point for point in entry_points(group=group) if point.name.startswith("mofmace.")]
    if find_spec("aiida_lsmo") is None:  # the extra `uff` is not installed
        points = [point for point in points if not point.name.startswith("mofmace.uff_")]
    return sorted(points, key=lambda point: point.name)


def _cell(text: object) -> str:
    """Put a text into one cell of a table."""
    words = " ".join(str(text or "").split()).replace("|", "\\|")
    parts = words.split("`")
    return "`".join(
        part if index % 2 else part.replace("<", "&lt;").replace("*", "\\*") for index, part in enumerate(parts)
    )


def _table(header: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    return "\n".join([*lines, *("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows), ""])


def _prose(text: str | None) -> str:
    """Turn a docstring into Markdown: drop its field list, and the markup of roles."""
    body = inspect.cleandoc(text or "").split("\n:param", maxsplit=1)[0].split("\n:raises", maxsplit=1)[0]
    body = re.sub(r":(?:class|func|meth|mod):`~?([^`]+)`", r"`\1`", body)
    return body.replace("``", "`").strip()


# -------------------------------------------------------------------------------------------------------- processes


def _processes(title: str, group: str) -> str:
    parts = [f"# {title}\n"]
    for point in _points(group):
        process = point.load()
        parts += [
            f"## {process.__name__}\n",
            f"Entry point `{point.name}`\n",
            _prose(process.__doc__) + "\n",
            "```{rubric} Inputs\n```\n",
            _table(("name", "type", "", "meaning"), list(_ports(process.spec().inputs))),
            "```{rubric} Outputs\n```\n",
            _table(("name", "type", "", "meaning"), list(_ports(process.spec().outputs))),
            "```{rubric} Exit codes\n```\n",
            _table(("status", "name", "message"), _exit_codes(process)),
        ]
    return "\n".join(parts)


def _ports(namespace: PortNamespace, prefix: str = "") -> Iterator[tuple[object, ...]]:
    for name, port in sorted(namespace.items(), key=lambda item: (not item[1].required, item[0])):
        if prefix == "" and name in _OF_AIIDA:
            continue
        need = "required" if port.required else "optional"
        if isinstance(port, PortNamespace) and len(port):
            yield from _ports(port, f"{prefix}{name}.")
            continue
        label = f"`{prefix}{name}.*`" if isinstance(port, PortNamespace) else f"`{prefix}{name}`"
        yield label, _type_names(port.valid_type), need, port.help


def _type_names(valid_type: Any) -> str:
    types = valid_type if isinstance(valid_type, tuple) else (valid_type,)
    return ", ".join(f"`{kind.__name__}`" for kind in types if kind is not None and kind is not type(None))


def _exit_codes(process: type[Process]) -> list[tuple[object, ...]]:
    """List the exit codes that are not aiida-core's own."""
    core = {code.status for base in (CalcJob, WorkChain) for code in base.spec().exit_codes.values()}
    codes = sorted(process.spec().exit_codes.items(), key=lambda item: item[1].status)
    return [(code.status, f"`{label}`", code.message) for label, code in codes if code.status not in core]


# ------------------------------------------------------------------------------------------------------------- data


def _data() -> str:
    parts = ["# Data\n"]
    for point in _points("aiida.data"):
        node = point.load()
        members = [(name, member) for name, member in vars(node).items() if not name.startswith("_")]
        own = [(f"`{name}`", _prose(member.__doc__)) for name, member in members if isinstance(member, property)]
        methods = [
            (f"`{name}`", _prose(inspect.getdoc(member)).split("\n\n")[0])
            for name, member in members
            if isinstance(member, classmethod) or inspect.isfunction(member)
        ]
        parts += [
            f"## {node.__name__}\n",
            f"Entry point `{point.name}`\n",
            _prose(node.__doc__) + "\n",
            _table(("property or method", "meaning"), [*own, *methods]),
        ]
    return "\n".join(parts)


# -------------------------------------------------------------------------------------------------------- protocols


def _protocols() -> str:
    names = sorted(protocol_names(), key=lambda name: (_ORDER.index(name) if name in _ORDER else 99, name))
    contents = {name: load_protocol(name) for name in names}
    lines = ["# Protocols\n", "Every physical parameter stands in a protocol and nowhere else. Any of them can be"]
    lines += ["overridden by its key; a key that does not exist is refused, with the nearest one that does.\n"]
    lines += [f"`{name}`\n: {content['description']}\n" for name, content in contents.items()]
    lines.append("## Side by side\n")
    flat = {name: dict(_flat(content)) for name, content in contents.items()}
    keys = list(dict.fromkeys(key for values in flat.values() for key in values if key != "description"))
    rows = [(f"`{key}`", *(_value(flat[name].get(key, "-")) for name in names)) for key in keys]
    lines.append(_table(("key", *names), rows))
    for name in names:
        text = resources.files("aiida_mofmace.protocols").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
        lines += [f"## {name}.yaml\n", f"```yaml\n{text.rstrip()}\n```\n"]
    return "\n".join(lines)


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else ("none" if value is None else str(value))


_LEVELS = """A level of theory is a file. Its hash covers every setting that changes energies and leaves out those that
do not (listed under `not_energy`): two labels may stand in one dataset only if their hashes agree. Take one with the
protocol's key `level`.
"""


def _yaml_files(title: str, folder: str, text: str) -> str:
    parts = [f"# {title}\n", text]
    for path in sorted(resources.files("aiida_mofmace.protocols").joinpath(folder).iterdir(), key=lambda p: p.name):
        if path.name.endswith(".yaml"):
            content = path.read_text(encoding="utf-8").rstrip()
            parts += [f"## {path.name.removesuffix('.yaml')}\n", f"```yaml\n{content}\n```\n"]
    return "\n".join(parts)


def _gases() -> str:
    rows: list[tuple[object, ...]] = []
    for name in gas_names():
        gas = load_gas(name)
        critical = (gas["critical_temperature"], gas["critical_pressure"] / 1e5, gas["acentric_factor"])
        rows.append((f"`{name}`", len(gas["symbols"]), *(f"{value:g}" for value in critical), gas["source"]))
    header = ("name", "atoms", "critical temperature (K)", "critical pressure (bar)", "acentric factor", "source")
    example = yaml.safe_dump(load_gas("CO2"), sort_keys=False, allow_unicode=True, default_flow_style=None)
    return "\n".join(
        [
            "# Gases\n",
            "A gas is given by name, or as a `Dict` with the keys of the example for one that is not here.\n",
            _table(header, rows),
            f"```yaml\n{example}```\n",
        ]
    )


# ----------------------------------------------------------------------------------------------------- command line


def _command_line() -> str:
    parts = ["# Command line\n"]
    for path, command in _commands(mofmace, "mofmace"):
        context = click.Context(command, info_name=path, max_content_width=100, terminal_width=100)
        parts += [f"## {path}\n", f"```text\n{command.get_help(context)}\n```\n"]
    return "\n".join(parts)


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    for name, child in sorted(getattr(command, "commands", {}).items()):
        yield from _commands(child, f"{path} {name}")
