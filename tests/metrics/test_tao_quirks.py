"""The original's matching and averaging: its conventions one by one, and a plain loop that follows the facts.

Facts: eval-prune-export 2.2 to 2.5. A box of 10 inclusive pixels reaches from x to x + 9.
"""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import BIKE, CAR, NAMES, feed, square

from frcnn.metrics import DetectionEvaluator


def both(*, iou=(0.5,), voc07=False, batch=1, **scene):
    """The evaluation of a scene by our rules and by the original's."""
    for quirks in (False, True):
        evaluator = DetectionEvaluator(NAMES, iou_thresholds=iou, voc07=voc07, tao_quirks=quirks, batch=batch)
        feed(evaluator, **scene)
        yield evaluator.compute()


def test_iou_counts_inclusive_whole_pixels():
    # truth 0..9 and detection 3.9..12.9, truncated to 3..12: 70 shared pixels of 130, IoU 0.538
    # as they are, 9 wide and shifted by 3.9: 5.1 / 12.9 = 0.395
    truths, detections = [(square(0, 9.0), CAR, False)], [(square(3.9, 9.0), 0.9, CAR)]
    ours, original = both(truths=truths, detections=detections)
    assert (ours.per_class["car"].AP, original.per_class["car"].AP) == (0.0, 1.0)


def test_objects_are_rounded_and_detections_truncated():
    # the object becomes 1..10, the detection 0..9: 90 of 110 shared; both truncated or rounded they are equal
    scene = {"truths": [(square(0.6, 9.0), CAR, False)], "detections": [(square(0.6, 9.0), 0.9, CAR)]}
    assert [r.mAP for r in both(**scene, iou=(0.82,))] == [1.0, 0.0]
    # rows overlap fully, columns 9 of 11: 0.818
    assert [r.per_class["car"].AP for r in both(**scene, iou=(0.818,))] == [1.0, 1.0]


def test_the_union_has_a_millionth_more():
    scene = {"truths": [(square(0, 9.0), CAR, False)], "detections": [(square(0, 9.0), 0.9, CAR)]}
    assert [r.per_class["car"].AP for r in both(**scene, iou=(1.0,))] == [1.0, 0.0]


def test_a_detection_takes_the_best_object_free_or_not():
    # the second prefers the first object, which is taken; ours falls back to the other one
    truths = [(square(0, 9.0), CAR, False), (square(4, 9.0), CAR, False)]
    detections = [(square(0, 9.0), 0.9, CAR), (square(1, 9.0), 0.8, CAR)]
    ours, original = both(truths=truths, detections=detections)
    assert ours.per_class["car"].recall == 1.0
    assert (original.per_class["car"].recall, original.per_class["car"].precision) == (0.5, 0.5)


def test_a_difficult_object_discards_even_what_could_have_another():
    truths = [(square(0, 9.0), CAR, True), (square(2, 9.0), CAR, False)]
    ours, original = both(truths=truths, detections=[(square(0, 9.0), 0.9, CAR)])
    assert (ours.per_class["car"].recall, ours.per_class["car"].ignored) == (1.0, 0)
    car = original.per_class["car"]
    assert (car.AP, car.recall, car.precision, car.ignored) == (0.0, 0.0, 0.0, 1)


@pytest.mark.parametrize(
    ("voc07", "expected"),
    # by score: right, duplicate, right, wrong; of 4 objects, one difficult: precision 1, 1/2, 2/3, 1/2 at
    # recall 1/3, 1/3, 2/3, 2/3. Area: 1/3 * 1 + 1/3 * 2/3. 11 points: 4 levels of 1 up to 0.3, 3 of 2/3.
    [(False, 1 / 3 + 2 / 9), (True, (4 + 3 * 2 / 3) / 11)],
)
def test_average_precision_by_hand(voc07, expected):
    truths = [(square(x, 9.0), CAR, x == 90) for x in (0, 30, 60, 90)]
    detections = [
        (square(0, 9.0), 0.9, CAR),
        (square(0, 9.0), 0.8, CAR),
        (square(30, 9.0), 0.7, CAR),
        (square(90, 9.0), 0.65, CAR),  # on the difficult one: discarded
        (square(200, 9.0), 0.6, CAR),
    ]
    _, original = both(truths=truths, detections=detections, voc07=voc07)
    car = original.per_class["car"]
    assert pytest.approx(expected) == car.AP
    assert (car.precision, car.recall) == (0.5, pytest.approx(2 / 3))
    assert (car.ground_truth, car.difficult, car.ignored) == (3, 1, 1)


