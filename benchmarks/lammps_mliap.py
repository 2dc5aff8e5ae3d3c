"""Sampling by a LAMMPS with ``pair_style mliap unified`` against ASE and the other engines, starter model.

python -m benchmarks.lammps_mliap LMP CONVERTED [CONVERTED ...]

LMP is called as LAMMPS is. For the results here it was a shell script that runs :mod:`benchmarks.mliap_lmp`, which says
how LAMMPS was built; a build with KOKKOS needs no such program. Each CONVERTED is the starter model as
``mace_create_lammps_model --format=mliap`` writes it (which takes cuequivariance and cuequivariance-torch);
``--dtype float32`` and float64 may stand beside each other; ``own_kernels`` in the output is the same file with the
model's own kernels, as the tests make it. The first makes the trajectories, through
``SamplingWorkChain`` and aiida-lammps in a profile that lasts as long as the benchmark.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import molecule
from ase.data import chemical_symbols
from ase.io import read
from numpy.typing import NDArray

from aiida_mofmace.calculations import lammps_script
from aiida_mofmace.starter import STARTER_MODEL
from aiida_mofmace.worker.kernels.dynamics import MdState
from benchmarks.demo import machine

Array = NDArray[np.float64]
FRAMEWORK = Path(__file__).resolve().parents[1] / "examples" / "MIL-120_primitive_40atoms.cif"
RUN = {"temperatures": [300.0], "loadings": [2], "steps": 100, "equilibration_steps": 0, "stride": 10}
POINT = """units metal
atom_style atomic
atom_modify map yes
newton on
boundary p p p
box tilt large
fix reference all property/atom d_x d_y d_z
read_data structure.data fix reference NULL Reference
{style}
thermo_style custom step pe pxx pyy pzz pxy pxz pyz
thermo_modify format float %.14g
dump forces all custom 1 forces.dump id fx fy fz
dump_modify forces sort id format float %.14g
run 0
"""


def structures() -> dict[str, Atoms]:
    """Return what energies are compared for: the framework, the same rattled and larger, and two molecules alone."""
    framework = read(FRAMEWORK)
    rattled = framework.repeat((2, 2, 1))
    rattled.rattle(0.05, seed=1)
    carbon_dioxide = molecule("CO2")
    pair = carbon_dioxide.copy()
    pair.positions += [3.0, 0.5, 0.2]
    pair += carbon_dioxide
    pair.set_cell([15.0, 16.0, 17.0])
    pair.pbc = True
    return {"MIL-120, 40 atoms": framework, "the same, rattled, 160 atoms": rattled, "two CO2 alone": pair}


def by_lammps(program: str, model: Path, state: MdState) -> tuple[float, Array, Array]:
    """Return energy in eV, forces in eV/Å and pressure (xx, yy, zz, xy, xz, yz) in bar, as LAMMPS orients the cell."""
    elements = " ".join(chemical_symbols[number] for number in np.unique(state.numbers))
    style = lammps_script.PAIR_STYLES["mliap unified"].format(model=model, elements=elements)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / lammps_script.STRUCTURE).write_text(lammps_script.structure_file(state))
        (folder / "point.in").write_text(POINT.format(style=style))
        done = subprocess.run([program, "-in", "point.in"], cwd=folder, check=False, capture_output=True, text=True)
        row = re.search(r"^ +Step +PotEng.*\n +0 +(.*)$", done.stdout, re.MULTILINE)
        if row is None:
            raise SystemExit(done.stdout[-1000:] + done.stderr[-1000:])
        energy, *pressure = (float(word) for word in row[1].split())
        forces = np.loadtxt(folder / "forces.dump", skiprows=9)[:, 1:]
    return energy, forces, np.array(pressure)


def ase_calculator() -> Any:
    """Return MACE's own ASE calculator of the starter model, in double precision."""
    from mace.calculators import MACECalculator

    return MACECalculator(str(STARTER_MODEL), device="cpu", default_dtype="float64")


def point(program: str, model: Path, atoms: Atoms) -> tuple[float, float, float]:
    """Return how far energy (eV), forces (eV/Å) and pressure (bar) are from those of MACE's own ASE calculator."""
    atoms.calc = ase_calculator()
    energy, forces, cell = atoms.get_potential_energy(), atoms.get_forces(), np.array(atoms.cell)
    at_rest = np.zeros_like(forces)
    state = MdState(
        atoms.numbers, atoms.get_masses(), atoms.positions, at_rest, cell, forces, energy, 0.0, len(atoms), step=0
    )
    found_energy, found_forces, found_pressure = by_lammps(program, model, state)
    turn = lammps_script.rotation(cell)
    stress = turn.T @ atoms.get_stress(voigt=False) @ turn
    pressure = -stress[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]] / units.bar
    of_forces = float(np.abs(found_forces - forces @ turn).max())
    return abs(found_energy - energy), of_forces, float(np.abs(found_pressure - pressure).max())


