"""How long listing and exporting many labels takes: a profile of its own, filled with labels, then the command line.

python benchmarks/labels_export.py --count 3000                    # all of it
python benchmarks/labels_export.py --count 3000 --folder FOLDER    # keeps the profile there; again: without the import
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def frames(count: int) -> str:
    """Return labelled frames of MIL-120 with one CO2 (43 atoms) as extended XYZ; the numbers are drawn."""
    import numpy as np
    from ase import Atoms
    from ase.io import read, write

    generator = np.random.default_rng(3)
    framework = read(REPOSITORY / "examples" / "MIL-120_primitive_40atoms.cif")
    text = io.StringIO()
    for _ in range(count):
        atoms = framework + Atoms("CO2", generator.uniform(0, 7, (3, 3)))
        atoms = Atoms(atoms.numbers, atoms.positions, cell=framework.cell, pbc=True)
        atoms.rattle(0.05, rng=generator)
        atoms.info = {"REF_energy": float(generator.normal(-2745.0)), "REF_stress": generator.normal(size=9)}
        atoms.set_array("REF_forces", generator.normal(size=(len(atoms), 3)))
        write(text, atoms, format="extxyz")
    return text.getvalue()


def cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(name: str, command: list[str], environment: dict[str, str]) -> None:
    """Run a command and print its wall time and its CPU time."""
    start, before = time.perf_counter(), cpu_seconds()
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    last = (done.stdout + done.stderr).strip().splitlines()[-1]
    print(f"{name:8}{time.perf_counter() - start:8.1f} s wall {cpu_seconds() - before:8.1f} s CPU   {last[:70]}")


def measure(path: Path, count: int) -> None:
    """Make and fill the profile if there is none yet; list and export."""
    environment = {**os.environ, "AIIDA_PATH": str(path), "PYTHONWARNINGS": "ignore"}
    programs = Path(sys.executable).parent
    mofmace, source = [str(programs / "mofmace")], path / "labels.extxyz"
    print(f"{count} labels of 43 atoms; {os.cpu_count()} cores, {platform.machine()}, Python {sys.version.split()[0]}")
    if not source.exists():
        source.write_text(frames(count))
        presto = [programs / "verdi", "presto", "-n", "--use-zeromq"]
        subprocess.run(presto, env=environment, check=True, capture_output=True)
        stated = ["--level", "gfn1-xtb", "--origin", "drawn numbers"]
        timed("import", [*mofmace, "labels", "import", str(source), *stated], environment)
    timed("list", [*mofmace, "labels", "list"], environment)
    timed("export", [*mofmace, "labels", "export", "--out", str(path / "all.extxyz")], environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=3000, help="number of labels")
    parser.add_argument(
        "--folder", type=Path, default=None, help="where the profile is kept; a temporary one if not given"
    )
    given = parser.parse_args()
    if given.folder is not None:
        given.folder.mkdir(exist_ok=True)
        measure(given.folder, given.count)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), given.count)


if __name__ == "__main__":
    main()
