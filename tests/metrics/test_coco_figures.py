"""COCO's twelve figures: by hand, and against pycocotools on scenes with crowds, ties and all sizes."""

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.metrics.coco import Detected, Objects, coco_summary

NAMES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)


def area(box):
    return (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])


def scenes(found, truths):
    """Detections (image, label, score, box) and objects (image, label, box, crowd)."""
    box = np.array([row[3] for row in found], float).reshape(-1, 4)
    detected = Detected(
        *(np.array([row[i] for row in found], t) for i, t in enumerate((int, int, float))), box, area(box)
    )
    box = np.array([row[2] for row in truths], float).reshape(-1, 4)
    crowd = np.array([row[3] for row in truths], bool)
    image, label = (np.array([row[i] for row in truths], int) for i in (0, 1))
    return detected, Objects(image, label, box, area(box), crowd, crowd)


def reference(found, objects, *, images, classes):
    """The figures of pycocotools, None for its -1."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")

    def rows(some, **more):
        for i in range(len(some.image)):
            x1, y1, x2, y2 = some.box[i].tolist()
            row = {
                "image_id": int(some.image[i]),
                "category_id": int(some.label[i]),
                "area": float(some.area[i]),
            }
            yield row | {"bbox": [x1, y1, x2 - x1, y2 - y1]} | {k: v[i].item() for k, v in more.items()}

    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = {
            "images": [{"id": i} for i in range(images)],
            "categories": [{"id": i} for i in range(classes)],
            "annotations": [
                row | {"id": i + 1}
                for i, row in enumerate(rows(objects, iscrowd=objects.by_share.astype(int)))
            ],
        }
        truth.createIndex()
        answers = truth.loadRes(list(rows(found, score=found.score))) if len(found.image) else coco.COCO()
        judge = cocoeval.COCOeval(truth, answers, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    return {
        k: None if v == -1 else pytest.approx(v, abs=1e-6) for k, v in zip(NAMES, judge.stats, strict=True)
    }


def drawn(seed, *, images, classes, detections, objects):
    """Boxes on a coarse lattice and scores with one digit, so that ties of all kinds abound."""
    rng = np.random.default_rng(seed)

    def boxes(count):
        corner = rng.integers(0, 6, (count, 2)) * 16
        return np.concatenate(
            [
                corner,
                corner + rng.choice([16, 32, 48, 96, 160], (count, 1)) + rng.integers(0, 3, (count, 2)) * 8,
            ],
            1,
        )

    def places(count):
        return rng.integers(0, images, count), rng.integers(0, classes, count)

    box, other = boxes(objects).astype(float), boxes(detections).astype(float)
    if objects:  # half of the detections are near objects
        near = box[rng.integers(0, objects, detections)] + rng.integers(-4, 5, (detections, 4))
        other = np.where(rng.random((detections, 1)) < 0.5, near, other)
    crowd = rng.random(objects) < 0.15
    score = rng.integers(1, 10, detections) / 10
    return Detected(*places(detections), score, other, area(other)), Objects(
        *places(objects), box, area(box), crowd, crowd
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 3), st.integers(1, 80), st.integers(1, 40)
)
def test_figures_are_those_of_pycocotools(seed, images, classes, detections, objects):
    found, truth = drawn(seed, images=images, classes=classes, detections=detections, objects=objects)
    ours = coco_summary(found, truth, classes=classes)
    assert ours == reference(found, truth, images=images, classes=classes)


def test_more_than_a_hundred_detections_of_a_class():
    found, truth = drawn(1, images=1, classes=1, detections=400, objects=30)
    assert coco_summary(found, truth, classes=1) == reference(found, truth, images=1, classes=1)


def test_two_objects_by_hand():
    """A small object found exactly, a large one with an IoU of 0.8, and a wrong detection between the two."""
    truths = [(0, 0, [0, 0, 20, 20], False), (0, 0, [100, 0, 200, 100], False)]
    found = [(0, 0, 0.9, [0, 0, 20, 20]), (0, 0, 0.8, [50, 50, 70, 70]), (0, 0, 0.7, [100, 0, 180, 100])]
    figures = coco_summary(*scenes(found, truths), classes=1)
    # precision 1 up to recall 0.5 (51 levels), then 2/3 (50 levels) up to an IoU of 0.8
    both = (51 + 50 * 2 / 3) / 101
    assert (figures["AP50"], figures["AP75"]) == (pytest.approx(both), pytest.approx(both))
    assert figures["AP"] == pytest.approx((7 * both + 3 * 51 / 101) / 10)
    assert (figures["AP_small"], figures["AP_medium"]) == (1.0, None)
    assert (figures["AP_large"], figures["AR_large"]) == (pytest.approx(0.7), pytest.approx(0.7))
    assert (figures["AR1"], figures["AR10"]) == (0.5, pytest.approx((7 + 3 * 0.5) / 10))


def test_a_crowd_takes_any_number_and_need_not_be_found():
    truths = [(0, 0, [0, 0, 20, 20], False), (0, 0, [100, 0, 200, 100], True)]
    inside = [(0, 0, 0.9, [100 + i, 0, 120 + i, 20]) for i in range(5)]
    figures = coco_summary(*scenes([*inside, (0, 0, 0.5, [0, 0, 20, 20])], truths), classes=1)
    assert (figures["AP"], figures["AR100"]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("found", "truths", "expected"),
    [
        ([], [], None),
        ([(0, 0, 0.9, [0, 0, 9, 9])], [], None),
        ([], [(0, 0, [0, 0, 9, 9], False)], 0.0),
        (
            [(0, 1, 0.9, [0, 0, 9, 9])],
            [(0, 0, [0, 0, 9, 9], False)],
            0.0,
        ),  # a class without an object has no say
    ],
)
def test_nothing_found_or_nothing_to_find(found, truths, expected):
    figures = coco_summary(*scenes(found, truths), classes=2)
    assert (figures["AP"], figures["AP_small"], figures["AR100"]) == (expected, expected, expected)
    assert figures["AP_large"] is None
