"""A framework with elements that the starter model does not know: refused, and then trained from scratch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiida import orm
from aiida.engine import run_get_node
from aiida.manage import get_manager

from aiida_mofmace.calculations.blank_model import BlankModelCalculation
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.geometry import closest_distance
from aiida_mofmace.worker.kernels.rattling import rattled_frames
from aiida_mofmace.workflows.inputs import gas_node, structure_from_cif
from aiida_mofmace.workflows.jobs import blank_model_inputs
from aiida_mofmace.workflows.main import MofMaceWorkChain
from aiida_mofmace.workflows.protocols import resolve
from aiida_mofmace.workflows.sampling import SamplingWorkChain

SIFSIX_3_ZN = Path(__file__).parents[1] / "examples" / "SIFSIX-3-Zn_28atoms.cif"
SHORT = {"steps": 100, "equilibration_steps": 20, "stride": 4}
#: A few minutes: the shape of a run from scratch, with less of everything.
BUDGET: dict[str, Any] = {
    "sampling": {"loadings": [0, 1], "rattled_frames": 20},
    "initial_set": {"n_empty": 14, "n_per_loading": 14},
    "selection": {"soap": {"n_max": 4, "l_max": 2}, "pca_components": 5, "coverage_cells": 8},
    "fine_tune": {"max_epochs": 30},
    "active_learning": {"committee_size": 2, "max_rounds": 1, "n_select": 6, "loadings": [0, 1], **SHORT},
    "validation": {"loadings": [0, 1], "n_frames": 2, **SHORT},
    "isotherm": {"pressures": [1.0e5], "chunk_steps": 200, "min_steps": 200, "max_steps": 200},
    "heat_of_adsorption": SHORT,
    "henry_coefficient": {"insertions": 0},
}
#: CALF-20, a zinc triazolate oxalate.
CALF_20 = Path(__file__).parent / "fixtures" / "CALF-20_44atoms.cif"


@pytest.fixture
def untrained(worker_code: orm.InstalledCode) -> Any:
    return untrained_model(worker_code, CALF_20)


def untrained_model(code: orm.InstalledCode, cif: Path) -> Any:
    inputs = blank_model_inputs(code, structure_from_cif(cif), gas_node("CO2"), resolve("fast"), orm.Int(1))
    outputs, node = run_get_node(BlankModelCalculation, **inputs)
    assert node.is_finished_ok, node.exit_message
    return outputs["model"]


def test_an_unknown_element_is_refused(worker_code: orm.InstalledCode) -> None:
    with pytest.raises(
        ValueError, match=r"knows no N, Zn of the structure and gas, .*from scratch \(BlankModelCalculation"
    ):
        MofMaceWorkChain.get_builder_from_protocol(
            {"worker": worker_code}, structure_from_cif(CALF_20), overrides={"level": "gfn1-xtb-tblite"}
        )


def test_an_untrained_model_is_sampled_without(worker_code: orm.InstalledCode, untrained: Any) -> None:
    assert (untrained.kind, untrained.elements) == ("untrained", ["H", "C", "N", "O", "Zn"])
    structure = structure_from_cif(CALF_20)
    overrides = {"sampling": {"loadings": [0, 2], "rattled_frames": 5}}
    builder = SamplingWorkChain.get_builder_from_protocol(
        {"worker": worker_code}, structure, model=untrained, overrides=overrides, seed=2
    )
    outputs, node = run_get_node(builder)
    assert node.is_finished_ok, node.exit_message
    assert sorted(outputs["trajectories"]) == ["rattled_0", "rattled_2", "rattled_gas"]
    alone = outputs["trajectories"]["rattled_gas"].get_frames()
    assert (len(alone), set(alone.groups)) == (10, {"rattled_CO2_alone"})
    assert alone.atoms(0).get_chemical_formula() == "CO2"
    frames = outputs["trajectories"]["rattled_2"].get_frames()
    assert set(frames.groups) == {"rattled_2CO2"}
    assert [len(frames.atoms(index)) for index in range(5)] == [50] * 5
    assert not [child for child in node.called if isinstance(child, orm.CalcJobNode)]


def test_the_protocol_changes_for_an_untrained_model(untrained: Any) -> None:
    parameters = resolve("paper", {"fine_tune": {"max_epochs": 7}}, untrained)
    assert (parameters["fine_tune"]["multihead"], parameters["fine_tune"]["e0s"]) == (False, "estimated")
    assert parameters["fine_tune"]["max_epochs"] == 7
    assert parameters["md"]["max_temperature_factor"] < resolve("paper")["md"]["max_temperature_factor"]
    assert resolve("paper", None, "starter") == resolve("paper")


@pytest.mark.slow
@pytest.mark.cp2k
@pytest.mark.usefixtures("aiida_profile_clean")
def test_from_scratch_to_the_isotherm(worker_code: orm.InstalledCode, cp2k_code: orm.InstalledCode) -> None:
    """SIFSIX-3-Zn on protocol fast: displaced frames, labels, two trainings, exploration, validation, isotherm."""
    codes, structure = {"worker": worker_code, "cp2k": cp2k_code}, structure_from_cif(SIFSIX_3_ZN)
    with pytest.raises(ValueError, match="knows no F, N, Si, Zn of the structure and gas"):
        MofMaceWorkChain.get_builder_from_protocol(codes, structure)
    builder = MofMaceWorkChain.get_builder_from_protocol(
        codes, structure, model=untrained_model(worker_code, SIFSIX_3_ZN), overrides=BUDGET, seed=3
    )
    manager = get_manager()
    manager.set_runner(manager.create_runner(communicator=None))
    outputs, node = run_get_node(builder)
    assert node.exit_status in (0, 701), f"{node.exit_status}: {node.exit_message}"
    assert outputs["failures"].get_dict() == {}
    # A young model explores frames that the sanity filter on labels may leave out.
    assert 0 <= 28 + 10 + 6 - outputs["dataset"].n_frames <= 4
    _, last = outputs["learning_curve"]["rounds"]
    # What it learns from: forces of several eV/Å. A model that has learned nothing errs by their size.
    forces = np.concatenate([atoms.arrays["REF_forces"] for atoms in outputs["dataset"].get_atoms()])
    assert last["force_mae_mev_per_ang"] < 500.0 * np.abs(forces).mean()
    assert last["above"] <= 0.1 * last["n_frames"]
    errors = outputs["validation"]["errors"]
    assert errors["after"]["all"]["force_mae_mev_per_ang"] < errors["before"]["all"]["force_mae_mev_per_ang"]
    assert 0.0 <= outputs["isotherm"]["points"][0]["loading_per_cell"] <= 3.0


def test_rattled_frames_keep_molecules_and_distances() -> None:
    from ase.build import bulk

    from aiida_mofmace.protocols import load_gas

    framework = bulk("Al", cubic=True) * (1, 1, 1)
    framework.set_cell(framework.cell * 4, scale_atoms=True)
    gas = Gas.from_dict(load_gas("CO2"))
    limits = {"amplitude": 0.1, "insertion_distance": 2.5, "minimum_distance": 0.7}
    frames = rattled_frames(framework, gas, 3, 10, **limits, rng=np.random.default_rng(1))
    again = rattled_frames(framework, gas, 3, 10, **limits, rng=np.random.default_rng(1))
    widths = [np.std(frame.positions[:4] - framework.positions) for frame in frames]
    assert 0.005 < min(widths) < max(widths) < 0.13
    for frame, same in zip(frames, again, strict=True):
        assert np.array_equal(frame.positions, same.positions)
        molecules = frame.positions[4:].reshape(3, 3, 3)
        assert np.abs(np.linalg.norm(molecules[:, 1:] - molecules[:, :1], axis=-1) - 1.163).max() < 0.5
        assert closest_distance(molecules[0], molecules[1:].reshape(-1, 3), frame.cell.array) > 1.8
