"""The restart layer of the evaluation of frames by a committee."""

from __future__ import annotations

from aiida_mofmace.calculations.committee import CommitteeCalculation

from .worker_base import WorkerBaseWorkChain

__all__ = ["CommitteeBaseWorkChain"]


class CommitteeBaseWorkChain(WorkerBaseWorkChain):
    """Evaluate frames with every member of a committee, with restarts."""

    _process_class = CommitteeCalculation
