"""Validation: frames, labels, and errors that can be worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from aiida import orm

from aiida_mofmace.data.model import MaceModelData
from aiida_mofmace.workflows.committee_base import CommitteeBaseWorkChain
from aiida_mofmace.workflows.functions import compare_with_labels
from aiida_mofmace.workflows.label import LabelWorkChain
from aiida_mofmace.workflows.mace_md_base import MaceMdBaseWorkChain
from aiida_mofmace.workflows.validation import ValidationWorkChain

from .steps import dataset_of, finished, label_of, mil_120, process_of, trajectory

OVERRIDES = {"validation": {"loadings": [0, 1], "n_frames": 2}}


@pytest.fixture
def chain(codes: dict[str, Any]) -> Any:
    models = {"model_0": MaceModelData.starter(), "model_1": MaceModelData.starter()}
    process = process_of(
        ValidationWorkChain.get_builder_from_protocol(codes, mil_120(), models, overrides=OVERRIDES, seed=4)
    )
    process.setup()
    return process


def sampled(chain: Any, nodes: dict[str, orm.ProcessNode]) -> Any:
    pks = {key: node.pk for key, node in nodes.items()}
    chain.ctx.window = {"queue": [], "running": {}, "finished": pks, "size": 2}
    return chain.inspect_md()


def predictions(energies: list[list[float]], force_error: float = 0.0) -> orm.ArrayData:
    """Two frames of 2 and 3 atoms, references of zero; every force component is off by the same."""
    node = orm.ArrayData()
    node.set_array("energies", np.array(energies))
    node.set_array("forces", np.full((len(energies), 5, 3), force_error, dtype=np.float32))
    node.set_array("offsets", np.array([0, 2, 5]))
    node.set_array("reference_energies", np.zeros(2))
    node.set_array("reference_forces", np.zeros((5, 3), dtype=np.float32))
    node.set_array("loadings", np.array([0, 1]))
    return node


def test_errors_by_hand(aiida_profile: Any) -> None:
    """The committee's mean is 0.2 and -0.3 eV off, that is 100 meV/atom in both; its forces by 25 meV/Å."""
    before = predictions([[0.4, 0.9]], 0.1).store()
    after = predictions([[0.1, -0.3], [0.3, -0.3]], 0.025).store()
    errors = compare_with_labels(before=before, after=after).get_dict()
    assert errors["after"]["all"]["energy_mae_mev_per_atom"] == pytest.approx(100.0)
    assert errors["after"]["all"]["force_mae_mev_per_ang"] == pytest.approx(25.0, rel=1e-6)
    assert errors["after"]["n_models"] == 2
    assert errors["before"]["by_loading"]["0"]["energy_mae_mev_per_atom"] == pytest.approx(200.0)
    assert errors["before"]["by_loading"]["1"]["energy_mae_mev_per_atom"] == pytest.approx(300.0)
    assert errors["before"]["all"]["energy_rmse_mev_per_atom"] == pytest.approx(np.sqrt((200**2 + 300**2) / 2))
    assert errors["before"]["by_loading"]["1"]["n_frames"] == 1
    assert errors["worse"] == []
    backwards = compare_with_labels(before=after, after=before).get_dict()
    assert backwards["worse"] == ["energy_mae_mev_per_atom", "force_mae_mev_per_ang"]


def test_calibration_is_that_of_the_committee(aiida_profile: Any) -> None:
    """Two members that differ by 0.2 eV/Å in each component, and are both 1 eV/Å off on average."""
    before, after = predictions([[0.0, 0.0]], 1.0), predictions([[0.0, 0.0], [0.0, 0.0]], 0.0)
    forces = np.ones((2, 5, 3), dtype=np.float32)
    forces[0] -= 0.1
    forces[1] += 0.1
    after.set_array("forces", forces)
    calibration = compare_with_labels(before=before.store(), after=after.store())["after"]["calibration"]
    assert calibration["ratio"] == pytest.approx(10.0, rel=1e-5)
    assert calibration["slope"] == pytest.approx(10.0, rel=1e-5)
    assert calibration["miscalibration"] == pytest.approx(0.5, abs=1e-3)


