"""What is taken for what, on scenes of a few boxes."""

import pytest
from scenes import BIKE, CAR, NAMES, feed, square

from frcnn.metrics import DetectionEvaluator
from frcnn.metrics.confusion import confusion


def counts(*, cuts=(0.5, 0.5), **scene):
    evaluator = DetectionEvaluator(NAMES)
    feed(evaluator, **scene)
    return [list(row) for row in confusion(evaluator._scenes(), cuts=cuts).counts]


def test_every_kind_of_outcome():
    found = counts(
        truths=[(square(0), CAR, False), (square(50), CAR, False), (square(100), BIKE, False)],
        detections=[
            (square(0), 0.9, CAR),  # right
            (square(1), 0.8, CAR),  # a duplicate: nothing is left for it
            (square(51), 0.7, BIKE),  # a car taken for a bike
            (square(200), 0.6, BIKE),  # background taken for a bike
            (square(100), 0.4, BIKE),  # below its class's score: the bike is missed
        ],
    )
    #          car bike background
    assert found == [[1, 1, 0], [0, 0, 1], [1, 1, 0]]


def test_a_detection_of_the_right_class_comes_first():
    detections = [(square(1), 0.9, BIKE), (square(0), 0.6, CAR)]
    found = counts(truths=[(square(0), CAR, False)], detections=detections)
    assert found == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_what_need_not_be_found_does_not_count():
    found = counts(
        truths=[(square(0), CAR, True), (square(100), BIKE, True)],
        areas=[(square(200), -1)],
        detections=[(square(0), 0.9, CAR), (square(200), 0.9, BIKE)],
    )
    assert found == [[0] * 3] * 3


def test_each_class_has_its_own_score():
    scene = {"truths": [], "detections": [(square(0), 0.6, CAR), (square(0), 0.6, BIKE)]}
    assert counts(cuts=(0.5, 0.7), **scene)[2] == [1, 0, 0]


def test_the_evaluation_cuts_at_the_best_f1():
    evaluator = DetectionEvaluator(NAMES)
    detections = [(square(0), 0.3, CAR), (square(90), 0.2, CAR), (square(50), 0.4, BIKE)]
    feed(evaluator, truths=[(square(0), CAR, False)], detections=detections)
    found = evaluator.compute().confusion
    assert found.cuts == (pytest.approx(0.3), 0.5)  # no bike was ever found: a half
    assert found.counts == ((1, 0, 0), (0, 0, 0), (0, 0, 0))
