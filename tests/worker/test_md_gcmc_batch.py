"""Several simulations in one process: each is the run it would be by itself, whatever becomes of the others."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels import ideal_gas
from aiida_mofmace.worker.kernels.batched import BatchedPotential, Seat
from aiida_mofmace.worker.kernels.model import Evaluation, MaceEvaluator, Potential
from aiida_mofmace.worker.programs import md_gcmc, md_gcmc_batch
from aiida_mofmace.worker.programs.hybrid import MdGcmcParameters
from aiida_mofmace.worker.programs.md_gcmc import Point, simulate
from aiida_mofmace.worker.programs.md_gcmc_batch import run_together
from aiida_mofmace.worker.stopping import StopRequest

from .engine_fixtures import CO2, LennardJones
from .test_md_gcmc_program import PARAMETERS, STARTER

ARGON = CO2 | {"name": "Ar", "symbols": ["Ar"], "positions": [[0.0, 0.0, 0.0]]}
FLUID = PARAMETERS | {
    "gas": ARGON,
    "temperature": 150.0,
    "steps": 60,
    "md_steps_per_attempt": 2,
    "attempts_per_block": 3,
    "minimum_distance": 2.5,
    "initial_loading": 2,
    "max_loading": None,
}
FUGACITIES = (1e5, 1e6, 5e6, 2e7)


class Counting(LennardJones):
    """Counts the calls and the configurations in them."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
        self.sizes.append(len(configurations))
        return super().evaluate(configurations, forces)


class Stop(StopRequest):
    """Asks for an end when it has been asked so many times, by all simulations together."""

    def __init__(self, questions: int):
        super().__init__()
        self._left = questions

    def reason(self) -> str | None:
        self._left -= 1
        return "walltime" if self._left < 0 else None


def point(folder: Path, framework: Atoms, seed: int = 1, checkpoint: Path | None = None, **changes: Any) -> Point:
    folder.mkdir(exist_ok=True, parents=True)
    parameters = MdGcmcParameters.from_dict(FLUID | changes)
    return Point(parameters, seed, None if checkpoint else framework, checkpoint, folder)


def together(potential: Potential, systems: int) -> BatchedPotential:
    return BatchedPotential([potential] * systems, joint=potential)


def checkpoint_of(folder: Path) -> dict[str, Any]:
    with np.load(folder / "checkpoint.npz") as archive:
        return {name: archive[name] for name in archive.files}


