"""Run one program: ``python -m mofmace_worker PROGRAM input.json``; the outcome always stands in ``output.json``."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from .errors import describe_error
from .kernels.whole_files import whole_file
from .results import package_versions, to_plain
from .stopping import StopRequest

PROGRAMS = (
    "md",
    "md_gcmc",
    "md_gcmc_batch",
    "select",
    "committee",
    "fine_tune",
    "label_tblite",
    "widom",
    "blank_model",
    "binding",
)


def run_program(program: str, inputs: dict[str, Any], stop: StopRequest) -> dict[str, Any]:
    """Run a program and describe its outcome in the form of ``output.json``."""
    output: dict[str, Any] = {"status": "failed", "reason": "", "error": None, "results": {}}
    try:
        module = importlib.import_module(f".programs.{program}", package=__package__)
        output["results"] = module.run(inputs, stop)
        reason = stop.reason() if output["results"].pop("stopped_early", False) else None
        output["status"] = "stopped" if reason else "finished"
        output["reason"] = reason or ""
    except Exception as error:
        traceback.print_exc()
        output["error"] = describe_error(error)
    return output


def enter_own_folder(files: dict[str, Any], rank: int) -> None:
    """Let every process but the first work in a folder of its own, so that no two write the same file.

    :param files: names of the input files by purpose, single or in lists; they are linked
    :param rank: number of this process
    """
    if rank == 0:
        return
    folder = Path(f"rank_{rank}")
    folder.mkdir(exist_ok=True)
    for entry in files.values():
        for name in entry if isinstance(entry, list) else [entry]:
            if name is not None and not (folder / name).exists():
                (folder / name).symlink_to(Path(name).resolve())
    os.chdir(folder)


def main(arguments: list[str]) -> int:
    """Entry point; returns the exit code of the process: 0 finished or stopped gracefully, 1 failed, 2 misuse."""
    if len(arguments) != 2 or arguments[0] not in PROGRAMS:
        print(f"usage: python -m mofmace_worker {{{','.join(PROGRAMS)}}} input.json", file=sys.stderr)
        return 2
    started = time.monotonic()
    program, path = arguments
    inputs = json.loads(Path(path).read_text(encoding="utf-8"))
    if "TORCHELASTIC_RUN_ID" in os.environ:  # set by torchrun alone; schedulers have ranks of their own
        enter_own_folder(inputs.get("files") or {}, int(os.environ["RANK"]))
    stop = StopRequest(inputs.get("max_wall_seconds"))
    stop.listen()
    output = run_program(program, inputs, stop)
    output |= {"versions": package_versions(), "wall_seconds": time.monotonic() - started}
    with whole_file("output.json") as handle:
        handle.write(json.dumps(to_plain(output), indent=1, allow_nan=False).encode())
    return 0 if output["error"] is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
