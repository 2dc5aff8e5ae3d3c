"""The training loop that takes the place of mace's own.

``mace.cli.run_train`` prepares data, heads, model and optimiser well, but its loop (0.3.16) goes on after early
stopping, takes a loss that is not a number for an improvement, and leaves no model when it is told to stop. This loop
takes the same steps, with mace's own functions for a step and an evaluation, and hands the best model back.
"""

from __future__ import annotations

import argparse
import ast
import json
import math
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import WorkerError
from ..stopping import StopRequest
from .ranks import Ranks

__all__ = ["Progress", "TrainingLoop", "train"]

_MILLI = 1e3


@dataclass
class Progress:
    """Where a training stands: all that the next epoch depends on besides weights and optimiser.

    :param epoch: number of the next epoch
    :param stage: 1, or 2 after the change of the loss weights
    :param valid_loss: loss of the fine-tuned head on its validation frames
    :param waited: epochs since the last improvement
    :param best_epoch: epoch of the best model; None as long as it is the untrained one
    :param best_epochs: the same by stage
    :param history: a record per epoch and head
    """

    epoch: int = 0
    stage: int = 1
    valid_loss: float = math.inf
    lowest_loss: float = math.inf
    waited: int = 0
    best_epoch: int | None = None
    best_epochs: dict[int, int] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


class _TrainedError(Exception):
    """Leaves ``run_train`` after the loop: its evaluations and compilations that follow are not wanted."""


class _StopNowError(Exception):
    """Ends an epoch in the middle."""


def _require_number(value: float, what: str) -> float:
    if not math.isfinite(value):
        raise WorkerError("nan", f"{what} is not a number; lower learning_rate or look for odd labels")
    return float(value)


def _set_atomic_energies(model: Any, arguments: Any) -> None:
    """Give the model the atomic energies that were asked for.

    Without a replay head mace 0.3.16 copies every tensor of the foundation model that has the same shape, those of the
    atomic energies too, and with that drops what it was given.
    """
    if arguments.multiheads_finetuning:
        return
    energies = ast.literal_eval(arguments.E0s) if isinstance(arguments.E0s, str) else arguments.E0s
    table = model.atomic_energies_fn.atomic_energies
    row = table.new_tensor([energies[int(number)] for number in model.atomic_numbers])
    table.copy_(row.expand_as(table))


