"""Every physical parameter, by protocol; gases, levels of theory and sites: YAML files and how to read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

__all__ = [
    "force_field_names",
    "gas_names",
    "load_changes",
    "load_force_field",
    "load_free_atoms",
    "load_gas",
    "load_protocol",
    "load_sites",
    "protocol_names",
    "site_names",
]

_FOLDER = Path(__file__).parent


def protocol_names() -> list[str]:
    """Names of the protocols that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.yaml"))


def gas_names() -> list[str]:
    """Names of the gases whose geometry and critical constants are known."""
    return sorted(path.stem for path in (_FOLDER / "gases").glob("*.yaml"))


def load_protocol(name: str) -> dict[str, Any]:
    """Return the content of a protocol.

    :raises ValueError: if there is none of that name
    """
    if name not in protocol_names():
        raise ValueError(f"unknown protocol {name!r}; known are {', '.join(protocol_names())}")
    return _read(_FOLDER / f"{name}.yaml")


def load_changes(name: str) -> dict[str, Any]:
    """Return changes that a situation makes to any protocol, nested like its file: "from_scratch"."""
    return _read(_FOLDER / "changes" / f"{name}.yaml")


def load_gas(name: str) -> dict[str, Any]:
    """Return the description of a gas molecule: symbols, positions (Å), critical constants (K, Pa), acentric factor.

    :raises ValueError: if there is none of that name
    """
    if name not in gas_names():
        raise ValueError(f"unknown gas {name!r}; known are {', '.join(gas_names())}")
    return _read(_FOLDER / "gases" / f"{name}.yaml")


def site_names() -> list[str]:
    """Names of the frameworks whose hydroxyl sites and structural units are known."""
    return sorted(path.stem for path in (_FOLDER / "sites").glob("*.yaml"))


def load_sites(name: str | Path) -> dict[str, Any]:
    """Return the definition of the hydroxyl sites and structural units of a framework.

    :param name: of a known framework, or a YAML file of one's own
    :raises ValueError: if there is none of that name, or the file holds no mapping
    """
    path = Path(name)
    if not path.is_file():
        if str(name) not in site_names():
            raise ValueError(f"unknown site definition {str(name)!r}; give a YAML file or one of {site_names()}")
        path = _FOLDER / "sites" / f"{name}.yaml"
    try:
        content = _read(path)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is no YAML file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no mapping; see the site definitions that come with the package")
    return content


def force_field_names() -> list[str]:
    """Names of the force fields whose Lennard-Jones parameters are known."""
    return sorted(path.stem for path in (_FOLDER / "force_fields").glob("*.yaml"))


def load_force_field(name: str) -> dict[str, Any]:
    """Return Lennard-Jones parameters by chemical symbol: depth in K and diameter in Å, and where they come from.

    :raises ValueError: if there is none of that name
    """
    if name not in force_field_names():
        raise ValueError(f"unknown force field {name!r}; known are {', '.join(force_field_names())}")
    return _read(_FOLDER / "force_fields" / f"{name}.yaml")


def load_free_atoms() -> dict[str, int]:
    """Return the multiplicity 2 S + 1 of the ground state of each free atom, by chemical symbol."""
    return _read(_FOLDER / "references" / "free_atoms.yaml")


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content
