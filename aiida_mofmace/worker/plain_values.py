"""Results as values that JSON and the nodes of AiiDA can hold."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["to_plain"]


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
