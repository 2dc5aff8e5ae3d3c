"""Energies of isolated atoms, by the real CP2K."""

from __future__ import annotations

from typing import Any

import pytest
from aiida import engine, orm
from aiida.manage.caching import enable_caching

from aiida_mofmace.data.level import LevelOfTheory
from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.protocols import load_free_atoms
from aiida_mofmace.workflows.isolated_atoms import IsolatedAtomsWorkChain, with_atomic_energies


@pytest.mark.slow
@pytest.mark.cp2k
def test_energies_are_those_the_starter_model_was_made_with(cp2k_code: orm.InstalledCode) -> None:
    """Its atomic energies were computed by a script of its own, with the same settings in another box."""
    builder = IsolatedAtomsWorkChain.get_builder_from_protocol({"cp2k": cp2k_code}, ["O", "H"])
    with enable_caching(identifier="aiida.calculations:mofmace.*"):
        outputs, node = engine.run_get_node(builder)
        assert node.is_finished_ok, node.exit_message
        again = engine.run_get_node(builder)[1]
    known = MaceModelData.starter().atomic_energies["Default"]
    energies = outputs["energies"].get_dict()
    assert sorted(energies) == ["H", "O"]
    for element, energy in energies.items():
        assert energy == pytest.approx(known[element], abs=1e-3)
    jobs = [called for called in again.called_descendants if isinstance(called, orm.CalcJobNode)]
    # An atom may need other mixing first: the jobs that did not converge are not taken from the cache.
    labels = [job.outputs.label for job in jobs if job.is_finished_ok]
    assert [label.symbols for label in labels] in ([["H"], ["O"]], [["O"], ["H"]])
    assert all(job.base.caching.is_created_from_cache for job in jobs if job.is_finished_ok)
    hashes = {label.level_of_theory["hash"] for label in labels}
    assert len({*hashes, LevelOfTheory.load("gfn1-xtb").summary["hash"]}) == 3


def test_every_atom_that_the_density_functional_knows_has_a_spin() -> None:
    level = LevelOfTheory.load("pbe-d3")
    assert set(level.kinds) == set(load_free_atoms())
    assert all(spin >= 1 for spin in load_free_atoms().values())


def test_parameters_take_the_energies(aiida_profile: Any) -> None:
    parameters = orm.Dict({"fine_tune": {"e0s": "isolated_atoms", "batch_size": 2}, "level": "pbe-d3"})
    changed = with_atomic_energies(parameters, orm.Dict({"H": -13.6})).get_dict()
    assert changed == {"fine_tune": {"e0s": {"H": -13.6}, "batch_size": 2}, "level": "pbe-d3"}


@pytest.mark.parametrize(
    ("elements", "level", "message"),
    [(["U"], "gfn1-xtb", "free atom of U is not in"), (["H"], "gfn1-xtb-tblite", "set fine_tune.e0s to estimated")],
)
def test_refused_inputs(cp2k_code: orm.InstalledCode, elements: list[str], level: str, message: str) -> None:
    builder = IsolatedAtomsWorkChain.get_builder_from_protocol({"cp2k": cp2k_code}, ["H"])
    inputs = dict(builder) | {"elements": orm.List(elements), "level": orm.Dict(LevelOfTheory.load(level).to_dict())}
    assert message in str(IsolatedAtomsWorkChain.spec().inputs.validate(inputs))
