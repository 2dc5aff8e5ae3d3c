"""Molecules are put into pores without overlap, and refused when the pores are full."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.loading import largest_loading, place_molecules


def test_molecules_are_whole_and_apart(framework: Atoms, carbon_dioxide: Gas) -> None:
    loaded = place_molecules(framework, carbon_dioxide, 3, 2.1, np.random.default_rng(0))
    assert loaded.get_chemical_formula() == (framework + Atoms("CO2" * 3)).get_chemical_formula()
    assert np.array_equal(loaded.positions[:40], framework.positions)
    assert loaded.info == {"framework_atoms": 40, "loading": 3}
    distances = loaded.get_all_distances(mic=True)
    for molecule in (slice(40, 43), slice(43, 46), slice(46, 49)):
        assert distances[molecule, molecule][0, 1:] == pytest.approx([1.16, 1.16])
        others = np.delete(distances[molecule], np.r_[molecule], axis=1)
        assert others.min() >= 2.1


@pytest.mark.parametrize("loading", [1, 4, 8, 12])
def test_the_loadings_of_the_paper_fit_into_its_cell(framework: Atoms, carbon_dioxide: Gas, loading: int) -> None:
    """160 atoms, of which 12 CO2 are the saturation."""
    cell = framework.repeat((2, 2, 1))
    loaded = place_molecules(cell, carbon_dioxide, loading, 2.0, np.random.default_rng(loading))
    assert (len(cell), len(loaded)) == (160, 160 + 3 * loading)
    distances = loaded.get_all_distances(mic=True)
    np.fill_diagonal(distances, np.inf)
    for first in range(160, len(loaded), 3):
        assert np.delete(distances[first : first + 3], np.r_[first : first + 3], axis=1).min() >= 2.0


def test_the_seed_decides(framework: Atoms, carbon_dioxide: Gas) -> None:
    first, again, other = (
        place_molecules(framework, carbon_dioxide, 2, 2.0, np.random.default_rng(seed)).positions for seed in (7, 7, 8)
    )
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_full_pores_refuse_with_the_number_that_fits(framework: Atoms, carbon_dioxide: Gas) -> None:
    with pytest.raises(WorkerError, match=r"30 CO2 do not fit .* the most that did fit is [3-6]:") as caught:
        place_molecules(framework, carbon_dioxide, 30, 2.2, np.random.default_rng(0), tries_per_molecule=512)
    assert caught.value.kind == "does_not_fit"
    fitting = largest_loading(framework, carbon_dioxide, 2.2, np.random.default_rng(0))
    assert 3 <= fitting <= 6
    assert largest_loading(framework, carbon_dioxide, 3.2, np.random.default_rng(0)) == 1
    assert largest_loading(framework, carbon_dioxide, 2.2, np.random.default_rng(0), limit=2) == 2


def test_centres_are_uniform_in_an_empty_cell(carbon_dioxide: Gas) -> None:
    cell = np.array([[12.0, 0, 0], [-5.0, 11.0, 0], [2.0, 3.0, 13.0]])
    rng = np.random.default_rng(2)
    empty = Atoms(cell=cell, pbc=True)
    carbons = [place_molecules(empty, carbon_dioxide, 1, 1.0, rng) for _ in range(600)]
    fractional = np.array([atoms.get_scaled_positions(wrap=True)[0] for atoms in carbons])
    counts = np.array([np.histogram(fractional[:, axis], bins=5, range=(0, 1))[0] for axis in range(3)])
    assert ((counts - 120) ** 2 / 120).sum() < 32.9  # chi squared, 12 degrees of freedom, 0.1 %


def test_impossible_requests(carbon_dioxide: Gas, framework: Atoms) -> None:
    with pytest.raises(WorkerError, match="no three-dimensional cell"):
        place_molecules(Atoms("Al"), carbon_dioxide, 1, 2.0, np.random.default_rng(0))
    with pytest.raises(WorkerError, match="half the cell height"):
        largest_loading(framework, carbon_dioxide, 4.0, np.random.default_rng(0))
