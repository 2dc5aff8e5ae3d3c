"""A model with random weights, and what the training from scratch makes of its atomic energies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.model import MaceEvaluator
from aiida_mofmace.worker.programs import blank_model
from aiida_mofmace.worker.stopping import StopRequest

from .selection_fixtures import write_tiny_model
from .test_fine_tune_program import here, sources, train

__all__ = ["here", "sources"]

SETTINGS = {
    **{"channels": 8, "max_l": 1, "max_ell": 2, "layers": 2, "correlation": 2, "r_max": 4.0, "n_radial": 6},
    "scale": 1.0,
    "elements": ["C", "O"],
}


def make(framework: Atoms, seed: int, **changes: Any) -> dict[str, Any]:
    framework.write("structure.extxyz")
    files = {"structure": "structure.extxyz"}
    inputs = {"seed": seed, "dtype": "float32", "files": files, "parameters": SETTINGS | changes}
    return blank_model.run(inputs, StopRequest())


def test_a_model_of_random_weights(framework: Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    forces = []
    for seed in (1, 1, 2):
        results = make(framework, seed, elements=["N"])
        assert set(results["elements"]) == {*framework.get_chemical_symbols(), "N"}
        found = MaceEvaluator("model.model").evaluate([framework])[0]
        assert found.atomic_energy == 0.0
        assert found.forces is not None
        forces.append(found.forces)
    assert np.array_equal(forces[0], forces[1])
    assert 0.0 < np.abs(forces[0] - forces[2]).max() < 100.0
    assert json.loads(Path("model.json").read_text())["kind"] == "untrained"
    with pytest.raises(WorkerError, match="parameters are missing: scale"):
        inputs = {key: value for key, value in SETTINGS.items() if key != "scale"}
        blank_model.run({"seed": 1, "files": {"structure": "structure.extxyz"}, "parameters": inputs}, StopRequest())


def test_atomic_energies_are_those_asked_for_without_a_replay_head(here: Path) -> None:
    """mace copies those of the foundation model over them where it finds tables of the same shape."""
    write_tiny_model(Path("three.model"), elements=(1, 6, 8))
    wanted = {"H": -3.0, "C": -6.5, "O": -7.25}
    files = {"foundation": "three.model"}
    train(multihead=False, max_epochs=1, pseudolabel_replay=False, e0s=wanted, files=files)
    assert json.loads(Path("model.json").read_text())["atomic_energies"]["Default"] == pytest.approx(wanted)
