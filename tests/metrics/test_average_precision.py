"""Formulas of average precision on curves small enough to draw by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frcnn.metrics.average_precision import (
    OperatingPoint,
    area_under_envelope,
    best_f1_point,
    eleven_point_mean,
    precision_recall,
)


def curve(*correct: int, positives: int):
    return precision_recall(np.array(correct, dtype=bool), positives=positives)


def test_precision_and_recall_after_each_detection():
    precision, recall = curve(1, 0, 1, positives=4)
    assert precision.tolist() == [1, 1 / 2, 2 / 3]
    assert recall.tolist() == [1 / 4, 1 / 4, 2 / 4]


@pytest.mark.parametrize(
    ("correct", "positives", "area", "voc07"),
    [
        ([1, 1], 2, 1.0, 1.0),
        ([0, 0], 2, 0.0, 0.0),
        ([], 2, 0.0, 0.0),
        # found 1 of 2: precision 1 up to recall 0.5, which is 6 of the 11 levels
        ([1], 2, 0.5, 6 / 11),
        # precision 1, 1/2, 2/3; envelope 1 to recall 1/2, then 2/3 to recall 1
        ([1, 0, 1], 2, 1 / 2 + 1 / 2 * 2 / 3, (6 + 5 * 2 / 3) / 11),
        # precision 0, 1/2, 2/3: the envelope is 2/3 from the start
        ([0, 1, 1], 2, 2 / 3, 2 / 3),
    ],
)
def test_average_precision_by_hand(correct, positives, area, voc07):
    precision, recall = curve(*correct, positives=positives)
    assert area_under_envelope(precision, recall) == pytest.approx(area)
    assert eleven_point_mean(precision, recall) == pytest.approx(voc07)


def loop_area(precision, recall):
    """VOC 2010 as its development kit writes it: sentinels, envelope from the right, steps in recall."""
    r, p = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for i in reversed(range(len(p) - 1)):
        p[i] = max(p[i], p[i + 1])
    return sum((r[i + 1] - r[i]) * p[i + 1] for i in range(len(r) - 1))


def loop_voc07(precision, recall):
    levels = [k / 10 for k in range(11)]
    return (
        sum(max([p for p, r in zip(precision, recall, strict=True) if r >= t], default=0) for t in levels)
        / 11
    )


@given(st.lists(st.booleans(), max_size=30), st.integers(0, 5))
def test_average_precision_equals_the_plain_loops(correct, missed):
    precision, recall = curve(*correct, positives=max(sum(correct) + missed, 1))
    assert area_under_envelope(precision, recall) == pytest.approx(loop_area(precision, recall))
    assert eleven_point_mean(precision, recall) == pytest.approx(loop_voc07(precision, recall))


@pytest.mark.parametrize("found", range(11))
def test_a_recall_of_k_tenths_reaches_level_k(found):
    precision, recall = curve(*[1] * found, positives=10)
    assert eleven_point_mean(precision, recall) == pytest.approx((found + 1) / 11 if found else 0)


def test_best_f1_is_the_best_cut():
    precision, recall = curve(1, 1, 0, 0, 1, positives=3)
    # F1 = 2 tp / (detections + positives): 1/2, 4/5, 4/6, 4/7, 6/8
    assert best_f1_point(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), precision, recall) == OperatingPoint(
        0.8, 1.0, pytest.approx(2 / 3)
    )


def test_best_f1_never_cuts_through_equal_scores():
    precision, recall = curve(1, 0, 0, positives=1)
    # the first alone would be perfect, but nobody can keep one of two detections that both score 0.9
    assert best_f1_point(np.array([0.9, 0.9, 0.1]), precision, recall).precision == 0.5


def test_best_f1_is_undefined_without_a_hit():
    nothing = np.zeros(0)
    assert best_f1_point(nothing, nothing, nothing) is None
    assert best_f1_point(np.array([0.9]), *curve(0, positives=1)) is None
