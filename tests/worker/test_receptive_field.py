"""Energies of trial moves evaluated by what they change: equal to those of a full evaluation, for all kinds of MACE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from aiida_mofmace.worker.kernels import ideal_gas, receptive_field
from aiida_mofmace.worker.kernels.gases import Gas
from aiida_mofmace.worker.kernels.geometry import random_rotation
from aiida_mofmace.worker.kernels.mace_kinds import why_not
from aiida_mofmace.worker.kernels.model import Configuration, MaceEvaluator
from aiida_mofmace.worker.kernels.neighbourhood import difference
from aiida_mofmace.worker.kernels.receptive_field import LayerRecord, LocalPotential
from aiida_mofmace.worker.programs.md_gcmc import run
from aiida_mofmace.worker.stopping import StopRequest

from .engine_fixtures import Array, write_tiny_mace
from .test_md_gcmc_program import PARAMETERS, STARTER

KINDS: dict[str, dict[str, Any]] = {
    "as most": {},
    "one layer": {"num_interactions": 1},
    "three layers": {"num_interactions": 3, "r_max": 3.0},
    "vectors": {"hidden_irreps": "8x0e + 8x1o", "max_ell": 2},
    "residual first": {"interaction_cls_first": "RealAgnosticResidualInteractionBlock"},
    "density": {
        "interaction_cls_first": "RealAgnosticDensityInteractionBlock",
        "interaction_cls": "RealAgnosticDensityResidualInteractionBlock",
        "hidden_irreps": "8x0e + 8x1o",
        "distance_transform": "Agnesi",
    },
    "plain": {"pair_repulsion": False, "apply_cutoff": False, "use_last_readout_only": True},
    "heads": {"heads": ("pt_head", "Default")},
}


HELD: dict[str, Any] = {"framework_flexible": False}
RIGID: dict[str, Any] = {
    "gas_flexible": False,
    "moves": {"exchange": 0.6, "translation": 0.2, "rotation": 0.2},
    "translation_step": 0.3,
    "rotation_step": 20.0,
}


def evaluator_of(path: Path, may_fuse: bool = True, device: str = "cpu", **changes: Any) -> MaceEvaluator:
    """A random MACE of some kind, in float64; scale and shift differ from 1 and 0, and from head to head."""
    import mace  # noqa: F401
    from e3nn import o3
    from mace import modules

    for key in ("interaction_cls", "interaction_cls_first"):
        if key in changes:
            changes[key] = getattr(modules, changes[key])
    if "hidden_irreps" in changes:
        changes["hidden_irreps"] = o3.Irreps(changes["hidden_irreps"])
    heads = changes.pop("heads", ("Default",))
    scales = [1.7, 0.6][: len(heads)]
    changes |= {"atomic_inter_scale": scales, "atomic_inter_shift": [0.3, -0.2][: len(heads)]}
    write_tiny_mace(path, heads, **changes)
    return MaceEvaluator(path, device, "float64", heads[-1], may_fuse=may_fuse)


def molecule(gas: Gas, cell: Array, rng: np.random.Generator) -> Array:
    return gas.positions @ random_rotation(rng).T + (3.0 * rng.random(3) - 1.0) @ cell


def with_gas(base: Atoms | Configuration, gas: Gas, *molecules: Array) -> Configuration:
    numbers = np.concatenate([base.numbers, *[gas.numbers] * len(molecules)])
    return Configuration(numbers, np.concatenate([base.positions, *molecules]), np.asarray(base.cell))


def trials_of(start: Configuration, gas: Gas, framework_atoms: int, rng: np.random.Generator) -> list[Configuration]:
    """Insertions, and where there is gas, deletions of each molecule, a displacement and a second insertion."""
    numbers, positions, cell = start
    trials = [with_gas(start, gas, molecule(gas, cell, rng)) for _ in range(3)]
    for first in range(framework_atoms, len(numbers), 3):
        block = np.arange(first, first + 3)
        trials.append(Configuration(np.delete(numbers, block), np.delete(positions, block, axis=0), cell))
        moved = positions.copy()
        moved[block] = molecule(gas, cell, rng)
        trials.append(Configuration(numbers, moved, cell))
    trials.append(with_gas(start, gas, *(molecule(gas, cell, rng) for _ in range(2))))
    return trials


_LONG = ("as most", "three layers", "vectors", "residual first", "plain", "heads")


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind in _LONG else []) for kind in KINDS]
)
def test_equal_to_a_full_evaluation(kind: str, framework: Atoms, carbon_dioxide: Gas, tmp_path: Path) -> None:
    """Empty and loaded, in a cell smaller than the receptive field and in a larger one; all trials in one call."""
    evaluator = evaluator_of(tmp_path / "kind.model", **KINDS[kind])
    local = LocalPotential(LayerRecord(evaluator), smallest=0)
    rng = np.random.default_rng(4)
    for cells, loading in ((1, 0), (3, 2)):
        atoms = framework.repeat((1, 1, cells))
        atoms.rattle(0.05, seed=1)
        molecules = [molecule(carbon_dioxide, atoms.cell.array, rng) for _ in range(loading)]
        start = with_gas(atoms, carbon_dioxide, *molecules)
        base = local.evaluate([start])[0]
        trials = trials_of(start, carbon_dioxide, len(atoms), rng)
        found = local.evaluate(trials, forces=False)
        expected = evaluator.evaluate(trials, forces=False)
        assert [each.energy for each in found] == pytest.approx([each.energy for each in expected], abs=1e-8)
        assert [each.atomic_energy for each in found] == [each.atomic_energy for each in expected]
        changes = [each.interaction_energy - base.interaction_energy for each in expected]
        assert min(abs(np.array(changes))) > 1e-4


class Watched(MaceEvaluator):
    """Writes down how many atoms are evaluated in full."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sizes: list[int] = []

    def evaluate(self, configurations: Sequence[Any], forces: bool = True, stress: bool = False) -> list[Any]:
        self.sizes += [len(each.numbers) for each in configurations]
        return super().evaluate(configurations, forces, stress)


