"""The MACE evaluator: energies against mace's own calculator, forces against differences."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from aiida_mofmace.starter import STARTER_MODEL
from aiida_mofmace.worker.errors import WorkerError
from aiida_mofmace.worker.kernels.model import Configuration, MaceEvaluator
from aiida_mofmace.worker.kernels.receptive_field import LayerRecord, LocalPotential

from .engine_fixtures import ATOMIC_ENERGIES, write_tiny_mace


@pytest.fixture
def rattled(framework: Atoms) -> Atoms:
    framework.rattle(0.05, seed=1)
    return framework


@pytest.fixture
def double_by_default() -> Iterator[None]:
    """Mace makes some constants in torch's default dtype; only in float64 is its own answer good to 1e-9 eV."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def test_positions_that_are_no_numbers_have_no_energy(framework: Atoms) -> None:
    """Nothing breaks off, for guards have to see it; what is evaluated beside is not touched."""
    broken = framework.copy()
    broken.positions[3, 1] = np.nan
    evaluator = MaceEvaluator(STARTER_MODEL)
    first, second, third = evaluator.evaluate([framework, broken, framework], stress=True)
    assert np.isnan(second.interaction_energy) and np.isfinite(second.atomic_energy)
    assert np.isnan(second.forces).all() and np.isnan(second.stress).all()
    assert first.interaction_energy == pytest.approx(third.interaction_energy, abs=1e-5)
    assert np.isnan(LocalPotential(LayerRecord(evaluator), smallest=0).evaluate([broken])[0].energy)


@pytest.mark.usefixtures("double_by_default")
def test_equal_to_the_calculator_of_mace(tiny_model: Path, rattled: Atoms) -> None:
    from mace.calculators import MACECalculator

    water = Atoms("OHH", [[4, 4, 4], [4.96, 4, 4], [3.76, 4.93, 4]], cell=[9, 9, 9], pbc=True)
    evaluator = MaceEvaluator(tiny_model, dtype="float64")
    for atoms, evaluation in zip([rattled, water], evaluator.evaluate([rattled, water], stress=True), strict=True):
        atoms.calc = MACECalculator(model_paths=str(tiny_model), device="cpu", default_dtype="float64")
        assert evaluation.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        assert evaluation.atomic_energy == pytest.approx(sum(ATOMIC_ENERGIES[z] for z in atoms.numbers), abs=1e-9)
        assert evaluation.forces == pytest.approx(atoms.get_forces(), abs=1e-10)
        assert evaluation.stress == pytest.approx(atoms.get_stress(voigt=False), abs=1e-10)


def test_float32_interaction_energies_are_exact_to_microvolts(tiny_model: Path, rattled: Atoms) -> None:
    """The total of -70,000 eV could not be told to 4 meV in float32."""
    moved = rattled.copy()
    moved.positions[30] += 0.1
    single, double = (
        [e.energy for e in MaceEvaluator(tiny_model, dtype=dtype).evaluate([rattled, moved], forces=False)]
        for dtype in ("float32", "float64")
    )
    assert single[1] - single[0] == pytest.approx(double[1] - double[0], abs=5e-6)
    assert abs(double[1] - double[0]) > 1e-3


def test_forces_and_stress_are_derivatives(tiny_model: Path, rattled: Atoms) -> None:
    evaluator = MaceEvaluator(tiny_model, dtype="float64")
    reference = evaluator.evaluate([rattled], stress=True)[0]
    assert reference.forces is not None
    assert reference.stress is not None
    step = 1e-4
    rng = np.random.default_rng(0)
    for atom, axis in rng.integers([0, 0], [40, 3], (6, 2)):
        shifted = [rattled.copy(), rattled.copy()]
        shifted[0].positions[atom, axis] += step
        shifted[1].positions[atom, axis] -= step
        up, down = (e.interaction_energy for e in evaluator.evaluate(shifted, forces=False))
        assert reference.forces[atom, axis] == pytest.approx(-(up - down) / (2 * step), abs=1e-6)
    strain = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]) * 0.5 * step
    strained = [rattled.copy(), rattled.copy()]
    for atoms, sign in zip(strained, (1, -1), strict=True):
        atoms.set_cell(rattled.cell.array @ (np.eye(3) + sign * strain), scale_atoms=True)
    up, down = (e.interaction_energy for e in evaluator.evaluate(strained, forces=False))
    expected = float((reference.stress * strain).sum()) * rattled.cell.volume
    assert expected == pytest.approx((up - down) / 2, rel=1e-4)


