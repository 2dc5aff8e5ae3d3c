"""Rigid MIL-120(Al) and TraPPE CO2 in this engine and in RASPA2.

``python -m benchmarks.gcmc_raspa SIMULATE [STEPS [PASCAL ...]]``: SIMULATE is RASPA2's program (``pip install
RASPA2==2.0.4`` into an environment of its own); STEPS are blocks of 20 moves of this engine, and as many cycles of
RASPA2.

``python -m benchmarks.gcmc_raspa start LOADING SEED CPU_SECONDS``: this engine alone at 2 x 10^5 Pa, from LOADING
molecules, for as long as given. Two starts, from below and from above, show whether a run has forgotten its start.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read

from aiida_mofmace.worker.kernels.statistics import estimate_mean
from aiida_mofmace.worker.programs.hybrid import HybridSimulation
from aiida_mofmace.worker.stopping import StopRequest
from benchmarks.demo import machine
from tests.worker.classical import CHARGES, GAS_CHARGES, TRAPPE, UFF, ClassicalPotential
from tests.worker.engine_fixtures import CO2
from tests.worker.gcmc_proofs import parameters

CELLS = (2, 2, 2)
CUTOFF = 6.6
TEMPERATURE = 400.0
FUGACITIES = (2e3, 2e4, 2e5)
FRAMEWORK = Path(__file__).parents[1] / "examples" / "MIL-120_primitive_40atoms.cif"


class CpuLimit(StopRequest):
    """Stops a run after so many seconds of CPU time."""

    def __init__(self, seconds: float):
        super().__init__()
        self.end = time.process_time() + seconds

    def reason(self) -> str | None:
        """Return why to stop, or None."""
        return "walltime" if time.process_time() > self.end else None


def simulation(framework: Atoms, fugacity: float, steps: int, seed: int, loading: int = 2) -> HybridSimulation:
    """Return this engine's run of rigid molecules, moved by Monte Carlo alone."""
    what = parameters(
        temperature=TEMPERATURE,
        pressure=fugacity,
        gas=CO2,
        steps=steps,
        attempts_per_block=20,
        minimum_distance=1.5,
        model_hole_bound=-5.0,
        gas_flexible=False,
        framework_flexible=False,
        moves={"exchange": 2.0, "translation": 1.0, "rotation": 1.0, "reinsertion": 1.0},
        translation_step=1.0,
        rotation_step=60.0,
        initial_loading=loading,
    )
    return HybridSimulation(what, ClassicalPotential(framework, CUTOFF), framework, seed=seed)


def engine(framework: Atoms, fugacity: float, steps: int) -> tuple[float, float, float]:
    """Return loading per primitive cell, its error, and energy per molecule in K."""
    run = simulation(framework, fugacity, steps, seed=int(fugacity))
    run.advance(StopRequest())
    arrays = run.series.arrays()
    loading = estimate_mean(arrays["loading"])
    kept = slice(loading.equilibration_index, None)
    energy = arrays["potential_energy"][kept].mean() / arrays["loading"][kept].mean()
    cells = int(np.prod(CELLS))
    return loading.mean / cells, loading.error / cells, energy / 8.617333262e-5


def write_raspa(folder: Path, primitive: Atoms, fugacity: float, cycles: int) -> None:
    """Write the same framework, force field and conditions for RASPA2."""
    a, b, c, alpha, beta, gamma = primitive.cell.cellpar()
    names = {"_cell_length_a": a, "_cell_length_b": b, "_cell_length_c": c}
    names |= {"_cell_angle_alpha": alpha, "_cell_angle_beta": beta, "_cell_angle_gamma": gamma}
    rows = [
        f"{symbol} {symbol} {x:.8f} {y:.8f} {z:.8f} {CHARGES[symbol]}"
        for symbol, (x, y, z) in zip(primitive.get_chemical_symbols(), primitive.get_scaled_positions(), strict=True)
    ]
    columns = ["label", "type_symbol", "fract_x", "fract_y", "fract_z", "charge"]
    cif = ["data_framework", *(f"{key} {value:.8f}" for key, value in names.items())]
    cif += [
        "_symmetry_space_group_name_H-M 'P 1'",
        "_symmetry_Int_Tables_number 1",
        "loop_",
        "_symmetry_equiv_pos_as_xyz",
    ]
    cif += ["'x,y,z'", "loop_", *(f"_atom_site_{column}" for column in columns), *rows]
    (folder / "framework.cif").write_text("\n".join(cif) + "\n")
    atoms = [(s, CHARGES[s], s, "yes") for s in UFF] + [("C_co2", GAS_CHARGES[0], "C", "yes")]
    atoms += [("O_co2", GAS_CHARGES[1], "O", "yes")]
    header = "#type print as chem oxidation mass charge polarization B-factor radii connectivity anisotropic "
    header += "anisotropic-type tinker-type"
    lines = ["#number of pseudo atoms", str(len(atoms)), header]
    masses = {"Al": 26.9815, "O": 15.999, "C": 12.011, "H": 1.008}
    lines += [f"{n} yes {e} {e} 0 {masses[e]} {q} 0.0 1.0 1.0 0 0 absolute 0" for n, q, e, _ in atoms]
    (folder / "pseudo_atoms.def").write_text("\n".join(lines) + "\n")
    fields = [(s, *UFF[s]) for s in UFF] + [("C_co2", *TRAPPE["C"]), ("O_co2", *TRAPPE["O"])]
    rules = ["# general rule for shifted vs truncated", "truncated", "# general rule tailcorrections", "no"]
    rules += ["# number of defined interactions", str(len(fields)), "# type interaction"]
    rules += [f"{name} lennard-jones {depth} {diameter}" for name, depth, diameter in fields]
    rules += ["# general mixing rule for Lennard-Jones", "Lorentz-Berthelot"]
    (folder / "force_field_mixing_rules.def").write_text("\n".join(rules) + "\n")
    (folder / "force_field.def").write_text(
        "# rules to overwrite\n0\n# number of defined interactions\n0\n# mixing rules\n0\n"
    )
    molecule = ["# critical constants: T [K], P [Pa], acentric factor", "304.1282", "7377300.0", "0.22394"]
    molecule += [
        "# number of atoms",
        "3",
        "# number of groups",
        "1",
        "# group",
        "rigid",
        "# number of atoms",
        "3",
        "# positions",
    ]
    molecule += ["0 O_co2 0.0 0.0 1.16", "1 C_co2 0.0 0.0 0.0", "2 O_co2 0.0 0.0 -1.16"]
    molecule += ["# Chiral Bond BondDipoles Bend UreyBradley InvBend Torsion Imp.Torsion ...", "0 2" + " 0" * 13]
    molecule += ["# bonds", "0 1 RIGID_BOND", "1 2 RIGID_BOND", "# number of config moves", "0"]
    (folder / "CO2.def").write_text("\n".join(molecule) + "\n")
    (folder / "simulation.input").write_text(
        f"""SimulationType MonteCarlo
NumberOfCycles {cycles}
NumberOfInitializationCycles {cycles // 4}
PrintEvery {cycles // 5}
Forcefield Local
CutOffVDW {CUTOFF}
CutOffChargeCharge {CUTOFF}
ChargeMethod Ewald
EwaldPrecision 1e-6
UseChargesFromCIFFile yes
Framework 0
FrameworkName framework
UnitCells {CELLS[0]} {CELLS[1]} {CELLS[2]}
ExternalTemperature {TEMPERATURE}
ExternalPressure {fugacity}
Component 0 MoleculeName CO2
  MoleculeDefinition Local
  FugacityCoefficient 1.0
  TranslationProbability 1.0
  RotationProbability 1.0
  ReinsertionProbability 1.0
  SwapProbability 2.0
  CreateNumberOfMolecules 0
"""
    )


