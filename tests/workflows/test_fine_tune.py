"""Fine-tuning: every handler fires, and a committee can lose a member."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import engine, orm

from aiida_mofmace.calculations.fine_tune import FineTuneCalculation
from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.workflows.fine_tune_base import FineTuneWorkChain
from aiida_mofmace.workflows.fine_tune_committee import FineTuneCommitteeWorkChain

from ..worker.selection_fixtures import write_tiny_model
from .steps import dataset_of, finished, process_of

OVERRIDES = {"fine_tune": {"multihead": False, "batch_size": 4, "learning_rate": 1e-3, "nan_learning_rate_factor": 0.1}}


@pytest.fixture
def chain(codes: dict[str, Any]) -> Any:
    builder = FineTuneWorkChain.get_builder_from_protocol(codes, dataset_of([0, 1] * 3).store(), overrides=OVERRIDES)
    process = process_of(builder)
    process.setup()
    return process


def failed(chain: Any, label: str, outputs: dict[str, Any] | None = None) -> Any:
    """Let the process look as if a job had ended so, and inspect it."""
    code = getattr(FineTuneCalculation.exit_codes, label)
    chain.ctx.iteration += 1
    node = finished(FineTuneCalculation, outputs, exit_status=code.status, message=code.message)
    chain.ctx.children = [*chain.ctx.get("children", []), node]
    return chain.inspect_process()


def test_handle_out_of_memory(chain: Any) -> None:
    sizes = []
    for _ in range(2):
        assert failed(chain, "ERROR_OUT_OF_MEMORY").status == 0
        sizes.append(chain.ctx.inputs.parameters["batch_size"])
    assert sizes == [2, 1]
    code = failed(chain, "ERROR_OUT_OF_MEMORY")
    assert (code.status, "one structure in a batch" in code.message) == (311, True)


def test_handle_not_a_number(chain: Any) -> None:
    assert failed(chain, "ERROR_NOT_A_NUMBER").status == 0
    parameters = chain.ctx.inputs.parameters.get_dict()
    assert parameters["learning_rate"] == pytest.approx(1e-4)
    assert parameters["stage_two_learning_rate"] == pytest.approx(1e-5)
    assert parameters["batch_size"] == 4
    assert failed(chain, "ERROR_NOT_A_NUMBER").status == 310


def test_handle_stopped_early(chain: Any, tmp_path: Path) -> None:
    """With a checkpoint it goes on from there; without one it gets twice the time."""
    assert failed(chain, "ERROR_STOPPED_EARLY").status == 0
    assert chain.ctx.inputs.metadata.options["max_wallclock_seconds"] == 7200
    (tmp_path / "checkpoint.pt").write_bytes(b"weights")
    checkpoint = orm.SinglefileData(str(tmp_path / "checkpoint.pt"))
    assert failed(chain, "ERROR_STOPPED_EARLY", {"checkpoint": checkpoint}).status == 0
    assert chain.ctx.inputs.checkpoint.uuid == checkpoint.uuid
    assert chain.ctx.inputs.metadata.options["max_wallclock_seconds"] == 7200
    # Other parameters, other training: the checkpoint must not go with them.
    assert failed(chain, "ERROR_OUT_OF_MEMORY").status == 0
    assert "checkpoint" not in chain.ctx.inputs


def test_wall_time_is_doubled_once(chain: Any) -> None:
    """A queue may refuse more, and AiiDA would hold such a job for ever."""
    assert failed(chain, "ERROR_STOPPED_EARLY").status == 0
    code = failed(chain, "ERROR_STOPPED_EARLY")
    assert (code.status, chain.ctx.inputs.metadata.options["max_wallclock_seconds"]) == (313, 7200)


def test_handle_killed(chain: Any) -> None:
    assert failed(chain, "ERROR_NO_OUTPUT").status == 0
    assert chain.ctx.inputs.parameters["batch_size"] == 2
    assert failed(chain, "ERROR_NO_OUTPUT").status == 312


def checkpoint_of(content: bytes) -> orm.SinglefileData:
    return orm.SinglefileData(io.BytesIO(content), filename="checkpoint.pt")


@pytest.mark.parametrize("label", ["ERROR_NO_OUTPUT", "ERROR_WORKER_FAILED"])
def test_a_machine_that_fails_takes_no_epochs_along(chain: Any, label: str) -> None:
    """handle_broken_off goes on from the checkpoint, as long as each job comes further, with the parameters it had."""
    for content in (b"epoch 40", b"epoch 80"):
        checkpoint = checkpoint_of(content)
        assert failed(chain, label, {"checkpoint": checkpoint}).status == 0
        assert chain.ctx.inputs.checkpoint.uuid == checkpoint.uuid
    assert chain.ctx.inputs.parameters["batch_size"] == 4
    # The file that it was given comes back as well: that is no progress.
    code = failed(chain, label, {"checkpoint": checkpoint_of(b"epoch 80")})
    if label == "ERROR_NO_OUTPUT":
        assert (code.status, chain.ctx.inputs.parameters["batch_size"]) == (0, 2)
        assert "checkpoint" not in chain.ctx.inputs
    else:
        assert code.status == 313


def test_the_best_model_of_a_training_that_is_cut_short_is_handed_out(chain: Any) -> None:
    for number in range(chain.inputs.max_iterations.value):
        model = MaceModelData.starter().clone()
        code = failed(chain, "ERROR_STOPPED_EARLY", {"checkpoint": checkpoint_of(b"%d" % number), "model": model})
    assert code.status == 701
    assert chain.outputs["model"].uuid == model.uuid


def test_a_log_that_ends_within_a_character(chain: Any) -> None:
    retrieved = orm.FolderData()
    retrieved.base.repository.put_object_from_bytes("5 Å".encode()[:-1], "worker.err")
    failed(chain, "ERROR_NO_OUTPUT")
    code = failed(chain, "ERROR_NO_OUTPUT", {"retrieved": retrieved})
    assert (code.status, "5 " in code.message) == (312, True)


def test_handle_unknown_failure(chain: Any) -> None:
    """What nobody knows a remedy for ends at once, with the end of the job's log."""
    log = "\n".join(f"line {number}" for number in range(9)) + "\nRuntimeError: the GPU fell off the bus\n"
    retrieved = orm.FolderData()
    retrieved.base.repository.put_object_from_bytes(log.encode(), "worker.err")
    code = failed(chain, "ERROR_WORKER_FAILED", {"retrieved": retrieved})
    assert code.status == 313
    assert code.message.endswith("line 5 | line 6 | line 7 | line 8 | RuntimeError: the GPU fell off the bus")


