"""The restart layer of the selection of diverse structures."""

from __future__ import annotations

from aiida_mofmace.calculations.diversity_select import DiversitySelectCalculation

from .worker_base import WorkerBaseWorkChain

__all__ = ["DiversitySelectBaseWorkChain"]


class DiversitySelectBaseWorkChain(WorkerBaseWorkChain):
    """Pick structures that differ from one another and from those of a dataset, with restarts."""

    _process_class = DiversitySelectCalculation