def raspa(simulate: str, primitive: Atoms, fugacity: float, cycles: int) -> tuple[float, float, float]:
    """Return loading per primitive cell, its standard error (of five blocks), and energy per molecule in K."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_raspa(folder, primitive, fugacity, cycles)
        subprocess.run([simulate, "simulation.input"], cwd=folder, check=True, capture_output=True)
        text = next((folder / "Output" / "System_0").glob("*.data")).read_text()
    found = re.search(r"Average loading absolute \[molecules/unit cell\]\s+(\S+) \+/-\s+(\S+)", text)
    assert found is not None
    loading, spread = float(found[1]), float(found[2])
    energies = [
        re.search(rf"Average {kind} energy:.*?Average\s+(\S+)", text, re.DOTALL)
        for kind in ("Host-Adsorbate", "Adsorbate-Adsorbate")
    ]
    total = sum(float(each[1]) for each in energies if each is not None)
    # RASPA2 gives a 95 % interval of five blocks, 2.776 standard errors
    return loading, spread / 2.776, total / loading / int(np.prod(CELLS))


def from_start(loading: int, seed: int, seconds: float) -> None:
    """Print the mean loading of a run from the given one, whole and by fifths, nothing cut off."""
    framework: Any = read(FRAMEWORK)
    run = simulation(framework.repeat(CELLS), FUGACITIES[-1], 10**9, seed, loading)
    run.advance(CpuLimit(seconds))
    series = run.series.arrays()["loading"] / np.prod(CELLS)
    mean = estimate_mean(series, detect_equilibration=False)
    fifths = " ".join(f"{part.mean():.3f}" for part in np.array_split(series, 5))
    print(machine())
    print(f"{FUGACITIES[-1]:.0f} Pa from {loading} molecules, seed {seed}, {seconds:.0f} s: {len(series)} blocks")
    print(f"{mean.mean:.4f} ± {mean.error:.4f} per primitive cell, {mean.effective_samples:.0f} effective samples")
    print(f"one sample in {mean.statistical_inefficiency:.0f} blocks; fifths of the run: {fifths}")
    print(run.counts())


def main() -> None:
    if sys.argv[1] == "start":
        from_start(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
        return
    simulate, steps = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 20000
    primitive: Any = read(FRAMEWORK)
    framework = primitive.repeat(CELLS)
    print(machine())
    print(f"MIL-120(Al) {CELLS}, {len(framework)} atoms, rigid; UFF, TraPPE CO2, Ewald; {TEMPERATURE:g} K")
    print(f"{'fugacity':>10} {'engine: N/cell':>20} {'U/N, K':>9} {'RASPA2: N/cell':>20} {'U/N, K':>9} {'errors':>7}")
    for fugacity in [float(each) for each in sys.argv[3:]] or FUGACITIES:
        began = time.process_time()
        ours = engine(framework, fugacity, steps)
        spent = time.process_time() - began
        theirs = raspa(simulate, primitive, fugacity, steps)
        deviation = (ours[0] - theirs[0]) / np.hypot(ours[1], theirs[1])
        print(
            f"{fugacity:>7.0f} Pa {ours[0]:>11.4f} ± {ours[1]:.4f} {ours[2]:>9.1f} "
            f"{theirs[0]:>11.4f} ± {theirs[1]:.4f} {theirs[2]:>9.1f} {deviation:>7.1f}  ({spent:.0f} s)",
            flush=True,
        )


if __name__ == "__main__":
    main()