def test_from_md_to_errors(chain: Any) -> None:
    chain.run_md()
    process_class, inputs = chain.submitted[0]
    assert (process_class, inputs["metadata"]["call_link_label"]) == (MaceMdBaseWorkChain, "md_300k_0")
    assert process_class.spec().inputs.validate(inputs) is None
    runs = {f"md_300k_{n}": finished(MaceMdBaseWorkChain, {"trajectory": trajectory(n)}) for n in (0, 1)}
    assert sampled(chain, runs) is None
    chain.run_labels()
    process_class, inputs = chain.submitted[-1]
    assert process_class is LabelWorkChain
    assert len(inputs["structures"]) == 4
    labels = {name: label_of(structure) for name, structure in inputs["structures"].items()}
    chain.ctx.labels = finished(LabelWorkChain, {"labels": labels, "failures": orm.Dict({})})
    assert chain.inspect_labels() is None
    assert [atoms.info["loading"] for atoms in chain.outputs["dataset"].get_atoms()] == [0, 0, 1, 1]
    chain.run_predictions()
    before, after = (inputs["job"] for _, inputs in chain.submitted[-2:])
    assert list(before["models"]) == ["foundation"]
    assert list(after["models"]) == ["model_0", "model_1"]
    assert before["dataset"].uuid == after["dataset"].uuid == chain.outputs["dataset"].uuid
    nodes = {
        "before": finished(CommitteeBaseWorkChain, {"predictions": predictions([[0.4, 0.9]])}),
        "after": finished(CommitteeBaseWorkChain, {"predictions": predictions([[0.1, 0.3]])}),
    }
    chain.ctx.window["finished"] = {key: node.pk for key, node in nodes.items()}
    assert chain.inspect_predictions() is None
    assert chain.outputs["parity_before"].uuid == nodes["before"].outputs.predictions.uuid
    assert chain.outputs["errors"]["after"]["all"]["energy_mae_mev_per_atom"] == pytest.approx(75.0)


def test_predictions_that_a_crash_left_unrecorded_are_not_asked_for_again(chain: Any) -> None:
    chain.ctx.dataset = dataset_of([0, 1]).store()
    chain.open_window(["before", "after"], 2)
    orphan = finished(CommitteeBaseWorkChain, exit_status=None, caller=(chain.node, "before"))
    chain.run_predictions()
    assert [inputs["metadata"]["call_link_label"] for _, inputs in chain.submitted] == ["after"]
    assert chain.ctx.window["running"]["before"] == orphan.pk


def test_a_loading_without_frames(chain: Any) -> None:
    runs = {
        "md_300k_0": finished(MaceMdBaseWorkChain, {"trajectory": trajectory(0)}),
        "md_300k_1": finished(MaceMdBaseWorkChain, {}, exit_status=306, message="it blew up"),
    }
    code = sampled(chain, runs)
    assert (code.status, code.message) == (301, "MD with the new model gave no frames at: md_300k_1.")


def test_failed_labels_and_predictions(chain: Any) -> None:
    chain.ctx.drawn = {"selection": orm.Dict({"selected": []}), "structures": {}}
    chain.ctx.labels = finished(LabelWorkChain, {}, exit_status=501, message="too few")
    assert chain.inspect_labels().status == 302
    nodes = {
        "before": finished(CommitteeBaseWorkChain, {"predictions": predictions([[0.4, 0.9]])}),
        "after": finished(CommitteeBaseWorkChain, {}, exit_status=305, message="not a number"),
    }
    chain.ctx.window = {
        "queue": [],
        "running": {},
        "finished": {key: node.pk for key, node in nodes.items()},
        "size": 2,
    }
    code = chain.inspect_predictions()
    assert code.status == 303
    assert "after" in code.message
    assert "not a number" in code.message
