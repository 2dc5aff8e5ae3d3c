"""The whole of it: what each part is given, and that a late failure loses nothing that was there before."""

from __future__ import annotations

from typing import Any

import pytest
from aiida import orm

from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.workflows.active_learning import ActiveLearningWorkChain
from aiida_mofmace.workflows.diversity_select_base import DiversitySelectBaseWorkChain
from aiida_mofmace.workflows.isotherm import MDGCMCIsothermWorkChain
from aiida_mofmace.workflows.label import LabelWorkChain
from aiida_mofmace.workflows.main import MofMaceWorkChain, _first_quotas
from aiida_mofmace.workflows.sampling import SamplingWorkChain
from aiida_mofmace.workflows.validation import ValidationWorkChain

from .steps import dataset_of, finished, label_of, loaded, mil_120, process_of, trajectory

FAILURE = {"frame_0001": {"reason": "SCF", "exit_status": 450, "uuid": "1"}}


def start(codes: dict[str, Any], **arguments: Any) -> Any:
    process = process_of(MofMaceWorkChain.get_builder_from_protocol(codes, mil_120(), seed=1, **arguments))
    process.setup()
    return process


@pytest.fixture
def learned(codes: dict[str, Any]) -> Any:
    """After the active learning."""
    process = start(codes, dataset=dataset_of([0, 1]).store())
    process.ctx.active_learning = active_learning()
    assert process.inspect_active_learning() is None
    return process


def active_learning(exit_status: int = 0) -> orm.ProcessNode:
    outputs: dict[str, Any] = {
        "dataset": dataset_of([0, 1, 2]),
        "models": {f"model_{i}": MaceModelData.starter().clone() for i in range(2)},
        "learning_curve": orm.Dict({"rounds": []}),
        "failures": orm.Dict(FAILURE),
    }
    if exit_status == 0:
        outputs["stop_reason"] = orm.Str("max_rounds")
    return finished(ActiveLearningWorkChain, outputs, exit_status, "it broke" if exit_status else "")


def isotherm(exit_status: int = 0, message: str = "") -> orm.ProcessNode:
    outputs = {"isotherm": orm.Dict({"points": []}), "timeseries": {"pressure_00": orm.ArrayData({"loading": [1, 2]})}}
    return finished(MDGCMCIsothermWorkChain, outputs, exit_status, message)


def test_sampling_comes_first_unless_there_are_labels(codes: dict[str, Any]) -> None:
    process = start(codes)
    assert process.should_sample()
    process.run_sampling()
    process_class, inputs = process.submitted[0]
    assert process_class is SamplingWorkChain
    assert inputs["metadata"]["call_link_label"] == "sampling"
    assert SamplingWorkChain.spec().inputs.validate(inputs) is None
    assert inputs["parameters"].uuid == process.inputs.parameters.uuid
    assert not start(codes, dataset=dataset_of([0, 1]).store()).should_sample()


def test_first_structures_by_loading(codes: dict[str, Any]) -> None:
    overrides = {"initial_set": {"n_empty": 7, "n_per_loading": 3}, "sampling": {"loadings": [0, 1, 2]}}
    process = start(codes, overrides=overrides)
    process.ctx.sampling = finished(SamplingWorkChain, {"trajectories": {"md_300k_0": trajectory(0)}})
    assert process.inspect_sampling() is None
    process.run_selection()
    process_class, inputs = process.submitted[0]
    assert process_class is DiversitySelectBaseWorkChain
    assert inputs["job"]["parameters"]["quotas"] == {"*_0CO2": 7, "*_1CO2": 3, "*_2CO2": 3}
    assert inputs["job"]["parameters"]["n_select"] == 13
    with_uff = _first_quotas(process.ctx.parameters, "CO2", monte_carlo=True)
    assert with_uff == {"*_0CO2": 7, "*_1CO2": 3, "*_2CO2": 3, "uff_*": 10}
    assert DiversitySelectBaseWorkChain.spec().inputs.validate(inputs) is None