def test_a_class_that_was_only_detected_counts_as_zero():
    detections = [(square(0), 0.9, CAR), (square(0), 0.8, BIKE)]
    ours, original = both(truths=[(square(0), CAR, False)], detections=detections)
    assert (ours.mAP, original.mAP) == (1.0, 0.5)
    assert (original.per_class["bike"].AP, original.per_class["bike"].recall) == (0.0, 0.0)


def test_the_first_class_always_counts():
    ours, original = both(truths=[(square(0), BIKE, False)], detections=[(square(0), 0.9, BIKE)])
    assert (ours.mAP, original.mAP) == (1.0, 0.5)  # empty slots bear the id of the first class
    ours, original = both(truths=[(square(0), CAR, False)], detections=[(square(0), 0.9, CAR)])
    assert (ours.mAP, original.mAP) == (1.0, 1.0)  # there is no trace of a bike


def test_the_last_batch_is_filled_with_the_first_images():
    evaluator = DetectionEvaluator(NAMES, tao_quirks=True, batch=2)
    for name, found in (("z", True), ("b", False), ("a", False)):
        detections = [(square(0), 0.9, CAR)] if found else []
        feed(evaluator, name=name, truths=[(square(0), CAR, False)], detections=detections)
    car = evaluator.compute().per_class["car"]
    # 3 images make 2 batches of 2: the first that came counts twice
    assert (car.ground_truth, car.detections, car.recall) == (4, 2, 0.5)


def test_rpn_recall_is_that_of_rounded_objects():
    # As it is, 0.4..9.4, it shares 9.6 * 4.8 pixels with a proposal of 10 * 5.2: 46.08 of 105.92, IoU 0.435.
    # Rounded to 0..9 it holds all of them: 52 of 100.
    scene = {"truths": [([0.4, 0.4, 9.4, 9.4], CAR, False)], "proposals": [[0.0, 0.0, 9.0, 4.2]]}
    assert [found.per_class["car"].rpn_recall for found in both(**scene)] == [0.0, 1.0]
    # 0.6..1.4 becomes 1..1, which is no object at all
    ours, original = both(truths=[([0.6, 0.0, 1.4, 10.0], CAR, False)], proposals=[[0.0, 0.0, 1.4, 10.0]])
    assert (ours.per_class["car"].rpn_recall, original.per_class["car"].rpn_recall) == (1.0, None)


def test_areas_to_ignore_are_unknown():
    scene = {"areas": [(square(100), -1)], "detections": [(square(100), 0.9, CAR), (square(0), 0.8, CAR)]}
    ours, original = both(truths=[(square(0), CAR, False)], **scene)
    assert (ours.per_class["car"].AP, original.per_class["car"].AP) == (1.0, 0.5)


def test_boxes_end_within_the_image_and_what_vanishes_does_not_count():
    evaluator = DetectionEvaluator(NAMES, tao_quirks=True)
    evaluator.update(
        boxes=torch.tensor([[[90.0, 0, 100, 50]]]),
        scores=torch.tensor([[0.9]]),
        labels=torch.tensor([[CAR]]),
        gt_boxes=torch.tensor([[[90.0, 0, 100, 50], [99.2, 0, 100, 50]]]),  # 99..99 is no box
        gt_labels=torch.tensor([[CAR, CAR]]),
        gt_difficult=torch.zeros(1, 2, dtype=torch.bool),
        ids=["a"],
        sizes=torch.tensor([[50.0, 100.0]]),
    )
    car = evaluator.compute().per_class["car"]
    assert (car.AP, car.ground_truth) == (1.0, 1)


