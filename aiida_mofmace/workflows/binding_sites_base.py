"""The restart layer of the relaxation of binding sites."""

from __future__ import annotations

from aiida_mofmace.calculations.binding_sites import BindingSitesCalculation

from .worker_base import WorkerBaseWorkChain

__all__ = ["BindingSitesBaseWorkChain"]


class BindingSitesBaseWorkChain(WorkerBaseWorkChain):
    """Relax the molecule at each site of each structural unit, with restarts."""

    _process_class = BindingSitesCalculation