def test_first_labels_become_the_dataset(codes: dict[str, Any]) -> None:
    process = start(codes)
    structures = {f"frame_{i:04d}": orm.StructureData(ase=loaded(i)) for i in range(3)}
    rows = [{"group": f"md_300K_{i}CO2", "loading": i, "framework_atoms": 3} for i in range(3)]
    results = orm.Dict({"selected": rows, "pool": 9})
    process.ctx.sampling = finished(SamplingWorkChain)
    process.ctx.selection = finished(DiversitySelectBaseWorkChain, {"structures": structures, "results": results})
    assert process.inspect_selection() is None
    process.run_labels()
    assert LabelWorkChain.spec().inputs.validate(process.submitted[0][1]) is None
    labels = {name: label_of(structures[name]) for name in ("frame_0000", "frame_0001")}
    process.ctx.labels = finished(LabelWorkChain, {"labels": labels, "failures": orm.Dict(FAILURE)})
    assert process.inspect_labels() is None
    assert process.ctx.dataset.n_frames == 2
    process.run_active_learning()
    process_class, inputs = process.submitted[1]
    assert process_class is ActiveLearningWorkChain
    assert inputs["dataset"].uuid == process.ctx.dataset.uuid
    assert ActiveLearningWorkChain.spec().inputs.validate(inputs) is None


def test_labels_too_few_to_train_on_are_handed_out(codes: dict[str, Any]) -> None:
    process = start(codes)
    structures = {"frame_0000": orm.StructureData(ase=loaded(0))}
    rows = [{"group": "md_300K_0CO2", "loading": 0, "framework_atoms": 3}]
    results = orm.Dict({"selected": rows, "pool": 9})
    process.ctx.sampling = finished(SamplingWorkChain)
    process.ctx.selection = finished(DiversitySelectBaseWorkChain, {"structures": structures, "results": results})
    labels = {"frame_0000": label_of(structures["frame_0000"])}
    process.ctx.labels = finished(LabelWorkChain, {"labels": labels, "failures": orm.Dict(FAILURE)})
    code = process.inspect_labels()
    assert code.status == 303
    assert "1 different frames are too few" in code.message
    assert process.outputs["dataset"].n_frames == 1


@pytest.mark.parametrize(
    ("step", "attribute", "process_class", "status"),
    [
        ("inspect_sampling", "sampling", SamplingWorkChain, 301),
        ("inspect_selection", "selection", DiversitySelectBaseWorkChain, 302),
        ("inspect_labels", "labels", LabelWorkChain, 303),
    ],
)
def test_an_early_failure_ends_it(
    codes: dict[str, Any], step: str, attribute: str, process_class: Any, status: int
) -> None:
    process = start(codes)
    process.ctx.sampling = finished(SamplingWorkChain)
    outputs = {"structures": {"frame_0000": orm.StructureData(ase=loaded(0))}, "results": orm.Dict({"selected": []})}
    process.ctx.selection = finished(DiversitySelectBaseWorkChain, outputs)
    process.ctx[attribute] = finished(process_class, {}, exit_status=399, message="it broke")
    code = getattr(process, step)()
    assert code.status == status
    assert "it broke" in code.message


def test_first_labels_that_are_too_few_are_handed_out_with_the_reasons_of_the_others(codes: dict[str, Any]) -> None:
    process = start(codes)
    structures = {"frame_0000": orm.StructureData(ase=loaded(0))}
    rows = [{"group": "md_300K_0CO2", "loading": 0, "framework_atoms": 3}]
    results = orm.Dict({"selected": rows, "pool": 9})
    process.ctx.sampling = finished(SamplingWorkChain)
    process.ctx.selection = finished(DiversitySelectBaseWorkChain, {"structures": structures, "results": results})
    outputs = {"labels": {"frame_0000": label_of(structures["frame_0000"])}, "failures": orm.Dict(FAILURE)}
    process.ctx.labels = finished(LabelWorkChain, outputs, exit_status=501, message="only 1 of 9")
    assert process.inspect_labels().status == 303
    assert process.outputs["dataset"].n_frames == 1
    assert process.outputs["failures"].get_dict() == {"first_frame_0001": FAILURE["frame_0001"]}


def test_active_learning_without_a_common_opinion_is_a_warning(learned: Any, codes: dict[str, Any]) -> None:
    """The rest is done, for it may be looked at; an isotherm that failed counts for more."""
    learned.ctx.active_learning = active_learning(exit_status=701)
    assert learned.inspect_active_learning() is None
    learned.ctx.isotherm = isotherm(701, "points above the error")
    learned.inspect_isotherm()
    assert learned.ctx.exit_code.status == 702
    learned.ctx.isotherm = isotherm(301, "it broke")
    learned.inspect_isotherm()
    assert learned.ctx.exit_code.status == 306


