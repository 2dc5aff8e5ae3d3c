"""The writer of charts puts values where they belong."""

from __future__ import annotations

import numpy as np
import pytest

from aiida_mofmace.report.figures import _hexagons
from aiida_mofmace.report.svg import Axis, limits, number


def test_linear_axis() -> None:
    axis = Axis(0.0, 10.0, first_pixel=100.0, last_pixel=300.0)
    assert axis.at(0.0) == 100.0
    assert axis.at(2.5) == pytest.approx(150.0)
    assert axis.ticks() == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]


def test_logarithmic_axis() -> None:
    axis = Axis(0.01, 100.0, log=True, first_pixel=0.0, last_pixel=400.0)
    assert axis.at(1.0) == pytest.approx(200.0)
    assert axis.at(0.1) == pytest.approx(100.0)
    assert axis.ticks() == pytest.approx([0.01, 0.1, 1.0, 10.0, 100.0])
    assert Axis(0.02, 1.0, log=True).ticks() == pytest.approx([0.02, 0.05, 0.1, 0.2, 0.5, 1.0])


def test_logarithmic_axis_needs_positive_values() -> None:
    with pytest.raises(ValueError, match="cannot begin at 0"):
        Axis(0.0, 1.0, log=True)


def test_ticks_of_counts_are_whole() -> None:
    assert Axis(0.0, 4.2, whole=True).ticks(2) == [0.0, 3.0]
    assert Axis(0.0, 1.1, whole=True).ticks(2) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.02, "0.02"), (-5.0, "\N{MINUS SIGN}5"), (1500.0, "1500"), (0.0125, "0.0125"), (2e7, "2e+07")],
)
def test_tick_labels(value: float, text: str) -> None:
    assert number(value) == text


def test_limits_leave_out_what_is_not_finite() -> None:
    assert limits([1.0, np.nan, 3.0, np.inf], 0.0) == (1.0, 3.0)
    with pytest.raises(ValueError, match="no finite value"):
        limits([np.nan])


def test_hexagons_hold_every_point_once_and_near() -> None:
    points = np.random.default_rng(3).normal(scale=40.0, size=(2, 5000))
    cells = _hexagons(points[0], points[1], radius=6.0)
    assert sum(count for _, _, count, _ in cells) == 5000
    centres = np.array([cell[:2] for cell in cells])
    nearest = np.sqrt(np.square(points.T[:, None, :] - centres[None]).sum(axis=-1)).min(axis=1)
    # No point is farther from its centre than a corner is, and neighbouring centres are sqrt(3) radii apart.
    assert nearest.max() <= 6.0 + 1e-6
    gaps = np.sqrt(np.square(centres[:, None] - centres[None]).sum(axis=-1))
    assert gaps[gaps > 0].min() == pytest.approx(6.0 * np.sqrt(3.0), abs=1e-2)
    assert {level for *_, level in cells} <= {1, 2, 3, 4, 5}
