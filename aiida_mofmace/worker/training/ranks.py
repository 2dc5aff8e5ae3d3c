"""Several processes for one training, started by torchrun: one for each GPU, or several on a CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import WorkerError

__all__ = ["Ranks"]

_REASONS = (None, "SIGTERM", "walltime")


@dataclass(frozen=True)
class Ranks:
    """The processes of a training, seen from one of them; each holds the whole model and a share of every batch.

    :param rank: number of this process; the first one's files are the result
    :param size: number of processes
    :param local_rank: number of the GPU of this process
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Ranks:
        """Read what torchrun has set; without it there is one process."""
        if "TORCHELASTIC_RUN_ID" not in environment:
            return cls()
        return cls(*(int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))

    def require(self, processes: int) -> None:
        """Refuse to train with another number of processes than was asked for.

        :raises WorkerError: of kind bad_input
        """
        if self.size != processes:
            raise WorkerError(
                "bad_input", f"processes is {processes}, but {self.size} run: start the program with torchrun"
            )

    @contextmanager
    def connected(self, device: str) -> Iterator[None]:
        """Connect the processes; mace would do so itself for GPUs, but not for a CPU."""
        if self.size == 1:
            yield
            return
        import torch

        on_gpu = device.startswith("cuda")
        if on_gpu:
            torch.cuda.set_device(self.local_rank)
        torch.distributed.init_process_group("nccl" if on_gpu else "gloo")
        try:
            with _any_device():
                yield
        finally:
            torch.distributed.destroy_process_group()

    def mean(self, value: float, device: Any) -> float:
        """Average a number over the processes; a NaN of one is one for all, so that all fail together."""
        if self.size == 1:
            return value
        import torch

        shared = torch.tensor(value, dtype=torch.float64, device=device)
        torch.distributed.all_reduce(shared)
        return float(shared) / self.size

    def agree(self, reason: str | None, device: Any) -> str | None:
        """Return the reason to stop that any process has: one that left alone would leave the others waiting."""
        if self.size == 1:
            return reason
        import torch

        shared = torch.tensor(_REASONS.index(reason), device=device)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
        return _REASONS[int(shared)]


@contextmanager
def _any_device() -> Iterator[None]:
    """Let mace wrap a model on a CPU as well: it names a GPU in any case."""
    from mace.cli import run_train

    original = run_train.DDP

    def wrap(model: Any, device_ids: list[int]) -> Any:
        return original(model, device_ids=device_ids if next(model.parameters()).is_cuda else None)

    run_train.DDP = wrap
    try:
        yield
    finally:
        run_train.DDP = original
