"""The restart layer of a fit of charges: that of a label, for the single point is the same."""

from __future__ import annotations

from aiida import orm
from aiida.engine import ProcessHandlerReport, process_handler
from aiida.engine.processes.workchains.workchain import WorkChainSpec

from aiida_mofmace.calculations.cp2k_charges import Cp2kChargesCalculation, fit_of_charges

from .cp2k_label_base import Cp2kLabelBaseWorkChain

__all__ = ["Cp2kChargesBaseWorkChain"]


class Cp2kChargesBaseWorkChain(Cp2kLabelBaseWorkChain):
    """Fit charges to the electrostatic potential in the pores (REPEAT) with CP2K, with the restarts of a label."""

    _process_class = Cp2kChargesCalculation

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare ports and exit codes."""
        super().define(spec)
        spec.expose_outputs(Cp2kChargesCalculation, include=("charges", "cif"))

    def setup(self) -> None:
        """Make CP2K's input from structure and level, with the fit."""
        super().setup()
        self.ctx.level_parameters["FORCE_EVAL"]["PROPERTIES"] = fit_of_charges()
        self.ctx.inputs.parameters = orm.Dict(self.ctx.level_parameters)

    @process_handler(priority=600, exit_codes=[Cp2kChargesCalculation.exit_codes.ERROR_CHARGES_MISSING])
    def handle_charges_missing(self, calculation: orm.CalcJobNode) -> ProcessHandlerReport:
        """Give up: the same fit would fail again."""
        return ProcessHandlerReport(
            True, self.exit_codes.ERROR_LABEL_IMPOSSIBLE.format(reason=calculation.exit_message)
        )
