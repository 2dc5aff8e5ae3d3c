"""Evaluate frames with a committee of models: predictions, disagreement, and the frames worth labelling."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import WorkerError
from ..kernels.frames import Frames
from ..kernels.model import MaceEvaluator
from ..kernels.uncertainty import calibrate, committee_deviation, frame_maxima, in_window
from ..stopping import StopRequest

__all__ = ["run"]

_CHUNK = 32
_MILLI = 1e3
_PARAMETERS = {"window", "heads", "max_candidates", "deviation_scale"}
_QUANTILES = (0.5, 0.9, 0.99)

Floats = NDArray[np.float64]


class _StoppedError(Exception):
    """The scheduler wants the job to end before the predictions are complete."""


class _Reference:
    """Labels of a dataset.

    :param energies: eV, shape (n_frames,)
    :param forces: eV/Å, shape (total_atoms, 3)
    """

    def __init__(self, energies: Floats, forces: Floats):
        self.energies = energies
        self.forces = forces


def _read(files: dict[str, Any]) -> tuple[Frames, _Reference | None]:
    """Read trajectories, or a dataset with its labels.

    :raises WorkerError: of kind bad_input if there is nothing to evaluate, or a dataset without labels
    """
    if files.get("dataset") is None:
        frames = Frames.concatenate([Frames.load(name) for name in files.get("frames") or []])
        if len(frames) == 0:
            raise WorkerError("bad_input", "there are no frames to evaluate: give frames or a dataset")
        return frames, None
    from ..training.data import read_frames, require_labels

    images = read_frames(Path(files["dataset"]))
    require_labels(images, "dataset", sorted({symbol for image in images for symbol in image.symbols}))
    energies = np.array([image.info["REF_energy"] for image in images], dtype=np.float64)
    forces = np.concatenate([image.arrays["REF_forces"] for image in images])
    return Frames.from_atoms(images), _Reference(energies, forces)


def _predict(evaluator: MaceEvaluator, frames: Frames, stop: StopRequest) -> tuple[Floats, Floats]:
    """Evaluate all frames with one model.

    :return: total energies in eV, shape (n_frames,); forces in eV/Å, shape (total_atoms, 3)
    """
    evaluator.require_elements(np.array(frames.species))
    energies, forces = np.empty(len(frames)), np.empty(frames.positions.shape)
    for start in range(0, len(frames), _CHUNK):
        if stop.reason() is not None:
            raise _StoppedError
        chunk = range(start, min(start + _CHUNK, len(frames)))
        answers = evaluator.evaluate([frames.atoms(index) for index in chunk])
        energies[start : chunk.stop] = [answer.energy for answer in answers]
        forces[frames.offsets[start] : frames.offsets[chunk.stop]] = np.concatenate([a.forces for a in answers])
    if not (np.all(np.isfinite(energies)) and np.all(np.isfinite(forces))):
        raise WorkerError("nan", "a model predicts energies or forces that are not numbers")
    return energies, forces


def _evaluators(inputs: dict[str, Any]) -> list[MaceEvaluator]:
    names = inputs["files"]["models"]
    heads = inputs["parameters"].get("heads") or [None] * len(names)
    if not names or len(heads) != len(names):
        raise WorkerError("bad_input", f"{len(names)} models and {len(heads)} heads: give one head for each model")
    return [
        MaceEvaluator(name, inputs["device"], inputs["dtype"], head) for name, head in zip(names, heads, strict=True)
    ]


def _errors(energies: Floats, forces: Floats, counts: Floats, reference: _Reference) -> dict[str, float]:
    """Mean absolute errors: energies per atom in meV, force components in meV/Å; nothing is shifted."""
    return {
        "energy_mae_mev_per_atom": float(np.abs((energies - reference.energies) / counts).mean()) * _MILLI,
        "force_mae_mev_per_ang": float(np.abs(forces - reference.forces).mean()) * _MILLI,
    }


def _all_errors(
    energies: Floats, forces: Floats, frames: Frames, reference: _Reference | None
) -> dict[str, Any] | None:
    """Errors of each model, their mean, the errors of the committee's mean prediction, and its calibration."""
    if reference is None:
        return None
    counts = np.diff(frames.offsets).astype(np.float64)
    models = [_errors(energies[each], forces[each], counts, reference) for each in range(len(energies))]
    return {
        "models": models,
        "mean": {name: float(np.mean([model[name] for model in models])) for name in models[0]},
        "committee": _errors(energies.mean(axis=0), forces.mean(axis=0), counts, reference),
        "calibration": asdict(calibrate(forces, reference.forces)),
    }


