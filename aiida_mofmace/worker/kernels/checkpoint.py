"""Checkpoints: arrays and plain values in one ``npz`` file, replaced in one go, so that a kill leaves the last one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WorkerError
from .whole_files import save_arrays

__all__ = ["load_checkpoint", "restore_generator", "save_checkpoint"]

_FORMAT = 2


def save_checkpoint(path: Path, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]) -> None:
    """Write a checkpoint in place of the old one.

    :param path: the file, ending in .npz
    :param arrays: arrays to keep, no objects
    :param values: anything JSON can hold, e.g. ``{"rng": rng.bit_generator.state}``
    """
    save_arrays(path, **{**arrays, "format": np.array(_FORMAT), "values": np.array(json.dumps(values))})


def load_checkpoint(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what :func:`save_checkpoint` wrote; pickled content is refused.

    :raises WorkerError: kind bad_input, if the file is no checkpoint of this format
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        if int(arrays.pop("format")) != _FORMAT:
            raise WorkerError("bad_input", f"{path.name} was written by another version of this program")
        return arrays, json.loads(str(arrays.pop("values")))
    except (OSError, KeyError, ValueError) as error:
        raise WorkerError("bad_input", f"{path.name} is no checkpoint of this program: {error}") from error


def restore_generator(state: Mapping[str, Any]) -> np.random.Generator:
    """Return a generator that goes on where the one with this ``bit_generator.state`` was."""
    generator = np.random.default_rng(0)
    generator.bit_generator.state = dict(state)
    return generator
