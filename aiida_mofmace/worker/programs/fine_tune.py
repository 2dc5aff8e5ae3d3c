"""Fine-tune a MACE foundation model: one member of a committee."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ..errors import WorkerError, is_out_of_memory
from ..kernels.model import MaceEvaluator, choose_device
from ..stopping import StopRequest
from ..training.data import (
    Split,
    atomic_energies,
    has_labels,
    pick_replay,
    predict,
    pseudolabelled,
    read_frames,
    require_labels,
    split_frames,
    write_frames,
)
from ..training.loop import TrainingLoop, train
from ..training.metadata import describe_model
from ..training.ranks import Ranks
from ..training.settings import FineTuneSettings, build_arguments

__all__ = ["run"]

HEAD, REPLAY_HEAD = "Default", "pt_head"
STOPS = ("SIGTERM", "walltime")

_CHECKPOINT = Path("checkpoint.pt")
_MODEL = Path("model.model")
_TEST_PREDICTIONS = "test_predictions.npz"


@dataclass(frozen=True)
class _Foundation:
    """The model to start from.

    :param head: the head of it that is started from, and whose errors on the replay data are compared
    """

    path: Path
    metadata: dict[str, Any]
    head: str
    evaluator: MaceEvaluator


@dataclass(frozen=True)
class _Replay:
    """Replay frames of this member.

    :param train: labelled frames to train on; empty if training is naive
    :param valid: labelled frames to validate on in training
    :param measured: validation frames with the labels that errors are measured against; empty without any
    :param elements: elements of all replay frames, picked or not
    :param reference: "labels", or "foundation" if the frames have none
    """

    train: list[Atoms]
    valid: list[Atoms]
    measured: list[Atoms]
    elements: set[int]
    reference: str


def _open_foundation(inputs: dict[str, Any], settings: FineTuneSettings) -> _Foundation:
    path = Path(inputs["files"]["foundation"])
    metadata = describe_model(path, "foundation")
    head = _starting_head(metadata["heads"], settings)
    evaluator = MaceEvaluator(path, inputs["device"], inputs["dtype"], head)
    return _Foundation(path, metadata, head, evaluator)


def _starting_head(heads: list[str], settings: FineTuneSettings) -> str:
    """Choose the head to start from: of an earlier fine-tuning, the replay head for replay, else the fine-tuned one."""
    if settings.foundation_head is not None:
        wanted = [settings.foundation_head]
    else:
        wanted = heads if len(heads) == 1 else [REPLAY_HEAD, HEAD] if settings.multihead else [HEAD]
    for head in wanted:
        if head in heads:
            return head
    raise WorkerError("bad_input", f"give foundation_head: the foundation model has the heads {', '.join(heads)}")


def _prepare_replay(
    files: dict[str, Any], settings: FineTuneSettings, seed: int, foundation: _Foundation
) -> _Replay | None:
    """Pick and label the replay frames; None if there are none.

    :raises WorkerError: of kind bad_input if multihead training has none, or none with labels and may not make them
    """
    if files.get("replay_train") is None:
        if settings.multihead:
            raise WorkerError("bad_input", "multihead training needs replay_train; give it, or set multihead to false")
        return None
    everything = read_frames(Path(files["replay_train"]))
    held_out = read_frames(Path(files["replay_valid"])) if files.get("replay_valid") else None
    picked, valid = pick_replay(everything, held_out, settings, seed)
    relabelled = pseudolabelled(valid, foundation.evaluator)
    reference = "labels" if has_labels(valid) else "foundation"
    measured = valid if reference == "labels" else relabelled
    if settings.multihead and settings.pseudolabel_replay:
        picked, valid = pseudolabelled(picked, foundation.evaluator), relabelled
    elif settings.multihead:
        require_labels([*picked, *valid], "replay data", foundation.metadata["elements"])
    elements = {int(number) for frame in [*everything, *(held_out or [])] for number in frame.numbers}
    return _Replay(picked, valid, measured, elements, reference)


def _clipped(batch_size: int, n_frames: int) -> int:
    """Batch size that leaves at least one batch: mace drops an incomplete last batch, and with it all there is."""
    return min(batch_size, n_frames)


def _decide(
    inputs: dict[str, Any],
    settings: FineTuneSettings,
    foundation: _Foundation,
    sets: dict[str, list[Atoms]],
    replay: _Replay | None,
) -> dict[str, Any]:
    """Write the training files and decide on the options of ``mace_run_train`` that follow from the data."""
    known = foundation.metadata["atomic_energies"][foundation.head]
    energies = atomic_energies(settings.e0s, sets["train"], foundation.evaluator, known)
    elements = {int(number) for part in sets.values() for frame in part for number in frame.numbers}
    decided: dict[str, Any] = {
        "seed": inputs["seed"],
        "device": choose_device(inputs["device"]),
        "default_dtype": inputs["dtype"],
        "foundation_model": foundation.path,
        "train_file": write_frames(Path("train.extxyz"), sets["train"]),
        "valid_file": write_frames(Path("valid.extxyz"), sets["valid"]),
        "pseudolabel_replay": False,
        "pin_memory": choose_device(inputs["device"]).startswith("cuda"),
    }
    if settings.processes > 1:
        decided |= {"distributed": True, "launcher": "torchrun"}
    if len(foundation.metadata["heads"]) > 1:
        decided["foundation_head"] = foundation.head
    n_frames = len(sets["train"])
    if settings.multihead and replay is not None:
        decided["pt_train_file"] = write_frames(Path("replay_train.extxyz"), replay.train)
        decided["pt_valid_file"] = write_frames(Path("replay_valid.extxyz"), replay.valid)
        elements |= replay.elements & set(energies)
        n_frames += len(replay.train)
    decided["batch_size"] = _clipped(settings.batch_size, n_frames)
    decided["atomic_numbers"] = sorted(elements)
    decided["E0s"] = {number: energies[number] for number in sorted(elements)}
    # Literals, not JSON: mace reads them with Python's parser.
    return decided | {name: repr(decided[name]) for name in ("atomic_numbers", "E0s")}


def _identity(inputs: dict[str, Any]) -> str:
    """Digest of everything a training depends on, for the checkpoint."""
    digest = hashlib.sha256()
    for key in ("seed", "dtype", "parameters"):
        digest.update(json.dumps(inputs[key], sort_keys=True).encode())
    for role in ("foundation", "dataset", "replay_train", "replay_valid"):
        name = inputs["files"].get(role)
        digest.update(role.encode() + (hashlib.sha256(Path(name).read_bytes()).digest() if name else b""))
    return digest.hexdigest()


def _checkpoint(name: str | None) -> Path:
    """Return the file to continue from, or the one to write; whatever lies there by chance is no checkpoint of ours."""
    if name is None:
        _CHECKPOINT.unlink(missing_ok=True)
        return _CHECKPOINT
    if not Path(name).is_file():
        raise WorkerError("bad_input", f"there is no checkpoint {name} to continue from")
    return Path(name)


def _measure(path: Path, inputs: dict[str, Any], head: str, sets: dict[str, list[Atoms]]) -> dict[str, Any]:
    """Errors of one head of a model file on some sets of frames; None for an empty set.

    The predictions of test frames are written: those of all members together calibrate a committee.
    """
    evaluator = MaceEvaluator(path, inputs["device"], inputs["dtype"], head)
    predictions = {name: predict(evaluator, frames) if frames else None for name, frames in sets.items()}
    test = predictions.get("test")
    if test is not None:
        np.savez_compressed(_TEST_PREDICTIONS, **vars(test))
    return {name: None if each is None else each.errors() for name, each in predictions.items()}


def _write_json(path: str, content: Any) -> None:
    Path(path).write_text(json.dumps(content, indent=1), encoding="utf-8")


def _subsets(frames: Sequence[Atoms], split: Split) -> dict[str, list[Atoms]]:
    return {name: [frames[index] for index in indices] for name, indices in asdict(split).items()}


def _fine_tune(inputs: dict[str, Any], stop: StopRequest) -> dict[str, Any]:
    settings = FineTuneSettings.from_parameters(inputs["parameters"])
    build_arguments(settings, {})  # refuses wrong options before any work is done
    ranks = Ranks.from_environment()
    ranks.require(settings.processes)
    with ranks.connected(choose_device(inputs["device"])):
        return _train_and_measure(inputs, settings, ranks, stop)


def _train_and_measure(
    inputs: dict[str, Any], settings: FineTuneSettings, ranks: Ranks, stop: StopRequest
) -> dict[str, Any]:
    import torch

    foundation = _open_foundation(inputs, settings)
    frames = read_frames(Path(inputs["files"]["dataset"]))
    require_labels(frames, "dataset", foundation.metadata["elements"])
    split = split_frames(frames, settings, inputs["seed"])
    sets = _subsets(frames, split)
    replay = _prepare_replay(inputs["files"], settings, inputs["seed"], foundation)
    arguments = build_arguments(settings, _decide(inputs, settings, foundation, sets, replay))
    loop = TrainingLoop(arguments, stop, _checkpoint(inputs["files"].get("checkpoint")), _identity(inputs), ranks)
    torch.save(train(loop), _MODEL)
    _write_json("split.json", asdict(split))
    _write_json("history.json", loop.progress.history)
    _write_json("model.json", describe_model(_MODEL, "fine_tuned"))
    if loop.stopped_by in STOPS:
        sets["train"] = []  # the least telling errors, and the longest to measure
        return _results(inputs, loop, foundation, sets, replay) | {"stopped_early": True}
    loop.checkpoint.unlink(missing_ok=True)
    return _results(inputs, loop, foundation, sets, replay)


def _results(
    inputs: dict[str, Any],
    loop: TrainingLoop,
    foundation: _Foundation,
    sets: dict[str, list[Atoms]],
    replay: _Replay | None,
) -> dict[str, Any]:
    """Measure the model that was written, not the one in memory."""
    multihead = loop.arguments.multiheads_finetuning
    results = {
        "epochs": len({record["epoch"] for record in loop.progress.history} - {None}),
        "best_epoch": loop.progress.best_epoch,
        "best_epochs": loop.progress.best_epochs,
        "stage": loop.progress.stage,
        "stopped_by": loop.stopped_by,
        "batch_size": loop.arguments.batch_size,
        "n_replay": len(replay.train) if replay is not None and multihead else 0,
        "errors": {HEAD: _measure(_MODEL, inputs, HEAD, sets)},
        "replay_before": None,
        "replay_after": None,
        "replay_reference": None if replay is None else replay.reference,
    }
    if replay is not None:
        results["replay_before"] = predict(foundation.evaluator, replay.measured).errors()
        head = REPLAY_HEAD if multihead else HEAD
        trained = replay.train if multihead and sets["train"] else []
        errors = _measure(_MODEL, inputs, head, {"train": trained, "valid": replay.measured})
        results["replay_after"] = errors["valid"]
        if multihead:
            results["errors"][REPLAY_HEAD] = errors | {"test": None}
    return results


def run(inputs: dict[str, Any], stop: StopRequest) -> dict[str, Any]:
    """Write ``model.model``, ``model.json``, ``history.json``, ``split.json`` and ``test_predictions.npz``.

    :param inputs: content of ``input.json``: files ``foundation``, ``dataset``, ``replay_train``, ``replay_valid`` and
        perhaps ``checkpoint``; parameters as in :class:`FineTuneSettings`
    :return: number of epochs, why training ended, errors by head and set, errors on the replay data before and after
    """
    try:
        return _fine_tune(inputs, stop)
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise WorkerError("out_of_memory", f"lower batch_size: {error}") from error
        raise