def test_what_a_restart_submits_is_valid(chain: Any) -> None:
    failed(chain, "ERROR_OUT_OF_MEMORY")
    chain.run_process()
    process_class, inputs = chain.submitted[-1]
    assert process_class is FineTuneCalculation
    assert inputs["parameters"]["batch_size"] == 2
    assert not {"max_restarts", "nan_learning_rate_factor"} & set(inputs["parameters"].get_dict())


# -- committee ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def committee(codes: dict[str, Any]) -> Any:
    dataset = dataset_of([0, 1] * 3).store()
    process = process_of(
        FineTuneCommitteeWorkChain.get_builder_from_protocol(codes, dataset, overrides=OVERRIDES, seed=3)
    )
    process.setup()
    return process


def trained(seed: int = 0, tested: bool = True) -> orm.ProcessNode:
    """Predictions are off by 0.3 eV/Å for all members alike and by 0.1 eV/Å for each in its own way."""
    rng = np.random.default_rng(1)
    reference, common = rng.normal(size=(2, 400, 3))
    own = np.random.default_rng([2, seed]).normal(size=(400, 3))
    arrays = {"reference_forces": reference, "forces": reference + 0.3 * common + 0.1 * own}
    model, results = MaceModelData.starter().clone(), orm.Dict({"epochs": 2})
    outputs = {"model": model, "results": results, "history": orm.List([])}
    if tested:
        outputs["test_predictions"] = orm.ArrayData(arrays | {"reference_energies": np.zeros(10)})
    return finished(FineTuneWorkChain, outputs)


def finish(committee: Any, nodes: dict[str, orm.ProcessNode]) -> Any:
    finished_nodes = {key: node.pk for key, node in nodes.items()}
    committee.ctx.window = {"queue": [], "running": {}, "finished": finished_nodes, "size": 2}
    return committee.inspect_members()


def test_members_differ_by_seed_only(committee: Any) -> None:
    assert committee.ctx.window["queue"] == ["seed_0", "seed_1", "seed_2", "seed_3"]
    for key in ("seed_0", "seed_1"):
        committee.submit_member(key)
    (_, first), (_, second) = committee.submitted
    assert first["fine_tune"]["seed"].value != second["fine_tune"]["seed"].value
    assert first["metadata"]["call_link_label"] == "seed_0"
    parameters = [inputs["fine_tune"]["parameters"].get_dict() for inputs in (first, second)]
    assert [content.pop("name") for content in parameters] == ["model_0", "model_1"]
    assert parameters[0] == parameters[1]