def open_profile(folder: str, program: str) -> dict[str, Any]:
    """Make a profile that lasts as long as this process; return the codes."""
    os.environ["AIIDA_PATH"] = folder
    from aiida import orm
    from aiida.manage.configuration import load_profile
    from aiida.storage.sqlite_temp import SqliteTempBackend

    load_profile(SqliteTempBackend.create_profile("benchmark", filepath=folder), allow_switch=True)
    workdir = str(Path(folder) / "jobs")
    computer = orm.Computer("localhost", "localhost", "", "core.local", "core.direct", workdir=workdir).store()
    computer.set_default_mpiprocs_per_machine(1)
    computer.configure(safe_interval=0)
    programs = {"worker": ("mofmace.mace_md", sys.executable), "lammps": ("lammps.raw", program)}
    programs["mofmace-lmp"] = ("lammps.raw", shutil.which("mofmace-lmp") or "")
    return {
        key: orm.InstalledCode(
            label=key, computer=computer, filepath_executable=path, default_calc_job_plugin=plugin
        ).store()
        for key, (plugin, path) in programs.items()
    }


def sample(codes: dict[str, Any], model: Path | None, seconds: int = 3600, **changes: Any) -> tuple[Any, Any, int]:
    """Return node, frames (None if there are none) and the number of jobs of LAMMPS of a sampling with one run.

    :param codes: "worker", and "lammps" for a LAMMPS that aiida-lammps runs
    :param model: converted, None for one that needs no such file
    :param seconds: wall time of a job
    """
    from aiida import engine

    from aiida_mofmace.workflows.inputs import structure_from_cif
    from aiida_mofmace.workflows.sampling import SamplingWorkChain

    own = {"engine": "lammps", "pair_style": "mliap unified"} if "lammps" in codes else {"engine": "native"}
    resources = {"max_wallclock_seconds": seconds}
    overrides = {"sampling": {**RUN, **own, **changes}, "evaluation": {"dtype": "float64"}, "resources": resources}
    builder = SamplingWorkChain.get_builder_from_protocol(
        codes, structure_from_cif(FRAMEWORK), lammps_model=model, overrides=overrides, seed=5
    )
    outputs, node = engine.run_get_node(builder)
    found = outputs.get("trajectories", {}).get("md_300k_2")
    run = node.called[-1]
    jobs = sum(child.process_label == "LammpsRawCalculation" for child in node.called_descendants)
    return run, found and found.get_frames(), jobs


def difference(frames: Any, others: Any) -> str:
    """Return how far two trajectories are apart, up to two of their steps."""
    assert list(frames.steps) == list(others.steps)
    texts = []
    for end in (2, len(frames)):
        x = np.abs(frames.positions - others.positions).reshape(len(frames), -1)[:end].max()
        energy = np.abs(frames.energies - others.energies)[:end].max()
        texts.append(f"{x:.1e} Å and {energy:.1e} eV by step {frames.steps[end - 1]}")
    return ", ".join(texts)


def trajectories(codes: dict[str, Any], model: Path, folder: Path) -> None:
    """Print how LAMMPS's trajectories compare with those of the other engines, and what it does with another model."""
    from tests.worker.engine_fixtures import mliap_model, write_tiny_mace

    launcher = {"worker": codes["worker"], "lammps": codes.pop("mofmace-lmp")}
    own = {"worker": codes["worker"]}
    run, frames, _ = sample(codes, model)
    first = run.outputs.results["first_frame"]
    images = [frames.atoms(index) for index in range(len(frames))]
    calculator = ase_calculator()
    direct = [calculator.get_potential_energy(image) for image in images]
    print(f"{run.outputs.results['engine']}, {run.outputs.results['versions']['lammps']}: {len(frames)} frames")
    print(f"first frame: {first['energy_per_atom']:.1e} eV/atom and {first['force']:.1e} eV/Å from the worker's")
    print(f"energies of the frames against ASE: {np.abs(frames.energies - direct).max():.1e} eV")
    _, launched, _ = sample(launcher, None)
    print(f"NVT against mofmace-lmp: {difference(frames, launched)}")
    _, native, _ = sample(own, None)
    print(f"NVT against the engine native: {difference(frames, native)}")
    _, parts, jobs = sample(codes, model, seconds=15, max_restarts=10)
    print(f"NVT in {jobs} jobs of 15 s against one: {difference(parts, frames)}")
    run, frames, _ = sample(codes, model, pressure=1e5)
    _, launched, _ = sample(launcher, None, pressure=1e5)
    cells = np.abs(frames.cells - launched.cells).max()
    print(f"NPT against mofmace-lmp: {difference(frames, launched)}; cells {cells:.1e} Å")
    print(f"while the cell changed by {np.ptp(frames.cells, axis=0).max():.1e} Å")
    other = folder / "other.pt"
    other.write_bytes(mliap_model(write_tiny_mace(folder / "other.model")))
    run, _, _ = sample(codes, other)
    print(f"file of another model: exit code {run.exit_status}, {run.exit_message}")


def main() -> None:
    with contextlib.redirect_stdout(sys.stderr):  # mace says that it is without cuequivariance
        import mace.calculators  # noqa: F401
    from tests.worker.engine_fixtures import mliap_model

    program, models = sys.argv[1], [Path(name).resolve() for name in sys.argv[2:]]
    started = time.perf_counter()
    print(machine(), flush=True)
    print(f"{'largest difference from ASE in float64':<64}{'energy/eV':>12}{'force/(eV/Å)':>14}{'pressure/bar':>14}")
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "own_kernels.pt"
        own.write_bytes(mliap_model(STARTER_MODEL))
        for model in [*models, own]:
            for name, atoms in structures().items():
                energy, force, pressure = point(program, model, atoms)
                print(f"{f'{model.stem}: {name}':<64}{energy:>12.1e}{force:>14.1e}{pressure:>14.1e}", flush=True)
        trajectories(open_profile(folder, program), models[0], Path(folder))
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
