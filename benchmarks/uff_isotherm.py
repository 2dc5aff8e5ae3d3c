"""CO2 in MIL-120 at 303 K as UFF and TraPPE see it, beside experiments: RASPA with REPEAT charges of the framework.

python benchmarks/uff_isotherm.py [--protocol fast]
python benchmarks/uff_isotherm.py --pressures 2000 --cycles 400 300    # initialization and average
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
CHARGES = REPOSITORY / "tests" / "fixtures" / "raspa" / "mil_120_charges.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--protocol", default="fast")
    parser.add_argument("--pressures", type=float, nargs="+", help="Pa; default: the protocol's")
    parser.add_argument("--cycles", type=int, nargs=2, metavar=("INITIALIZATION", "AVERAGE"))
    arguments = parser.parse_args()
    protocol, section = arguments.protocol, {}
    if arguments.pressures:
        section["pressures"] = arguments.pressures
    if arguments.cycles:
        section |= dict(zip(("initialization_cycles", "cycles"), arguments.cycles, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AIIDA_PATH"] = folder
        from aiida import engine, orm
        from aiida.manage.configuration import load_profile
        from aiida.storage.sqlite_temp import SqliteTempBackend

        from aiida_mofmace.cli.setup import find_raspa
        from aiida_mofmace.workflows.inputs import structure_from_cif
        from aiida_mofmace.workflows.uff_isotherm import UffIsothermWorkChain

        load_profile(SqliteTempBackend.create_profile("benchmark", filepath=folder), allow_switch=True)
        workdir = str(Path(folder) / "jobs")
        computer = orm.Computer("localhost", "localhost", "", "core.local", "core.direct", workdir=workdir).store()
        computer.set_default_mpiprocs_per_machine(1)
        computer.configure(safe_interval=0)
        code = orm.InstalledCode(
            label="raspa", computer=computer, filepath_executable=find_raspa(), default_calc_job_plugin="raspa"
        ).store()
        framework = structure_from_cif(REPOSITORY / "examples" / "MIL-120_primitive_40atoms.cif")
        charges = json.loads(CHARGES.read_text())
        build = UffIsothermWorkChain.get_builder_from_protocol
        started = time.perf_counter()
        outputs, node = engine.run_get_node(
            build({"raspa": code}, framework, charges, protocol=protocol, overrides={"uff_gcmc": section})
        )
        print(
            f"{platform.machine()}, {os.cpu_count()} cores, protocol {protocol} {section or ''}, "
            f"{time.perf_counter() - started:.0f} s"
        )
        print(f"finished [{node.exit_status}], pores {outputs['pores']['POAV_Volume_fraction']:.4f} of the volume")
        for point in outputs["isotherm"]["points"]:
            print(
                f"{point['pressure_Pa']:10.0f} Pa {point['loading_mol_per_kg']:6.2f} ± "
                f"{point['loading_mol_per_kg_error']:.2f} mol/kg, heat "
                f"{point['isosteric_heat_kJ_per_mol']:.1f} ± {point['isosteric_heat_error_kJ_per_mol']:.1f} kJ/mol"
            )
        for name, frames in outputs["trajectories"].items():
            print(f"{name}: {frames.n_frames} snapshots in single cells, loadings {frames.loadings}")


if __name__ == "__main__":
    main()