def _candidates(frames: Frames, energies: Floats, inside: NDArray[np.bool_], limit: int | None, seed: int) -> int:
    """Write the frames in the window with the committee's mean energies; if they are too many, a random part of them.

    :return: number of frames written; with none there is no file
    """
    chosen = np.flatnonzero(inside)
    if limit is not None and len(chosen) > limit:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, size=limit, replace=False))
    if len(chosen):
        selected = frames.select(chosen)
        selected.energies[:] = energies.mean(axis=0)[chosen]
        selected.save("candidates.npz")
    return len(chosen)


def _write_predictions(
    frames: Frames, energies: Floats, forces: Floats, sigma_max: Floats, reference: _Reference | None
) -> None:
    arrays: dict[str, Any] = {
        "energies": energies,
        "forces": forces.astype(np.float32),
        "offsets": frames.offsets,
        "sigma_max": sigma_max,
        "loadings": frames.loadings,
        "groups": np.array(frames.groups, dtype=np.str_),
    }
    if reference is not None:
        arrays |= {"reference_energies": reference.energies, "reference_forces": reference.forces.astype(np.float32)}
    np.savez_compressed("predictions.npz", **arrays)


def _window(parameters: dict[str, Any]) -> tuple[float, float]:
    unknown = set(parameters) - _PARAMETERS
    if unknown:
        raise WorkerError("bad_input", f"unknown parameters: {sorted(unknown)}")
    low, high = parameters.get("window") or (np.inf, np.inf)
    if not 0.0 <= low <= high:
        raise WorkerError("bad_input", f"the window [{low}, {high}] is empty; give its lower bound first, in eV/Å")
    return float(low), float(high)


def _scale(parameters: dict[str, Any]) -> float:
    scale = float(parameters.get("deviation_scale", 1.0))
    if not (np.isfinite(scale) and scale > 0.0):
        raise WorkerError("bad_input", f"deviation_scale is {scale}; give a number above 0")
    return scale


def _committee(inputs: dict[str, Any], stop: StopRequest) -> dict[str, Any]:
    parameters = inputs["parameters"]
    window = _window(parameters)
    frames, reference = _read(inputs["files"])
    predictions = [_predict(evaluator, frames, stop) for evaluator in _evaluators(inputs)]
    energies = np.stack([prediction[0] for prediction in predictions])
    forces = np.stack([prediction[1] for prediction in predictions])
    sigma_max = frame_maxima(committee_deviation(forces), frames.offsets)
    _write_predictions(frames, energies, forces, sigma_max, reference)
    scale = _scale(parameters)
    inside, counts = in_window(scale * sigma_max, window)
    written = 0
    if parameters.get("window") is not None:
        written = _candidates(frames, energies, inside, parameters.get("max_candidates"), inputs["seed"])
    quantiles = np.quantile(sigma_max, _QUANTILES)
    return {
        "n_frames": len(frames),
        "n_models": len(energies),
        **(asdict(counts) if parameters.get("window") is not None else dict.fromkeys(("below", "inside", "above"))),
        "candidates": written,
        "deviation_scale": scale,
        "sigma_max_mean": float(sigma_max.mean()),
        "sigma_max_quantiles": {str(level): float(value) for level, value in zip(_QUANTILES, quantiles, strict=True)},
        "errors": _all_errors(energies, forces, frames, reference),
    }


def run(inputs: dict[str, Any], stop: StopRequest) -> dict[str, Any]:
    """Write ``predictions.npz`` and, if frames lie in the window, ``candidates.npz``.

    :param inputs: content of ``input.json``: files ``models`` (list) and ``frames`` (list) or ``dataset``; parameters
        ``window`` ([low, high] in eV/Å, or null), ``heads`` (one a model, or null), ``max_candidates`` (or null),
        ``deviation_scale`` (1; the deviation times this is held against the window)
    :return: counts below, inside and above the window, figures of the unscaled deviation, errors if there are
        references
    """
    try:
        return _committee(inputs, stop)
    except _StoppedError:
        return {"stopped_early": True}
