"""From trajectories to structural units: small steps that must stand in the provenance graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from aiida import orm
from aiida.engine import calcfunction

from aiida_mofmace.data.frames import FramesData
from aiida_mofmace.worker.kernels.sites import SiteDefinition
from aiida_mofmace.worker.kernels.structural_units import classify_trajectory

__all__ = ["find_structural_units", "tabulate_units", "validate_sites"]


def validate_sites(sites: orm.Dict | None, _: Any) -> str | None:
    """Refuse a definition of sites that is not complete or cannot be right."""
    if sites is not None:
        try:
            SiteDefinition.from_dict(sites.get_dict())
        except (ValueError, TypeError) as error:
            return str(error)
    return None


@calcfunction
def find_structural_units(trajectory: FramesData, sites: orm.Dict) -> dict[str, orm.Data]:
    """Return orientations and structural units of the hydroxyl groups over a trajectory.

    :param trajectory: of one framework, whatever its loading
    :param sites: definition, see :class:`~aiida_mofmace.worker.kernels.sites.SiteDefinition`
    :return: ``fractions`` (orientation and units, each with mean and error; sequences, flips, loadings) and ``series``:
        steps (n,), alpha_histogram (36,) of 5 degrees each, and for each unit and range of alpha its fraction (n,)
    :raises ValueError: if the framework is another
    """
    frames = trajectory.get_frames()
    found = classify_trajectory(frames, SiteDefinition.from_dict(sites.get_dict()))
    series = orm.ArrayData()
    series.set_array("steps", np.asarray(found.steps))
    series.set_array("alpha_histogram", found.histogram())
    for name, values in {**found.fractions(), **found.units()}.items():
        series.set_array(name, values)
    loadings = sorted({int(loading) for loading in frames.loadings})
    fractions = found.summary() | {"loadings": loadings, "groups": trajectory.groups}
    return {"fractions": orm.Dict(fractions), "series": series}


@calcfunction
def tabulate_units(runs: orm.Dict, **fractions: orm.Dict) -> orm.Dict:
    """Return one row for each run: temperature (K), loading, orientation and units with mean and error.

    :param runs: temperature and loading by name of the run
    :param fractions: of :func:`find_structural_units`, by name of the run
    """
    rows = []
    for name in sorted(fractions, key=lambda name: (runs[name]["loading"], runs[name]["temperature"])):
        content = fractions[name].get_dict()
        kept = {key: content[key] for key in ("n_frames", "flips", "orientation", "units")}
        rows.append({"run": name, **runs[name], **kept})
    return orm.Dict({"rows": rows})
