"""Configurations without any potential: atoms displaced at random, molecules put into the pores."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from ..errors import WorkerError
from .gases import Gas
from .geometry import minimum_pair_distance
from .loading import place_molecules

__all__ = ["rattled_frames"]

_TRIES = 20


def rattled_frames(
    framework: Atoms,
    gas: Gas,
    loading: int,
    count: int,
    *,
    amplitude: float,
    insertion_distance: float,
    minimum_distance: float,
    rng: np.random.Generator,
) -> list[Atoms]:
    """Displace all atoms by normal deviates whose width is itself drawn for each frame, up to the amplitude.

    :param loading: gas molecules in each frame, placed anew for each
    :param amplitude: largest standard deviation of a coordinate in Å
    :param insertion_distance: smallest distance in Å between a molecule and everything else before the displacement
    :param minimum_distance: smallest allowed distance in Å after it
    :raises WorkerError: kind does_not_fit, or bad_input where no displacement keeps the distance
    """
    frames = []
    for index in range(count):
        loaded = place_molecules(framework, gas, loading, insertion_distance, rng)
        for _ in range(_TRIES):
            atoms = loaded.copy()
            atoms.positions += rng.normal(scale=amplitude * rng.uniform(0.1, 1.0), size=atoms.positions.shape)
            if minimum_pair_distance(atoms.positions, np.asarray(atoms.cell.array)) >= minimum_distance:
                break
        else:
            raise WorkerError("bad_input", f"{amplitude} Å of rattling bring atoms nearer than {minimum_distance} Å")
        atoms.info = {"framework_atoms": len(framework), "loading": loading, "step": index}
        frames.append(atoms)
    return frames