def test_a_committee_can_lose_a_member(committee: Any) -> None:
    nodes = {f"seed_{index}": trained() for index in (0, 1, 3)}
    nodes["seed_2"] = finished(FineTuneWorkChain, {}, exit_status=310, message="no number")
    assert finish(committee, nodes) is None
    assert sorted(committee.outputs["models"]) == ["model_0", "model_1", "model_3"]


def test_a_member_that_was_cut_short_is_one(committee: Any) -> None:
    """Its best model counts; one without a model does not."""
    nodes = {f"seed_{index}": trained(index) for index in (0, 1)}
    for name in ("seed_2", "seed_3"):
        outputs = {"model": MaceModelData.starter().clone(), "results": orm.Dict(), "history": orm.List([])}
        outputs = outputs if name == "seed_2" else {}
        nodes[name] = finished(FineTuneWorkChain, outputs, exit_status=701, message="not come to its end")
    assert finish(committee, nodes) is None
    assert sorted(committee.outputs["models"]) == ["model_0", "model_1", "model_2"]


def test_committee_is_calibrated_on_its_test_frames(committee: Any) -> None:
    assert finish(committee, {f"seed_{index}": trained(index) for index in range(4)}) is None
    calibration = committee.outputs["calibration"].get_dict()
    assert (calibration["n_models"], calibration["n_frames"]) == (4, 10)
    # Of the own part, a quarter of the variance is in the error of the mean and three quarters are in the deviation.
    assert calibration["ratio"] == pytest.approx(np.sqrt((0.09 + 0.01 / 4) / (0.01 * 3 / 4)), rel=0.05)


def test_committee_without_test_frames_is_not_calibrated(committee: Any) -> None:
    assert finish(committee, {f"seed_{index}": trained(index, tested=index > 0) for index in range(4)}) is None
    assert "calibration" not in committee.outputs


def test_too_few_members(committee: Any) -> None:
    nodes = {f"seed_{index}": finished(FineTuneWorkChain, {}, exit_status=310, message="no number") for index in (0, 1)}
    nodes |= {"seed_2": trained(), "seed_3": trained()}
    code = finish(committee, nodes)
    assert (code.status, code.message) == (301, "Only 2 of 4 members were trained; see the report of seed_0, seed_1.")
    assert sorted(committee.outputs["models"]) == ["model_2", "model_3"]


def test_isolated_atoms_are_no_business_of_a_committee(codes: dict[str, Any]) -> None:
    overrides = {"fine_tune": {"multihead": False, "e0s": "isolated_atoms"}}
    with pytest.raises(ValueError, match="give the energies of IsolatedAtomsWorkChain"):
        FineTuneCommitteeWorkChain.get_builder_from_protocol(
            codes, dataset_of([0, 1] * 3).store(), overrides=overrides, seed=3
        )


# -- real jobs ---------------------------------------------------------------------------------------------------------


def test_wall_time_is_survived_and_the_loss_curve_goes_on(codes: dict[str, Any], tmp_path: Path) -> None:
    """Real trainings that each have less time than the whole takes; what each hands on is the curve so far."""
    write_tiny_model(tmp_path / "foundation.model", elements=(1, 6, 8, 13))
    foundation, dataset = MaceModelData.from_file(tmp_path / "foundation.model"), dataset_of([0, 1] * 3).store()

    def build(epochs: int) -> Any:
        fine_tune = {"multihead": False, "batch_size": 1, "max_epochs": epochs, "patience": epochs, "ema": False}
        fine_tune |= {"device": "cpu", "dtype": "float64", "learning_rate": 1e-4, "max_restarts": 9, "options": {}}
        return FineTuneWorkChain.get_builder_from_protocol(
            codes, dataset, foundation, overrides={"fine_tune": fine_tune}
        )

    third = engine.run(build(20))
    builder = build(60)
    # A little more than a third of the training takes on this machine; the job stops itself at nine tenths.
    builder.fine_tune.metadata.options.max_wallclock_seconds = math.ceil((third["results"]["wall_seconds"] + 1.0) / 0.9)
    outputs, node = engine.run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    jobs = sorted(node.called, key=lambda job: job.pk)
    stopped, last = jobs[:-1], jobs[-1]
    assert stopped
    assert {job.exit_status for job in stopped} == {400}
    assert last.inputs.checkpoint.uuid == stopped[-1].outputs.checkpoint.uuid
    history = outputs["history"].get_list()
    assert [record["epoch"] for record in history] == [None, *range(60)]
    before = stopped[-1].outputs.history.get_list()
    assert 1 < len(before) < len(history)
    assert history[: len(before)] == before