def test_active_learning_that_failed_late_keeps_its_models(codes: dict[str, Any]) -> None:
    process = start(codes, dataset=dataset_of([0, 1]).store())
    process.ctx.active_learning = active_learning(exit_status=305)
    code = process.inspect_active_learning()
    assert code.status == 304
    assert process.outputs["dataset"].n_frames == 3
    assert sorted(process.outputs["models"]) == ["model_0", "model_1"]


def test_active_learning_that_failed_at_once_keeps_the_dataset(codes: dict[str, Any]) -> None:
    process = start(codes, dataset=dataset_of([0, 1]).store())
    process.ctx.active_learning = finished(ActiveLearningWorkChain, {}, exit_status=301, message="it broke")
    assert process.inspect_active_learning().status == 304
    assert process.outputs["dataset"].n_frames == 2


def test_later_parts_are_given_what_they_need(learned: Any) -> None:
    learned.run_validation()
    learned.run_isotherm()
    for process_class, inputs in learned.submitted:
        assert process_class.spec().inputs.validate(inputs) is None
    validation, adsorption = (inputs for _, inputs in learned.submitted)
    assert validation["foundation"].kind == "foundation"
    models = learned.ctx.active_learning.outputs.models
    assert adsorption["model"].uuid == models["model_0"].uuid
    assert validation["seed"].value != adsorption["seed"].value


def test_uff_runs_beside_the_rest(codes: dict[str, Any], aiida_code_installed: Any) -> None:
    """Within the sampling where there is one, beside the isotherm where there are labels to begin with."""
    pytest.importorskip("aiida_lsmo", reason="THE EXTRA `uff` IS NOT INSTALLED: make uff")
    from aiida_mofmace.workflows.uff_isotherm import UffIsothermWorkChain

    with pytest.raises(ValueError, match="needs RASPA2 as codes"):
        start(codes, charges=[0.0] * 40)
    raspa = aiida_code_installed(label="no-raspa", default_calc_job_plugin="raspa", filepath_executable="/bin/true")
    with_uff = {**codes, "raspa": raspa}
    assert "charges" not in start(with_uff).inputs
    process = start(with_uff, charges=[0.0] * 40)
    process.run_sampling()
    assert SamplingWorkChain.spec().inputs.validate(process.submitted[0][1]) is None
    assert {"charges", "raspa_code"} < set(process.submitted[0][1])
    found = orm.Dict({"points": [1]})
    process.ctx.sampling = finished(SamplingWorkChain, {"uff_isotherm": found})
    assert process.inspect_sampling() is None
    assert process.outputs["uff_isotherm"].uuid == found.uuid
    process.ctx.active_learning = active_learning()
    process.run_isotherm()
    assert len(process.submitted) == 2

    process = start(with_uff, charges=[0.0] * 40, dataset=dataset_of([0, 1]).store())
    process.ctx.active_learning = active_learning()
    process.run_isotherm()
    process_class, inputs = process.submitted[1]
    assert process_class is UffIsothermWorkChain
    assert UffIsothermWorkChain.spec().inputs.validate(inputs) is None
    process.ctx.uff = finished(UffIsothermWorkChain, {"isotherm": found})
    process.ctx.isotherm = isotherm()
    process.inspect_isotherm()
    assert process.outputs["uff_isotherm"].uuid == found.uuid


def test_a_validation_that_failed_keeps_nobody_from_the_isotherm(learned: Any) -> None:
    learned.ctx.validation = finished(ValidationWorkChain, {"failures": orm.Dict({})}, 302, "no labels")
    assert learned.inspect_validation() is None
    learned.ctx.isotherm = isotherm()
    assert learned.inspect_isotherm() is None
    code = learned.results()
    assert (code.status, "no labels" in code.message) == (305, True)
    assert "isotherm" in learned.outputs
    assert learned.outputs["failures"].get_dict() == {"active_learning_frame_0001": FAILURE["frame_0001"]}


@pytest.mark.parametrize(("exit_status", "expected"), [(0, None), (301, 306), (302, 306), (701, 701), (702, 701)])
def test_how_it_ends(learned: Any, exit_status: int, expected: int | None) -> None:
    learned.ctx.validation = finished(ValidationWorkChain, {"errors": orm.Dict({"before": {}})})
    learned.inspect_validation()
    learned.ctx.isotherm = isotherm(exit_status, "points above the error" if exit_status else "")
    learned.inspect_isotherm()
    code = learned.results()
    assert (code.status if code else None) == expected
    assert sorted(learned.outputs["timeseries"]) == ["pressure_00"]
    assert "errors" in learned.outputs["validation"]
    assert learned.outputs["dataset"].n_frames == 3
