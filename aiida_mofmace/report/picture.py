"""A small picture of the framework: balls and bonds, seen along the shortest axis of the cell."""

from __future__ import annotations

from typing import Any

import numpy as np

from aiida_mofmace.report.svg import Canvas

__all__ = ["structure_picture"]

# Classes of the style sheet; an element without one is drawn as "other".
_KNOWN = {"H", "C", "N", "O", "F", "Al", "Zn", "Si", "Mg", "Cu", "Zr", "S"}
_BOND_FACTOR = 1.2
_MOST_ATOMS = 400


def structure_picture(atoms: Any) -> str:
    """Draw the framework as an inline SVG element.

    :param atoms: the framework, periodic
    :return: the element, or an empty text if there are too many atoms for a small picture
    """
    from ase.data import covalent_radii
    from ase.neighborlist import neighbor_list

    if len(atoms) > _MOST_ATOMS:
        return ""
    atoms = _repeated(atoms)
    radii = covalent_radii[atoms.numbers]
    first, second, vectors = neighbor_list("ijD", atoms, (radii * _BOND_FACTOR).tolist())
    frame = _view(atoms)
    positions = atoms.positions @ frame.T
    corners = _corners(atoms) @ frame.T
    points = np.concatenate([positions[:, :2], corners[:, :2]])
    low, high = points.min(axis=0), points.max(axis=0)
    scale = 250.0 / float((high - low).max())
    size = (high - low) * scale + 40.0
    canvas = Canvas(float(size[0]), float(size[1]), f"Structure of {atoms.get_chemical_formula('hill')}")

    def pixel(point: Any) -> tuple[float, float]:
        x, y = (point[:2] - low) * scale + 20.0
        return float(x), float(size[1] - y)

    for start, end in _edges():
        canvas.segment(*pixel(corners[start]), *pixel(corners[end]), "cell")
    depth = positions[:, 2]
    shapes = [(float(depth[i]), "atom", i, None) for i in range(len(atoms))]
    bonds = [
        (float(depth[i]) - 0.05, "bond", i, positions[i] + (vector @ frame.T) / 2.0)
        for i, _, vector in zip(first, second, vectors, strict=True)
    ]
    for _, kind, index, end in sorted([*shapes, *bonds], key=lambda shape: shape[0]):
        x, y = pixel(positions[index])
        symbol = atoms.symbols[index]
        element = symbol if symbol in _KNOWN else "other"
        if kind == "bond" and end is not None:
            canvas.segment(x, y, *pixel(end), f"bond e-{element}")
        else:
            canvas.mark(
                x, y, f"atom e-{element}", size=round(scale * (0.16 + 0.32 * float(radii[index])), 1), tip=symbol
            )
    return canvas.svg()


def _repeated(atoms: Any) -> Any:
    """Repeat a small cell across the picture, so that a pore is seen whole."""
    if len(atoms) > _MOST_ATOMS // 8:
        return atoms
    repeats = [2, 2, 2]
    repeats[int(np.argmin(atoms.cell.lengths()))] = 1
    return atoms.repeat(repeats)


def _view(atoms: Any) -> Any:
    """Return the axes of the picture: the shortest lattice vector points at the reader, a little turned."""
    lengths = atoms.cell.lengths()
    towards = atoms.cell[int(np.argmin(lengths))] / lengths.min()
    across = atoms.cell[int(np.argmax(lengths))]
    right = across - (across @ towards) * towards
    right /= np.linalg.norm(right)
    up = np.cross(towards, right)
    turn, tilt = np.radians(14.0), np.radians(10.0)
    right, towards = np.cos(turn) * right - np.sin(turn) * towards, np.cos(turn) * towards + np.sin(turn) * right
    up, towards = np.cos(tilt) * up - np.sin(tilt) * towards, np.cos(tilt) * towards + np.sin(tilt) * up
    return np.stack([right, up, towards])


def _corners(atoms: Any) -> Any:
    indices = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=float)
    return indices @ atoms.cell.array


def _edges() -> list[tuple[int, int]]:
    return [(i, i | bit) for i in range(8) for bit in (1, 2, 4) if not i & bit]
