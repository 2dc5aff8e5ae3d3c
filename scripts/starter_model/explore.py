"""Explore with a preliminary model and pick the frames of the next wave.

``python explore.py MODEL fragments.extxyz round_1.extxyz --seed 11 --steps 3000``

Molecular dynamics of the framework with and without guests gives snapshots; of many random
insertions the most favourable ones are kept, because a hole in the energy surface shows there first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import ase.io
import configurations
import geometry
import mace  # noqa: F401  mace must come before e3nn
import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from mace.calculators import MACECalculator
from numpy.random import Generator

LOADINGS = (
    (0, 0), (0, 0), (0, 0), (0, 0), (1, 0), (1, 0), (2, 0), (2, 0),
    (3, 0), (4, 0), (4, 0), (0, 1), (0, 3), (1, 1), (2, 2), (5, 0),
)  # fmt: skip
"""Numbers of CO2 and H2O molecules of the runs; the temperature cycles through the list below."""

TEMPERATURES = (300.0, 500.0, 700.0)

EVERY = 50
"""Steps between two snapshots."""


def prepared(guests: tuple[int, int], molecules: dict[str, Atoms], rng: Generator) -> Atoms | None:
    """Return the framework, hydroxyl groups turned at random in half of the cases, with guests in its pores."""
    host = configurations.framework()
    if rng.random() < 0.5:
        host = geometry.with_turned_hydroxyls(host, rng, share=0.4)
    chosen = [molecules["CO2"]] * guests[0] + [molecules["H2O"]] * guests[1]
    window = configurations.OPEN_WINDOW if len(chosen) < 4 else (1.9, 9.0)
    return geometry.loaded(host, chosen, window, rng)


def dynamics(atoms: Atoms, calculator: Calculator, temperature: float, steps: int, rng: Generator) -> list[Atoms]:
    """Run Langevin dynamics (0.5 fs) and return sane snapshots; the run ends where the model breaks down."""
    atoms.calc = calculator
    MaxwellBoltzmannDistribution(atoms, temperature_K=temperature, rng=rng)
    integrator = Langevin(atoms, 0.5 * units.fs, temperature_K=temperature, friction=0.02 / units.fs, rng=rng)
    snapshots: list[Atoms] = []
    while len(snapshots) < steps // EVERY:
        integrator.run(EVERY)
        broken = geometry.shortest_contact(atoms) < 0.65 or atoms.get_temperature() > 6 * temperature
        snapshots.append(Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True))
        if broken:
            print(f"  broke down after {len(snapshots) * EVERY} steps")
            break
    return snapshots


def trajectories(calculator: Calculator, molecules: dict[str, Atoms], steps: int, rng: Generator) -> Iterator[Atoms]:
    """Yield snapshots of all runs."""
    for index, guests in enumerate(LOADINGS if steps else ()):
        atoms = prepared(guests, molecules, rng)
        if atoms is None:
            continue
        temperature = TEMPERATURES[index % len(TEMPERATURES)]
        print(f"{guests[0]} CO2, {guests[1]} H2O at {temperature:.0f} K", flush=True)
        for snapshot in dynamics(atoms, calculator, temperature, steps, rng):
            kind = "md_framework" if guests == (0, 0) else "md_framework_CO2" if guests[1] == 0 else "md_framework_H2O"
            snapshot.info.update(config_type=kind, bulk=True)
            yield snapshot


def insertions(
    energy: Callable[[Atoms], float], hosts: list[Atoms], molecules: dict[str, Atoms], trials: int, rng: Generator
) -> Iterator[Atoms]:
    """Yield the most favourable tenth of random insertions of each gas that come closer than 2.2 Å to the host."""
    for gas in ("CO2", "H2O"):
        scored: list[tuple[float, Atoms]] = []
        for _ in range(trials // 2):
            host = hosts[rng.integers(len(hosts))]
            guest = geometry.rattled(molecules[gas], 0.02, rng)
            low = rng.uniform(1.0, 2.0)
            atoms = geometry.inserted(host, guest, (low, low + 0.2), rng)
            if atoms is not None:
                scored.append((energy(atoms) - energy(host) - energy(molecules[gas]), atoms))
        scored.sort(key=lambda pair: pair[0])
        kept = scored[: trials // 20]
        print(f"insertions of {gas} kept: energies from {kept[0][0]:.2f} to {kept[-1][0]:.2f} eV")
        for _, atoms in kept:
            atoms.info.update(config_type="insertion", bulk=True)
            yield atoms


def close_pairs(
    energy: Callable[[Atoms], float], molecules: dict[str, Atoms], trials: int, rng: Generator
) -> Iterator[Atoms]:
    """Yield the most favourable fifth of pairs of gas molecules 0.9 to 2.0 Å apart, and as many at random."""
    for names in (("CO2", "CO2"), ("CO2", "H2O"), ("H2O", "H2O")):
        pairs = []
        for _ in range(trials // 3):
            both = [geometry.rattled(molecules[name], 0.03, rng) for name in names]
            pairs.append(geometry.boxed(geometry.approached(*both, rng.uniform(0.9, 2.0), rng), configurations.BOX))
        pairs.sort(key=energy)
        number = len(pairs) // 5
        others = rng.choice(np.arange(number, len(pairs)), size=number, replace=False)
        for atoms in pairs[:number] + [pairs[index] for index in others]:
            atoms.info.update(config_type="close_pair", bulk=False)
            yield atoms


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("fragments", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--trials", type=int, default=600)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    calculator = MACECalculator(model_paths=str(arguments.model), device="cpu", default_dtype="float32")
    molecules = {atoms.info["config_type"]: atoms for atoms in ase.io.read(arguments.fragments, ":4")}

    def energy(atoms: Atoms) -> float:
        return float(calculator.get_potential_energy(atoms))

    frames = list(trajectories(calculator, molecules, arguments.steps, rng))
    hosts = [atoms for atoms in frames if atoms.info["config_type"] in ("md_framework", "md_framework_CO2")]
    hosts = hosts or [configurations.framework()]
    frames += list(insertions(energy, hosts, molecules, arguments.trials, rng))
    frames += list(close_pairs(energy, molecules, arguments.trials, rng))
    sane = [atoms for atoms in frames if geometry.shortest_contact(atoms) > 0.65]
    ase.io.write(arguments.output, sane, format="extxyz")
    print(f"{len(sane)} frames")


if __name__ == "__main__":
    main()
