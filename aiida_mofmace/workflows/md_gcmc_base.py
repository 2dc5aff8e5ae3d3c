"""The restart layer of hybrid MD-GCMC: that of molecular dynamics, with the frames that tripped a guard as well."""

from __future__ import annotations

from collections.abc import Mapping

from aiida import orm

from aiida_mofmace.calculations.md_gcmc import MdGcmcCalculation

from .functions import join_candidates
from .mace_md_base import MaceMdBaseWorkChain

__all__ = ["MdGcmcBaseWorkChain"]


class MdGcmcBaseWorkChain(MaceMdBaseWorkChain):
    """Run hybrid MD-GCMC to its last step, each job from the checkpoint of the one before."""

    _process_class = MdGcmcCalculation
    _namespace = "gcmc"

    def get_outputs(self, node: orm.CalcJobNode) -> Mapping[str, orm.Node]:
        """Return the outputs of the last job, with frames and candidates of all jobs."""
        return {**super().get_outputs(node), **self.joined("candidates", join_candidates)}
