"""Settings of a fine-tuning, and their translation into the options of ``mace_run_train``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from typing import Any

from ..errors import WorkerError
from .mace_options import IDLE_OPTIONS, MACE_OPTIONS

__all__ = ["FineTuneSettings", "build_arguments", "option_fault", "split_sizes"]


@dataclass(frozen=True)
class FineTuneSettings:
    """Parameters of the fine-tuning program; those without a default must be given.

    :param name: name of the model
    :param valid_fraction: fraction of the frames left by the test set that validates
    :param test_fraction: fraction of the dataset that is kept for testing, the same for every seed; may be 0
    :param resample: split training and validation frames by the seed, so that committee members see different frames
    :param e0s: "foundation" (right if the labels are at the foundation model's level), "estimated", or eV by element
    :param multihead: train the replay data on a head of its own, against forgetting
    :param stage_two_start: epoch of the change to the weights of stage two; None for a single stage
    :param patience: epochs without a better validation loss after which a stage ends
    :param n_replay: number of replay frames, picked by the seed; None for all
    :param n_replay_valid: number of replay validation frames; None for the valid_fraction of n_replay, at least 10
    :param pseudolabel_replay: label the replay frames with the foundation model
    :param foundation_head: head of the foundation model to start from; None chooses the replay head or the only one
    :param processes: number of processes, started by torchrun, that share the training; each takes a batch of its own
    :param options: further options of ``mace_run_train`` by their names
    """

    name: str
    valid_fraction: float
    e0s: str | dict[str, float]
    batch_size: int
    valid_batch_size: int
    max_epochs: int
    patience: int
    learning_rate: float
    weight_decay: float
    forces_weight: float
    energy_weight: float
    stress_weight: float
    test_fraction: float = 0.0
    resample: bool = True
    multihead: bool = True
    stage_two_start: int | None = None
    stage_two_learning_rate: float | None = None
    stage_two_forces_weight: float | None = None
    stage_two_energy_weight: float | None = None
    stage_two_stress_weight: float | None = None
    ema: bool = False
    ema_decay: float | None = None
    n_replay: int | None = None
    n_replay_valid: int | None = None
    pseudolabel_replay: bool = False
    foundation_head: str | None = None
    processes: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> FineTuneSettings:
        """Read the parameters of a job.

        :raises WorkerError: of kind bad_input if one is missing, unknown or out of range
        """
        known = [entry.name for entry in fields(cls)]
        for name in parameters:
            if name not in known:
                raise WorkerError("bad_input", f"unknown parameter {name!r}{_suggestion(name, known)}")
        required = [entry.name for entry in fields(cls) if entry.default is entry.default_factory is MISSING]
        missing = [name for name in required if name not in parameters]
        if missing:
            raise WorkerError("bad_input", f"parameters missing: {', '.join(missing)}")
        settings = cls(**dict(parameters))
        settings._check()
        return settings

    def _check(self) -> None:
        ranges = {
            "valid_fraction must lie between 0 and 1": 0.0 < self.valid_fraction < 1.0,
            "test_fraction must lie between 0 and 1": 0.0 <= self.test_fraction < 1.0,
            "batch_size and valid_batch_size must be positive": min(self.batch_size, self.valid_batch_size) > 0,
            "max_epochs must not be negative": self.max_epochs >= 0,
            "patience must be positive": self.patience > 0,
            "processes must be positive": self.processes > 0,
            "learning_rate must be positive": self.learning_rate > 0.0,
            "n_replay and n_replay_valid must be positive": min(self.n_replay or 1, self.n_replay_valid or 1) > 0,
            "stage_two_start must be below max_epochs": self.stage_two_start is None
            or 0 < self.stage_two_start < self.max_epochs,
            "e0s must be 'foundation', 'estimated' or energies by element": isinstance(self.e0s, dict)
            or self.e0s in {"foundation", "estimated"},
        }
        wrong = [message for message, right in ranges.items() if not right]
        if wrong:
            raise WorkerError("bad_input", "; ".join(wrong))


# Parameters that have another name in mace_run_train.
_MACE_NAMES = {
    "batch_size": "batch_size",
    "valid_batch_size": "valid_batch_size",
    "max_epochs": "max_num_epochs",
    "patience": "patience",
    "learning_rate": "lr",
    "weight_decay": "weight_decay",
    "forces_weight": "forces_weight",
    "energy_weight": "energy_weight",
    "stress_weight": "stress_weight",
    "stage_two_start": "start_swa",
    "stage_two_learning_rate": "swa_lr",
    "stage_two_forces_weight": "swa_forces_weight",
    "stage_two_energy_weight": "swa_energy_weight",
    "stage_two_stress_weight": "swa_stress_weight",
    "ema": "ema",
    "ema_decay": "ema_decay",
    "multihead": "multiheads_finetuning",
    "foundation_head": "foundation_head",
    "e0s": "E0s",
    "name": "name",
    "pseudolabel_replay": "pseudolabel_replay",
    "valid_fraction": "valid_fraction",
}

# What the wrapper decides: files, keys, and options whose effect it replaces or does not support.
_MANAGED = {
    *("seed", "work_dir", "log_dir", "model_dir", "checkpoints_dir", "results_dir", "downloads_dir", "config"),
    *("device", "default_dtype", "distributed", "launcher", "restart_latest", "dry_run", "lbfgs", "wandb", "plot"),
    *("train_file", "valid_file", "test_file", "test_dir", "statistics_file", "heads", "atomic_numbers", "swa"),
    *("foundation_model", "pt_train_file", "pt_valid_file", "force_mh_ft_lr", "enable_oeq", "only_cueq"),
    *("energy_key", "forces_key", "stress_key", "virials_key", "head_key", "save_cpu", "eval_interval", "model"),
}


def _suggestion(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def option_fault(name: str, known: Iterable[str] = MACE_OPTIONS) -> str | None:
    """Say why an option may not be given.

    Mace lacks it, it has a parameter of its own, the program decides it, or it would change nothing.

    :param known: options that mace has
    """
    names = sorted(known)
    if name not in names:
        return f"mace_run_train has no option {name!r}{_suggestion(name, names)}"
    own = {theirs: ours for ours, theirs in _MACE_NAMES.items()}
    if name in own:
        return f"option {name!r} is set by the parameter {own[name]!r}, give that one"
    if name in _MANAGED:
        return f"option {name!r} is decided by the program and cannot be given"
    idle = next((reason for reason, options in IDLE_OPTIONS.items() if name in options), None)
    return f"option {name!r} would change nothing: {idle}" if idle else None


def split_sizes(n_frames: int, valid_fraction: float, test_fraction: float) -> tuple[int, int, int]:
    """Return how many frames train, validate and test.

    :raises WorkerError: of kind bad_input if none is left to train with
    """
    n_test = round(test_fraction * n_frames)
    n_valid = max(1, round(valid_fraction * (n_frames - n_test)))
    n_train = n_frames - n_test - n_valid
    if n_train < 1:
        raise WorkerError(
            "bad_input",
            f"{n_frames} different frames are too few: {n_valid} would validate and {n_test} test; "
            "add labels or lower valid_fraction and test_fraction",
        )
    return n_train, n_valid, n_test


def _words(action: argparse.Action, value: Any) -> list[str]:
    """Write one option as the command line words that its parser expects."""
    flag = max(action.option_strings, key=len)
    if action.nargs == 0:
        return [flag] if value == action.const else []
    text = json.dumps(value) if isinstance(value, (dict, list)) else str(value)
    return [f"{flag}={text}"]


def _refuse(message: str) -> None:
    raise WorkerError("bad_input", f"mace_run_train refuses its options: {message}")


def build_arguments(settings: FineTuneSettings, decided: Mapping[str, Any]) -> argparse.Namespace:
    """Let mace's own parser read and check the options of a training.

    :param decided: options that the program decides, by the names of ``mace_run_train``
    :raises WorkerError: of kind bad_input if an option is unknown or has a value that mace refuses
    """
    from mace.tools import build_default_arg_parser

    parser = build_default_arg_parser()
    parser.error = _refuse
    actions = {action.dest: action for action in parser._actions if action.option_strings}
    for name in settings.options:
        fault = option_fault(name, actions)
        if fault is not None:
            raise WorkerError("bad_input", fault)
    given = {theirs: getattr(settings, ours) for ours, theirs in _MACE_NAMES.items() if ours != "e0s"}
    given = {name: value for name, value in given.items() if value is not None}
    if settings.multihead:
        # Without it, mace silently replaces the learning rate and the decay of the average.
        given["force_mh_ft_lr"] = True
    # The loss that mace forces on multihead training, so that naive training can be compared with it.
    given = {"loss": "universal", "plot": False, "error_table": "PerAtomMAE", **given, **settings.options, **decided}
    words = [word for name, value in given.items() for word in _words(actions[name], value)]
    arguments = parser.parse_args(words)
    return arguments if isinstance(arguments, argparse.Namespace) else argparse.Namespace(**vars(arguments))
