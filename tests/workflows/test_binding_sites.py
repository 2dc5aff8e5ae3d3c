"""Binding sites: a real job of the starter model, labels of what was relaxed, and runs that fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import engine, orm
from ase import Atoms

from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.protocols import load_sites
from aiida_mofmace.report.html import write_report
from aiida_mofmace.worker.kernels.frames import Frames
from aiida_mofmace.workflows.binding_sites import BindingSitesWorkChain
from aiida_mofmace.workflows.binding_sites_base import BindingSitesBaseWorkChain
from aiida_mofmace.workflows.label import LabelWorkChain

from .steps import finished, label_of, mil_120, process_of

SECTION = {"units": ["str2"], "labels": True}


def builder_of(codes: dict[str, Any], **section: Any) -> Any:
    overrides = {"binding_sites": {**SECTION, **section}}
    return BindingSitesWorkChain.get_builder_from_protocol(codes, mil_120(), "MIL-120", overrides=overrides)


@pytest.fixture
def chain(codes: dict[str, Any]) -> Any:
    process = process_of(builder_of(codes))
    process.run_relaxations()
    return process


def relaxed(energy: float = -40.0, is_relaxed: bool = True) -> orm.ProcessNode:
    """A job that has relaxed one site."""
    framework = mil_120().get_ase()
    molecule = Atoms("CO2", [[0, 0, 0], [0, 0, 1.17], [0, 0, -1.17]])
    images = {"molecule": molecule.copy(), "framework_str2": framework, "str2_parallel": framework + molecule}
    images["molecule"].set_cell(np.eye(3) * 15)
    for name, image in images.items():
        image.info = {"group": name, "framework_atoms": 0 if name == "molecule" else 40}
    row = {"unit": "str2", "guest": "parallel", "energy_kJ_per_mol": energy, "relaxed": is_relaxed}
    outputs = {
        "results": orm.Dict({"rows": [row]}),
        "trajectory": FramesData.from_frames(Frames.from_atoms(images.values())),
    }
    return finished(BindingSitesBaseWorkChain, outputs)


def test_table_of_model_labels_and_paper(chain: Any, tmp_path: Path) -> None:
    process_class, inputs = chain.submitted[0]
    assert process_class is BindingSitesBaseWorkChain
    assert BindingSitesBaseWorkChain.spec().inputs.validate(inputs) is None
    chain.ctx.relaxations = relaxed()
    assert chain.inspect_relaxations() is None
    structures = chain.outputs["structures"]
    assert structures["molecule"].cell == structures["framework_str2"].cell
    assert chain.should_run_labels()
    chain.run_labels()
    process_class, inputs = chain.submitted[1]
    assert process_class is LabelWorkChain
    assert sorted(inputs["structures"]) == ["framework_str2", "molecule", "str2_parallel"]
    energies = {"molecule": -1.0, "framework_str2": -20.0, "str2_parallel": -21.5}
    labels = {name: label_of(structures[name], energy=energy) for name, energy in energies.items()}
    chain.ctx.labels = finished(LabelWorkChain, {"labels": labels})
    chain.inspect_labels()
    assert chain.results() is None
    row = chain.outputs["table"]["rows"][0]
    assert row["label_kJ_per_mol"] == pytest.approx(-0.5 * 96.485, rel=1e-4)
    assert (row["energy_kJ_per_mol"], row["published_kJ_per_mol"]) == (-40.0, -46.95)
    assert "table 1" in chain.outputs["table"]["published_source"]
    ended = finished(BindingSitesWorkChain, {"table": chain.outputs["table"]})
    page = write_report(ended, tmp_path / "report.html").read_text()
    shown = "".join(f'<td class="number">\N{MINUS SIGN}{value}</td>' for value in ("40.0", "48.2", "47.0"))
    assert shown in page


def test_what_is_not_at_a_minimum_and_labels_that_fail(chain: Any) -> None:
    chain.ctx.relaxations = relaxed(is_relaxed=False)
    chain.inspect_relaxations()
    assert chain.results().status == 701
    chain.ctx.labels = finished(LabelWorkChain, {}, 303, "no SCF converged")
    chain.inspect_labels()
    code = chain.results()
    assert (code.status, "no SCF converged" in code.message) == (702, True)
    chain.ctx.relaxations = finished(BindingSitesBaseWorkChain, {}, 306, "it blew up")
    assert chain.inspect_relaxations().status == 301


def test_units_that_are_not_defined_are_refused(codes: dict[str, Any]) -> None:
    job = process_of(builder_of(codes, units=["str9"]))
    job.run_relaxations()
    _, inputs = job.submitted[0]
    assert "str9" in str(BindingSitesBaseWorkChain.spec().inputs.validate(inputs))
    content = {name: value for name, value in load_sites("MIL-120").items() if name != "guests"}
    _, inputs = job.submitted[0]
    inputs["job"]["sites"] = orm.Dict(content)
    assert "no guest site" in str(BindingSitesBaseWorkChain.spec().inputs.validate(inputs))


def test_a_real_job(codes: dict[str, Any]) -> None:
    """Few steps of the starter model: the energies are there, and it is said that nothing is at a minimum."""
    outputs, node = engine.run_get_node(builder_of(codes, max_steps=3, labels=False))
    assert node.exit_status == 701, node.exit_message
    assert sorted(outputs["structures"]) == ["framework_str2", "molecule", "str2_parallel", "str2_vertical"]
    rows = outputs["table"]["rows"]
    assert [(row["guest"], row["label_kJ_per_mol"]) for row in rows] == [("parallel", None), ("vertical", None)]
    assert all(np.isfinite(row["energy_kJ_per_mol"]) and not row["relaxed"] for row in rows)
