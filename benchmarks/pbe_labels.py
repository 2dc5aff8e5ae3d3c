"""Real PBE-D3 labels through the label work chain: MIL-120, CO2 in its cell, MIL-120 with CO2, and the binding energy.

verdi -p PROFILE run benchmarks/pbe_labels.py benchmarks/MIL-120_CO2_parallel.extxyz

The file holds MIL-120 as in examples/, then one CO2 whose place was relaxed at this level with the framework held. The
CO2 alone is labelled with the bond length of the protocol's gas and with that of the file, which is the reference.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from aiida import orm
from aiida.engine import run_get_node
from aiida.manage.caching import enable_caching
from ase import Atoms
from ase.io import read

from aiida_mofmace.workflows.inputs import gas_node, structure_from_cif
from aiida_mofmace.workflows.label import LabelWorkChain
from aiida_mofmace.workflows.label_references import binding_energy, lone_molecule

CIF = Path(sys.argv[0]).resolve().parents[1] / "examples" / "MIL-120_primitive_40atoms.cif"


def structures(file: str) -> dict[str, orm.StructureData]:
    """Framework, CO2 alone with two bond lengths, and both together."""
    framework = structure_from_cif(CIF)
    cell = orm.List([list(row) for row in framework.cell])
    loaded = read(file)
    bond = float(loaded.get_distances(-3, [-2, -1], mic=True).mean())
    relaxed = gas_node("CO2").get_dict() | {"positions": [[0, 0, 0], [0, 0, bond], [0, 0, -bond]]}
    plain = Atoms(loaded.numbers, loaded.positions, cell=loaded.cell, pbc=True)
    return {
        "framework": framework.store(),
        "molecule": lone_molecule(gas_node("CO2"), cell),
        "molecule_relaxed": lone_molecule(orm.Dict(relaxed), cell),
        "loaded": orm.StructureData(ase=plain).store(),
    }


def main(file: str) -> None:
    builder = LabelWorkChain.get_builder_from_protocol(
        {"cp2k": orm.load_code("cp2k@localhost")},
        structures(file),
        protocol="balanced",
        overrides={"resources": {"max_concurrent": 1, "cores": 1, "max_wallclock_seconds": 7200}},
    )
    start = time.perf_counter()
    with enable_caching(identifier="aiida.calculations:mofmace.*"):
        _, node = run_get_node(builder)
    print(f"{node.process_label} <{node.pk}> {node.exit_status}, {time.perf_counter() - start:.0f} s wall")
    print(f"level {builder.level['name']} ({builder.level['hash']}), one core of {os.cpu_count()}")
    labels = node.outputs.labels
    for name, label in labels.items():
        print(
            f"{name:18}{label.formula:16}{label.energy:14.4f} eV, largest force {label.max_force:.3f} eV/Å, "
            f"gap {label.band_gap:.2f} eV, {label.wall_seconds:.0f} s {label.flags or ''}"
        )
    for name in ("molecule", "molecule_relaxed"):
        bound = binding_energy(loaded=labels.loaded, framework=labels.framework, molecule=labels[name])
        print(f"binding energy against {name}: {bound['energy_kJ_per_mol']:.2f} kJ/mol")


main(sys.argv[1])
