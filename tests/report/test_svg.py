"""The writer of charts puts values where they belong."""

from __future__ import annotations

import re

import numpy as np
import pytest

from aiida_mofmace.report.figures import _hexagons, learning_curve_figure
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


def test_a_deviation_stands_over_the_labels_of_the_committee_that_had_it() -> None:
    """A round tells what the committee before it met: with 10 labels 0.2 eV/Å, with 20 labels 0.1."""
    values = ((10, 50.0, None), (20, 40.0, 0.2), (30, 30.0, 0.1))
    names = ("n_train", "force_mae_mev_per_ang", "sigma_max_mean")
    picture = learning_curve_figure(
        [{"round": number, **dict(zip(names, row, strict=True))} for number, row in enumerate(values)]
    )
    found = re.findall(r"round (\d): ([\d.]+) meV/Å with (\d+) configurations", picture)
    errors, deviations = found[:3], found[3:]
    assert errors == [("0", "50.0", "10"), ("1", "40.0", "20"), ("2", "30.0", "30")]
    assert deviations == [("0", "200.0", "10"), ("1", "100.0", "20")]


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
