"""Collect labelled frames, split them by kind and write them compactly."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms

DECIMALS = 6


def read_all(paths: list[Path]) -> list[Atoms]:
    """Read the frames of several labelled files, in order."""
    return [atoms for path in paths for atoms in ase.io.read(path, ":")]


def reference_energies(frames: list[Atoms]) -> dict[int, float]:
    """Return the energy (eV) of the free atom of every element, by atomic number."""
    return {
        int(atoms.numbers[0]): float(atoms.info["REF_energy"])
        for atoms in frames
        if atoms.info["config_type"] == "IsolatedAtom"
    }


def identity(atoms: Atoms) -> tuple[int, float]:
    """Return what tells a labelled frame from all others: its size and energy (eV)."""
    return len(atoms), round(float(atoms.info["REF_energy"]), 5)


def split(
    frames: list[Atoms], share: float, seed: int, earlier: tuple[list[Atoms], list[Atoms]] = ([], [])
) -> tuple[list[Atoms], list[Atoms]]:
    """Split frames into training and validation, the same share of every kind; free atoms stay in training.

    :param share: share of validation frames.
    :param seed: seed of the choice.
    :param earlier: training and validation frames of the model to go on from; they stay what they were, so that no
        frame it has seen validates.
    """
    known = {identity(atoms) for part in earlier for atoms in part}
    held_out = {identity(atoms) for atoms in earlier[1]}
    by_kind: dict[str, list[int]] = defaultdict(list)
    for index, atoms in enumerate(frames):
        if identity(atoms) not in known:
            by_kind[atoms.info["config_type"]].append(index)
    chosen = {index for index, atoms in enumerate(frames) if identity(atoms) in held_out}
    for kind in sorted(by_kind):
        if kind != "IsolatedAtom":
            rng = np.random.default_rng([seed, *kind.encode()])
            number = int(share * len(by_kind[kind]))
            chosen.update(rng.permutation(by_kind[kind])[:number].tolist())
    training = [atoms for index, atoms in enumerate(frames) if index not in chosen]
    validation = [atoms for index, atoms in enumerate(frames) if index in chosen]
    return training, validation


def write_compact(path: Path, frames: list[Atoms]) -> None:
    """Write labelled frames as extended XYZ with single spaces and six decimals.

    :param frames: frames with ``REF_energy`` (eV), ``REF_forces`` (eV/Å) and, for solids, ``REF_stress`` (eV/Å³).
    """
    lines: list[str] = []
    for atoms in frames:
        cell = " ".join(f"{value:.{DECIMALS}f}" for value in np.asarray(atoms.cell).ravel())
        header = [f'Lattice="{cell}"', "Properties=species:S:1:pos:R:3:REF_forces:R:3"]
        header += [f"config_type={atoms.info['config_type']}", f"REF_energy={atoms.info['REF_energy']:.{DECIMALS}f}"]
        if "REF_stress" in atoms.info:
            stress = " ".join(f"{value:.8f}" for value in np.asarray(atoms.info["REF_stress"]).ravel())
            header.append(f'REF_stress="{stress}"')
        lines += [str(len(atoms)), " ".join([*header, 'pbc="T T T"'])]
        rows = np.hstack([atoms.positions, atoms.arrays["REF_forces"]])
        for symbol, row in zip(atoms.symbols, rows, strict=True):
            lines.append(" ".join([symbol, *(f"{value:.{DECIMALS}f}" for value in row)]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
