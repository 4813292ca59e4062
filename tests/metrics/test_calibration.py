"""Reliability of scores by hand."""

import numpy as np
import pytest

from frcnn.metrics.calibration import calibration


def test_bins_by_hand():
    score = np.array([0.95, 0.91, 0.55, 1.0, 0.51, 0.04])
    right = np.array([True, True, True, False, False, True])
    found = calibration(score, right)
    # 0.51 and 0.55: mean 0.53, half right. 0.91, 0.95 and 1.0: mean 0.953, two thirds right. 0.04: not counted.
    assert found.detections == (2, 3)
    assert found.score == (pytest.approx(0.53), pytest.approx(2.86 / 3))
    assert found.precision == (0.5, pytest.approx(2 / 3))
    assert found.error == pytest.approx((2 * 0.03 + 3 * (2.86 / 3 - 2 / 3)) / 5)


def test_scores_that_mean_what_they_say_have_no_error():
    score = np.repeat([0.25, 0.75], 400)
    right = np.arange(800) % 4 < np.repeat([1, 3], 400)
    assert calibration(score, right).error == pytest.approx(0)


def test_without_a_detection_it_is_undefined():
    assert calibration(np.zeros(0), np.zeros(0, bool)) is None
    assert calibration(np.array([0.01]), np.array([False])) is None
