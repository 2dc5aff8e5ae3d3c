"""Check that the shipped starter model is stable, has no holes and is fast.

``python check_stability.py fragments.extxyz``

Prints: 10 ps of NVT dynamics of MIL-120 without and with 4 CO2 at 500 K, energies of random insertions that come
close to the framework, energies of close pairs of gas molecules, and the time of a force call.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

import ase.io
import configurations
import geometry
import mace
import numpy as np
import torch
from ase import Atoms, units
from ase.md.nose_hoover_chain import NoseHooverChainNVT
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary
from ase.neighborlist import neighbor_list
from mace.calculators import MACECalculator

MODEL = configurations.ROOT / "aiida_mofmace" / "starter" / "starter.model"

BOND_CUTOFFS = {
    ('H', 'O'): 1.2, ('H', 'C'): 1.3, ('C', 'C'): 1.75, ('C', 'O'): 1.6, ('Al', 'O'): 2.3,
}  # fmt: skip
"""Pairs closer than this (Å) in the first frame count as bonded."""

BROKEN = 1.35
"""A bond is broken when it is this many times longer than in the first frame."""

TEMPERATURE = 500.0
"""Temperature of the dynamics, K."""

HOLE = -1.2
"""An insertion energy (eV) below this cannot be physics."""


def bonds_of(atoms: Atoms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return first atom, second atom and length (Å) of every bond; both atoms are those of the first image."""
    first, second, length = neighbor_list("ijd", atoms, BOND_CUTOFFS)
    once = first < second
    return first[once], second[once], length[once]


def run_dynamics(
    atoms: Atoms, calculator: MACECalculator, steps: int, seed: int, snapshots: list[Atoms]
) -> dict[str, float]:
    """Run NVT dynamics (Nosé-Hoover chain, 0.5 fs, 500 K) and return figures on its sanity.

    :param snapshots: filled with 20 frames of the second half.
    :returns: mean and extreme temperature (K), shortest distance (Å), largest stretch of a bond, broken bonds, lowest
        and highest potential energy relative to the mean (eV), ms per step.
    """
    rng = np.random.default_rng(seed)
    atoms.calc = calculator
    MaxwellBoltzmannDistribution(atoms, temperature_K=TEMPERATURE, rng=rng)
    Stationary(atoms)
    first, second, length = bonds_of(atoms)
    integrator = NoseHooverChainNVT(atoms, timestep=0.5 * units.fs, temperature_K=TEMPERATURE, tdamp=50 * units.fs)
    temperatures, energies, shortest, stretch = [], [], [], []
    started = time.perf_counter()
    for block in range(steps // 20):
        integrator.run(20)
        if block >= steps // 40 and block % max(1, steps // 800) == 0:
            snapshots.append(Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True))
        vectors = atoms.positions[second] - atoms.positions[first]
        fractional = vectors @ np.linalg.inv(np.asarray(atoms.cell))
        now = np.linalg.norm((fractional - np.round(fractional)) @ np.asarray(atoms.cell), axis=1)
        temperatures.append(atoms.get_temperature())
        energies.append(atoms.get_potential_energy())
        shortest.append(geometry.shortest_contact(atoms))
        stretch.append(now / length)
    elapsed = time.perf_counter() - started
    half = len(temperatures) // 2
    return {
        "mean temperature, second half (K)": float(np.mean(temperatures[half:])),
        "highest temperature (K)": float(np.max(temperatures)),
        "shortest distance (Å)": float(np.min(shortest)),
        "largest stretch of a bond": float(np.max(stretch)),
        "bonds broken": int(np.sum(np.max(stretch, axis=0) > BROKEN)),
        "potential energy, first minus second half (eV)": float(np.mean(energies[:half]) - np.mean(energies[half:])),
        "ms per step": 1000 * elapsed / steps,
    }


def insertion_scan(
    calculator: MACECalculator, gas: Atoms, host: Atoms, trials: int, seed: int
) -> list[tuple[float, float]]:
    """Return (shortest distance, insertion energy) of random insertions 1.0 to 2.0 Å from the host, Å and eV."""
    rng = np.random.default_rng(seed)
    base = calculator.get_potential_energy(host) + calculator.get_potential_energy(geometry.boxed(gas, 12.0))
    found = []
    for _ in range(trials):
        low = rng.uniform(1.0, 1.95)
        atoms = geometry.inserted(host, gas, (low, low + 0.05), rng)
        if atoms is not None:
            guest = atoms[len(host) :]
            found.append((geometry.shortest_distance(host, guest), calculator.get_potential_energy(atoms) - base))
    return found