def test_only_what_sees_the_change_is_computed(tiny_model: Path, framework: Atoms, carbon_dioxide: Gas) -> None:
    """Molecules of any batch size are not evaluated with the framework, nor is a molecule alone taken for a trial."""
    evaluator = Watched(tiny_model, dtype="float64")
    local = LocalPotential(LayerRecord(evaluator), smallest=100)
    rng = np.random.default_rng(2)
    large = framework.repeat((3, 2, 3))
    start = with_gas(large, carbon_dioxide)
    local.evaluate([start])
    layers: list[int] = []
    for product in evaluator.model.products:
        product.register_forward_hook(lambda _part, _inputs, output: layers.append(len(output)))
    for size in (1, 3):
        trials = [with_gas(start, carbon_dioxide, molecule(carbon_dioxide, large.cell.array, rng)) for _ in range(size)]
        alone = Configuration(carbon_dioxide.numbers, carbon_dioxide.positions + 5.0, 12.0 * np.eye(3))
        evaluator.sizes.clear()
        layers.clear()
        answers = local.evaluate([alone, *trials], forces=False)
        assert evaluator.sizes == [3]
        assert len(layers) == 2 * size + 2  # two layers, the molecule alone in full
        assert max(layers) < 0.7 * len(large)
        expected = evaluator.evaluate([alone, *trials], forces=False)
        assert [e.energy for e in answers] == pytest.approx([e.energy for e in expected], abs=1e-8)
    evaluator.sizes.clear()
    rattled = large.copy()
    rattled.rattle(0.1, seed=5)
    local.evaluate([rattled], forces=False)
    assert evaluator.sizes == [720]


def test_a_change_that_nobody_sees(tiny_model: Path, framework: Atoms) -> None:
    """An equal configuration, and an atom in a vacuum: both are evaluated, though no edge is in sight."""
    local = LocalPotential(LayerRecord(MaceEvaluator(tiny_model, dtype="float64")), smallest=0)
    cell = np.diag([40.0, 12.0, 12.0])
    start = Configuration(framework.numbers[:6], np.array(framework.positions[:6]), cell)
    far = Configuration(np.append(start.numbers, 8), np.append(start.positions, [[25.0, 6.0, 6.0]], axis=0), cell)
    base = local.evaluate([start])[0]
    same, more = local.evaluate([start, far], forces=False)
    assert same.energy == pytest.approx(base.energy, abs=1e-9)
    assert more.atomic_energy - base.atomic_energy == pytest.approx(-2042.0)


