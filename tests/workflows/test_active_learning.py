"""Active learning: what each round does next, when the rounds end, and what is kept when a round fails."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node

from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.workflows.active_learning import ActiveLearningWorkChain
from aiida_mofmace.workflows.committee_base import CommitteeBaseWorkChain
from aiida_mofmace.workflows.diversity_select_base import DiversitySelectBaseWorkChain
from aiida_mofmace.workflows.fine_tune_committee import FineTuneCommitteeWorkChain
from aiida_mofmace.workflows.functions import add_round, append_labels, draw_frames, gather_failures
from aiida_mofmace.workflows.harvest import handle
from aiida_mofmace.workflows.isolated_atoms import IsolatedAtomsWorkChain
from aiida_mofmace.workflows.label import LabelWorkChain
from aiida_mofmace.workflows.mace_md_base import MaceMdBaseWorkChain
from aiida_mofmace.workflows.md_gcmc_base import MdGcmcBaseWorkChain

from .steps import dataset_of, finished, label_of, loaded, mil_120, process_of, trajectory

OVERRIDES = {"active_learning": {"max_rounds": 2, "loadings": [0, 2], "pressures": [5e4], "converged_fraction": 0.1}}


def start(codes: dict[str, Any], **arguments: Any) -> Any:
    builder = ActiveLearningWorkChain.get_builder_from_protocol(
        codes, mil_120(), dataset_of([0, 1]).store(), overrides=OVERRIDES, **arguments
    )
    process = process_of(builder)
    process.setup()
    return process


@pytest.fixture
def chain(codes: dict[str, Any]) -> Any:
    """After the first training, at the start of round 1."""
    return begun(codes)


def begun(codes: dict[str, Any]) -> Any:
    process = start(codes)
    process.ctx.training = training()
    assert process.inspect_training() is None
    assert process.should_run_round()
    process.start_round()
    return process


def training(force_mae: float = 30.0, ratio: float | None = 2.0) -> orm.ProcessNode:
    errors = {"energy_mae_mev_per_atom": 0.5, "force_mae_mev_per_ang": force_mae, "n_frames": 4}
    results = {f"model_{i}": orm.Dict({"errors": {"pt_head": {}, "Default": {"valid": errors}}}) for i in range(2)}
    models = {f"model_{i}": MaceModelData.starter().clone() for i in range(2)}
    calibration = orm.Dict({"ratio": ratio, "correlation": 0.5})
    return finished(FineTuneCommitteeWorkChain, {"models": models, "results": results, "calibration": calibration})


def evaluation(below: int, inside: int, above: int, candidates: bool = True) -> orm.ProcessNode:
    counts = {"below": below, "inside": inside, "above": above, "n_frames": below + inside + above}
    figures = {"sigma_max_mean": 0.1, "sigma_max_quantiles": {"0.5": 0.08, "0.99": 0.3}}
    outputs: dict[str, Any] = {"results": orm.Dict(counts | figures)}
    return finished(CommitteeBaseWorkChain, outputs | ({"candidates": trajectory(2)} if candidates else {}))


def messages(process: Any) -> str:
    return "\n".join(log.message for log in orm.Log.collection.get_logs_for(process.node))


def test_first_a_committee_is_trained(codes: dict[str, Any]) -> None:
    process = start(codes)
    assert process.should_train_first()
    process.run_training()
    process_class, inputs = process.submitted[0]
    assert process_class is FineTuneCommitteeWorkChain
    assert inputs["metadata"]["call_link_label"] == "round_00_training"
    assert inputs["dataset"].n_frames == 2
    assert inputs["foundation"].kind == "foundation"
    given = start(codes, models={"model_0": MaceModelData.starter(), "model_1": MaceModelData.starter()})
    assert not given.should_train_first()


def test_isolated_atoms_are_labelled_before_anything_is_trained(codes: dict[str, Any]) -> None:
    builder = ActiveLearningWorkChain.get_builder_from_protocol(
        codes, mil_120(), dataset_of([0, 1]).store(), overrides={"fine_tune": {"e0s": "isolated_atoms"}}
    )
    process = process_of(builder)
    process.setup()
    assert process.should_run_atoms()
    process.run_atoms()
    process_class, inputs = process.submitted[0]
    assert process_class is IsolatedAtomsWorkChain
    assert process_class.spec().inputs.validate(inputs) is None
    assert inputs["elements"].get_list() == ["Al", "C", "H", "O"]
    energies = {"H": -12.0, "O": -430.0}
    process.ctx.atoms = finished(IsolatedAtomsWorkChain, {"energies": orm.Dict(energies)})
    assert process.inspect_atoms() is None
    process.run_training()
    assert process.submitted[1][1]["parameters"]["fine_tune"]["e0s"] == energies
    process.ctx.atoms = finished(IsolatedAtomsWorkChain, {}, 301, "no energy of Al")
    assert process.inspect_atoms().status == 306
    assert not start(codes).should_run_atoms()


def test_a_round_explores_by_md_and_by_gcmc(chain: Any) -> None:
    chain.ctx.window["size"] = 9
    chain.run_exploration()
    labels = {inputs["metadata"]["call_link_label"]: process_class for process_class, inputs in chain.submitted}
    assert labels == {
        "round_01_md_300k_0": MaceMdBaseWorkChain,
        "round_01_md_300k_2": MaceMdBaseWorkChain,
        "round_01_gcmc_00": MdGcmcBaseWorkChain,
    }
    for process_class, inputs in chain.submitted:
        assert process_class.spec().inputs.validate(inputs) is None
        job = inputs["gcmc"] if process_class is MdGcmcBaseWorkChain else inputs["md"]
        assert job["model"].uuid == chain.ctx.models["model_0"].uuid
        assert inputs["max_iterations"].value == 1 + chain.ctx.parameters["active_learning"]["max_restarts"]
    parameters = chain.submitted[-1][1]["gcmc"]["parameters"].get_dict()
    assert (parameters["pressure"], parameters["fugacity"], parameters["steps"]) == (5e4, 5e4, 1200)


def explored(chain: Any, nodes: dict[str, orm.ProcessNode]) -> Any:
    pks = {key: node.pk for key, node in nodes.items()}
    chain.ctx.window = {"queue": [], "running": {}, "finished": pks, "size": 2}
    return chain.inspect_exploration()


def test_holes_are_explored_too(chain: Any) -> None:
    run = finished(MaceMdBaseWorkChain, {"trajectory": trajectory(0)})
    holes = finished(MdGcmcBaseWorkChain, {"trajectory": trajectory(1), "candidates": trajectory(2)})
    assert explored(chain, {"round_01_md_300k_0": run, "round_01_gcmc_00": holes}) is None
    assert sorted(chain.ctx.trajectories) == ["round_01_gcmc_00", "round_01_gcmc_00_holes", "round_01_md_300k_0"]


def test_too_few_explorations_keep_what_there_was(chain: Any) -> None:
    broken = {f"round_01_md_300k_{n}": finished(MaceMdBaseWorkChain, {}, 306, "it blew up") for n in (0, 2)}
    code = explored(chain, broken)
    assert (code.status, code.message) == (302, "Too few explorations of round 1 gave frames.")
    assert chain.outputs["dataset"].n_frames == 2
    assert sorted(chain.outputs["models"]) == ["model_0", "model_1"]
    assert len(chain.outputs["learning_curve"]["rounds"]) == 1


@pytest.mark.parametrize(("command", "jobs"), [("mkdir {}", [301, 0]), ("true", [301, 301])])
def test_a_machine_that_fails_in_an_evaluation(
    codes: dict[str, Any], aiida_code_installed: Any, tmp_path: Path, command: str, jobs: list[int]
) -> None:
    """Real jobs, the first of which its machine takes down without a word: once, and the round goes on; or each."""
    down = f"{command.format(tmp_path / 'down')} 2> /dev/null && exit 1"
    options = {"default_calc_job_plugin": "mofmace.mace_md", "filepath_executable": sys.executable}
    failing = aiida_code_installed(label=f"failing-{len(set(jobs))}", prepend_text=down, **options)
    process = begun(codes | {"worker": failing})
    process.ctx.trajectories = {"round_01_md_300k_0": trajectory(0)}
    process.run_committee()
    process_class, inputs = process.submitted[-1]
    process.ctx.committee = run_get_node(process_class, **inputs)[1]
    assert [job.exit_status for job in process.ctx.committee.called] == jobs
    code = process.inspect_committee()
    if jobs[-1] == 0:
        # The members are copies of one model.
        assert (code, process.ctx.stop_reason) == (None, "converged")
    else:
        assert code.status == 303
        assert f"round 1 failed: <{handle(process.ctx.committee)}> The job left no output.json" in code.message


@pytest.mark.parametrize(
    ("counts", "candidates", "reason"),
    [
        ((95, 5, 0), True, "converged"),
        ((90, 5, 5), True, None),
        ((50, 0, 50), False, "above_window"),
        ((50, 50, 0), False, "no_candidates"),
        ((0, 100, 0), True, None),
    ],
)
def test_the_committee_decides(chain: Any, counts: tuple[int, int, int], candidates: bool, reason: str | None) -> None:
    chain.ctx.committee = evaluation(*counts, candidates)
    assert chain.inspect_committee() is None
    assert chain.ctx.stop_reason == reason
    assert chain.has_candidates() is (reason is None)
    assert f"round 1: {counts[1]} of 100 frames in the window" in messages(chain)


@pytest.mark.parametrize(("wanted", "ratio", "scaled"), [(False, 2.0, False), (True, 2.0, True), (True, None, False)])
def test_deviation_is_scaled_where_that_is_asked_for(
    chain: Any, wanted: bool, ratio: float | None, scaled: bool
) -> None:
    chain.ctx.parameters["active_learning"]["calibrate_deviation"] = wanted
    chain.ctx.calibration = orm.Dict({"ratio": ratio})
    chain.ctx.trajectories = {"round_01_md_300k_0": trajectory(0)}
    chain.run_committee()
    process_class, inputs = chain.submitted[-1]
    assert process_class.spec().inputs.validate(inputs) is None
    assert ("calibration" in inputs["job"]) is scaled
    assert ("no deviation on the test frames" in messages(chain)) is (wanted and not scaled)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fine_tune": {"test_fraction": 0.0}}, "raise fine_tune.test_fraction"),
        ({"fine_tune": {"batch_size": 50}}, "do not fill a batch of 50"),
        ({}, "give the calibration of the models as well"),
    ],
)
def test_what_cannot_be_calibrated_or_trained_is_refused(
    codes: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    overrides = {"active_learning": {"calibrate_deviation": True}} | changes
    models = {f"model_{index}": MaceModelData.starter() for index in range(2)}
    with pytest.raises(ValueError, match=message):
        ActiveLearningWorkChain.get_builder_from_protocol(
            codes, mil_120(), dataset_of([0, 1]).store(), models=models, overrides=overrides
        )


def selection(n_selected: int) -> orm.ProcessNode:
    info = {"group": "md_300K_2CO2", "loading": 2, "framework_atoms": 3}
    structures = {f"frame_{i:04d}": orm.StructureData(ase=loaded(2, i + 10)) for i in range(n_selected)}
    results = orm.Dict({"selected": [info] * n_selected, "pool": 6})
    return finished(DiversitySelectBaseWorkChain, {"structures": structures, "results": results})


def test_a_whole_round(chain: Any) -> None:
    """Two of three labels are had: the dataset grows by two, the curve gets a row, the failure is listed."""
    chain.ctx.committee = evaluation(40, 50, 10)
    chain.inspect_committee()
    chain.run_selection()
    assert chain.submitted[-1][1]["job"]["parameters"]["n_select"] == 24
    assert chain.submitted[-1][1]["job"]["dataset"].n_frames == 2
    chain.ctx.selection = selection(3)
    assert chain.inspect_selection() is None
    chain.run_labels()
    process_class, inputs = chain.submitted[-1]
    assert process_class is LabelWorkChain
    assert inputs["metadata"]["call_link_label"] == "round_01_labels"
    assert LabelWorkChain.spec().inputs.validate(inputs) is None
    structures = chain.ctx.selection.outputs.structures
    labels = {name: label_of(structures[name]) for name in ("frame_0000", "frame_0002")}
    failures = orm.Dict({"frame_0001": {"reason": "SCF", "exit_status": 450, "uuid": "1"}})
    chain.ctx.labels = finished(LabelWorkChain, {"labels": labels, "failures": failures})
    assert chain.inspect_labels() is None
    assert (chain.ctx.dataset.n_frames, chain.ctx.dataset.rounds) == (4, [2, 2])
    uuids = [atoms.info["structure_uuid"] for atoms in chain.ctx.dataset.get_atoms()[2:]]
    assert uuids == [structures["frame_0000"].uuid, structures["frame_0002"].uuid]
    chain.ctx.training = training(force_mae=20.0)
    assert chain.inspect_training() is None
    chain.ctx.number = 2
    assert not chain.should_run_round()
    chain.results()
    assert chain.outputs["stop_reason"].value == "max_rounds"
    first, second = chain.outputs["learning_curve"]["rounds"]
    assert (first["n_labels"], first["force_mae_mev_per_ang"], first["inside"]) == (2, 30.0, None)
    assert (second["n_labels"], second["force_mae_mev_per_ang"], second["n_failed"]) == (4, 20.0, 1)
    assert (second["below"], second["inside"], second["above"], second["sigma_max_q99"]) == (40, 50, 10, 0.3)
    assert second["calibration"]["ratio"] == chain.outputs["calibration"]["ratio"] == 2.0
    assert chain.outputs["failures"].get_dict() == {"round_01_frame_0001": failures["frame_0001"]}


def test_the_round_that_converges_is_on_the_curve(chain: Any) -> None:
    chain.ctx.committee = evaluation(99, 1, 0)
    chain.inspect_committee()
    assert not chain.should_run_round()
    chain.results()
    assert chain.outputs["stop_reason"].value == "converged"
    last = chain.outputs["learning_curve"]["rounds"][-1]
    assert (last["round"], last["below"], last["force_mae_mev_per_ang"]) == (1, 99, None)


def test_a_committee_without_any_common_opinion_is_no_end_to_be_content_with(chain: Any) -> None:
    chain.ctx.committee = evaluation(0, 0, 100, candidates=False)
    chain.inspect_committee()
    assert not chain.should_run_round()
    code = chain.results()
    assert (code.status, "All 100 frames" in code.message) == (701, True)
    assert chain.outputs["stop_reason"].value == "above_window"
    assert "dataset" in chain.outputs


def test_labels_of_a_round_with_too_few_of_them_are_kept(chain: Any) -> None:
    chain.ctx.selection = selection(3)
    labels = {"frame_0001": label_of(chain.ctx.selection.outputs.structures.frame_0001)}
    failures = {"frame_0000": {"reason": "it did not converge", "exit_status": 501}}
    outputs = {"labels": labels, "failures": orm.Dict(failures), "flagged": orm.Dict({})}
    chain.ctx.labels = finished(LabelWorkChain, outputs, exit_status=501, message="1 of 3")
    code = chain.inspect_labels()
    assert (code.status, chain.outputs["dataset"].n_frames) == (305, 3)
    assert chain.outputs["failures"].get_dict() == {"round_01_frame_0000": failures["frame_0000"]}


def test_labels_that_are_all_flagged_leave_the_dataset_as_it_is(chain: Any) -> None:
    chain.ctx.selection = selection(1)
    labels = {"frame_0000": label_of(chain.ctx.selection.outputs.structures.frame_0000)}
    flagged = orm.Dict({"frame_0000": {"reasons": ["the forces are too large"], "left_out": True}})
    outputs = {"labels": labels, "failures": orm.Dict({}), "flagged": flagged}
    chain.ctx.labels = finished(LabelWorkChain, outputs, exit_status=503, message="all flagged")
    assert chain.inspect_labels().status == 305
    assert chain.outputs["dataset"].n_frames == 2


def test_nothing_new_among_the_candidates(chain: Any) -> None:
    chain.ctx.committee = evaluation(10, 90, 0)
    chain.ctx.selection = finished(DiversitySelectBaseWorkChain, exit_status=320, message="none differs")
    assert chain.inspect_selection() is None
    assert not chain.has_selection()
    assert chain.ctx.stop_reason == "no_candidates"


@pytest.mark.parametrize(
    ("step", "attribute", "process_class", "status"),
    [
        ("inspect_training", "training", FineTuneCommitteeWorkChain, 301),
        ("inspect_committee", "committee", CommitteeBaseWorkChain, 303),
        ("inspect_selection", "selection", DiversitySelectBaseWorkChain, 304),
        ("inspect_labels", "labels", LabelWorkChain, 305),
    ],
)
def test_a_failed_part_is_named(chain: Any, step: str, attribute: str, process_class: Any, status: int) -> None:
    chain.ctx.selection = selection(1)
    chain.ctx[attribute] = finished(process_class, {}, exit_status=399, message="it broke")
    code = getattr(chain, step)()
    assert code.status == status
    assert "round 1" in code.message
    assert "it broke" in code.message
    assert chain.outputs["dataset"].n_frames == 2


# -- calculation functions ---------------------------------------------------------------------------------------------


def test_labels_keep_what_the_selection_knows(aiida_profile: Any) -> None:
    structures = {f"frame_{i:04d}": orm.StructureData(ase=loaded(i)).store() for i in range(3)}
    rows = [{"group": f"md_300K_{i}CO2", "loading": i, "framework_atoms": 3} for i in range(3)]
    labels = {name: label_of(structures[name]).store() for name in ("frame_0000", "frame_0002")}
    dataset = append_labels(orm.Dict({"selected": rows}), structures=structures, labels=labels)
    infos = [atoms.info for atoms in dataset.get_atoms()]
    assert [(info["loading"], info["group"]) for info in infos] == [(0, "md_300K_0CO2"), (2, "md_300K_2CO2")]
    assert dataset.creator.process_label == "append_labels"


def test_frames_are_drawn_by_seed(aiida_profile: Any) -> None:
    runs = {"md_300k_0": trajectory(0, 30).store(), "md_300k_1": trajectory(1, 3).store()}

    def draw(seed: int) -> Any:
        return draw_frames(orm.Int(seed), orm.Int(5), **runs)

    first = draw(1)["selection"]["selected"]
    assert [row["trajectory"] for row in first] == ["md_300k_0"] * 5 + ["md_300k_1"] * 3
    assert len({row["index"] for row in first[:5]}) == 5
    assert first == draw(1)["selection"]["selected"]
    assert first != draw(2)["selection"]["selected"]
    drawn = draw(1)
    atoms = runs["md_300k_0"].get_frames().atoms(first[0]["index"])
    np.testing.assert_allclose(drawn["structures"]["frame_0000"].get_ase().positions, atoms.positions)


def test_test_frames_count_more_than_validation_frames(aiida_profile: Any) -> None:
    def member(test: float) -> orm.Dict:
        table = {"energy_mae_mev_per_atom": 1.0, "force_mae_mev_per_ang": test, "n_frames": 6}
        other = {**table, "force_mae_mev_per_ang": 99.0, "n_frames": 40}
        errors = {"pt_head": {"valid": other}, "Default": {"train": other, "valid": other, "test": table}}
        return orm.Dict({"errors": errors})

    curve = add_round(orm.Int(0), dataset_of([0]).store(), training={"model_0": member(10.0), "model_1": member(20.0)})
    row = curve["rounds"][0]
    assert (row["subset"], row["force_mae_mev_per_ang"], row["n_train"], row["members"]) == ("test", 15.0, 40.0, 2)


def test_failures_of_all_rounds(aiida_profile: Any) -> None:
    gathered = gather_failures(first=orm.Dict({"frame_0001": {"reason": "a"}}), second=orm.Dict({}))
    assert gathered.get_dict() == {"first_frame_0001": {"reason": "a"}}