def test_invariance_and_batches(tiny_model: Path, rattled: Atoms) -> None:
    """Images, batches and what was evaluated before change nothing; equal input gives equal bits."""
    evaluator = MaceEvaluator(tiny_model, dtype="float32", atoms_per_batch=100)
    far = rattled.copy()
    far.positions += np.arange(40)[:, None] % 5 * 40 * rattled.cell.array[2]
    first, moved, *rest = evaluator.evaluate([rattled, far, *[rattled] * 4])
    assert moved.interaction_energy == pytest.approx(first.interaction_energy, abs=5e-6)
    assert len(rest) == 4
    assert np.allclose([e.interaction_energy for e in rest], first.interaction_energy, atol=5e-6)
    alone = [evaluator.evaluate([rattled])[0] for _ in range(3)]
    assert len({e.interaction_energy for e in alone}) == 1
    assert all(np.array_equal(alone[0].forces, e.forces) for e in alone)
    assert evaluator.evaluate([]) == []
    plain = Configuration(rattled.numbers, rattled.positions, rattled.cell.array)
    assert evaluator.evaluate([plain], forces=False)[0].forces is None


def test_heads(tmp_path: Path, framework: Atoms) -> None:
    """E0 differ by 1 eV an atom between the heads of the fixture."""
    import torch

    path = write_tiny_mace(tmp_path / "two.model", heads=("pt_head", "Default"))
    energies = {
        head: MaceEvaluator(path, head=head).evaluate([framework], forces=False)[0].atomic_energy
        for head in ("pt_head", "Default", None)
    }
    assert energies["Default"] - energies["pt_head"] == pytest.approx(40.0)
    assert energies[None] == energies["Default"]
    with pytest.raises(WorkerError, match="no head mp0: the model has pt_head, Default"):
        MaceEvaluator(path, head="mp0")
    model = torch.load(path, weights_only=False)
    model.heads = ["a", "b"]
    unnamed = tmp_path / "unnamed.model"
    torch.save(model, unnamed)
    with pytest.raises(WorkerError, match="must be chosen: the model has a, b"):
        MaceEvaluator(unnamed)


def test_bad_input_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    evaluator = MaceEvaluator(tiny_model)
    assert evaluator.elements == ["H", "C", "O", "Al"]
    with pytest.raises(WorkerError, match="does not know N, Zn; it knows H, C, O, Al") as caught:
        evaluator.evaluate([Atoms("ZnNO", np.eye(3) * 2, cell=[9, 9, 9], pbc=True)])
    assert caught.value.kind == "bad_input"
    broken = tmp_path / "broken.model"
    broken.write_bytes(b"no model")
    with pytest.raises(WorkerError, match=r"broken\.model cannot be opened") as caught:
        MaceEvaluator(broken)
    assert caught.value.kind == "no_model"
    with pytest.raises(WorkerError, match="float32 or float64"):
        MaceEvaluator(tiny_model, dtype="float16")


def test_default_dtype_of_torch_changes_nothing(tmp_path: Path, framework: Atoms) -> None:
    """Another program in the same process may have left float64 behind."""
    import torch

    path = write_tiny_mace(tmp_path / "two.model", heads=("pt_head", "Default"))
    answers, before = [], torch.get_default_dtype()
    try:
        for dtype in (torch.float32, torch.float64):
            torch.set_default_dtype(dtype)
            answers.append(MaceEvaluator(path, head="Default").evaluate([framework])[0])
            assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(before)
    assert answers[0].energy == answers[1].energy
    assert np.array_equal(answers[0].forces, answers[1].forces)


@pytest.mark.slow
def test_the_first_call_of_a_process_is_like_the_later_ones(tmp_path: Path, framework: Atoms) -> None:
    """A run that is restarted makes its first call where the uninterrupted one made a later one."""
    framework.rattle(0.05, seed=1)
    framework.write(tmp_path / "frame.extxyz")
    starter = Path(__file__).parents[2] / "aiida_mofmace" / "starter" / "starter.model"
    program = (
        "from ase.io import read; from aiida_mofmace.worker.kernels.model import MaceEvaluator; "
        f"e, a = MaceEvaluator({str(starter)!r}), read({str(tmp_path / 'frame.extxyz')!r}); "
        "first, second = (e.evaluate([a])[0].forces for _ in range(2)); print('same', (first == second).all())"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)
    assert "same True" in done.stdout
