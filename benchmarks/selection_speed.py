"""Time and memory of the selection of 200 frames out of many: 160 atoms each, SOAP as in the protocol `paper`.

python benchmarks/selection_speed.py --frames 2000 10000 100000

With ``--soap 3 1`` the descriptors are small and quick; all that comes after them sees as many frames and as many
components as before and costs the same.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[1]
FRAMES_PER_FILE = 5000
MODES = 12
STEPS = ("refuse_faulty", "project", "refuse_duplicates", "pick", "write_map")


def write_frames(count: int, folder: Path) -> list[str]:
    """Write frames of MIL-120 (2 x 2 x 1 cells) displaced along a few drawn modes and by noise."""
    import numpy as np
    from ase.io import read

    from aiida_mofmace.worker.kernels.frames import Frames

    framework = read(REPOSITORY / "examples" / "MIL-120_primitive_40atoms.cif").repeat((2, 2, 1))
    rng = np.random.default_rng(5)
    modes = rng.normal(scale=0.04, size=(MODES, len(framework), 3))
    names = []
    for start in range(0, count, FRAMES_PER_FILE):
        size = min(FRAMES_PER_FILE, count - start)
        moved = np.einsum("fm,mac->fac", rng.normal(size=(size, MODES)), modes)
        moved += framework.positions + rng.normal(scale=0.01, size=moved.shape)
        names.append(str(folder / f"frames_{start}.npz"))
        Frames(
            numbers=np.tile(framework.numbers, size).astype(np.int16),
            offsets=np.arange(size + 1, dtype=np.int64) * len(framework),
            positions=moved.reshape(-1, 3),
            cells=np.tile(framework.cell.array, (size, 1, 1)),
            energies=np.full(size, np.nan),
            steps=np.arange(size, dtype=np.int64),
            framework_atoms=np.full(size, len(framework), dtype=np.int64),
            loadings=np.zeros(size, dtype=np.int64),
            groups=[f"md_{start}"] * size,
        ).save(names[-1])
    return names


def measure(names: list[str], soap: list[int] | None) -> None:
    """Select as the job does and print CPU seconds by step and the largest memory of this process."""
    import yaml

    from aiida_mofmace.worker.kernels.projection import one_thread
    from aiida_mofmace.worker.programs.select import Selection
    from aiida_mofmace.worker.stopping import StopRequest

    protocol = yaml.safe_load((REPOSITORY / "aiida_mofmace" / "protocols" / "paper.yaml").read_text())
    parameters = {**protocol["selection"], "n_select": 200, "coverage_cells": 200}
    if soap:
        parameters["soap"] |= dict(zip(("n_max", "l_max"), soap, strict=True))
    seconds = dict.fromkeys(STEPS, 0.0)

    def timed(step: str) -> Any:
        original = getattr(Selection, step)

        def run(*arguments: Any) -> Any:
            before = time.process_time()
            found = original(*arguments)
            seconds[step] += time.process_time() - before
            return found

        return run

    for step in STEPS:
        setattr(Selection, step, timed(step))
    started = time.process_time()
    with one_thread():
        inputs = {"seed": 1, "parameters": parameters, "files": {"frames": names, "dataset": None}}
        selection = Selection(inputs, StopRequest())
        results = selection.run()
    total, count = time.process_time() - started, results["pool"]
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    choosing = total - seconds["refuse_faulty"] - seconds["project"]
    print(
        f"{count:8d} {1000 * seconds['project'] / count:9.2f} {1000 * seconds['refuse_faulty'] / count:9.2f} "
        f"{choosing:10.1f} {seconds['refuse_duplicates']:11.1f} {seconds['pick']:8.1f} {seconds['write_map']:7.1f} "
        f"{total:8.0f} {memory:8.2f} {len(results['selected']):9d}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[2000, 10000, 100000])
    parser.add_argument("--soap", type=int, nargs=2, metavar=("N_MAX", "L_MAX"), help="instead of the protocol's")
    parser.add_argument("--files", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.files:
        measure(arguments.files, arguments.soap)
        return
    soap = ["--soap", *map(str, arguments.soap)] if arguments.soap else []
    which = f"n_max {soap[1]}, l_max {soap[2]}" if soap else "of the protocol paper"
    print(f"{platform.machine()}, {os.cpu_count()} cores, one used; CPU seconds; SOAP {which}")
    print("  frames  describe     check  selection  (duplicates    picks  t-SNE)    total   memory  selected")
    print("          ms/frame  ms/frame          s           s        s       s        s      GiB", flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    for count in arguments.frames:
        with tempfile.TemporaryDirectory() as folder:
            names = write_frames(count, Path(folder))
            subprocess.run(
                [sys.executable, str(Path(__file__).resolve()), *soap, "--files", *names],
                cwd=folder,
                env=environment,
                check=True,
            )


if __name__ == "__main__":
    main()
