"""Images that came out best and worst, counted by hand."""

import pytest
from scenes import BIKE, CAR, NAMES, feed, square

from frcnn.metrics import DetectionEvaluator
from frcnn.metrics.outcomes import SHOWN


def fed(evaluator):
    """Images where none, one and three of the detections that count are no object or objects missed."""
    objects = [(square(0), CAR, False), (square(100), CAR, False)]
    feed(evaluator, name="fine", truths=objects, detections=[(square(x), 0.9, CAR) for x in (0, 100)])
    feed(evaluator, name="less", truths=objects[:1], detections=[(square(0), 0.9, CAR)])
    feed(evaluator, name="missed", truths=objects, detections=[(square(0), 0.9, CAR)])
    wrong = [(square(0), 0.9, CAR), (square(1), 0.8, CAR), (square(50), 0.8, CAR), (square(70), 0.1, CAR)]
    feed(evaluator, name="wrong", truths=objects, detections=wrong)
    feed(evaluator, name="nothing", truths=[(square(50), BIKE, True)], areas=[(square(0), -1)])
    return evaluator.compute()


@pytest.mark.parametrize("quirks", [False, True])
def test_images_by_what_went_wrong(quirks):
    found = fed(DetectionEvaluator(NAMES, tao_quirks=quirks, batch=4))
    assert found.confusion.cuts[CAR] == pytest.approx(0.9)
    counts = {o.image: (o.right, o.wrong, o.missed) for o in (*found.worst_images, *found.best_images)}
    # From 0.9 on: the duplicate and the one beside do not count, so "wrong" misses one object like "missed".
    assert [o.image for o in found.worst_images] == ["missed", "wrong"]
    assert [o.image for o in found.best_images] == ["fine", "less"]
    assert counts == {"missed": (1, 0, 1), "wrong": (1, 0, 1), "fine": (2, 0, 0), "less": (1, 0, 0)}


def test_detections_of_nothing_and_duplicates_are_wrong():
    evaluator = DetectionEvaluator(NAMES)
    scores = {0: 0.9, 1: 0.8, 50: 0.8, 100: 0.7, 200: 0.7}  # right, duplicate, nothing there, right, right
    detections = [(square(x), score, CAR) for x, score in scores.items()]
    feed(evaluator, truths=[(square(x), CAR, False) for x in (0, 100, 200)], detections=detections)
    (worst,) = evaluator.compute().worst_images
    assert (worst.right, worst.wrong, worst.missed) == (3, 2, 0)  # F1 is best at 0.7
    assert len(worst.record.scores) == 5


def test_what_need_not_be_found_is_neither():
    evaluator = DetectionEvaluator(NAMES)
    found = [(square(0), 0.9, CAR), (square(200), 0.9, CAR)]
    feed(evaluator, truths=[(square(0), CAR, True)], areas=[(square(200), -1)], detections=found)
    result = evaluator.compute()
    assert (result.best_images, result.worst_images) == ((), ())


def test_a_few_of_many():
    evaluator = DetectionEvaluator(NAMES)
    for number in range(20):
        missed = [(square(100 * i + 100), CAR, False) for i in range(number % 10)]
        truths = [(square(0), CAR, False), *missed]
        feed(evaluator, name=f"{number:02d}", truths=truths, detections=[(square(0), 0.9, CAR)])
    result = evaluator.compute()
    assert [o.missed for o in result.worst_images] == [9, 9, 8, 8, 7, 7][:SHOWN]
    assert [o.image for o in result.best_images] == ["00", "10", "01", "11", "02", "12"][:SHOWN]