def original_figures(batch, class_id, threshold, voc07):
    """AP, precision and recall as the facts tell it, one detection at a time; None if the class is left out."""
    entries = []
    for i in range(len(batch["ids"])):
        slots = np.argsort(batch["scores"][i].numpy(), kind="stable")[::-1]
        truths = [
            [int(np.rint(v)) for v in batch["gt_boxes"][i][g].tolist()]
            + [bool(batch["gt_difficult"][i][g]), False]
            for g in range(len(batch["gt_labels"][i]))
            if batch["gt_labels"][i][g] == class_id
        ]
        truths = [t for t in truths if t[0] < t[2] and t[1] < t[3]]
        for s in slots:
            if batch["labels"][i][s] != class_id:
                continue
            x1, y1, x2, y2 = (math.trunc(v) for v in batch["boxes"][i][s].tolist())
            best, partner = -1.0, None
            for truth in truths:
                width = min(x2, truth[2]) - max(x1, truth[0]) + 1
                height = min(y2, truth[3]) - max(y1, truth[1]) + 1
                shared = max(width, 0) * max(height, 0) if x1 < x2 and y1 < y2 else 0
                areas = (x2 - x1 + 1) * (y2 - y1 + 1) + (truth[2] - truth[0] + 1) * (truth[3] - truth[1] + 1)
                iou = shared / (areas - shared + 1e-6)
                if iou > best:
                    best, partner = iou, truth
            score = float(batch["scores"][i][s])
            if partner is None or best < threshold:
                entries.append((score, 0))
            elif partner[4]:
                continue
            else:
                entries.append((score, int(not partner[5])))
                partner[5] = True
        entries += [(0.0, 1) for t in truths if not t[4] and not t[5]]
    if not entries and class_id != 0:
        return None
    entries.sort(key=lambda entry: -entry[0])
    positives = sum(right for _, right in entries)
    tp = fp = 0
    precision, recall = [], []
    for score, right in entries:
        tp, fp = tp + (right and score > 0), fp + (not right and score > 0)
        precision.append(tp / (tp + fp) if tp + fp else 0.0)
        recall.append(tp / positives if positives else 0.0)
    if voc07:
        levels = [
            max([p for p, r in zip(precision, recall, strict=True) if r >= k / 10], default=0)
            for k in range(11)
        ]
        average = sum(levels) / 11
    else:
        r, p = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
        for j in reversed(range(len(p) - 1)):
            p[j] = max(p[j], p[j + 1])
        average = sum((r[j + 1] - r[j]) * p[j + 1] for j in range(len(r) - 1))
    return average, precision[-1] if precision else 0.0, recall[-1] if recall else 0.0


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.booleans())
def test_equals_a_plain_loop(seed, images, voc07):
    rng = np.random.default_rng(seed)

    def boxes(count):
        corner = rng.integers(0, 12, (images, count, 2)) * 2 + rng.random((images, count, 2))
        return torch.tensor(np.concatenate([corner, corner + rng.random(corner.shape) * 14], -1)).float()

    batch = {
        "boxes": boxes(8),
        "scores": torch.tensor(rng.integers(1, 10, (images, 8)) / 10).float(),
        "labels": torch.tensor(rng.integers(-1, 2, (images, 8))),
        "gt_boxes": boxes(5),
        "gt_labels": torch.tensor(rng.integers(-1, 2, (images, 5))),
        "gt_difficult": torch.tensor(rng.random((images, 5)) < 0.2),
        "ids": [f"{i:03d}" for i in range(images)],
    }
    thresholds = (0.3, 0.5, 0.699999988079071)
    evaluator = DetectionEvaluator(NAMES, iou_thresholds=thresholds, voc07=voc07, tao_quirks=True)
    evaluator.update(**batch)
    result = evaluator.compute()
    for class_id, name in enumerate(NAMES):
        figures = result.per_class[name]
        expected = [original_figures(batch, class_id, t, voc07) for t in thresholds]
        assert figures.AP_per_iou == pytest.approx([e and e[0] for e in expected], abs=1e-12)
        if expected[0] is not None:
            assert (figures.precision, figures.recall) == pytest.approx(expected[0][1:], abs=1e-12)
