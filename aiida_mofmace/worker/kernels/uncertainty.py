"""Committee disagreement: where several models of equal right differ, none of them can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Calibration", "WindowCounts", "calibrate", "committee_deviation", "frame_maxima", "in_window"]

Floats = NDArray[np.floating[Any]]

_COVERAGES = 1000  # points at which observed and expected coverage are compared


def committee_deviation(forces: Floats) -> NDArray[np.float64]:
    """Force deviation of each atom over a committee (Jin et al., Chem. Sci. 2026, eq. 1, before the maximum).

    ``sqrt((1 / N) * sum_n |F_n,i - mean(F_i)|^2)`` with the norm of the force vector.

    :param forces: shape (n_models, n_atoms, 3) in eV/Å
    :return: shape (n_atoms,) in eV/Å
    """
    values = np.asarray(forces, dtype=np.float64)
    differences = values - values.mean(axis=0)
    return np.asarray(np.sqrt((differences**2).sum(axis=2).mean(axis=0)))


def frame_maxima(per_atom: NDArray[np.float64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Maximum over the atoms of each frame: eq. 1 for the committee deviation.

    :param per_atom: shape (total_atoms,)
    :param offsets: first atom of each frame and the total, shape (n_frames + 1,)
    :return: shape (n_frames,)
    """
    if len(offsets) < 2:
        return np.zeros(0)
    return np.asarray(np.maximum.reduceat(per_atom, offsets[:-1]))


@dataclass(frozen=True)
class WindowCounts:
    """Number of frames below, inside and above a window."""

    below: int
    inside: int
    above: int


def in_window(sigma_max: NDArray[np.float64], window: tuple[float, float]) -> tuple[NDArray[np.bool_], WindowCounts]:
    """Frames worth labelling: uncertain enough to teach something, not so wild that they are artefacts.

    :param sigma_max: shape (n_frames,) in eV/Å
    :param window: lower and upper bound in eV/Å, both inside
    :return: mask of the frames inside, shape (n_frames,), and the counts
    """
    low, high = window
    inside = (sigma_max >= low) & (sigma_max <= high)
    counts = WindowCounts(int((sigma_max < low).sum()), int(inside.sum()), int((sigma_max > high).sum()))
    return inside, counts


@dataclass(frozen=True)
class Calibration:
    """How far the committee's deviation tells its real error.

    :param correlation: Pearson's r of deviation and error of the committee's mean force, over the atoms; None if flat
    :param ratio: root mean square error over root mean square deviation; above 1 the committee is overconfident
    :param slope: of the least-squares line through the origin of error over deviation
    :param miscalibration: area between the observed and the expected share of force components within each central
        interval, with the deviation taken for the standard deviation of a normal error; 0 is perfect, 0.5 the worst
        (Tran et al., Mach. Learn.: Sci. Technol. 2020, 1, 025006, "miscalibration area")
    """

    correlation: float | None
    ratio: float | None
    slope: float | None
    miscalibration: float | None


def calibrate(forces: Floats, reference: NDArray[np.float64]) -> Calibration:
    """Compare the committee's deviation with its error; of forces that are no numbers nothing is known.

    :param forces: shape (n_models, n_atoms, 3) in eV/Å
    :param reference: shape (n_atoms, 3) in eV/Å
    """
    deviation = committee_deviation(forces)
    differences = np.asarray(forces, dtype=np.float64).mean(axis=0) - reference
    error = np.linalg.norm(differences, axis=1)
    spread = float((deviation**2).mean())
    if spread == 0.0 or not np.isfinite(spread + error.sum()):
        return Calibration(None, None, None, None)
    flat = len(error) < 2 or np.ptp(deviation) == 0.0 or np.ptp(error) == 0.0
    return Calibration(
        correlation=None if flat else float(np.corrcoef(deviation, error)[0, 1]),
        ratio=float(np.sqrt((error**2).mean() / spread)),
        slope=float((deviation * error).mean() / spread),
        miscalibration=_miscalibration(differences, deviation),
    )


def _miscalibration(differences: NDArray[np.float64], deviation: NDArray[np.float64]) -> float:
    """Miscalibration area of force components.

    :param differences: predicted minus reference forces in eV/Å, shape (n_atoms, 3)
    :param deviation: of the force vector of each atom in eV/Å, shape (n_atoms,)
    """
    scale = np.maximum(deviation[:, None] / np.sqrt(3.0), np.finfo(np.float64).tiny)  # of one of three components
    distances = np.sort((np.abs(differences) / scale).ravel())
    expected = (np.arange(_COVERAGES) + 0.5) / _COVERAGES
    bounds = [NormalDist().inv_cdf((1.0 + coverage) / 2.0) for coverage in expected]
    observed = np.searchsorted(distances, bounds, side="right") / len(distances)
    return float(np.abs(observed - expected).mean())
