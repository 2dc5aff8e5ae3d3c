"""Fused layers: the same energies, forces and stresses as the model's own, or none at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from aiida_mofmace.starter import STARTER_MODEL
from aiida_mofmace.worker.kernels import edge_functions, fused
from aiida_mofmace.worker.kernels.model import Evaluation, MaceEvaluator

from .engine_fixtures import write_tiny_mace
from .test_receptive_field import KINDS, evaluator_of

MORE: dict[str, dict[str, Any]] = {
    "third order": {"correlation": 3, "max_ell": 3, "hidden_irreps": "4x0e + 4x1o", "num_interactions": 3},
    "quadrupoles": {"correlation": 2, "max_ell": 2, "hidden_irreps": "4x0e + 4x1o + 4x2e"},
    "fourth order": {"correlation": 4, "max_ell": 1, "hidden_irreps": "4x0e"},
}


def systems(framework: Atoms) -> list[Atoms]:
    """A periodic crystal with a short contact, a molecule, and two atoms out of each other's sight."""
    framework.rattle(0.1, seed=1)
    framework.positions[39] = framework.positions[38] + [0.4, 0.2, 0.1]
    water = Atoms("OHH", [[4, 4, 4], [4.96, 4, 4], [3.76, 4.93, 4]], cell=[9, 9, 9], pbc=True)
    lone = Atoms("CO", [[1, 1, 1], [10, 10, 10]], cell=[20, 20, 20], pbc=True)
    return [framework, water, lone]


def largest(answers: list[Evaluation], others: list[Evaluation], name: str) -> float:
    return max(float(np.abs(getattr(a, name) - getattr(b, name)).max()) for a, b in zip(answers, others, strict=True))


@pytest.mark.parametrize("kind", [*KINDS, *MORE])
def test_equal_to_the_layers_of_the_model(kind: str, framework: Atoms, tmp_path: Path) -> None:
    changes = (KINDS | MORE)[kind]
    quick, plain = (evaluator_of(tmp_path / "kind.model", may_fuse=may, **changes) for may in (True, False))
    assert (quick.kernels, plain.kernels) == ("fused", "e3nn")
    for stress in (False, True):
        mine, own = (each.evaluate(systems(framework.copy()), stress=stress) for each in (quick, plain))
        scale = np.abs(own[0].forces).max()
        assert largest(mine, own, "interaction_energy") < 1e-9 * scale
        assert largest(mine, own, "forces") < 1e-9 * scale
        assert not stress or largest(mine, own, "stress") < 1e-10 * scale
    assert largest(mine, quick.evaluate(systems(framework.copy()), forces=False), "energy") < 1e-9
    lone = [Atoms("C", cell=[20, 20, 20], pbc=True)]  # a call without a single pair, as for the gas argon
    alone, own = (each.evaluate(lone, stress=True)[0] for each in (quick, plain))
    assert alone.interaction_energy == pytest.approx(own.interaction_energy, abs=1e-9)
    assert not np.any(alone.forces) and not np.any(alone.stress)


def test_single_precision_is_as_good_as_before(framework: Atoms) -> None:
    """Both are off from float64 by about the same."""
    quick, plain = (MaceEvaluator(STARTER_MODEL, may_fuse=may) for may in (True, False))
    exact = MaceEvaluator(STARTER_MODEL, dtype="float64")
    framework.rattle(0.1, seed=2)
    mine, own, truth = (each.evaluate([framework], stress=True) for each in (quick, plain, exact))
    for name in ("interaction_energy", "forces", "stress"):
        assert largest(mine, truth, name) < 3.0 * largest(own, truth, name) + 1e-5


def test_forces_are_derivatives_of_the_tables(framework: Atoms) -> None:
    """Along the line between two atoms, across many intervals of a table."""
    evaluator = MaceEvaluator(STARTER_MODEL, dtype="float64")
    assert evaluator.kernels == "fused"
    step, direction = 1e-4, np.array([0.3, -0.5, 0.8])
    for shift in np.linspace(0.0, 0.3, 7):
        moved = [framework.copy() for _ in range(3)]
        for atoms, sign in zip(moved, (0, 1, -1), strict=True):
            atoms.positions[5] += (shift + sign * step) * direction
        here, up, down = evaluator.evaluate(moved)
        assert here.forces is not None
        slope = (up.interaction_energy - down.interaction_energy) / (2.0 * step)
        assert here.forces[5] @ direction == pytest.approx(-slope, abs=1e-5)


def test_two_are_equal_to_the_last_bit(framework: Atoms) -> None:
    """Or a restart would be another run."""
    first, second = (MaceEvaluator(STARTER_MODEL).evaluate([framework])[0] for _ in range(2))
    assert first.interaction_energy == second.interaction_energy
    assert np.array_equal(first.forces, second.forces)


class Forgetful(fused.Contraction):
    """Loses a part of a weight on the way."""

    def _weights_of(self, element: int, like: Any) -> Any:
        return super()._weights_of(element, like) * (1.0 if element else 0.99)


class Unable(fused.Contraction):
    """Does not know what to do."""

    def __init__(self, contractions: Any) -> None:
        raise KeyError("no such thing")


class Steep(fused.Contraction):
    """Gives the right energy, and forces that are no numbers."""

    def forward(self, x: Any, elements: Any) -> Any:
        return super().forward(x, elements) + (0.0 * x.sum()).sqrt()


@pytest.mark.parametrize(
    ("layer", "said"),
    [(Forgetful, "are off by"), (Steep, "are off by nan"), (Unable, "cannot be made: KeyError")],
)
def test_wrong_layers_are_not_used(
    layer: type, said: str, framework: Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault shows in the probe; the model's own layers are there again after that."""
    path = write_tiny_mace(tmp_path / "tiny.model")
    expected = MaceEvaluator(path, dtype="float64").evaluate([framework])[0]

    monkeypatch.setattr(fused, "Contraction", layer)
    with pytest.warns(UserWarning, match=f"fused layers {said}"):
        evaluator = MaceEvaluator(path, dtype="float64")
    assert evaluator.kernels == "e3nn"
    found = evaluator.evaluate([framework])[0]
    assert found.energy == pytest.approx(expected.energy, abs=1e-7)
    assert found.forces == pytest.approx(expected.forces, abs=1e-8)


def test_a_function_that_is_too_rough_is_not_tabulated(
    framework: Atoms, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is fused all the same."""
    monkeypatch.setattr(edge_functions, "_MOST", 256)
    quick, plain = (evaluator_of(tmp_path / "kind.model", may_fuse=may) for may in (True, False))
    assert not isinstance(quick.model.interactions[0].conv_tp_weights, edge_functions.RadialTable)
    assert isinstance(quick.model.products[0].symmetric_contractions, fused.Contraction)
    mine, own = quick.evaluate([framework])[0], plain.evaluate([framework])[0]
    assert mine.energy == pytest.approx(own.energy, abs=1e-9)
    assert mine.forces == pytest.approx(own.forces, abs=1e-9)