class TrainingLoop:
    """Train until the epochs or the patience are used up, or until told to stop.

    Patience counts within a stage. When it is used up in stage one, stage two begins; in the last stage training ends.
    The best model of stage two, if it was reached, is the result, otherwise the best of stage one. The untrained model
    is never the result: members of a committee that all handed it back would agree on everything. The history begins
    with its errors, so that a training that did harm shows.

    :param arguments: options of ``mace_run_train``
    :param stop: asked before every batch
    :param checkpoint: file that is written after every epoch and continued from if it exists
    :param identity: digest of all that the training depends on; a checkpoint of another is refused
    :param ranks: processes that share the training batches; each validates on all frames, so they judge alike
    """

    def __init__(self, arguments: argparse.Namespace, stop: StopRequest, checkpoint: Path, identity: str, ranks: Ranks):
        self.arguments = arguments
        self.stop = stop
        self.checkpoint = checkpoint
        self.identity = identity
        self.ranks = ranks
        self.progress = Progress()
        self.stopped_by: str | None = None
        self.model: Any = None

    def __call__(self, **prepared: Any) -> None:
        """Run in the place of ``mace.tools.train``.

        :raises _TrainedError: always, when done
        """
        self._prepared = argparse.Namespace(**prepared)
        self.model = self._prepared.model
        _set_atomic_energies(self.model, self.arguments)
        self._loss_fn = self._prepared.loss_fn
        self._best = self._weights()
        self._valid_loaders = self._prepared.valid_loaders
        if self.ranks.size > 1:
            self._valid_loaders = {head: _whole(loader) for head, loader in self._valid_loaders.items()}
        if self.checkpoint.exists():
            self._continue_from_checkpoint()
        else:
            self._validate(None, None)
        while self.stopped_by is None:
            self._next()
        self.model.load_state_dict(self._best)
        raise _TrainedError

    def _next(self) -> None:
        """Go through one epoch, unless there is a reason to end."""
        if self.progress.epoch >= self.arguments.max_num_epochs:
            self.stopped_by = "max_epochs"
            return
        begin = time.monotonic()
        self._enter_epoch()
        try:
            train_loss = self._train_epoch()
        except _StopNowError:
            self.stopped_by = self.stop.reason()
            return
        with self._averaged():
            self._validate(self.progress.epoch, train_loss)
            self._judge()
        self.progress.epoch += 1
        self._write_checkpoint()
        self._write_progress(time.monotonic() - begin)

    def _enter_epoch(self) -> None:
        """Step the learning rate; change to stage two when its epoch has come."""
        progress, swa = self.progress, self._prepared.swa
        if swa is None or progress.epoch < swa.start:
            if progress.epoch > 0:
                self._prepared.lr_scheduler.step(metrics=progress.valid_loss)
            return
        if progress.stage == 1:
            progress.stage, progress.lowest_loss, progress.waited = 2, math.inf, 0
        self._loss_fn = swa.loss_fn
        swa.scheduler.step()

    def _train_epoch(self) -> float:
        """Take a step for every batch.

        :return: mean loss of the batches
        """
        from mace.tools.train import take_step

        self._optimizer_mode("train")
        if self._prepared.train_sampler is not None:
            self._prepared.train_sampler.set_epoch(self.progress.epoch)
        losses = []
        for batch in self._prepared.train_loader:
            reason = self.ranks.agree(self.stop.reason(), self._prepared.device)
            if reason is not None:
                self.stop.ask(reason)
                raise _StopNowError
            _, metrics = take_step(
                model=self._prepared.distributed_model or self.model,
                loss_fn=self._loss_fn,
                batch=batch,
                optimizer=self._prepared.optimizer,
                ema=self._prepared.ema,
                output_args=self._prepared.output_args,
                max_grad_norm=self._prepared.max_grad_norm,
                device=self._prepared.device,
            )
            loss = self.ranks.mean(float(metrics["loss"]), self._prepared.device)
            losses.append(_require_number(loss, f"the training loss in epoch {self.progress.epoch}"))
        self._optimizer_mode("eval")
        return sum(losses) / len(losses)

    def _validate(self, epoch: int | None, train_loss: float | None) -> None:
        """Evaluate every head; the last one, the fine-tuned, decides what the best model is."""
        from mace.tools.train import evaluate, valid_err_log

        prepared, progress = self._prepared, self.progress
        for head, loader in self._valid_loaders.items():
            loss, metrics = evaluate(
                model=self.model,
                loss_fn=self._loss_fn,
                data_loader=loader,
                output_args=prepared.output_args,
                device=prepared.device,
            )
            progress.valid_loss = _require_number(float(loss), f"the validation loss of head {head} in epoch {epoch}")
            valid_err_log(loss, metrics, prepared.logger, prepared.log_errors, epoch, head)
            rate = float(prepared.optimizer.param_groups[0]["lr"])
            record = {"epoch": epoch, "head": head, "stage": progress.stage, "loss": progress.valid_loss}
            record |= {"train_loss": train_loss, "learning_rate": rate} | _errors(metrics)
            progress.history.append(record)

    def _judge(self) -> None:
        """Keep the weights if they are the best of their stage; else count the patience."""
        progress, swa = self.progress, self._prepared.swa
        if progress.valid_loss < progress.lowest_loss:
            progress.lowest_loss, progress.waited = progress.valid_loss, 0
            progress.best_epoch, self._best = progress.epoch, self._weights()
            progress.best_epochs[progress.stage] = progress.epoch
            return
        progress.waited += 1
        if progress.waited < self.arguments.patience:
            return
        if swa is not None and progress.stage == 1:
            progress.epoch = max(progress.epoch, swa.start - 1)
        else:
            self.stopped_by = "patience"

    def _weights(self) -> dict[str, Any]:
        return {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}

    def _averaged(self) -> Any:
        """Context in which the model has its exponentially averaged weights, if it keeps an average."""
        ema = self._prepared.ema
        return nullcontext() if ema is None else ema.average_parameters()

    def _optimizer_mode(self, mode: str) -> None:
        """Switch schedule-free optimisers between the weights they train and those they evaluate."""
        switch = getattr(self._prepared.optimizer, mode, None)
        if switch is not None:
            switch()

    def _stateful(self) -> dict[str, Any]:
        prepared = self._prepared
        parts = {"model": self.model, "optimizer": prepared.optimizer, "lr_scheduler": prepared.lr_scheduler}
        if prepared.swa is not None:
            parts["swa_scheduler"] = prepared.swa.scheduler
        if prepared.ema is not None:
            parts["ema"] = prepared.ema
        return parts

    def _write_progress(self, seconds: float) -> None:
        """Say in a file of one line how far the training is, for a person on the cluster."""
        progress = self.progress
        content = {
            "epochs_done": progress.epoch,
            "max_epochs": self.arguments.max_num_epochs,
            "stage": progress.stage,
            "best_epoch": progress.best_epoch,
            "valid_loss": progress.valid_loss,
            "seconds_per_epoch": round(seconds, 3),
        }
        self.checkpoint.with_name("progress.json").write_text(json.dumps(content) + "\n", encoding="utf-8")

    def _write_checkpoint(self) -> None:
        """Write all that is needed to go on as if nothing had happened; replaces the file in one step."""
        import torch

        state = {name: part.state_dict() for name, part in self._stateful().items()}
        state |= {"identity": self.identity, "progress": vars(self.progress), "best": self._best}
        state |= {"shuffle": self._prepared.train_loader.generator.get_state(), "random": torch.get_rng_state()}
        temporary = self.checkpoint.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self.checkpoint)

    def _continue_from_checkpoint(self) -> None:
        import torch

        state = torch.load(self.checkpoint, map_location=self._prepared.device, weights_only=True)
        if state["identity"] != self.identity:
            raise WorkerError("bad_input", "the checkpoint belongs to a training with other data, seed or parameters")
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])
        self._best, self.progress = state["best"], Progress(**state["progress"])
        self._prepared.train_loader.generator.set_state(state["shuffle"].cpu())
        torch.set_rng_state(state["random"].cpu())


