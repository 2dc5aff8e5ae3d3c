"""A cell that changes: exact distributions, restarts, guards; at length in the benchmark ``gcmc_proofs``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units

from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels import ideal_gas as ideal_gas_kernel
from aiida_mofmace.worker.kernels.cell_moves import CellMoves
from aiida_mofmace.worker.kernels.dynamics import MdState, initial_state
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.geometry import cell_volume
from aiida_mofmace.worker.kernels.loading import place_molecules
from aiida_mofmace.worker.programs import md, md_gcmc
from aiida_mofmace.worker.stopping import StopRequest

from .cell_proofs import SHAPES, Liquid, elastic_crystal, ideal_gas, lennard_jones_liquid, osmotic, simulate
from .engine_fixtures import CO2, WATER, BondedMolecules, LennardJones, thermal
from .test_gcmc_proofs import check
from .test_md_gcmc_program import PARAMETERS as GCMC
from .test_md_gcmc_program import STARTER
from .test_md_program import PARAMETERS as MD


@pytest.mark.parametrize(("shape", "flexible"), [("isotropic", True), ("full", False)])
def test_ideal_gas_at_constant_pressure(shape: str, flexible: bool) -> None:
    check(ideal_gas(shape, flexible))


@pytest.mark.parametrize("shape", [pytest.param("isotropic", marks=pytest.mark.slow), "anisotropic", "full"])
def test_size_and_shape_of_an_elastic_crystal(shape: str) -> None:
    check(elastic_crystal(shape), ln_V=0.3)


def test_exchange_in_a_cell_that_breathes() -> None:
    check(osmotic())


@pytest.mark.slow
def test_lennard_jones_liquid() -> None:
    check(lennard_jones_liquid("isotropic", 3), density=0.02, energy=0.03)


def test_pairs_of_the_liquid() -> None:
    """The neighbour list finds what all pairs give."""
    rng = np.random.default_rng(3)
    sites = np.stack(np.meshgrid(*[np.arange(6) * 3.6] * 3), axis=-1).reshape(-1, 3)
    atoms = Atoms("Al216", sites + rng.normal(0, 0.2, (216, 3)), cell=[21.6] * 3, pbc=True)
    answers = [kind(r_max=10.2).evaluate([atoms])[0] for kind in (Liquid, LennardJones)]
    assert answers[0].interaction_energy == pytest.approx(answers[1].interaction_energy, abs=1e-10)
    np.testing.assert_allclose(answers[0].forces, answers[1].forces, atol=1e-10)


def make_moves(state: MdState, potential: Any, shape: str, **changes: Any) -> CellMoves:
    defaults = {"pressure": 0.0, "thermal": thermal(300.0), "largest_strain": 0.3, "smallest_height": 0.0}
    defaults |= {"largest_change": 0.5, "start": state.cell, "potential": potential}
    return CellMoves(shape=shape, rng=np.random.default_rng(2), **(defaults | changes))


def make_state(framework: Atoms, gas: Gas, potential: Any) -> MdState:
    rng = np.random.default_rng(1)
    loaded = place_molecules(framework, gas, 3, 1.0, rng)
    counts, sizes = np.array([3]), np.array([3])
    return initial_state(loaded, potential, 300.0, rng, len(framework), counts=counts, sizes=sizes)


@pytest.mark.parametrize(("shape", "kind"), [*((shape, CO2) for shape in SHAPES), ("full", WATER)])
def test_what_a_move_keeps(shape: str, kind: dict[str, Any], framework: Atoms) -> None:
    """Fractional coordinates of framework atoms and centres of mass, shapes of molecules, energy of motion."""
    skeleton, gas = Atoms("Al40", framework.positions, cell=framework.cell, pbc=True), Gas.from_dict(kind)
    potential = BondedMolecules(gas)
    state = make_state(skeleton, gas, potential)
    before = MdState.from_arrays(state.to_arrays())
    moves = make_moves(state, potential, shape)
    assert sum(moves.attempt(state) for _ in range(8)) == moves.counts.accepted > 2

    def points(state: MdState) -> Any:
        molecules = state.positions[40:].reshape(3, 3, 3)
        centres = np.einsum("a,mai->mi", gas.masses, molecules) / gas.mass
        turned = molecules - centres[:, None]
        return np.concatenate([state.positions[:40], centres]) @ np.linalg.inv(state.cell), turned

    np.testing.assert_allclose(points(state)[0], points(before)[0], atol=1e-12)
    turn = np.linalg.lstsq(before.momenta, state.momenta, rcond=None)[0]
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(points(state)[1], points(before)[1] @ turn, atol=1e-12)
    np.testing.assert_allclose(state.momenta, before.momenta @ turn, atol=1e-12)
    check_shape(shape, np.linalg.inv(before.cell) @ state.cell, state.cell @ np.linalg.inv(before.cell))


def check_shape(shape: str, strain: Any, of_vectors: Any) -> None:
    """A full strain is symmetric: the crystal does not turn; the others change lengths of the vectors alone."""
    assert abs(strain - np.eye(3)).max() > 0.01
    if shape == "full":
        np.testing.assert_allclose(strain, strain.T, atol=1e-12)
        assert abs(strain[0, 1]) > 1e-3
        return
    lengths = np.diag(of_vectors)
    np.testing.assert_allclose(of_vectors, np.diag(lengths), atol=1e-12)
    assert bool(np.ptp(lengths) < 1e-12) is (shape == "isotropic")


def test_a_cell_is_not_squeezed_flat(framework: Atoms, carbon_dioxide: Gas) -> None:
    """Cells whose faces would come too near are refused before any energy is evaluated."""
    potential = BondedMolecules(carbon_dioxide)
    state = make_state(Atoms("Al", cell=[8.0] * 3, pbc=True), carbon_dioxide, potential)
    moves = make_moves(state, potential, "anisotropic", pressure=0.1, smallest_height=7.5, largest_strain=0.2)
    for _ in range(60):
        moves.attempt(state)
        assert np.diag(state.cell).min() >= 7.5
    counts = moves.counts
    assert counts.overlap > 5
    assert counts.overlap + counts.evaluated == counts.attempted == 60
    assert cell_volume(state.cell) < 8.0**3


def test_a_cell_that_changes_too_much_ends_the_run() -> None:
    from aiida_mofmace.worker.programs.hybrid import HybridSimulation
    from aiida_mofmace.worker.programs.simulation import describe_explosion

    from .gcmc_proofs import parameters

    what = parameters(
        steps=500, flexible_cell="isotropic", cell_step=0.3, md_steps_per_cell_move=1, cell_pressure=1e9, stride=10
    )
    potential = BondedMolecules(Gas.from_dict(CO2))
    simulation = HybridSimulation(what, potential, Atoms("Al", cell=[20.0] * 3, pbc=True))
    explosion = simulation.advance(StopRequest())[0]
    assert explosion is not None
    assert (explosion["reason"], explosion["limit"]) == ("volume", 0.3)
    assert explosion["value"] < 0.7
    assert "times that at the start, a change beyond the limit of 0.30" in describe_explosion(explosion)
    assert simulation.exchange.candidates[-1].info["guard"] == "volume"


@pytest.fixture
def job(framework: Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What input.json holds beside the parameters, in a job folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ideal_gas_kernel, "_EQUILIBRATION_SWEEPS", 4)
    framework.write("structure.extxyz")
    return {"seed": 4, "dtype": "float32", "files": {"model": str(STARTER), "structure": "structure.extxyz"}}


def run_in_two(program: Any, job: dict[str, Any], parameters: dict[str, Any], first: int) -> dict[str, Any]:
    """Run as a whole and in two parts; the checkpoints must be the same to the last bit."""
    whole = program.run(job | {"parameters": parameters}, StopRequest())
    with np.load("checkpoint.npz") as archive:
        expected = {name: archive[name] for name in archive.files}
    program.run(job | {"parameters": parameters | {"steps": first}}, StopRequest())
    Path("checkpoint.npz").rename("restart.npz")
    job = job | {"files": job["files"] | {"checkpoint": "restart.npz"}, "seed": 99}
    parts = program.run(job | {"parameters": parameters}, StopRequest())
    with np.load("checkpoint.npz") as archive:
        assert sorted(archive.files) == sorted(expected)
        for name, array in expected.items():
            assert np.array_equal(archive[name], array), name
    assert not np.array_equal(expected["state_cell"], expected["start_cell"])
    assert parts["mean_volume"] == whole["mean_volume"]
    return whole


def test_dynamics_at_constant_pressure_restarts_without_a_changed_bit(job: dict[str, Any]) -> None:
    """The conserved energy is one in spite of the moves, and frames have the cell of their time."""
    parameters = MD | {"pressure": 1e5, "md_steps_per_cell_move": 2, "equilibration_steps": 0, "cell_step": 0.01}
    results = run_in_two(md, job, parameters, 18)
    moves = results["cell_moves"]
    assert moves["attempted"] == moves["evaluated"] == 20
    assert moves["accepted"] > 3
    frames = Frames.load("frames.npz")
    with np.load("observables.npz") as observables:
        assert np.ptp(observables["conserved_energy"]) < 0.05
        assert np.ptp(observables["potential_energy"]) > 0.2
        volumes = observables["volume"]
    np.testing.assert_allclose(volumes[-len(frames) :], np.linalg.det(frames.cells), rtol=1e-12)
    assert results["mean_volume"] == pytest.approx(volumes[len(volumes) // 10 :].mean())
    assert np.ptp(volumes) > 0.1


@pytest.mark.parametrize("flexible", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_exchange_in_a_flexible_cell_restarts_without_a_changed_bit(job: dict[str, Any], flexible: bool) -> None:
    rigid = {"gas_flexible": False, "moves": {"exchange": 1.0, "translation": 1.0, "rotation": 1.0}}
    rigid |= {"translation_step": 1.0, "rotation_step": 30.0}
    what = {"flexible_cell": "full", "md_steps_per_cell_move": 5, "cell_step": 0.01, "fugacity": 5e8}
    what |= {"max_energy_drift": None} | ({} if flexible else rigid)
    results = run_in_two(md_gcmc, job, GCMC | what, 23)
    assert results["acceptance"]["cell"]["attempted"] == 8
    assert results["acceptance"]["cell"]["accepted"] > 0
    with np.load("timeseries.npz") as series, np.load("checkpoint.npz") as state:
        assert series["volume"][-1] == pytest.approx(cell_volume(state["state_cell"]))
        number = results["ideal_gas"]["number"]
        assert number == pytest.approx(5e8 * units.Pascal * series["volume"][-1] / thermal(303.0), rel=1e-6)


@pytest.mark.parametrize(
    ("program", "parameters", "message"),
    [
        (md, {"pressure": 1e5, "flexible_cell": "none"}, "a pressure needs a cell that changes"),
        (md, {"pressure": 1e5, "cell_step": 0.0}, "must be positive: {'cell_step': 0.0}"),
        (md, {"flexible_cell": "soft"}, "flexible_cell must be one of none, isotropic, anisotropic, full"),
        (md_gcmc, {"flexible_cell": "full", "framework_flexible": False}, "needs a framework that moves"),
        (md_gcmc, {"flexible_cell": "full", "engine": "lammps"}, "a flexible_cell needs the engine native"),
        (md_gcmc, {"flexible_cell": "full", "md_steps_per_cell_move": 7}, "a multiple of md_steps_per_attempt"),
    ],
)
def test_bad_input(job: dict[str, Any], program: Any, parameters: dict[str, Any], message: str) -> None:
    good = MD if program is md else GCMC
    with pytest.raises(WorkerError, match=message) as caught:
        program.run(job | {"parameters": good | parameters}, StopRequest())
    assert caught.value.kind == "bad_input"


def test_what_cannot_be_gone_on_with(job: dict[str, Any]) -> None:
    """A molecule alone has no pressure; a run at constant volume kept no record of it."""
    alone = {"gas_phase_box": 16.0, "loading": 0, "pressure": 1e5}
    with pytest.raises(WorkerError, match="a molecule alone has no pressure"):
        md.run({**job, "files": {"model": str(STARTER)}, "parameters": MD | alone}, StopRequest())
    md.run(job | {"parameters": MD | {"steps": 10}}, StopRequest())
    Path("checkpoint.npz").rename("restart.npz")
    again = job | {"files": job["files"] | {"checkpoint": "restart.npz"}, "parameters": MD | {"pressure": 1e5}}
    with pytest.raises(WorkerError, match="kept no record of volume"):
        md.run(again, StopRequest())


def test_cell_in_a_simulation_of_the_kernel_alone(carbon_dioxide: Gas) -> None:
    """A cell that must not change is not touched by any random number: the run is the one without the option."""
    cell = Atoms("Al", cell=[20.0] * 3, pbc=True)
    potential = BondedMolecules(carbon_dioxide)
    still = [simulate(potential, cell, 5, steps=60, **how) for how in ({}, {"cell_pressure": 1e7})]
    assert all(np.array_equal(run.state.positions, still[0].state.positions) for run in still)
    assert all("volume" not in run.series.arrays() for run in still)
