"""Atomic charges in a CIF: written so that RASPA reads them, and taken out of a CIF that has them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from aiida import orm
from ase.geometry import cell_to_cellpar
from ase.io.cif import parse_cif

__all__ = ["NEUTRAL", "charged_cif", "charges_of_cif"]

#: RASPA's name of the column, and that of pymatgen and of assigners of charges built on it.
_CHARGE = ("_atom_site_charge", "_atom_type_partial_charge")
#: e per cell; a framework whose charges add up to more than this is not neutral, and no Ewald sum of it has a meaning.
NEUTRAL = 0.05


def charged_cif(structure: orm.StructureData, charges: Sequence[float], name: str = "framework") -> str:
    """Return a CIF without symmetry whose atoms have charges, as RASPA and Zeo++ read it.

    What rounding leaves of the cell's charge is spread over the atoms, so that the file is neutral to its last digit.

    :param structure: periodic structure, atoms in the order of the charges
    :param charges: in elementary charges, one for each atom
    :param name: of the data block
    :raises ValueError: if their numbers differ or the cell is not neutral
    """
    atoms = structure.get_ase()
    total = math.fsum(charges)
    if len(charges) != len(atoms) or abs(total) > NEUTRAL:
        raise ValueError(f"{len(charges)} charges that add up to {total:.3f} e do not fit {len(atoms)} atoms")
    even = _neutral([charge - total / len(charges) for charge in charges])
    lengths = ("length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma")
    cell = [f"_cell_{key} {value:.8f}" for key, value in zip(lengths, cell_to_cellpar(atoms.cell), strict=True)]
    # RASPA knows the names of the older CIF dictionary only.
    symmetry = ["_symmetry_space_group_name_H-M 'P 1'", "_symmetry_Int_Tables_number 1"]
    operations = ["loop_", "_symmetry_equiv_pos_as_xyz", "'x, y, z'"]
    columns = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "charge")
    rows = [
        f"{symbol}{index} {symbol} {' '.join(f'{x:.8f}' for x in place)} {charge:.6f}"
        for index, (symbol, place, charge) in enumerate(
            zip(atoms.symbols, atoms.get_scaled_positions(wrap=True), even, strict=True), start=1
        )
    ]
    sites = ["loop_", *(f"_atom_site_{column}" for column in columns), *rows]
    return "\n".join([f"data_{name}", *cell, *symmetry, *operations, *sites, ""])


def _neutral(charges: list[float]) -> list[float]:
    """Return charges of six digits that add up to zero; the largest takes what rounding leaves."""
    rounded = [round(charge, 6) for charge in charges]
    largest = max(range(len(rounded)), key=lambda index: abs(rounded[index]))
    rounded[largest] = round(rounded[largest] - math.fsum(rounded), 6)
    return rounded


def charges_of_cif(path: str | Path) -> list[float] | None:
    """Return the charges that stand in a CIF without symmetry, in the order of its atoms; None if there are none.

    :raises ValueError: if a charge is no number, or the atoms of the cell are not all listed so that not every one has
        a charge
    """
    blocks = [block for block in parse_cif(str(path)) if block.has_structure()]
    if len(blocks) != 1:
        raise ValueError(f"{Path(path).name} holds {len(blocks)} structures; give a CIF with exactly one")
    column = next((found for name in _CHARGE if (found := blocks[0].get(name)) is not None), None)
    if column is None:
        return None
    try:
        charges = [float(value) for value in column]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{Path(path).name} has a charge that is no number") from error
    if len(charges) != len(blocks[0].get_atoms()):
        raise ValueError(f"{Path(path).name} has charges of the asymmetric unit only; expand it to P 1 first")
    return charges
