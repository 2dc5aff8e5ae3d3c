"""What LAMMPS prints and dumps, also of jobs that were stopped in the middle of it."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mofmace.parsers.lammps_output import parse_dump, parse_output

#: As LAMMPS 22 Jul 2025 wrote it, with the tables cut short.
SCREEN = """LAMMPS (22 Jul 2025 - Update 2)
Reading data file ...
   Step         PotEng        c_off[1]       c_off[2]       c_off[3]      c_closest
         1 -11.5           1e-9           2e-7           3e-8           0.96
Loop time of 1.1e-06 on 1 procs for 0 steps with 46 atoms
first frame: energy -11.5 eV, forces off by 1e-09 2e-07 3e-08 eV/Angstrom
   Step          Temp          PotEng       Econserve        Volume       c_closest
         1 292.5          -11.5          -9.7            527.9          0.96
         2 290.5          -11.4          -9.7            527.9          0.95
WARNING: Fix halt condition for fix-id distance met on step 5 with value 0.2 (src/fix_halt.cpp:313)
         5 nan            -11.0          -9.7            527.9          0.2
Loop time of 0.5 on 1 procs for 4 steps with 46 atoms
last step: 5
"""
DUMP = """ITEM: TIMESTEP
6
ITEM: NUMBER OF ATOMS
2
ITEM: BOX BOUNDS xy xz yz pp pp pp
-1.5 7.0 -0.5
0.0 5.0 -1.0
0.5 4.5 0.0
ITEM: ATOMS id type xu yu zu
1 1 0.5 0.25 1.0
2 2 -3.5 9 0.5
"""


def test_what_lammps_printed() -> None:
    output = parse_output(SCREEN)
    assert (output.first_energy, output.first_force) == (-11.5, 2e-7)
    assert (output.last_step, output.halted, output.error) == (5, ("distance", 5, 0.2), "")
    assert (output.steps_per_second, output.version) == (8.0, "22 Jul 2025 - Update 2")
    assert output.thermo[:, 0].tolist() == [1.0, 2.0, 5.0]
    assert output.thermo[1, 1:].tolist() == [290.5, -11.4, -9.7, 527.9, 0.95]


@pytest.mark.parametrize("wrong", ["1e-9", "2e-7", "3e-8"])
def test_forces_of_which_one_is_no_number(wrong: str) -> None:
    """Whichever it is: what is no number is within no limit."""
    line = next(line for line in SCREEN.splitlines() if line.startswith("first frame"))
    printed = line.replace("1e-09", "1e-9").replace("2e-07", "2e-7").replace("3e-08", "3e-8").replace(wrong, "nan")
    found = parse_output(printed + "\n").first_force
    assert found is not None and np.isnan(found)


@pytest.mark.parametrize("lines", [8, 4, 0])
def test_a_job_that_was_killed(lines: int) -> None:
    """It says as much as it could; a failure says why."""
    output = parse_output("\n".join(SCREEN.splitlines()[:lines]))
    assert output.last_step is None and output.halted is None
    assert len(output.thermo) == (1 if lines == 8 else 0)
    assert parse_output("ERROR: Lost atoms\n").error == "ERROR: Lost atoms"
    assert parse_output("first frame: energy nan eV, forces off by nan 1 0 eV/Angstrom\n").first_force != 0.0


def test_a_tilted_box_and_a_frame_cut_off() -> None:
    """Bounds are those of the box that encloses the cell; its origin is taken off the positions."""
    (frame,) = parse_dump(DUMP + DUMP[:-6])
    assert (frame.step, frame.types.tolist()) == (6, [1, 2])
    assert frame.cell.tolist() == [[7.0, 0.0, 0.0], [-0.5, 5.0, 0.0], [-1.0, 0.0, 4.0]]
    np.testing.assert_allclose(frame.positions, [[0.5, 0.25, 0.5], [-3.5, 9.0, 0.0]])
    assert parse_dump("") == []


def test_frames_of_different_sizes() -> None:
    """Molecules come and go."""
    smaller = DUMP.replace("\n2\nITEM: BOX", "\n1\nITEM: BOX").replace("2 2 -3.5 9 0.5\n", "")
    assert [len(frame.positions) for frame in parse_dump(DUMP + smaller + DUMP)] == [2, 1, 2]
