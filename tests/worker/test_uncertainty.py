from __future__ import annotations

import numpy as np
import pytest

from aiida_mofmace.worker.kernels.uncertainty import (
    Calibration,
    calibrate,
    committee_deviation,
    frame_maxima,
    in_window,
)


def test_equation_one_by_hand() -> None:
    # atom 0: forces (1,0,0) and (3,0,0): mean (2,0,0), sqrt((1 + 1) / 2) = 1
    # atom 1: forces (0,0,0) and (0,6,8): mean (0,3,4), sqrt((25 + 25) / 2) = 5
    # atom 2: equal forces: 0
    forces = np.array([[[1, 0, 0], [0, 0, 0], [7, 7, 7]], [[3, 0, 0], [0, 6, 8], [7, 7, 7]]], dtype=np.float32)
    deviation = committee_deviation(forces)
    assert deviation.tolist() == [1.0, 5.0, 0.0]
    assert frame_maxima(deviation, np.array([0, 1, 3])).tolist() == [1.0, 5.0]
    assert frame_maxima(np.zeros(0), np.array([0])).tolist() == []


def test_deviation_of_four_models_divides_by_the_number_of_models() -> None:
    forces = np.zeros((4, 1, 3))
    forces[:, 0, 2] = [0.0, 0.0, 0.0, 4.0]
    # mean 1; sqrt((1 + 1 + 1 + 9) / 4) = sqrt(3)
    assert committee_deviation(forces)[0] == pytest.approx(np.sqrt(3.0))


def test_window_includes_its_bounds() -> None:
    mask, counts = in_window(np.array([0.05, 0.06, 0.1, 0.24, 0.25]), (0.06, 0.24))
    assert mask.tolist() == [False, True, True, True, False]
    assert (counts.below, counts.inside, counts.above) == (1, 3, 1)


def test_calibration_recovers_a_known_overconfidence() -> None:
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.1, 1.0, size=(1, 4000, 1))
    forces = scale * rng.normal(size=(4, 4000, 3))
    honest = calibrate(forces, np.zeros((4000, 3)))
    # the mean of 4 draws has variance 1/4, the deviation about it 3/4: sqrt(1/3)
    assert honest.ratio == pytest.approx(np.sqrt(1 / 3), rel=0.05)
    assert honest.correlation is not None
    assert honest.correlation > 0.3
    reference = 5.0 * scale[0] * rng.normal(size=(4000, 3))
    overconfident = calibrate(forces, reference)
    assert overconfident.ratio == pytest.approx(np.sqrt(25.25 / 0.75), rel=0.05)


def test_calibration_of_one_model_has_no_figure() -> None:
    single = calibrate(np.ones((1, 5, 3)), np.zeros((5, 3)))
    assert (single.correlation, single.ratio, single.slope, single.miscalibration) == (None, None, None, None)


def test_miscalibration_is_small_for_an_honest_committee_and_large_for_a_sure_one() -> None:
    rng = np.random.default_rng(1)
    forces = rng.normal(size=(400, 1000, 3))
    # With many members the deviation is sqrt(3), the length of a standard deviation of 1 in each direction.
    honest = calibrate(forces, rng.normal(size=(1000, 3)))
    assert honest.miscalibration == pytest.approx(0.0, abs=0.02)
    sure = calibrate(forces, 1000.0 * rng.normal(size=(1000, 3)))
    assert sure.miscalibration == pytest.approx(0.5, abs=0.01)
    assert sure.slope == pytest.approx(1000 * np.sqrt(8 / np.pi) / np.sqrt(3), rel=0.05)


def test_nothing_is_said_of_forces_that_are_no_numbers() -> None:
    """One frame that a model explodes at must not end a work chain."""
    forces = np.random.default_rng(3).normal(size=(4, 20, 3))
    reference = forces.mean(axis=0) + 0.1
    assert calibrate(forces, reference).ratio is not None
    forces[1, 7, 2] = np.nan
    assert calibrate(forces, reference) == Calibration(None, None, None, None)