def assert_equal(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert np.array_equal(found[name], array), name


@pytest.fixture
def argon() -> Atoms:
    """Four atoms that stand for a framework, in a box wider than twice the cut-off."""
    return Atoms("Ar4", np.array([[0, 0, 0], [5, 5, 0], [5, 0, 5], [0, 5, 5]]), cell=[11.0] * 3, pbc=True)


def test_each_run_is_the_one_it_would_be_alone(argon: Atoms, tmp_path: Path) -> None:
    """Four fugacities in joint calls, bit for bit; the calls are really shared."""
    alone = {}
    for seed, fugacity in enumerate(FUGACITIES):
        start = point(tmp_path / f"alone_{seed}", argon, seed, fugacity=fugacity)
        alone[f"p{seed}"] = simulate(start, LennardJones(), StopRequest())
    potential = Counting()
    points = {
        f"p{seed}": point(tmp_path / f"p{seed}", argon, seed, fugacity=fugacity)
        for seed, fugacity in enumerate(FUGACITIES)
    }
    outcomes = run_together(points, together(potential, 4), StopRequest())
    assert list(outcomes) == list(points)
    for name, outcome in outcomes.items():
        assert outcome["status"] == "finished"
        assert outcome["results"]["acceptance"] == alone[name]["acceptance"]
        assert_equal(checkpoint_of(tmp_path / name), checkpoint_of(tmp_path / f"alone_{name[1:]}"))
    loadings = [outcomes[name]["results"]["mean_loading"] for name in points]
    assert len(set(loadings)) == 4
    assert max(potential.sizes) >= 4
    assert sum(potential.sizes) > 2 * len(potential.sizes)


def test_a_model_gives_the_same_in_company(
    tiny_model: Path, framework: Atoms, tmp_path: Path, monkeypatch: Any
) -> None:
    """MACE in float64: same loadings, positions within rounding; sizes of the batches differ from system to system."""
    monkeypatch.setattr(ideal_gas, "_EQUILIBRATION_SWEEPS", 2)
    model = MaceEvaluator(tiny_model, dtype="float64")
    changes = {"gas": CO2, "temperature": 303.0, "minimum_distance": 1.6, "steps": 12, "attempts_per_block": 12}
    own = [
        {"seed": seed, "fugacity": fugacity, "initial_loading": seed}
        for seed, fugacity in enumerate((1e7, 1e9, 5e9, 2e10))
    ]
    first = simulate(point(tmp_path / "alone", framework, **changes, **own[2]), model, StopRequest())
    points = {f"p{i}": point(tmp_path / f"p{i}", framework, **changes, **own[i]) for i in range(4)}
    outcomes = run_together(points, together(model, 4), StopRequest())
    assert outcomes["p2"]["results"]["acceptance"] == first["acceptance"]
    assert first["acceptance"]["insertion"]["evaluated"] > 0
    found, expected = checkpoint_of(tmp_path / "p2"), checkpoint_of(tmp_path / "alone")
    assert np.array_equal(found["series_loading"], expected["series_loading"])
    assert np.allclose(found["state_positions"], expected["state_positions"], rtol=0, atol=1e-9)
    assert found["state_energy"] == pytest.approx(expected["state_energy"], abs=1e-9)


def test_the_end_of_one_is_not_the_end_of_the_others(argon: Atoms, tmp_path: Path) -> None:
    """One explodes at once, one later, one is refused by the potential: two go on, with the numbers they would have."""

    class Picky(LennardJones):
        def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
            if any(len(c.numbers) > 6 for c in configurations):
                raise RuntimeError("CUDA out of memory")
            return super().evaluate(configurations, forces)

    changes: dict[str, dict[str, Any]] = {
        "good": {"max_loading": 2},
        "early": {"explosion_distance": 9.0, "md_steps_per_attempt": 20, "max_loading": 2},
        "large": {"initial_loading": 3},
        "late": {"explosion_distance": 9.0, "max_loading": 2},
        "other": {"seed": 9, "max_loading": 2},
    }
    points = {name: point(tmp_path / name, argon, **each) for name, each in changes.items()}
    with pytest.warns(UserWarning, match="one by one now: CUDA out of memory"):
        outcomes = run_together(points, together(Picky(), 5), StopRequest())
    assert [outcomes[name]["status"] for name in changes] == ["finished", "failed", "failed", "finished", "finished"]
    assert outcomes["early"]["error"]["type"] == "explosion"
    assert outcomes["large"]["error"] == {"type": "out_of_memory", "message": "CUDA out of memory"}
    assert outcomes["late"]["results"]["explosion"]["reason"] == "distance"
    assert not (tmp_path / "late" / "checkpoint.npz").exists()
    for name in ("good", "other"):
        simulate(point(tmp_path / f"{name}_alone", argon, **changes[name]), LennardJones(), StopRequest())
        assert_equal(checkpoint_of(tmp_path / name), checkpoint_of(tmp_path / f"{name}_alone"))


def test_a_stop_saves_all_and_a_restart_is_exact(argon: Atoms, tmp_path: Path) -> None:
    """Stopped at different steps, restarted in another grouping, each gives the run it would have been."""
    whole = [point(tmp_path / f"whole_{i}", argon, i, fugacity=f) for i, f in enumerate(FUGACITIES)]
    for each in whole:
        simulate(each, LennardJones(), StopRequest())
    points = {f"p{i}": point(tmp_path / f"p{i}", argon, i, fugacity=f) for i, f in enumerate(FUGACITIES)}
    stopped = run_together(points, together(LennardJones(), 4), Stop(70))
    assert [outcome["status"] for outcome in stopped.values()] == ["stopped"] * 4
    assert all(0 < outcome["results"]["steps_done"] < 60 for outcome in stopped.values())
    for group in ((3, 1), (0, 2)):
        again = {}
        for i in group:
            (tmp_path / f"p{i}" / "checkpoint.npz").rename(tmp_path / f"from_{i}.npz")
            checkpoint = tmp_path / f"from_{i}.npz"
            again[f"p{i}"] = point(tmp_path / f"p{i}", argon, 99, checkpoint, fugacity=FUGACITIES[i])
        run_together(again, together(LennardJones(), 2), StopRequest())
    for i in range(4):
        assert_equal(checkpoint_of(tmp_path / f"p{i}"), checkpoint_of(tmp_path / f"whole_{i}"))


@pytest.fixture
def inputs(framework: Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What input.json of the batch holds: two pressures, of which the second has more molecules."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ideal_gas, "_EQUILIBRATION_SWEEPS", 2)
    framework.write("structure.extxyz")
    systems = {
        "pressure_00": {"pressure": 1e4, "fugacity": 1e8, "seed": 3, "initial_loading": 0},
        "pressure_01": {"pressure": 1e5, "fugacity": 1e9, "seed": 4},
    }
    parameters = {key: value for key, value in PARAMETERS.items() if key != "pressure"}
    files = {"model": str(STARTER), "structure": "structure.extxyz"}
    common = {"steps": 20, "systems": systems}
    return {"program": "md_gcmc_batch", "dtype": "float32", "files": files, "parameters": parameters | common}


def test_on_a_cpu_a_batch_is_the_single_runs_bit_for_bit(inputs: dict[str, Any]) -> None:
    results = md_gcmc_batch.run(inputs, StopRequest())
    assert not results["together"]
    own = inputs["parameters"]["systems"]["pressure_01"]
    alone = md_gcmc.run(inputs | {"seed": own["seed"], "parameters": inputs["parameters"] | own}, StopRequest())
    assert_equal(checkpoint_of(Path("pressure_01")), checkpoint_of(Path()))
    assert results["systems"]["pressure_01"]["results"]["acceptance"] == alone["acceptance"]
    assert alone["acceptance"]["insertion"]["evaluated"] > 0
    assert sorted(path.name for path in Path("pressure_00").iterdir()) == [
        "checkpoint.npz",
        "frames.npz",
        "timeseries.npz",
    ]


def test_calls_may_be_shared_on_a_cpu(inputs: dict[str, Any]) -> None:
    """With the same moves as by themselves, and positions that differ by rounding alone."""
    inputs["dtype"] = "float64"
    alone = md_gcmc_batch.run(inputs, StopRequest())
    expected = {name: checkpoint_of(Path(name)) for name in alone["systems"]}
    shared = md_gcmc_batch.run(inputs | {"parameters": inputs["parameters"] | {"share_calls": True}}, StopRequest())
    assert shared["together"]
    for name, outcome in shared["systems"].items():
        assert outcome["results"]["acceptance"] == alone["systems"][name]["results"]["acceptance"]
        found = checkpoint_of(Path(name))["state_positions"]
        np.testing.assert_allclose(found, expected[name]["state_positions"], rtol=0, atol=1e-9)


def test_a_signal_stops_the_whole_batch(inputs: dict[str, Any]) -> None:
    """The simulations hear the scheduler, all at the end of their step."""
    stop = StopRequest()
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGUSR1)
    stop.listen()
    timer = threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    try:
        results = md_gcmc_batch.run(inputs | {"parameters": inputs["parameters"] | {"steps": 10**6}}, stop)
    finally:
        timer.cancel()
        signal.signal(signal.SIGTERM, before[0])
        signal.signal(signal.SIGUSR1, before[1])
    assert results["stopped_early"]
    for name, outcome in results["systems"].items():
        assert outcome["status"] == "stopped"
        assert int(checkpoint_of(Path(name))["state_step"]) == outcome["results"]["steps_done"]


def test_bad_input_of_one_or_of_all(inputs: dict[str, Any]) -> None:
    systems = inputs["parameters"]["systems"]
    systems["pressure_00"]["fugacity"] = -1.0
    results = md_gcmc_batch.run(inputs, StopRequest())
    assert results["systems"]["pressure_00"]["error"]["type"] == "bad_input"
    assert results["systems"]["pressure_01"]["status"] == "finished"
    systems["pressure_01"]["fugacity"] = -1.0
    with pytest.raises(WorkerError, match="fugacities must be positive") as caught:
        md_gcmc_batch.run(inputs, StopRequest())
    assert caught.value.kind == "bad_input"


def test_requests_are_answered_in_the_order_of_the_seats() -> None:
    """One round for all who still ask, until the last has ended."""
    seen: list[list[float]] = []

    class Recorder:
        r_max = 3.0

        def evaluate(self, configurations: Sequence[Any], forces: bool = True) -> list[Evaluation]:
            seen.append(list(configurations))
            return [Evaluation(float(each)) for each in configurations]

    def simulation(index: int, rounds: int, seat: Seat) -> float:
        answers = [seat.evaluate([index, 10 + index], forces=False) for _ in range(rounds)]
        return sum(each.interaction_energy for answer in answers for each in answer)

    table = together(Recorder(), 3)
    assert table.run([partial(simulation, *each) for each in ((0, 1), (1, 3), (2, 2))]) == [10.0, 36.0, 28.0]
    assert seen == [[0, 10, 1, 11, 2, 12], [1, 11, 2, 12], [1, 11]]
    assert table.rounds == 3
