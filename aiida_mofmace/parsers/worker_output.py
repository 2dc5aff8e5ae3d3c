"""The worker's ``output.json`` as a checked dictionary: text in, plain values out."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["ERROR_LABELS", "parse_worker_output"]

_KEYS = {"status": str, "reason": str, "versions": dict, "wall_seconds": (int, float), "results": dict}
_STATUSES = ("finished", "stopped", "failed")

#: Label of the exit code for each kind of error that a program names; any other is ERROR_WORKER_FAILED.
ERROR_LABELS = {
    "bad_input": "ERROR_BAD_INPUT",
    "does_not_fit": "ERROR_BAD_INPUT",
    "no_model": "ERROR_BAD_INPUT",
    "nan": "ERROR_NOT_A_NUMBER",
    "explosion": "ERROR_EXPLOSION",
    "wrong_engine": "ERROR_WRONG_ENGINE",
    "out_of_memory": "ERROR_OUT_OF_MEMORY",
    "nothing_new": "ERROR_NOTHING_NEW",
}


def parse_worker_output(text: str) -> dict[str, Any]:
    """Read ``output.json``.

    :param text: content of the file
    :return: status, reason, error, versions, wall_seconds and results
    :raises ValueError: if it is no JSON, a key is missing or of the wrong type, or a failure has no error
    """
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError("output.json holds no object")
    for key, kind in _KEYS.items():
        if not isinstance(content.get(key), kind):  # type: ignore[arg-type]
            raise ValueError(f"output.json has no proper {key!r}: {content.get(key)!r}")
    if content["status"] not in _STATUSES:
        raise ValueError(f"output.json has the unknown status {content['status']!r}")
    error = content.setdefault("error", None)
    if (content["status"] == "failed") != isinstance(error, dict):
        raise ValueError(f"output.json has the status {content['status']!r} and the error {error!r}")
    return content
