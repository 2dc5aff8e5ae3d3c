"""Training data: checked before anything is trained, split by seed, written as mace reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers, chemical_symbols
from ase.io import read, write
from numpy.typing import NDArray

from ..errors import WorkerError
from ..kernels.model import MaceEvaluator
from .settings import FineTuneSettings, split_sizes

__all__ = [
    "Predictions",
    "Split",
    "atomic_energies",
    "equal_structures",
    "has_labels",
    "pick_replay",
    "predict",
    "pseudolabelled",
    "read_frames",
    "require_labels",
    "split_frames",
    "write_frames",
]

Floats = NDArray[np.float64]

_SAME_DECIMALS = 4  # of lengths in Å that make two structures the same
_TEST_SEED = 0
_FEWEST_REPLAY_VALID = 10
_MILLI = 1e3


def read_frames(path: Path) -> list[Atoms]:
    """Read an extxyz file.

    :raises WorkerError: of kind bad_input if there is nothing in it
    """
    frames: list[Atoms] = read(path, index=":", format="extxyz") if path.stat().st_size else []
    if not frames:
        raise WorkerError("bad_input", f"{path.name} holds no frames")
    return frames


def has_labels(frames: Sequence[Atoms]) -> bool:
    """Whether every frame has a finite reference energy and finite reference forces."""
    return all(_label_fault(frame) is None for frame in frames)


def _label_fault(frame: Atoms) -> str | None:
    energy, forces = frame.info.get("REF_energy"), frame.arrays.get("REF_forces")
    if energy is None or not np.isfinite(energy):
        return "REF_energy"
    if forces is None or forces.shape != (len(frame), 3) or not np.all(np.isfinite(forces)):
        return "REF_forces"
    return None


def require_labels(frames: Sequence[Atoms], name: str, elements: Sequence[str]) -> None:
    """Refuse frames that mace would silently train on as if their forces were zero, or whose elements it cannot learn.

    :param elements: symbols that the foundation model knows
    :raises WorkerError: of kind bad_input, naming the first fault
    """
    for index, frame in enumerate(frames):
        fault = _label_fault(frame)
        if fault is not None:
            raise WorkerError("bad_input", f"{name}: frame {index} has no complete {fault}")
    unknown = sorted({symbol for frame in frames for symbol in frame.symbols} - set(elements))
    if unknown:
        raise WorkerError("bad_input", f"{name}: the foundation model does not know {', '.join(unknown)}")


@dataclass(frozen=True)
class Split:
    """Frame indices of a dataset by purpose, each ascending."""

    train: list[int]
    valid: list[int]
    test: list[int]


def equal_structures(frames: Sequence[Atoms]) -> list[list[int]]:
    """Return the indices of the frames, those of the same structure together, in order of the first of each."""
    groups: dict[bytes, list[int]] = {}
    for index, frame in enumerate(frames):
        lengths = np.round(np.vstack([frame.cell.array, frame.positions]), _SAME_DECIMALS) + 0.0  # no negative zero
        groups.setdefault(frame.numbers.tobytes() + lengths.tobytes(), []).append(index)
    return list(groups.values())


def split_frames(frames: Sequence[Atoms], settings: FineTuneSettings, seed: int) -> Split:
    """Split a dataset: test frames are the same for every seed, so that no committee member has trained on them.

    Frames of the same structure stay together: what a model is trained on does not tell how good it is.

    :raises WorkerError: of kind bad_input if no frame is left to train with
    """
    groups = equal_structures(frames)
    _, n_valid, n_test = split_sizes(len(groups), settings.valid_fraction, settings.test_fraction)
    shuffled = np.random.default_rng(_TEST_SEED).permutation(len(groups))
    test, rest = shuffled[:n_test], np.sort(shuffled[n_test:])
    rest = np.random.default_rng(seed if settings.resample else _TEST_SEED).permutation(rest)
    parts = (
        sorted(index for group in part for index in groups[group]) for part in (rest[n_valid:], rest[:n_valid], test)
    )
    return Split(*parts)


def pick_replay(
    train: list[Atoms], valid: list[Atoms] | None, settings: FineTuneSettings, seed: int
) -> tuple[list[Atoms], list[Atoms]]:
    """Pick the replay frames of one committee member.

    A structure that validates does not train, in whatever files it stands.

    :param valid: validation frames of their own file, or None to keep some of the training frames apart
    :return: training and validation frames
    """
    rng = np.random.default_rng([seed, 1])
    n_train = min(settings.n_replay or len(train), len(train))
    n_valid = settings.n_replay_valid or max(round(settings.valid_fraction * n_train), _FEWEST_REPLAY_VALID)
    order = [train[index] for index in rng.permutation(len(train))]
    if valid is None:
        n_valid = min(n_valid, len(order) - 1)
        valid, order = order[:n_valid], order[n_valid:]
    else:
        valid = [valid[index] for index in np.sort(rng.permutation(len(valid))[:n_valid])]
    order = _without(order, valid)
    if not valid or not order:
        raise WorkerError("bad_input", "the replay data are too few to train and to validate with")
    return order[:n_train], valid


def _without(frames: list[Atoms], others: list[Atoms]) -> list[Atoms]:
    """Return the frames whose structure is not among the others."""
    groups = equal_structures([*others, *frames])
    seen = {index for group in groups if group[0] < len(others) for index in group}
    return [frame for index, frame in enumerate(frames, start=len(others)) if index not in seen]


def pseudolabelled(frames: Sequence[Atoms], foundation: MaceEvaluator) -> list[Atoms]:
    """Copy frames with the foundation model's energies, forces and stresses as labels."""
    copies = []
    for frame, evaluation in zip(frames, foundation.evaluate(frames, stress=True), strict=True):
        copy = Atoms(numbers=frame.numbers, positions=frame.positions, cell=frame.cell, pbc=frame.pbc)
        copy.info |= {"REF_energy": evaluation.energy, "REF_stress": evaluation.stress}
        copy.arrays["REF_forces"] = evaluation.forces
        copies.append(copy)
    return copies


