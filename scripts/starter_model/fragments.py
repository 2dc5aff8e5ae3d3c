"""Build the molecules, aluminium fragments and small solids that the starter model learns from.

``python fragments.py fragments.extxyz`` relaxes rough geometries with GFN1-xTB (tblite) and writes them with their
names in ``config_type``. The solids are experimental cells, repeated so that a Γ-point label makes sense.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.build import make_supercell, molecule
from ase.optimize import BFGS
from ase.spacegroup import crystal
from scipy.spatial.transform import Rotation

ORGANICS = ("C6H6", "HCOOH", "CH3COOH", "CH4", "C2H4", "C2H2", "H2CO", "CH3OH", "H2", "H2O2", "OCHCHO", "CO")


def octahedral_aluminium(waters: int) -> Atoms:
    """Return Al(OH)3 with up to three water molecules trans to the hydroxide groups."""
    axes = np.vstack([np.eye(3), -np.eye(3)])[: 3 + waters]
    atoms = Atoms("Al", positions=[[0, 0, 0]])
    for index, axis in enumerate(axes):
        side = np.roll(axis, 1)
        oxygen = 1.85 * axis
        atoms += Atoms("OH", positions=[oxygen, oxygen + 0.6 * axis + 0.75 * side])
        if index >= 3:
            atoms += Atoms("H", positions=[oxygen + 0.6 * axis - 0.75 * side])
    return atoms


def aluminium_formate(formates: int) -> Atoms:
    """Return Al with chelating formate groups and hydroxide groups, three in all."""
    atoms = Atoms("Al", positions=[[0, 0, 0]])
    group = np.array([[2.35, 0, 0], [1.75, 0, 1.1], [1.75, 0, -1.1], [3.45, 0, 0]])
    for index in range(3):
        turn = Rotation.from_euler("z", 120 * index, degrees=True)
        if index < formates:
            twist = Rotation.from_euler("x", 35, degrees=True)
            atoms += Atoms("COOH", positions=turn.apply(twist.apply(group)))
        else:
            atoms += Atoms("OH", positions=turn.apply([[1.70, 0, 0], [2.25, 0.7, 0.3]]))
    return atoms


def aluminium_dimer() -> Atoms:
    """Return Al2(OH)6 with two bridging hydroxide groups."""
    metals = np.array([[1.4, 0, 0], [-1.4, 0, 0]])
    oxygens = [[0, 1.2, 0], [0, -1.2, 0]] + [[2.3 * s, 0, 1.5 * t] for s in (1, -1) for t in (1, -1)]
    hydrogens = [[0, 2.1, 0.2], [0, -2.1, 0.2]] + [[3.1 * s, 0.3, 1.9 * t] for s in (1, -1) for t in (1, -1)]
    return Atoms("Al2O6H6", positions=np.vstack([metals, oxygens, hydrogens]))


def pyromellitic_acid() -> Atoms:
    """Return 1,2,4,5-benzenetetracarboxylic acid, the linker of MIL-120 with its four protons."""
    atoms = molecule("C6H6")
    carbons = np.flatnonzero(atoms.numbers == 6)
    hydrogens = [int(np.argmin(np.linalg.norm(atoms.positions[6:] - atoms.positions[c], axis=1))) + 6 for c in carbons]
    acid = atoms.copy()
    for position in (0, 1, 3, 4):
        outward = atoms.positions[carbons[position]] / np.linalg.norm(atoms.positions[carbons[position]])
        normal = np.array([0.0, 0.0, 1.0]) if abs(outward[2]) < 0.5 else np.array([1.0, 0.0, 0.0])
        tilt = Rotation.from_rotvec(outward * np.radians(50)).apply(normal)
        centre = atoms.positions[carbons[position]] + 1.49 * outward
        oxygens = [centre + 0.62 * outward + sign * 1.07 * tilt for sign in (1, -1)]
        acid += Atoms("COOH", positions=[centre, *oxygens, oxygens[1] + 0.95 * outward])
    del acid[[hydrogens[position] for position in (0, 1, 3, 4)]]
    return acid


def solids() -> dict[str, Atoms]:
    """Return boehmite and diaspore (AlOOH), repeated to at least 5.7 Å in every direction."""
    boehmite = crystal(
        ["Al", "O", "O", "H"],
        [(0, 0.683, 0.25), (0, 0.287, 0.25), (0, 0.080, 0.25), (0, 0.015, 0.09)],
        spacegroup=63,
        cellpar=[2.868, 12.234, 3.692, 90, 90, 90],
    )
    # The hydrogen site is half occupied: keep those of one sense of the zigzag chains.
    heights = boehmite.get_scaled_positions()[:, 2] % 1
    del boehmite[np.flatnonzero((boehmite.numbers == 1) & (heights > 0.5))]
    diaspore = crystal(
        ["Al", "O", "O", "H"],
        [(0.1446, 0.25, -0.0451), (-0.1989, 0.25, 0.2880), (-0.0532, 0.25, -0.1970), (-0.0876, 0.25, -0.4095)],
        spacegroup=62,
        cellpar=[9.4253, 2.8452, 4.4007, 90, 90, 90],
    )
    return {
        "boehmite": make_supercell(boehmite, np.diag([2, 1, 2])),
        "diaspore": make_supercell(diaspore, np.diag([1, 2, 2])),
    }


def relaxed(atoms: Atoms, steps: int = 80) -> Atoms:
    """Return a copy relaxed with GFN1-xTB without periodic boundaries."""
    from tblite.ase import TBLite

    atoms = atoms.copy()
    atoms.calc = TBLite(method="GFN1-xTB", verbosity=0)
    BFGS(atoms, logfile=None, maxstep=0.1).run(fmax=0.05, steps=steps)
    return Atoms(atoms.symbols, positions=atoms.positions)


def fragments() -> dict[str, Atoms]:
    """Return all relaxed molecules and fragments by name."""
    rough = {name: molecule(name) for name in ("CO2", "H2O", *ORGANICS)}
    rough["pyromellitic_acid"] = pyromellitic_acid()
    rough |= {f"AlO3H3_{waters}H2O": octahedral_aluminium(waters) for waters in (0, 1, 3)}
    rough |= {f"Al_formate_{formates}": aluminium_formate(formates) for formates in (1, 2, 3)}
    rough["Al2_hydroxide"] = aluminium_dimer()
    return {name: relaxed(atoms) for name, atoms in rough.items()}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    frames = []
    for bulk, group in ((False, fragments()), (True, solids())):
        for name, atoms in group.items():
            frame = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=bulk)
            frame.info.update(config_type=name, bulk=bulk)
            frames.append(frame)
    ase.io.write(arguments.output, frames, format="extxyz")


if __name__ == "__main__":
    main()