def _whole(loader: Any) -> Any:
    """Return a loader of all its frames; mace gives each of several processes a part, and drops what is left over."""
    return type(loader)(
        dataset=loader.dataset, batch_size=loader.batch_size, shuffle=False, pin_memory=loader.pin_memory
    )


def _errors(metrics: dict[str, Any]) -> dict[str, float]:
    """Errors of mace's metrics in meV/atom and meV/Å, under the names of the results."""
    names = {"energy": "e_per_atom", "force": "f"}
    units = {"energy": "mev_per_atom", "force": "mev_per_ang"}
    return {
        f"{quantity}_{kind}_{units[quantity]}": float(metrics[f"{kind}_{name}"]) * _MILLI
        for quantity, name in names.items()
        for kind in ("mae", "rmse")
        if f"{kind}_{name}" in metrics
    }


@contextmanager
def _in_place_of_maces_loop(loop: TrainingLoop) -> Iterator[None]:
    from mace.cli import run_train

    original = run_train.tools.train
    run_train.tools.train = loop
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # TorchScript's and the data loader's, once a module
            yield
    finally:
        run_train.tools.train = original


def train(loop: TrainingLoop) -> Any:
    """Let ``mace.cli.run_train`` prepare a training and run our loop on it.

    :return: the trained model, as plain e3nn modules on the CPU
    :raises WorkerError: of kind nan or bad_input
    """
    from mace.cli import run_train

    with _in_place_of_maces_loop(loop):
        try:
            run_train.run(loop.arguments)
        except _TrainedError:
            return _plain(loop)
    raise WorkerError("training_failed", "mace prepared no training; its log tells why")


def _plain(loop: TrainingLoop) -> Any:
    """Undo what was done to the model for speed or for low-rank training, so that any MACE can open it."""
    model, arguments = loop.model, loop.arguments
    if arguments.lora:
        from mace.modules.lora import merge_lora_weights

        merge_lora_weights(model)
    if arguments.enable_cueq:
        from mace.cli.convert_cueq_e3nn import run

        model = run(model, device=arguments.device)
    return model.to("cpu")