def write_frames(path: Path, frames: Sequence[Atoms]) -> Path:
    """Write frames with nothing but their labels: mace gives other information meanings of its own."""
    plain = []
    for frame in frames:
        copy = Atoms(numbers=frame.numbers, positions=frame.positions, cell=frame.cell, pbc=frame.pbc)
        copy.info["REF_energy"] = float(frame.info["REF_energy"])
        if frame.info.get("REF_stress") is not None:
            copy.info["REF_stress"] = np.asarray(frame.info["REF_stress"], dtype=np.float64)
        copy.arrays["REF_forces"] = np.asarray(frame.arrays["REF_forces"], dtype=np.float64)
        plain.append(copy)
    write(path, plain, format="extxyz")
    return path


def atomic_energies(
    wish: str | dict[str, float], frames: Sequence[Atoms], foundation: MaceEvaluator, known: dict[str, float]
) -> dict[int, float]:
    """Energies of the isolated atoms for the fine-tuned head.

    "estimated" corrects the foundation model's energies by what, per atom of each element, best explains the
    difference between its predictions and the labels (least squares; of all solutions the smallest correction).

    :param wish: "foundation", "estimated" or eV by symbol or atomic number
    :param frames: training frames
    :param known: energies of the foundation model in eV by symbol
    :return: eV by atomic number, for all elements of the foundation model
    """
    energies = {atomic_numbers[symbol]: energy for symbol, energy in known.items()}
    if isinstance(wish, dict):
        given = {atomic_numbers.get(key, None) or int(key): float(value) for key, value in wish.items()}
        missing = {int(number) for frame in frames for number in frame.numbers} - set(given)
        if missing:
            symbols = ", ".join(chemical_symbols[number] for number in sorted(missing))
            raise WorkerError("bad_input", f"e0s: no energy is given for {symbols}")
        return energies | given
    if wish == "foundation":
        return energies
    numbers = sorted({int(number) for frame in frames for number in frame.numbers})
    counts = np.array([[np.count_nonzero(frame.numbers == number) for number in numbers] for frame in frames])
    predicted = np.array([evaluation.energy for evaluation in foundation.evaluate(frames, forces=False)])
    labels = np.array([frame.info["REF_energy"] for frame in frames])
    corrections = np.linalg.lstsq(counts.astype(np.float64), labels - predicted, rcond=None)[0]
    return energies | {
        number: energies[number] + float(change) for number, change in zip(numbers, corrections, strict=True)
    }


@dataclass(frozen=True)
class Predictions:
    """What a model says of labelled frames, beside the labels.

    :param energies: predicted, eV, shape (n_frames,)
    :param forces: predicted, eV/Å, shape (total_atoms, 3)
    :param offsets: first atom of each frame and the total, shape (n_frames + 1,)
    :param reference_energies: labels, eV, shape (n_frames,)
    :param reference_forces: labels, eV/Å, shape (total_atoms, 3)
    """

    energies: Floats
    forces: Floats
    offsets: NDArray[np.int64]
    reference_energies: Floats
    reference_forces: Floats

    def errors(self) -> dict[str, Any]:
        """Errors over all frames.

        :return: n_frames; energy_mae_mev_per_atom, energy_rmse_mev_per_atom, force_mae_mev_per_ang and
            force_rmse_mev_per_ang (over components)
        """
        energies = (self.energies - self.reference_energies) / np.diff(self.offsets)
        forces = self.forces - self.reference_forces
        return {
            "n_frames": len(energies),
            "energy_mae_mev_per_atom": float(np.abs(energies).mean()) * _MILLI,
            "energy_rmse_mev_per_atom": float(np.sqrt((energies**2).mean())) * _MILLI,
            "force_mae_mev_per_ang": float(np.abs(forces).mean()) * _MILLI,
            "force_rmse_mev_per_ang": float(np.sqrt((forces**2).mean())) * _MILLI,
        }


def predict(evaluator: MaceEvaluator, frames: Sequence[Atoms]) -> Predictions:
    """Evaluate labelled frames with a model."""
    evaluations = evaluator.evaluate(frames)
    return Predictions(
        energies=np.array([each.energy for each in evaluations]),
        forces=np.concatenate([each.forces for each in evaluations if each.forces is not None]),
        offsets=np.cumsum([0, *(len(frame) for frame in frames)], dtype=np.int64),
        reference_energies=np.array([frame.info["REF_energy"] for frame in frames], dtype=np.float64),
        reference_forces=np.concatenate([frame.arrays["REF_forces"] for frame in frames]),
    )
