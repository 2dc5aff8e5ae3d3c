"""The place of one CO2 in a framework that is held, relaxed at a level of theory by CP2K through AiiDA.

verdi -p PROFILE run benchmarks/pbe_relaxation.py START.extxyz OUT.extxyz [MAX_STEPS] [LEVEL]

START holds the framework and then one CO2; OUT is what benchmarks/pbe_labels.py takes. MAX_STEPS (default 20) bounds
the steps of the optimisation, of which each costs a single point; LEVEL is the name of a level, pbe-d3 if not given.
"""

from __future__ import annotations

import sys
from typing import Any

from aiida import orm
from aiida.engine import run_get_node
from aiida.manage.caching import enable_caching
from aiida.plugins import CalculationFactory
from ase import Atoms
from ase.io import read, write

from aiida_mofmace.data.level import LevelOfTheory

GAS_ATOMS = 3


def relaxation_parameters(level: LevelOfTheory, structure: orm.StructureData, max_steps: int) -> dict[str, Any]:
    """Return CP2K's input of a geometry optimisation in which all but the last three atoms are held."""
    parameters = level.cp2k_parameters(structure)
    parameters["GLOBAL"] |= {"RUN_TYPE": "GEO_OPT", "PRINT_LEVEL": "LOW"}
    evaluation = parameters["FORCE_EVAL"]
    evaluation.pop("STRESS_TENSOR", None)
    evaluation["DFT"].pop("PRINT", None)
    evaluation["DFT"].get("QS", {}).pop("EXTRAPOLATION", None)
    held = len(structure.sites) - GAS_ATOMS
    parameters["MOTION"] = {
        "CONSTRAINT": {"FIXED_ATOMS": {"LIST": f"1..{held}"}},
        "GEO_OPT": {"OPTIMIZER": "BFGS", "MAX_ITER": max_steps, "BFGS": {"TRUST_RADIUS": "[angstrom] 0.1"}},
        "PRINT": {"RESTART_HISTORY": {"_": "OFF"}},
    }
    return parameters


def main(start: str, out: str, max_steps: str = "20", name: str = "pbe-d3") -> None:
    loaded = read(start)
    structure = orm.StructureData(ase=Atoms(loaded.numbers, loaded.positions, cell=loaded.cell, pbc=True))
    level = LevelOfTheory.load(name)
    with enable_caching(identifier="aiida.calculations:cp2k"):
        outputs, node = run_get_node(
            CalculationFactory("cp2k"),
            code=orm.load_code("cp2k@localhost"),
            structure=structure,
            parameters=orm.Dict(relaxation_parameters(level, structure, int(max_steps))),
            metadata={"options": {"resources": {"num_machines": 1, "num_mpiprocs_per_machine": 1}, "withmpi": False}},
        )
    print(f"{node.process_label} <{node.pk}> {node.exit_status} {node.exit_message or ''}")
    atoms = outputs["output_structure"].get_ase()
    write(out, atoms, format="extxyz")
    bonds = atoms.get_distances(len(atoms) - 3, [len(atoms) - 2, len(atoms) - 1], mic=True)
    moved = atoms.positions[-GAS_ATOMS:] - loaded.positions[-GAS_ATOMS:]
    print(f"level {level.name}, {max_steps} steps at most")
    print(f"bonds of the CO2 {bonds[0]:.4f} and {bonds[1]:.4f} Å, its atoms moved by {abs(moved).max():.3f} Å at most")


main(*sys.argv[1:])
