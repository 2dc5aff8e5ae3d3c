"""Structural units of a flexible framework over a trajectory, from the orientation of its hydroxyl groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from .frames import Frames
from .geometry import minimum_image
from .orientation import hydroxyl_bonds, orientation_angles
from .sites import SiteDefinition
from .statistics import estimate_mean

__all__ = ["UnitTrajectory", "classify_trajectory", "hydroxyls_of_cells", "oriented"]

Array = NDArray[np.float64]
_MOST_SEQUENCES = 12
_HISTOGRAM_BINS = 36  # of 5 degrees
_LONGEST_METAL_BOND = 2.4  # Å
_LAST_NON_METAL = 10  # atomic number: lighter atoms bridge nothing here
_LEAN = 0.3  # tangent of the angle of a free group to the normal of the sheet, in MIL-120


def hydroxyls_of_cells(
    definition: SiteDefinition, numbers: NDArray[np.int64], positions: Array, cell: Array
) -> NDArray[np.int64]:
    """Find the hydroxyl groups of each unit cell in the order of the definition.

    :param definition: sites of the framework
    :param numbers: atomic numbers of the framework, shape (n,)
    :param positions: in Å, shape (n, 3)
    :param cell: of the structure, a supercell perhaps, as rows in Å, shape (3, 3)
    :return: indices of oxygen and hydrogen, shape (cells, sites, 2)
    :raises ValueError: if the cell is another, or a site has no hydroxyl group of its own within the tolerance
    """
    repeats = definition.repeats(cell)
    bonds = hydroxyl_bonds(numbers, positions, cell)
    if len(bonds) == 0:
        raise ValueError("the framework has no hydroxyl group")
    translations = np.array(list(np.ndindex(*repeats.tolist())), dtype=np.float64)
    sites = (definition.hydroxyls + translations[:, None]) / repeats
    oxygens = positions[bonds[:, 0]] @ np.linalg.inv(cell)
    distances = np.linalg.norm(minimum_image((sites[:, :, None] - oxygens) @ cell, cell), axis=-1)
    nearest = distances.argmin(axis=-1)
    worst = float(distances.min(axis=-1).max())
    if worst > definition.tolerance:
        raise ValueError(f"a hydroxyl site of {definition.name} is empty: the nearest oxygen is {worst:.2f} Å away")
    if len(np.unique(nearest)) < nearest.size:
        raise ValueError(f"two hydroxyl sites of {definition.name} are nearest to the same oxygen")
    return np.asarray(bonds[nearest])


@dataclass(frozen=True)
class UnitTrajectory:
    """What became of each hydroxyl group and each unit cell in the course of a trajectory.

    :param definition: sites of the framework
    :param steps: of the frames, shape (frames,)
    :param angles: alpha in degrees, shape (frames, cells, sites)
    """

    definition: SiteDefinition
    steps: NDArray[np.int64]
    angles: Array

    @property
    def sequences(self) -> list[list[str]]:
        """Orientations as letters A and D, by frame and cell."""
        low, high = self.definition.donor_range
        letters = np.where((self.angles >= low) & (self.angles <= high), "D", "A")
        return [["".join(cell) for cell in frame] for frame in letters]

    def fractions(self) -> dict[str, Array]:
        """Fraction of the hydroxyl groups in each range of alpha, frame by frame, each of shape (frames,)."""
        low, high = self.definition.donor_range
        flat = self.angles.reshape(len(self.angles), -1)
        below, above = np.mean(flat < low, axis=1), np.mean(flat > high, axis=1)
        return {"free_low": below, "donor": 1.0 - below - above, "free_high": above}

    def units(self) -> dict[str, Array]:
        """Fraction of the cells that make each unit, and no named one (`other`), each of shape (frames,)."""
        names = [[self.definition.unit_of(sequence) for sequence in frame] for frame in self.sequences]
        return {unit: np.mean(np.array(names) == unit, axis=1) for unit in (*self.definition.units, "other")}

    def histogram(self) -> Array:
        """Distribution of alpha: fraction of all values in each of 36 bins from 0 to 180 degrees, shape (36,)."""
        counts, _ = np.histogram(self.angles, _HISTOGRAM_BINS, (0.0, 180.0))
        return np.asarray(counts / self.angles.size)

    def summary(self) -> dict[str, Any]:
        """Mean fractions with standard errors, the most frequent sequences, and how often a group changed its kind.

        A fraction of a unit that never came or never went has no error and is flagged `too_short`.
        """
        sequences = self.sequences
        counts = Counter(sequence for frame in sequences for sequence in frame)
        letters = np.array([[list(cell) for cell in frame] for frame in sequences])
        return {
            "name": self.definition.name,
            "n_frames": len(self.steps),
            "n_cells": int(self.angles.shape[1]),
            "n_hydroxyls": int(self.angles.shape[1] * self.angles.shape[2]),
            "orientation": {name: _mean(series) for name, series in self.fractions().items()},
            "units": {name: _mean(series) for name, series in self.units().items()},
            "sequences": {s: n / counts.total() for s, n in counts.most_common(_MOST_SEQUENCES)},
            "flips": int(np.count_nonzero(letters[1:] != letters[:-1])),
        }


def _mean(series: Array) -> dict[str, Any]:
    estimate = asdict(estimate_mean(series, detect_equilibration=False))
    names = ("mean", "error", "effective_samples", "round_trips", "too_short")
    return {name: None if estimate[name] != estimate[name] else estimate[name] for name in names}


def classify_trajectory(frames: Frames, definition: SiteDefinition) -> UnitTrajectory:
    """Follow the hydroxyl groups of a framework; groups and sites are matched in the first frame.

    :param frames: of one framework, whatever their loading
    :param definition: its sites
    :raises ValueError: if there is no frame, or the framework is another
    """
    if len(frames) == 0:
        raise ValueError("there is no frame")
    bonds, angles = np.zeros((0, 0, 2), dtype=np.int64), []
    for index in range(len(frames)):
        first = int(frames.offsets[index])
        framework = slice(first, first + int(frames.framework_atoms[index]))
        positions, cell = frames.positions[framework], frames.cells[index]
        if index == 0:
            bonds = hydroxyls_of_cells(definition, frames.numbers[framework].astype(np.int64), positions, cell)
        vectors = minimum_image(positions[bonds[..., 1]] - positions[bonds[..., 0]], cell)
        axis, normal = definition.axes(cell / definition.repeats(cell)[:, None])
        angles.append(orientation_angles(vectors, axis, normal))
    return UnitTrajectory(definition, frames.steps, np.array(angles))


def oriented(atoms: Atoms, definition: SiteDefinition, sequences: Sequence[str]) -> Atoms:
    """Turn the hydroxyl groups of a framework; nothing else moves, so relax it afterwards.

    An acceptor points along the pore, a bit to the side, a donor to the next rod; which way along these axes is away
    from the metal atoms that the oxygen bridges.

    :param atoms: framework
    :param definition: its sites
    :param sequences: letters A and D for each unit cell, in the order of :func:`hydroxyls_of_cells`
    :raises ValueError: if there are not as many sequences as cells, or not as many letters as sites
    """
    cell = np.asarray(atoms.cell)
    bonds = hydroxyls_of_cells(definition, atoms.numbers, atoms.positions, cell)
    if [len(sequence) for sequence in sequences] != [bonds.shape[1]] * bonds.shape[0]:
        raise ValueError(f"{bonds.shape[0]} sequences of {bonds.shape[1]} letters expected, got {list(sequences)}")
    pore, rod = definition.axes(cell / definition.repeats(cell)[:, None])
    side = np.cross(pore, rod)
    turned = atoms.copy()
    for (oxygen, hydrogen), letter in zip(bonds.reshape(-1, 2), "".join(sequences), strict=True):
        vectors = minimum_image(atoms.positions - atoms.positions[oxygen], cell)
        distances = np.linalg.norm(vectors, axis=1)
        metals = (distances > 0.0) & (distances < _LONGEST_METAL_BOND) & (atoms.numbers > _LAST_NON_METAL)
        outwards = -vectors[metals].mean(axis=0)
        along, across = np.sign(outwards @ pore) * pore, np.sign(outwards @ side) * side
        direction = along + _LEAN * across if letter == "A" else across
        bond = distances[hydrogen] * direction / np.linalg.norm(direction)
        turned.positions[hydrogen] = atoms.positions[oxygen] + bond
    return turned
