"""From CP2K's output file to charges."""

from __future__ import annotations

import io
import math
import re

from aiida import orm
from aiida.engine import ExitCode

from aiida_mofmace.data.charged_cif import charged_cif

from .cp2k_label import Cp2kLabelParser

__all__ = ["Cp2kChargesParser", "parse_resp_charges"]

_ROW = re.compile(r"^\s+RESP\s+(\d+)\s+([A-Za-z]+)\S*\s+(\S+)$", re.MULTILINE)


def parse_resp_charges(text: str) -> tuple[list[str], list[float]]:
    """Return elements and charges (e) of the last fit in CP2K's standard output; empty if there is none.

    :param text: standard output of one run, complete or not
    """
    table = text.rpartition(" RESP charges:")[2] if " RESP charges:" in text else ""
    rows = sorted((int(index), symbol, charge) for index, symbol, charge in _ROW.findall(table))
    return [symbol for _, symbol, _ in rows], [float(charge) for _, _, charge in rows]


class Cp2kChargesParser(Cp2kLabelParser):
    """Attach charges and a CIF besides the label of the same single point."""

    def examine(self) -> ExitCode | None:
        """Attach everything of a run that converged."""
        problem = super().examine()
        if problem is not None:
            return problem
        name = str(self.node.get_option("output_filename"))
        text = self.retrieved.base.repository.get_object_content(name, mode="rb").decode(errors="replace")
        symbols, charges = parse_resp_charges(text)
        structure = self.node.inputs.structure
        wanted = [structure.get_kind(site.kind_name).symbol for site in structure.sites]
        if [symbol.capitalize() for symbol in symbols] != wanted or not all(map(math.isfinite, charges)):
            message = f"{len(charges)} charges for {len(wanted)} atoms, or those of other elements"
            return self.failure("ERROR_CHARGES_MISSING", message=message)
        self.out("charges", orm.List(charges))
        content = charged_cif(structure, charges, structure.get_formula(mode="hill"))
        self.out("cif", orm.CifData(file=io.BytesIO(content.encode()), filename="charged.cif", parse_policy="lazy"))
        return None
