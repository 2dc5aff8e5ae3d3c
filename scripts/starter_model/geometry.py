"""Seeded random moves on structures: rattles, strains, hydroxyl rotations and placed molecules."""

from __future__ import annotations

import itertools

import numpy as np
from ase import Atoms
from ase.data import vdw_radii
from ase.neighborlist import neighbor_list
from numpy.random import Generator
from scipy.spatial.transform import Rotation

# ASE lacks a van der Waals radius for aluminium: Bondi-like value of Mantina et al. (2009), Å.
ALUMINIUM_VDW = 1.84


def vdw_radius(number: int) -> float:
    """Return the van der Waals radius of an element, Å."""
    return ALUMINIUM_VDW if number == 13 else float(vdw_radii[number])


def rattled(atoms: Atoms, amplitude: float, rng: Generator) -> Atoms:
    """Return a copy with a normal displacement of the given standard deviation (Å) on every coordinate."""
    moved = atoms.copy()
    moved.positions += rng.normal(scale=amplitude, size=moved.positions.shape)
    return moved


def strained(atoms: Atoms, amplitude: float, rng: Generator) -> Atoms:
    """Return a copy under a random symmetric strain whose components lie within the amplitude."""
    strain = rng.uniform(-amplitude, amplitude, (3, 3))
    deformed = atoms.copy()
    deformed.set_cell(atoms.cell @ (np.eye(3) + 0.5 * (strain + strain.T)), scale_atoms=True)
    return deformed


def boxed(atoms: Atoms, length: float) -> Atoms:
    """Return a copy in the middle of a periodic cubic box of this length (Å)."""
    box = Atoms(atoms.symbols, positions=atoms.positions, cell=[length] * 3, pbc=True)
    box.positions += length / 2 - box.positions.mean(axis=0)
    return box


def random_orientation(atoms: Atoms, rng: Generator) -> Atoms:
    """Return a copy turned at random about its centroid, which comes to lie in the origin."""
    turned = atoms.copy()
    centred = turned.positions - turned.positions.mean(axis=0)
    turned.positions = Rotation.random(random_state=rng).apply(centred)
    return turned


def images(atoms: Atoms) -> np.ndarray:
    """Return positions of all atoms in the cell and its 26 neighbours, shape (27 n, 3)."""
    shifts = np.array(list(itertools.product((-1, 0, 1), repeat=3))) @ np.asarray(atoms.cell)
    return (np.asarray(atoms.positions)[None] + shifts[:, None]).reshape(-1, 3)


def shortest_distance(host: Atoms, guest: Atoms) -> float:
    """Return the smallest distance (Å) between a periodic host and the atoms of a guest."""
    host_images = images(host)
    return float(np.linalg.norm(host_images[:, None] - guest.positions[None], axis=2).min())


def inserted(host: Atoms, guest: Atoms, window: tuple[float, float], rng: Generator, tries: int = 4000) -> Atoms | None:
    """Put a guest at a random place and orientation into a host.

    :param window: allowed shortest host-guest distance (Å), lower and upper bound.
    :returns: host followed by guest, or None if no try falls into the window.
    """
    wrapped = host.copy()
    wrapped.wrap()
    for _ in range(tries):
        trial = random_orientation(guest, rng)
        trial.positions += rng.random(3) @ np.asarray(host.cell)
        if window[0] <= shortest_distance(wrapped, trial) <= window[1]:
            combined = host.copy()
            combined += Atoms(trial.symbols, positions=trial.positions)
            return combined
    return None


def loaded(host: Atoms, guests: list[Atoms], window: tuple[float, float], rng: Generator) -> Atoms | None:
    """Insert guests one after another, each inside the window from all that is there already."""
    current: Atoms | None = host
    for guest in guests:
        if current is None:
            return None
        current = inserted(current, guest, window, rng)
    return current


def approached(first: Atoms, second: Atoms, distance: float, rng: Generator) -> Atoms:
    """Return two molecules, oriented at random, whose closest atoms are this far apart (Å)."""
    one, other = random_orientation(first, rng), random_orientation(second, rng)
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    low, high = 0.0, 30.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        separation = one.positions[:, None] - (other.positions + middle * direction)[None]
        low, high = (middle, high) if np.linalg.norm(separation, axis=2).min() < distance else (low, middle)
    other.positions += high * direction
    return Atoms(one.symbols, positions=one.positions) + Atoms(other.symbols, positions=other.positions)


def contact(first: Atoms, second: Atoms, fraction: float, rng: Generator) -> Atoms:
    """Return two molecules whose tightest contact is this fraction of the van der Waals distance."""
    one, other = random_orientation(first, rng), random_orientation(second, rng)
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    radii = [np.array([vdw_radius(number) for number in molecule.numbers]) for molecule in (one, other)]
    sums = fraction * (radii[0][:, None] + radii[1][None])
    low, high = 0.0, 30.0
    for _ in range(40):
        middle = 0.5 * (low + high)
        separation = one.positions[:, None] - (other.positions + middle * direction)[None]
        overlap = np.linalg.norm(separation, axis=2) < sums
        low, high = (middle, high) if overlap.any() else (low, middle)
    other.positions += high * direction
    return Atoms(one.symbols, positions=one.positions) + Atoms(other.symbols, positions=other.positions)


def hydroxyls(atoms: Atoms) -> list[tuple[int, int, np.ndarray]]:
    """Find bridging hydroxyl groups: hydrogen, oxygen and the unit vector between the two aluminium atoms."""
    numbers = atoms.numbers
    centre, neighbour, vectors = neighbor_list("ijD", atoms, {("Al", "O"): 2.3, ("O", "H"): 1.3})
    found = []
    for oxygen in np.flatnonzero(numbers == 8):
        bonds = centre == oxygen
        hydrogens = neighbour[bonds & (numbers[neighbour] == 1)]
        metals = vectors[bonds & (numbers[neighbour] == 13)]
        if len(hydrogens) == 1 and len(metals) == 2:
            axis = metals[1] - metals[0]
            found.append((int(hydrogens[0]), int(oxygen), axis / np.linalg.norm(axis)))
    return found


def with_turned_hydroxyls(atoms: Atoms, rng: Generator, share: float = 0.5) -> Atoms:
    """Turn a random share of the bridging hydroxyl groups by random angles about their Al-Al axis."""
    turned = atoms.copy()
    for hydrogen, oxygen, axis in hydroxyls(atoms):
        if rng.random() < share:
            bond = atoms.get_distance(oxygen, hydrogen, mic=True, vector=True)
            rotation = Rotation.from_rotvec(axis * rng.uniform(-np.pi, np.pi))
            turned.positions[hydrogen] = atoms.positions[oxygen] + rotation.apply(bond)
    return turned


def shortest_contact(atoms: Atoms) -> float:
    """Return the smallest interatomic distance of a frame, Å (all periodic images)."""
    distances = neighbor_list("d", atoms, 2.5)
    return float(distances.min()) if len(distances) else 2.5
