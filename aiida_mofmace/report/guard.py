"""Stands beside the daemon and has the broker look for dead workers again; started by :func:`guard_daemon`.

``python -m aiida_mofmace.report.guard PROFILE LOG``. It ends with the daemon.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from aiida_mofmace.report.daemon import dead_workers, release_dead_workers

__all__ = ["look"]

_PERIOD = 20.0  # s
#: s after which a worker that is missing is looked for again: the broker's account of them is up to 5 s old.
_DOUBT = 8.0


def look(wait: Callable[[float], None] = time.sleep) -> int:
    """Release the processes of workers that are missing at two looks; return how many workers that were.

    :param wait: sleeps for some seconds
    """
    if not dead_workers():
        return 0
    wait(_DOUBT)
    return release_dead_workers()


def _stand_guard(log: Path) -> None:
    daemon, said = os.getppid(), ""
    while os.getppid() == daemon:
        time.sleep(_PERIOD)
        try:
            dead = look()
            message = f"{dead} dead: what they were at goes on in the others" if dead else ""
        except Exception as error:
            message = f"cannot look: {error}"
        if message and message != said:
            with log.open("a", encoding="utf-8") as file:
                print(f"{datetime.now():%Y-%m-%d %H:%M:%S} workers of the daemon: {message}", file=file)
        said = message


if __name__ == "__main__":
    from aiida import load_profile

    load_profile(sys.argv[1])
    _stand_guard(Path(sys.argv[2]))
