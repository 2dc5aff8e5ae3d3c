"""Wall time and outcome of a run of the demo, with the size of the machine: ``verdi run benchmarks/demo.py PK``."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from aiida import orm

from aiida_mofmace.report.summary import summary


def machine() -> str:
    """Cores, memory and processor of this machine, in one line."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.machine()
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, {processor}, {platform.platform()}"


if __name__ == "__main__":
    print(machine())
    print(summary(orm.load_node(int(sys.argv[1]))))
