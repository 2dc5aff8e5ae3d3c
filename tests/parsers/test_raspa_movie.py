"""Snapshots of RASPA, recorded from a real run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase.geometry import cellpar_to_cell

from aiida_mofmace.parsers.raspa_movie import parse_raspa_movie

MOVIE = (Path(__file__).parents[1] / "fixtures" / "raspa" / "movie_CO2.pdb").read_text()
CELL = cellpar_to_cell([28.430, 29.991, 33.273, 107.61, 106.37, 96.37])


def test_snapshots_of_carbon_dioxide() -> None:
    first, second = parse_raspa_movie(MOVIE, ["C", "O", "O"])
    assert (first.shape, second.shape) == ((6, 3, 3), (3, 3, 3))
    np.testing.assert_allclose(
        first[0] @ CELL, [[11.769, -10.163, 28.364], [11.609, -9.017, 28.453], [11.929, -11.308, 28.274]]
    )


def test_sites_that_are_no_atoms_are_left_out() -> None:
    with_site = MOVIE.replace("ATOM      2  C   MOL", "ATOM      2  C   MOL", 1).splitlines()
    with_site.insert(3, "ATOM      0  M   MOL            11.609  -9.017  28.453  1.00  0.00           M  ")
    found = parse_raspa_movie("\n".join(with_site), ["C", "O", "O"])
    np.testing.assert_array_equal(found[0], parse_raspa_movie(MOVIE, ["C", "O", "O"])[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n".join(MOVIE.splitlines()[:4]), "no whole number of molecules"),
        (MOVIE.replace("CRYST1", "CRYSTX"), "no cell"),
        (MOVIE.replace("  C  ", "  O  "), "is no"),
    ],
)
def test_what_is_no_movie_of_this_molecule(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_raspa_movie(text, ["C", "O", "O"])
