"""Binding energies of CO2 in the structural units of MIL-120, relaxed with the starter model, beside the paper's.

``python -m benchmarks.binding_sites [STEPS]``: most steps of a relaxation.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ase.io import read

from aiida_mofmace.protocols import load_gas, load_protocol, load_sites
from aiida_mofmace.starter import STARTER_MODEL
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.worker.kernels.sites import SiteDefinition
from aiida_mofmace.worker.programs.binding import BindingSites
from benchmarks.demo import machine

STRUCTURE = Path(__file__).parents[1] / "examples" / "MIL-120_primitive_40atoms.cif"

if __name__ == "__main__":
    started, content = time.process_time(), load_sites("MIL-120")
    parameters = load_protocol("fast")["binding_sites"]
    if len(sys.argv) > 1:
        parameters["max_steps"] = int(sys.argv[1])
    definition, published = SiteDefinition.from_dict(content), content["published"]["binding_kJ_per_mol"]
    potential = MaceEvaluator(STARTER_MODEL, "cpu", "float32", None)
    sites = BindingSites(potential, definition, Gas.from_dict(load_gas("CO2")), parameters)
    print(machine())
    limits = f"{parameters['largest_force']} eV/Å in {parameters['max_steps']} steps or not"
    print(f"starter model (GFN1-xTB), relaxed to {limits}")
    print(f"paper: {content['published']['source']}")
    print(f"{'site':<16}{'kJ/mol':>9}{'paper':>9}{'relaxed':>9}{'angle to rod':>14}  hydroxyl groups: empty, with CO2")
    for row in sites.rows(read(STRUCTURE), []):
        name = f"{row['unit']}_{row['guest']}"
        print(
            f"{name:<16}{row['energy_kJ_per_mol']:>9.2f}{published[name]:>9.2f}{'yes' if row['relaxed'] else 'no':>9}"
            f"{row['angle_to_rod']:>13.0f}°  {row['units_before'][0]}, {row['units_after'][0]}",
            flush=True,
        )
    print(f"{time.process_time() - started:.0f} CPU seconds")
