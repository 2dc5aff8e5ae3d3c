"""aiida-lsmo's isotherm work chain under AiiDA 2, with matching cut-offs and with snapshots.

aiida-lsmo 1.0.0 was written for older releases of its dependencies. The two calls that are gone are given back to its
own modules here, so that any daemon worker that loads the class below has them.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from types import SimpleNamespace
from typing import IO, Any

from aiida import orm
from aiida.engine import ExitCode
from aiida.engine.processes.workchains.workchain import WorkChainSpec
from ruamel.yaml import YAML

from .harvest import reason

# aiida-lsmo asks for nodes by the names that they had in AiiDA 1, a page of warnings about what nobody here can mend.
# AiiDA sets its filter anew with every one, so they are taken in instead of ignored.
with warnings.catch_warnings(record=True):
    from aiida_lsmo.calcfunctions import ff_builder_module
    from aiida_lsmo.utils import other_utilities
    from aiida_lsmo.workchains.isotherm import IsothermWorkChain

__all__ = ["UffIsothermBaseWorkChain", "molecule_settings"]


def _safe_load(stream: IO[str]) -> Any:
    return YAML(typ="safe", pure=True).load(stream)


# collections.Mapping left Python with 3.10, ruamel.yaml.safe_load left ruamel.yaml with 0.18.
other_utilities.collections = SimpleNamespace(Mapping=Mapping)
ff_builder_module.yaml = SimpleNamespace(safe_load=_safe_load)


class UffIsothermBaseWorkChain(IsothermWorkChain):  # type: ignore[misc]
    """Grand-canonical Monte Carlo of a rigid molecule in a rigid framework by RASPA, one pressure after the other.

    What differs from aiida-lsmo: the real-space cut-off of charges is that of dispersion, for which the supercell is
    made (RASPA's own is 12 Å whatever the cell), snapshots are written every ``movie_every`` cycles, and where a
    pressure fails, the isotherm ends with the points before it.
    """

    @classmethod
    def define(cls, spec: WorkChainSpec) -> None:
        """Declare exit codes."""
        super().define(spec)
        spec.exit_code(310, "ERROR_NO_POINT", message="RASPA failed at the first pressure: {message}")
        spec.exit_code(
            701,
            "WARNING_FEWER_PRESSURES",
            message="{count} of {size} pressures; RASPA failed at the next one: {message}",
        )

    def should_run_another_gcmc(self) -> bool:
        """Whether a pressure is left and the last one did not fail."""
        done = self.ctx.get("raspa_gcmc", [])
        if done and not done[-1].is_finished_ok:
            self.ctx.failed = done[-1]
            self.ctx.raspa_gcmc = done[:-1]
            return False
        return bool(super().should_run_another_gcmc())

    def return_output_parameters(self) -> ExitCode | None:
        """Hand out the points there are."""
        failed, size = self.ctx.get("failed"), len(self.ctx.get("pressures") or [])
        if failed is None:
            super().return_output_parameters()
            return None
        count, message = len(self.ctx.raspa_gcmc), reason(failed)
        if count == 0:
            code: ExitCode = self.exit_codes.ERROR_NO_POINT
            return code.format(message=message)
        self.ctx.pressures = self.ctx.pressures[:count]
        super().return_output_parameters()
        code = self.exit_codes.WARNING_FEWER_PRESSURES
        return code.format(count=str(count), size=str(size), message=message)

    def _get_widom_param(self) -> dict[str, Any]:
        parameters: dict[str, Any] = super()._get_widom_param()
        parameters["GeneralSettings"]["CutOffChargeCharge"] = self.ctx.parameters["ff_cutoff"]
        return parameters

    def _update_param_for_gcmc(self) -> dict[str, Any]:
        parameters: dict[str, Any] = super()._update_param_for_gcmc()
        parameters["System"]["framework_1"] |= {"Movies": True, "WriteMoviesEvery": self.ctx.parameters["movie_every"]}
        return parameters


def molecule_settings(name: str) -> orm.Dict:
    """Return what aiida-lsmo knows of a molecule, e.g. TraPPE for CO2.

    :raises ValueError: if it does not know it
    """
    from importlib.resources import files

    path = files("aiida_lsmo.workchains") / "isotherm_data" / "isotherm_molecules.yaml"
    known = YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    if name.lower() not in known:
        raise ValueError(f"there is no force field for {name}; known are {', '.join(sorted(known))}")
    return orm.Dict(known[name.lower()])
