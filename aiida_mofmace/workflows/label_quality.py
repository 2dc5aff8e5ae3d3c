"""The sanity filter: which labels are kept as nodes but are not to be trained on, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from statistics import median
from typing import Any

from aiida import orm
from aiida.engine import calcfunction

from aiida_mofmace.data.label import DftLabelData

__all__ = ["BOUNDS", "check_labels", "judge_labels", "names_left_out", "quality_bounds"]

#: Keys of a protocol's section ``labels`` that the filter reads, and their units.
BOUNDS = {"max_force": "eV/Å", "max_energy_deviation": "eV/atom", "minimum_distance": "Å"}
_INCLUDE = "include_flagged"
#: With fewer labels of one composition a median says nothing of what is usual.
_SMALLEST_GROUP = 3


def quality_bounds(section: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the filter needs of a protocol's section ``labels``."""
    return {key: section[key] for key in (*BOUNDS, _INCLUDE)}


@calcfunction
def check_labels(bounds: orm.Dict, **labels: Any) -> orm.Dict:
    """Return the labels outside of the bounds, by name, with reasons; see :func:`judge_labels`.

    :param bounds: from :func:`quality_bounds`
    :param labels: namespace ``labels``, the labels by name
    :return: by name: ``label`` (UUID), ``reasons``, and ``left_out``, whether it stays out of datasets
    """
    content = bounds.get_dict()
    reasons = judge_labels(labels["labels"], content)
    left_out = not content.get(_INCLUDE, False)
    return orm.Dict(
        {
            name: {"label": labels["labels"][name].uuid, "reasons": found, "left_out": left_out}
            for name, found in sorted(reasons.items())
        }
    )


def judge_labels(labels: Mapping[str, DftLabelData], bounds: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return why labels are outside of the bounds; one that is inside is not named.

    An energy is an outlier if, per atom, it is further from the median of the labels of the same composition than the
    bound; of a composition with fewer than three labels none is. The median is not moved by the outliers themselves.

    :param labels: labels by name
    :param bounds: max_force in eV/Å, max_energy_deviation in eV/atom, minimum_distance in Å; a missing one is no bound
    """
    reasons: dict[str, list[str]] = defaultdict(list)
    groups: dict[str, dict[str, float]] = defaultdict(dict)
    for name, label in labels.items():
        groups[label.formula][name] = label.energy / label.n_atoms
        most, least = bounds.get("max_force"), bounds.get("minimum_distance")
        if most is not None and label.max_force > most:
            reasons[name].append(f"a force of {label.max_force:.2f} eV/Å is above {most:g} eV/Å")
        distance = label.minimum_distance if least is not None else None
        if least is not None and distance is not None and distance < least:
            reasons[name].append(f"two atoms are {distance:.3f} Å apart, nearer than {least:g} Å")
    for name, message in _energy_outliers(groups, bounds.get("max_energy_deviation")):
        reasons[name].append(message)
    return dict(reasons)


def _energy_outliers(groups: Mapping[str, Mapping[str, float]], bound: float | None) -> list[tuple[str, str]]:
    """Return name and message of each energy far from those of the same composition.

    :param groups: energy per atom in eV by name, by composition
    :param bound: in eV/atom; None for none
    """
    found = []
    for formula, energies in groups.items():
        if bound is None or len(energies) < _SMALLEST_GROUP:
            continue
        middle = median(energies.values())
        for name, energy in energies.items():
            if abs(energy - middle) > bound:
                message = f"the energy is {energy - middle:+.3f} eV/atom from the median of {formula}, bound {bound:g}"
                found.append((name, message))
    return found


def names_left_out(flagged: orm.Dict | None) -> set[str]:
    """Return the names of the labels that stay out of datasets.

    :param flagged: from :func:`check_labels`
    """
    return set() if flagged is None else {name for name, row in flagged.get_dict().items() if row["left_out"]}