def pair_scan(calculator: MACECalculator, first: Atoms, second: Atoms, distance: float, trials: int) -> float:
    """Return the lowest interaction energy (eV) of two molecules whose closest atoms are this far apart (Å)."""
    rng = np.random.default_rng(round(100 * distance))
    apart = sum(calculator.get_potential_energy(geometry.boxed(atoms, 14.0)) for atoms in (first, second))
    pairs = (geometry.boxed(geometry.approached(first, second, distance, rng), 14.0) for _ in range(trials))
    return float(min(calculator.get_potential_energy(atoms) for atoms in pairs) - apart)


def force_call(calculator: MACECalculator, atoms: Atoms, repeats: int = 30) -> float:
    """Return the median time (ms) of an energy and force call through ASE, neighbour list included."""
    rng = np.random.default_rng(0)
    times = []
    for _ in range(repeats):
        moved = geometry.rattled(atoms, 0.01, rng)
        moved.calc = calculator
        started = time.perf_counter()
        moved.get_forces()
        times.append(time.perf_counter() - started)
    return 1000 * float(np.median(times))


def report_dynamics(calculator: MACECalculator, gas: Atoms, steps: int) -> dict[int, list[Atoms]]:
    """Print the figures of both runs and return snapshots by the number of CO2."""
    host = configurations.framework()
    snapshots: dict[int, list[Atoms]] = {0: [], 4: []}
    for number, group in snapshots.items():
        atoms = geometry.loaded(host, [gas] * number, (1.9, 9.0), np.random.default_rng(7))
        if atoms is None:
            raise RuntimeError("no room for the guests")
        print(f"\nMIL-120 + {number} CO2, NVT 500 K, {steps} steps of 0.5 fs")
        for name, value in run_dynamics(atoms, calculator, steps, 3, group).items():
            print(f"  {name}: {value:.3f}", flush=True)
    return snapshots


def report_holes(calculator: MACECalculator, molecules: dict[str, Atoms], hosts: list[Atoms], trials: int) -> None:
    """Print the lowest insertion energies by distance, and those of pairs."""
    for name in ("CO2", "H2O"):
        found = np.array(
            [
                pair
                for index, host in enumerate(hosts)
                for pair in insertion_scan(calculator, molecules[name], host, trials // len(hosts), seed=index)
            ]
        )
        print(f"\n{name} put into MIL-120, {len(found)} insertions, shortest distance 1.0 to 2.0 Å")
        for low in np.arange(1.0, 2.0, 0.2):
            inside = found[(found[:, 0] >= low) & (found[:, 0] < low + 0.2), 1]
            print(f"  {low:.1f}-{low + 0.2:.1f} Å: lowest {inside.min():.3f} eV, median {np.median(inside):.2f} eV")
        print(f"  below {HOLE} eV: {int((found[:, 1] < HOLE).sum())}")
    for first, second in (("CO2", "CO2"), ("CO2", "H2O"), ("H2O", "H2O")):
        print(f"\n{first} + {second}, lowest of 60 orientations by shortest distance (Å: eV)")
        scan = {d: pair_scan(calculator, molecules[first], molecules[second], d, 60) for d in np.arange(1.0, 4.1, 0.25)}
        print("  " + ", ".join(f"{distance:.2f}: {energy:.3f}" for distance, energy in scan.items()))


def write_snapshots(path: Path, snapshots: dict[int, list[Atoms]]) -> None:
    """Write the snapshots of the dynamics: labelled, they are a test that no training has seen."""
    frames = []
    for number, group in snapshots.items():
        for atoms in group:
            atoms.info.update(config_type=f"test_500K_{number}_CO2", bulk=True)
            frames.append(atoms)
    ase.io.write(path, frames, format="extxyz")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fragments", type=Path)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--snapshots", type=Path, default=Path("test.extxyz"), help="frames to label as a test")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    calculator = MACECalculator(model_paths=str(arguments.model), device="cpu", default_dtype="float32")
    molecules = {atoms.info["config_type"]: atoms for atoms in ase.io.read(arguments.fragments, ":4")}
    print(f"{platform.machine()}, {os.cpu_count()} cores, one thread used, CPU only")
    print(f"torch {torch.__version__}, mace {mace.__version__}, model {arguments.model.name}, float32")
    host = configurations.framework()
    loaded = geometry.loaded(host, [molecules["CO2"]] * 4, (1.9, 9.0), np.random.default_rng(7))
    for atoms in (host, loaded, host.repeat((2, 2, 1))):
        print(f"force call, {len(atoms)} atoms: {force_call(calculator, atoms):.1f} ms")
    snapshots = report_dynamics(calculator, molecules["CO2"], arguments.steps)
    report_holes(calculator, molecules, [host, snapshots[0][-1]], arguments.trials)
    write_snapshots(arguments.snapshots, snapshots)


if __name__ == "__main__":
    main()