def test_small_systems_are_evaluated_in_full(tiny_model: Path, framework: Atoms, carbon_dioxide: Gas) -> None:
    evaluator = Watched(tiny_model)
    local = LocalPotential(LayerRecord(evaluator))
    trial = with_gas(framework, carbon_dioxide, carbon_dioxide.positions)
    local.evaluate([with_gas(framework, carbon_dioxide)])
    local.evaluate([trial], forces=False)
    assert evaluator.sizes == [40, 43]


def test_models_it_does_not_know_are_refused(tiny_model: Path) -> None:
    model = MaceEvaluator(tiny_model).model
    assert why_not(model) == ""
    block = model.interactions[1]
    known = type(block)
    block.__class__ = type("RealAgnosticAttResidualInteractionBlock", (known,), {})
    assert "RealAgnosticAttResidualInteractionBlock is not one of" in why_not(model)
    block.__class__ = known
    block.cueq_config = object()
    assert "not those of e3nn" in why_not(model)
    block.cueq_config = None
    model.joint_embedding = model.node_embedding
    assert "features of the whole system" in why_not(model)
    model.__class__ = type("DipoleMACE", (type(model),), {})
    assert "DipoleMACE is not one of MACE" in why_not(model)


@pytest.mark.parametrize(
    ("old", "new", "block"),
    [
        ("abc", "abc", (3, 3, "")),
        ("abc", "abxyc", (2, 2, "xy")),
        ("abcde", "abe", (2, 4, "")),
        ("abcde", "abxde", (2, 3, "x")),
        ("aaa", "aaaa", (3, 3, "a")),
        ("abc", "xyz", (0, 3, "xyz")),
        ("", "ab", (0, 0, "ab")),
    ],
)
def test_the_shortest_block_that_differs(old: str, new: str, block: tuple[int, int, str]) -> None:
    def atoms(text: str) -> tuple[Any, Any]:
        numbers = np.array([ord(letter) for letter in text], dtype=np.int64)
        return numbers, np.zeros((len(text), 3)) + numbers[:, None]

    change = difference(*atoms(old), *atoms(new))
    assert (change.first, change.last, "".join(map(chr, change.numbers))) == block


@pytest.mark.parametrize("held", [{}, HELD, HELD | RIGID], ids=["flexible", "held framework", "all rigid"])
def test_a_run_is_the_same_and_restarts_exactly(
    held: dict[str, Any], framework: Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The starter model in float64: trial by trial the decisions of full evaluations; a restart changes no bit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ideal_gas, "_EQUILIBRATION_SWEEPS", 2)
    framework.write("structure.extxyz")
    parameters = PARAMETERS | {"steps": 20, "fugacity": 1e12, "attempts_per_block": 40, "initial_loading": 0} | held
    inputs = {"seed": 2, "dtype": "float64", "parameters": parameters}
    inputs["files"] = {"model": str(STARTER), "structure": "structure.extxyz"}
    results, series = {}, {}
    for smallest in (10**6, 0):
        monkeypatch.setattr(LocalPotential.__init__, "__defaults__", (smallest,))
        results[smallest] = run(inputs, StopRequest())
        with np.load("timeseries.npz") as archive:
            series[smallest] = {name: archive[name] for name in archive.files}
    assert results[0]["local_trials"]
    assert results[0]["acceptance"] == results[10**6]["acceptance"]
    assert results[0]["acceptance"]["insertion"]["accepted"] > 0
    assert np.array_equal(series[0]["loading"], series[10**6]["loading"])
    assert np.allclose(series[0]["potential_energy"], series[10**6]["potential_energy"], rtol=0, atol=1e-6)
    with np.load("checkpoint.npz") as archive:
        expected = {name: archive[name] for name in archive.files}
    run(inputs | {"parameters": parameters | {"steps": 9}}, StopRequest())
    Path("checkpoint.npz").rename("restart.npz")
    run(inputs | {"files": inputs["files"] | {"checkpoint": "restart.npz"}}, StopRequest())
    with np.load("checkpoint.npz") as archive:
        for name, array in expected.items():
            assert np.array_equal(archive[name], array), name
    assert receptive_field._SMALLEST == 100
