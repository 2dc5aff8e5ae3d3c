"""Averages of a run of hybrid MD-GCMC from its time series, whichever engine made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.statistics import estimate_mean
from ..kernels.thermodynamics import isosteric_heats

__all__ = ["RunRecord", "summarise"]

_AVERAGES = (
    "mean_loading",
    "loading_error",
    "statistical_inefficiency",
    "equilibration_index",
    "effective_samples",
    "round_trips",
)


@dataclass(frozen=True)
class RunRecord:
    """What averages are made of.

    :param temperature: in K
    :param series: step, loading (of a mixture also loading_NAME), potential_energy (eV), temperature (K) and, where the
        cell changes, volume (Å³), from the very first step, shape (n,) each
    :param counts: what became of all trials, by kind of move
    :param components: by name of each kind of molecule its ``fugacity`` in Pa and its ``ideal_gas``: number, chemical
        potential, energy and energy_error, the energies None where nothing is known of them
    :param cell_pressure: in eV/Å³, what presses on a cell that changes; None where it does not
    """

    temperature: float
    series: Mapping[str, NDArray[Any]]
    counts: Mapping[str, Mapping[str, int]]
    components: Mapping[str, Mapping[str, Any]]
    cell_pressure: float | None = None


def summarise(record: RunRecord) -> dict[str, Any]:
    """Return averages over the equilibrated part of the whole run.

    The isosteric heat and the ideal gas of a single gas stand at the top, those of a mixture with its components.
    """
    results: dict[str, Any] = {
        "acceptance": {move: dict(counts) for move, counts in record.counts.items()},
        "model_holes": sum(counts["holes"] for counts in record.counts.values()),
    }
    components = _components(record)
    only = next(iter(components.values())) if len(components) == 1 else {}
    heat = {name: only.get(name) for name in ("isosteric_heat", "isosteric_heat_error", "ideal_gas")}
    results |= heat | {"components": components}
    arrays = record.series
    if len(arrays["loading"]) == 0:
        return results | dict.fromkeys(_AVERAGES) | {"mean_temperature": None, "too_short": True}
    kept = slice(estimate_mean(arrays["loading"]).equilibration_index, None)
    # Where everything is held and the pores are empty nothing moves, and the temperature of nothing is none.
    temperatures = arrays["temperature"][kept]
    moving = temperatures[temperatures > 0.0]
    results |= _loading(arrays["loading"]) | {"mean_temperature": float(moving.mean()) if len(moving) else None}
    if record.cell_pressure is None:
        return results
    volume = estimate_mean(arrays["volume"][kept], detect_equilibration=False)
    return results | {"mean_volume": volume.mean, "mean_volume_error": volume.error}


def _loading(series: NDArray[np.float64]) -> dict[str, Any]:
    loading = estimate_mean(series)
    averages = (
        loading.mean,
        loading.error,
        loading.statistical_inefficiency,
        loading.equilibration_index,
        loading.effective_samples,
        loading.round_trips,
    )
    return dict(zip(_AVERAGES, averages, strict=True)) | {"too_short": loading.too_short}


def _components(record: RunRecord) -> dict[str, dict[str, Any]]:
    """Fugacity, ideal gas, loading and isosteric heat of each kind of molecule, by its name."""
    components = {name: {**known, "isosteric_heat": None} for name, known in record.components.items()}
    arrays, names = record.series, list(components)
    if len(arrays["loading"]) == 0:
        return components
    loadings = [arrays[f"loading_{name}" if len(names) > 1 else "loading"] for name in names]
    kept = slice(estimate_mean(arrays["loading"]).equilibration_index, None)
    # Where the cell changes the heat is one of enthalpies.
    work = 0.0 if record.cell_pressure is None else record.cell_pressure * arrays["volume"]
    energies = [components[name]["ideal_gas"]["energy"] for name in names]
    heats = (
        None
        if None in energies
        else isosteric_heats(
            (arrays["potential_energy"] + work)[kept],
            np.stack(loadings, axis=1)[kept],
            record.temperature,
            energies,
        )
    )
    for index, name in enumerate(names):
        value, error = (None, None) if heats is None else heats[index]
        own = components[name]["ideal_gas"]["energy_error"]
        if error is not None and own is not None and np.isfinite(own):  # else that energy is exact, as of one atom
            error = float(np.hypot(error, own))
        components[name] |= _loading(loadings[index])
        components[name] |= {"isosteric_heat": value, "isosteric_heat_error": error}
    return components
