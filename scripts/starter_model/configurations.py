"""Make the first wave of structures to label: MIL-120 with and without guests, molecules, clusters, contacts.

``python configurations.py fragments.extxyz initial.extxyz --seed 1``
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import ase.io
import geometry
import numpy as np
from ase import Atoms
from numpy.random import Generator

ROOT = Path(__file__).resolve().parents[2]
FRAMEWORK = ROOT / "examples" / "MIL-120_primitive_40atoms.cif"

BOX = 11.0
"""Length of the periodic box of molecules and clusters, Å."""

OPEN_WINDOW = (2.1, 9.0)
"""Shortest distance (Å) of a guest that fits into the pore."""

CLOSE_WINDOWS = ((1.2, 1.5), (1.5, 1.8), (1.8, 2.1))
"""Shortest distances (Å) of guests that overlap: these teach the model to repel."""

CONTACT_PARTNERS = ("CO2", "H2O", "CH4", "C6H6", "HCOOH", "H2", "AlO3H3_0H2O", "Al_formate_2")

Frames = Iterator[tuple[str, Atoms]]


def framework() -> Atoms:
    """Return the primitive cell of MIL-120(Al) without extra information."""
    atoms = ase.io.read(FRAMEWORK)
    return Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)


def disturbed(host: Atoms, rng: Generator, rattle: float = 0.08, strain: float = 0.02) -> Atoms:
    """Return the framework strained, with turned hydroxyl groups in half of the cases, and rattled."""
    atoms = geometry.strained(host, rng.uniform(0, strain), rng)
    if rng.random() < 0.5:
        atoms = geometry.with_turned_hydroxyls(atoms, rng)
    return geometry.rattled(atoms, rng.uniform(0.01, rattle), rng)


def empty_frameworks(host: Atoms, rng: Generator) -> Frames:
    """Yield the empty framework: as it is, rattled, strained and with turned hydroxyl groups."""
    yield "framework", host
    for amplitude in (0.02, 0.04, 0.06, 0.09, 0.13):
        for _ in range(14):
            yield "framework_rattled", geometry.rattled(host, amplitude, rng)
    for _ in range(40):
        yield "framework_strained", geometry.rattled(geometry.strained(host, 0.04, rng), rng.uniform(0.0, 0.06), rng)
    for _ in range(50):
        turned = geometry.with_turned_hydroxyls(host, rng, share=rng.uniform(0.2, 1.0))
        yield "framework_hydroxyls", geometry.rattled(turned, rng.uniform(0.0, 0.06), rng)


def guests_of(molecules: dict[str, Atoms], name: str, number: int, rng: Generator) -> list[Atoms]:
    """Return rattled copies of one gas molecule."""
    return [geometry.rattled(molecules[name], rng.uniform(0.0, 0.06), rng) for _ in range(number)]


def loaded_frameworks(host: Atoms, molecules: dict[str, Atoms], rng: Generator) -> Frames:
    """Yield the framework with CO2, water and both, placed at random in free space or too close."""
    for repeat in range(25):
        for number in range(1, 6):
            window = (OPEN_WINDOW if number < 4 else (1.9, 9.0)) if repeat < 18 else CLOSE_WINDOWS[repeat % 3]
            count = number if repeat < 18 else 1 + number % 2
            guests = guests_of(molecules, "CO2", count, rng)
            atoms = geometry.loaded(disturbed(host, rng), guests, window, rng)
            if atoms is not None:
                yield ("framework_CO2" if repeat < 18 else "framework_CO2_close"), atoms
    for repeat in range(15):
        for number in range(1, 5):
            window = (1.6, 9.0) if repeat < 12 else CLOSE_WINDOWS[repeat % 3]
            guests = guests_of(molecules, "H2O", number if repeat < 12 else 1, rng)
            atoms = geometry.loaded(disturbed(host, rng), guests, window, rng)
            if atoms is not None:
                yield ("framework_H2O" if repeat < 12 else "framework_H2O_close"), atoms
    for _ in range(20):
        guests = guests_of(molecules, "CO2", 1, rng) + guests_of(molecules, "H2O", int(rng.integers(1, 3)), rng)
        atoms = geometry.loaded(disturbed(host, rng), guests, (1.7, 9.0), rng)
        if atoms is not None:
            yield "framework_CO2_H2O", atoms


def single_molecules(molecules: dict[str, Atoms], rng: Generator) -> Frames:
    """Yield the free atoms and distorted molecules and fragments."""
    for symbol in ("H", "C", "O", "Al"):
        yield "IsolatedAtom", Atoms(symbol, positions=[[0, 0, 0]])
    for name, atoms in molecules.items():
        gas = name in ("CO2", "H2O")
        yield ("gas" if gas else "fragment"), atoms
        number = 25 if gas else 12 if "Al" in name or name == "pyromellitic_acid" else 6
        for _ in range(number):
            yield ("gas" if gas else "fragment"), geometry.rattled(atoms, rng.uniform(0.02, 0.12), rng)


def clusters(molecules: dict[str, Atoms], rng: Generator) -> Frames:
    """Yield pairs of gas molecules at all distances, and clusters of three to six."""
    for first, second, number in (("CO2", "CO2", 70), ("CO2", "H2O", 45), ("H2O", "H2O", 40)):
        for _ in range(number):
            pair = [geometry.rattled(molecules[name], rng.uniform(0.0, 0.05), rng) for name in (first, second)]
            distance = 1.5 + 4.0 * rng.random() ** 1.7
            yield "pair", geometry.approached(*pair, distance, rng)
    for _ in range(50):
        names = rng.choice(["CO2", "CO2", "H2O"], size=rng.integers(3, 7))
        space = Atoms(cell=[7.0] * 3, pbc=True)
        cluster = geometry.rattled(molecules[names[0]], 0.03, rng)
        cluster.set_cell(space.cell)
        for name in names[1:]:
            grown = geometry.inserted(cluster, geometry.rattled(molecules[name], 0.03, rng), (1.9, 3.2), rng)
            cluster = cluster if grown is None else grown
        yield "cluster", cluster


def contacts(molecules: dict[str, Atoms], rng: Generator) -> Frames:
    """Yield pairs of molecules whose closest contact is 0.4 to 1 of the van der Waals distance."""
    for _ in range(150):
        first, second = (molecules[name] for name in rng.choice(CONTACT_PARTNERS, size=2))
        pair = [geometry.rattled(atoms, rng.uniform(0.0, 0.05), rng) for atoms in (first, second)]
        yield "contact", geometry.contact(*pair, rng.uniform(0.4, 1.0), rng)


def solids(cells: dict[str, Atoms], rng: Generator) -> Frames:
    """Yield strained and rattled AlOOH solids."""
    for name, atoms in cells.items():
        for _ in range(10):
            yield name, geometry.rattled(geometry.strained(atoms, 0.03, rng), rng.uniform(0.01, 0.08), rng)


def initial_wave(fragments: list[Atoms], rng: Generator) -> Iterator[Atoms]:
    """Yield all frames of the first wave, boxed where they are not solids."""
    host = framework()
    molecules = {atoms.info["config_type"]: atoms for atoms in fragments if not atoms.pbc.any()}
    cells = {atoms.info["config_type"]: atoms for atoms in fragments if atoms.pbc.all()}
    bulk = (empty_frameworks(host, rng), loaded_frameworks(host, molecules, rng), solids(cells, rng))
    gas = (single_molecules(molecules, rng), clusters(molecules, rng), contacts(molecules, rng))
    for groups, periodic in ((gas, False), (bulk, True)):
        for group in groups:
            for name, atoms in group:
                frame = Atoms(atoms.symbols, positions=atoms.positions, cell=atoms.cell, pbc=True)
                frame = frame if periodic else geometry.boxed(frame, BOX)
                frame.info.update(config_type=name, bulk=periodic)
                yield frame


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fragments", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    frames = [
        atoms
        for atoms in initial_wave(ase.io.read(arguments.fragments, ":"), rng)
        if len(atoms) == 1 or geometry.shortest_contact(atoms) > 0.6
    ]
    order = rng.permutation(len(frames))
    ase.io.write(arguments.output, [frames[index] for index in order], format="extxyz")
    print(f"{len(frames)} frames")


if __name__ == "__main__":
    main()
