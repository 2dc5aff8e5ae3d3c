"""Guards of hybrid MD-GCMC: each ends a run that it should end, and leaves alone one that it should leave alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.model import Evaluation
from aiida_mofmace.worker.programs.guards import has_neighbour
from aiida_mofmace.worker.programs.hybrid import HybridSimulation
from aiida_mofmace.worker.programs.simulation import describe_explosion
from aiida_mofmace.worker.stopping import StopRequest

from .engine_fixtures import CO2, BondedMolecules, NoPotential
from .gcmc_proofs import ARGON, parameters

LIMIT = 0.02  # eV per atom and ps


class _Inconsistent(BondedMolecules):
    """Forces that are a little more than the slope of the energy where a bond is stretched."""

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        return [
            Evaluation(a.interaction_energy, forces=np.where(a.forces > 0, 1.2, 1.0) * a.forces)
            for a in super().evaluate(configurations, forces)
        ]


@pytest.mark.parametrize("thermostat", ["nose_hoover", "langevin"])
@pytest.mark.parametrize("potential", [BondedMolecules, _Inconsistent])
def test_energy_drift(potential: type[BondedMolecules], thermostat: str, carbon_dioxide: Gas) -> None:
    """Exchanges change the conserved energy and are no drift; forces that do not fit the energy are."""
    what = parameters(
        gas=CO2,
        pressure=1e6,
        initial_loading=3,
        steps=600,
        md_steps_per_attempt=5,
        timestep_fs=0.5,
        max_energy_drift=LIMIT,
        energy_drift_window_fs=100.0,
        thermostat=thermostat,
    )
    cell = Atoms("Al", cell=[20.0] * 3, pbc=True)
    simulation = HybridSimulation(what, potential(carbon_dioxide), cell, seed=1)
    explosion = simulation.advance(StopRequest())[0]
    accepted = simulation.exchange.insertions.accepted + simulation.exchange.deletions.accepted
    assert accepted > 2 or explosion is not None
    if potential is BondedMolecules:
        assert explosion is None
        return
    assert explosion is not None
    assert (explosion["reason"], explosion["limit"]) == ("drift", LIMIT)
    assert abs(explosion["value"]) > LIMIT
    assert "conserved energy drifted" in describe_explosion(explosion)
    assert simulation.exchange.candidates[-1].info["guard"] == "drift"


class _Pull(NoPotential):
    """Draws the last atom of a hydroxyl group away from it."""

    def __init__(self, force: float):
        self.force = force

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        answers = []
        for each in configurations:
            pull = np.zeros((len(each.positions), 3))
            pull[1:2, 0] = self.force
            answers.append(Evaluation(0.0, forces=pull))
        return answers


@pytest.mark.parametrize("force", [0.0, 2.0])
def test_an_atom_that_leaves_the_framework(force: float) -> None:
    """A lone atom of the framework is none that has left."""
    framework = Atoms("OHAl", positions=[[1, 1, 1], [1.97, 1, 1], [9, 9, 9]], cell=[20.0] * 3, pbc=True)
    what = parameters(
        gas=ARGON, pressure=1.0, temperature=1.0, steps=60, stride=5, longest_bond=1.6, max_temperature_factor=1e9
    )
    simulation = HybridSimulation(what, _Pull(force), framework, seed=1)
    assert simulation.bonded.tolist() == [True, True, False]
    explosion = simulation.advance(StopRequest())[0]
    if force == 0.0:
        assert explosion is None
        return
    assert explosion is not None
    assert (explosion["reason"], explosion["limit"]) == ("detachment", 1.6)
    assert "of the framework had no neighbour" in describe_explosion(explosion)
    assert simulation.exchange.candidates[-1].info["guard"] == "detachment"
    distance = simulation.state.positions[1, 0] - simulation.state.positions[0, 0]
    assert 1.6 * (0.66 + 0.31) < distance < 2.5
    assert len(simulation.images) > 1


def test_bonds_through_the_boundary(framework: Atoms) -> None:
    """Every atom of the framework is bonded, wherever it is wrapped to; scaled up by three, none is."""
    state = HybridSimulation(parameters(gas=ARGON, steps=1), NoPotential(), framework, seed=1).state
    state.positions = state.positions + 3 * state.cell[0] + 0.3
    assert has_neighbour(state, 1.3).all()
    state.positions, state.cell = 3 * state.positions, 3 * state.cell
    assert not has_neighbour(state, 1.3).any()
