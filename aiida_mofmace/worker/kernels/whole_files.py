"""Files that are replaced in one go: whatever happens while one is written, the one before stays as it was."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["save_arrays", "whole_file"]


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a file beside the one of that name, and move it there when all of it is on the disk.

    A kill leaves the file that was there before, and so does a full disk, where what was written of the new one goes.
    """
    target = Path(path)
    partial = target.with_name(f".{target.name}")
    try:
        with partial.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def save_arrays(path: str | os.PathLike[str], **arrays: NDArray[Any]) -> None:
    """Write arrays to a ``npz`` file, whole or not at all.

    :raises ValueError: if one holds objects, which would be pickled; ``np.savez`` itself can refuse them only since
        NumPy 2.1, and an older one takes ``allow_pickle`` for the name of an array
    """
    pickled = [name for name, array in arrays.items() if np.asarray(array).dtype.hasobject]
    if pickled:
        raise ValueError(f"{', '.join(pickled)}: objects cannot be stored")
    with whole_file(path) as handle:
        np.savez(handle, **arrays)
