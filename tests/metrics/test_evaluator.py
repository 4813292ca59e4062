"""The evaluator on scenes of a few boxes, in any order and split, and against COCO's own code."""

import contextlib
import io
import json
import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import BIKE, CAR, NAMES, feed, square

from frcnn.metrics import DetectionEvaluator, OperatingPoint
from frcnn.metrics.verdict import judge_scenes


def test_two_images_by_hand():
    evaluator = DetectionEvaluator(NAMES, score_threshold=0.1)
    feed(
        evaluator,
        name="a",
        truths=[(square(0), CAR, False), (square(50), CAR, False)],
        detections=[
            (square(0), 0.9, CAR),  # hit
            (square(1), 0.8, CAR),  # duplicate
            (square(51), 0.6, CAR),  # hit, IoU 9/11
            (square(50), 0.05, CAR),  # below the score threshold
            (square(0), 0.7, BIKE),  # no such object anywhere
        ],
    )
    feed(evaluator, name="b", truths=[(square(0), CAR, False)], detections=[(square(7), 0.7, CAR)])
    result = evaluator.compute()
    car, bike = result.per_class["car"], result.per_class["bike"]

    # in order of score: hit, miss, miss, hit of 3 objects: precision 1, 1/2, 1/3, 1/2
    assert result.mAP == pytest.approx(1 / 3 * 1 + 1 / 3 * 1 / 2)
    assert (car.precision, car.recall) == (0.5, pytest.approx(2 / 3))
    # F1 = 2 tp / (detections + 3): 2/4, 2/5, 2/6, 4/7
    assert car.best_f1 == OperatingPoint(pytest.approx(0.6), 0.5, pytest.approx(2 / 3))
    assert (car.ground_truth, car.difficult, car.detections) == (3, 0, 4)

    assert (bike.AP, bike.precision, bike.recall, bike.best_f1) == (None, 0.0, None, None)
    assert (bike.ground_truth, bike.detections) == (0, 1)
    assert result.mAP == car.AP  # a class without objects has no say
    assert (result.images, result.metric, result.iou_thresholds) == (2, "area", (0.5,))


def test_voc07_counts_eleven_levels():
    evaluator = DetectionEvaluator(NAMES, voc07=True)
    truths = [(square(0), CAR, False), (square(50), CAR, False)]
    feed(evaluator, truths=truths, detections=[(square(0), 0.9, CAR)])
    assert evaluator.compute().mAP == pytest.approx(6 / 11)


def test_several_thresholds_average():
    evaluator = DetectionEvaluator(NAMES, iou_thresholds=(0.5, 0.75, 0.9))
    # IoU 9/11 = 0.82
    feed(evaluator, truths=[(square(0), CAR, False)], detections=[(square(1), 0.9, CAR)])
    result = evaluator.compute()
    assert result.mAP_per_iou == (1.0, 1.0, 0.0)
    car = result.per_class["car"]
    assert result.mAP == car.AP == pytest.approx(2 / 3)
    assert car.precision_per_iou == car.recall_per_iou == (1.0, 1.0, 0.0)
    assert result.per_class["bike"].recall_per_iou == (None,) * 3


@pytest.mark.parametrize(("ignore", "expected"), [(True, (1, 1, 1.0, 1.0)), (False, (2, 0, 1 / 2, 1.0))])
def test_difficult_objects(ignore, expected):
    evaluator = DetectionEvaluator(NAMES, ignore_difficult=ignore)
    truths = [(square(0), CAR, False), (square(50), CAR, True)]
    feed(evaluator, truths=truths, detections=[(square(0), 0.9, CAR)])
    feed(evaluator, name="b", detections=[])
    car = evaluator.compute().per_class["car"]
    assert (car.ground_truth, car.difficult, car.recall, car.precision) == expected


def test_detections_on_a_difficult_object_are_no_mistake():
    evaluator = DetectionEvaluator(NAMES)
    feed(
        evaluator,
        truths=[(square(0), CAR, False), (square(50), CAR, True)],
        detections=[(square(50), 0.9, CAR), (square(51), 0.8, CAR), (square(0), 0.7, CAR)],
    )
    car = evaluator.compute().per_class["car"]
    assert (car.AP, car.precision, car.detections, car.ignored) == (1.0, 1.0, 3, 2)


def test_a_detection_in_an_area_to_ignore_is_no_mistake():
    """Areas 10 wide from x = 100 on, about any class, and from x = 200 on, about bikes."""
    evaluator = DetectionEvaluator(NAMES, iou_thresholds=(0.5, 0.7))
    feed(
        evaluator,
        truths=[(square(0), CAR, False), (square(0), BIKE, False)],
        areas=[(square(100), -1), (square(200), BIKE)],
        detections=[
            (square(104), 0.9, CAR),  # 0.6 of it inside: excused at 0.5, wrong at 0.7
            (square(106), 0.8, CAR),  # 0.4: wrong
            (square(0), 0.7, CAR),
            (square(200), 0.9, BIKE),
            (square(200), 0.6, CAR),  # the area is not about cars: wrong, but below the hit
            (square(0), 0.5, BIKE),
        ],
    )
    result = evaluator.compute()
    car, bike = result.per_class["car"], result.per_class["bike"]
    assert car.AP_per_iou == (1 / 2, pytest.approx(1 / 3))
    assert (car.precision, car.recall, car.ground_truth, car.detections) == (pytest.approx(1 / 3), 1.0, 1, 4)
    assert (bike.AP, bike.precision) == (1.0, 1.0)


def test_a_hit_in_an_area_is_a_hit():
    evaluator = DetectionEvaluator(NAMES)
    detections = [(square(0), 0.9, CAR), (square(1), 0.8, CAR)]
    feed(evaluator, truths=[(square(0), CAR, False)], areas=[(square(0, 20.0), -1)], detections=detections)
    car = evaluator.compute().per_class["car"]
    assert (car.AP, car.precision, car.recall) == (1.0, 1.0, 1.0)  # the second is ignored, no duplicate


def test_rpn_recall_counts_pixels_and_difficult_objects():
    evaluator = DetectionEvaluator(NAMES)
    # 10 x 10 pixels with +1, shifted by 3.2: 68 / 132 = 0.52; without +1 it would be 52 / 110 = 0.48
    # shifted by 4: 60 / 140 = 0.43
    feed(
        evaluator,
        truths=[(square(0, 9.0), CAR, False), (square(50, 9.0), CAR, True), (square(90, 9.0), BIKE, False)],
        proposals=[square(3.2, 9.0), square(53.2, 9.0), square(94, 9.0), [0.0] * 4],
    )
    result = evaluator.compute()
    assert result.per_class["car"].rpn_recall == 1.0
    assert result.per_class["bike"].rpn_recall == 0.0


def test_invalid_proposals_do_not_count_and_without_proposals_recall_is_undefined():
    arguments = {
        "boxes": torch.zeros(1, 0, 4),
        "scores": torch.zeros(1, 0),
        "labels": torch.zeros(1, 0, dtype=torch.int64),
        "gt_boxes": torch.tensor([[square(0)]]),
        "gt_labels": torch.tensor([[CAR]]),
        "gt_difficult": torch.tensor([[False]]),
        "ids": ["a"],
    }
    evaluator = DetectionEvaluator(NAMES)
    evaluator.update(
        **arguments, proposals=torch.tensor([[square(0)]]), proposals_valid=torch.tensor([[False]])
    )
    assert evaluator.compute().per_class["car"].rpn_recall == 0.0
    evaluator.reset()
    evaluator.update(**arguments)
    assert evaluator.compute().per_class["car"].rpn_recall is None


def test_a_repeated_image_counts_once_and_says_so(caplog):
    evaluator = DetectionEvaluator(NAMES)
    scene = {"truths": [(square(0), CAR, False)], "detections": [(square(0), 0.9, CAR)]}
    feed(evaluator, **scene)
    once = evaluator.compute()
    with caplog.at_level(logging.WARNING):
        feed(evaluator, **scene)
    assert evaluator.compute() == once
    assert "1 images came twice" in caplog.text


def test_nothing_at_all_is_undefined_and_json_ready():
    result = DetectionEvaluator(NAMES, iou_thresholds=(0.5, 0.7)).compute()
    assert (result.mAP, result.mAP_per_iou, result.images) == (None, (None, None), 0)
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert json.loads(text)["per_class"]["bike"]["AP"] is None


def test_to_dict_has_the_schema_of_results_json():
    evaluator = DetectionEvaluator(NAMES)
    feed(evaluator, truths=[(square(0), CAR, False)], detections=[(square(0), 0.5, CAR)])
    data = json.loads(json.dumps(evaluator.compute().to_dict(), allow_nan=False))
    assert set(data) == {
        "mAP",
        "mAP_per_iou",
        "metric",
        "iou_thresholds",
        "score_threshold",
        "images",
        "per_class",
        "coco",
        "confusion",
        "best_images",
        "worst_images",
    }
    assert data["best_images"] == [{"image": "a", "right": 1, "wrong": 0, "missed": 0}]
    assert data["worst_images"] == []
    assert data["coco"]["AP"] == data["coco"]["AR1"] == data["coco"]["AP_small"] == 1.0
    assert data["coco"]["AP_large"] is None
    assert data["confusion"] == {
        "iou": 0.5,
        "scores": {"car": 0.5, "bike": 0.5},
        "labels": ["car", "bike", ""],
        "counts": [[1, 0, 0], [0, 0, 0], [0, 0, 0]],
    }
    assert data["per_class"]["car"] == {
        "AP": 1.0,
        "AP_per_iou": [1.0],
        "precision": 1.0,
        "recall": 1.0,
        "precision_per_iou": [1.0],
        "recall_per_iou": [1.0],
        "best_f1": {"score": 0.5, "precision": 1.0, "recall": 1.0},
        "rpn_recall": None,
        "ground_truth": 1,
        "difficult": 0,
        "detections": 1,
        "ignored": 0,
        "calibration": {"error": 0.5, "score": [0.5], "precision": [1.0], "detections": [1]},
    }


def random_batch(rng, images, *, classes=2, detections=6, slots=4):
    """Boxes on a coarse lattice, so that overlaps and ties abound."""

    def boxes(count):
        corner = rng.integers(0, 6, (images, count, 2)) * 4
        return torch.tensor(
            np.concatenate([corner, corner + rng.integers(2, 5, corner.shape) * 4], -1)
        ).float()

    return {
        "boxes": boxes(detections),
        "scores": torch.tensor(rng.integers(1, 10, (images, detections)) / 10).float(),
        "labels": torch.tensor(rng.integers(-1, classes, (images, detections))),
        "gt_boxes": boxes(slots),
        "gt_labels": torch.tensor(rng.integers(-1, classes, (images, slots))),
        "gt_difficult": torch.tensor(rng.random((images, slots)) < 0.2),
        "ids": [f"{i:03d}" for i in range(images)],
        "proposals": boxes(5),
        "proposals_valid": torch.tensor(rng.random((images, 5)) < 0.8),
    }


def take(batch, indices):
    return {
        key: [value[i] for i in indices] if key == "ids" else value[indices] for key, value in batch.items()
    }


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_order_batches_and_processes_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    batch = random_batch(rng, 6)
    thresholds = (0.5, 0.7)
    whole = DetectionEvaluator(NAMES, iou_thresholds=thresholds)
    whole.update(**batch)

    order = rng.permutation(6).tolist()
    first, second = (DetectionEvaluator(NAMES, iou_thresholds=thresholds) for _ in range(2))
    first.update(**take(batch, order[:4]))
    second.update(**take(batch, order[3:]))  # the fourth image comes to both, and counts once
    second.merge(first.state())
    assert second.compute() == whole.compute()


def coco_matches(batch, class_id, thresholds):
    """(hit, ignored) per detection and threshold from pycocotools, as {(image, detection): (T, 2)}."""
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")

    def xywh(box):
        x1, y1, x2, y2 = (float(v) for v in box)
        return [x1, y1, x2 - x1, y2 - y1]

    images = len(batch["ids"])
    truths, found = [], []
    for i in range(images):
        for box, label, difficult in zip(
            batch["gt_boxes"][i], batch["gt_labels"][i], batch["gt_difficult"][i], strict=True
        ):
            if label == class_id:
                row = {"image_id": i, "category_id": 0, "bbox": xywh(box), "area": 1.0, "iscrowd": 0}
                truths.append(row | {"id": len(truths) + 1, "difficult": bool(difficult)})
        for d, (box, score, label) in enumerate(
            zip(batch["boxes"][i], batch["scores"][i], batch["labels"][i], strict=True)
        ):
            if label == class_id:
                row = {"image_id": i, "category_id": 0, "bbox": xywh(box), "score": float(score), "slot": d}
                found.append(row)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO()
        reference.dataset = {
            "images": [{"id": i} for i in range(images)],
            "categories": [{"id": 0}],
            "annotations": truths,
        }
        reference.createIndex()
        if not found:
            return {}
        answer = reference.loadRes(found)
        judge = cocoeval.COCOeval(reference, answer, "bbox")
        judge.params.iouThrs = np.array(thresholds)
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge._prepare()
        for objects in judge._gts.values():
            for one in objects:
                one["ignore"] = int(truths[one["id"] - 1]["difficult"])
        judge.params.catIds = [0]
        result = {}
        for i in range(images):
            judge.ious[(i, 0)] = judge.computeIoU(i, 0)
            for one in judge._gts[i, 0]:  # COCO: only a crowd absorbs many; its IoU differs, hence not before
                one["iscrowd"] = one["ignore"]
            one = judge.evaluateImg(i, 0, [0, 1e10], 100)
            for d, ident in enumerate(one["dtIds"] if one else []):
                hit = one["dtMatches"][:, d] > 0
                skip = one["dtIgnore"][:, d].astype(bool)
                result[i, found[ident - 1]["slot"]] = (hit & ~skip, skip)
        return result


@pytest.mark.parametrize("seed", range(6))
def test_matches_are_those_of_pycocotools(seed):
    thresholds = (0.4, 0.5, 0.6, 0.75)
    batch = random_batch(np.random.default_rng(seed), 12, detections=10, slots=6)
    batch["scores"] = torch.linspace(0.9, 0.1, 120).reshape(12, 10).flip(1)  # no ties, ascending in a row
    # COCO prefers the last of equal overlaps and we the first: make overlaps differ.
    batch["boxes"] = batch["boxes"] + torch.rand(12, 10, 4, generator=torch.Generator().manual_seed(seed))
    evaluator = DetectionEvaluator(NAMES, iou_thresholds=thresholds)
    evaluator.update(**batch)
    whole = evaluator._scenes()
    compared = 0
    for class_id in (CAR, BIKE):
        expected = coco_matches(batch, class_id, thresholds)
        own = whole.label == class_id
        verdict = judge_scenes(whole, thresholds=np.array(thresholds))
        # Scores differ, so a detection is known by its own.
        place = {float(score): i for i, score in enumerate(verdict.score)}
        for image, score in zip(whole.image[own], whole.score[own], strict=True):
            slot = int((batch["scores"][image] == float(score)).nonzero())
            hit, skip = expected[int(image), slot]
            assert verdict.hit[:, place[float(score)]].tolist() == hit.tolist()
            assert verdict.ignored[:, place[float(score)]].tolist() == skip.tolist()
            compared += 1
    assert compared > 60


def coco_average(batch, class_id, threshold):
    """AP of pycocotools with areas as crowds; None without an object to find.

    COCO reads precision at 101 levels of recall; read at k / objects, its mean is the area under the curve.
    """
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")

    def rows(boxes, labels, **more):
        for i in range(len(batch["ids"])):
            for d in (batch[labels][i] == class_id).nonzero().flatten().tolist():
                x1, y1, x2, y2 = batch[boxes][i, d].double().tolist()
                box = [x1, y1, x2 - x1, y2 - y1]
                yield {
                    "image_id": i,
                    "category_id": 0,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "place": (i, d),
                } | more

    truths = [*rows("gt_boxes", "gt_labels", iscrowd=0), *rows("gt_ignored", "gt_ignored_labels", iscrowd=1)]
    found = [row | {"score": float(batch["scores"][row["place"]])} for row in rows("boxes", "labels")]
    objects = sum(not row["iscrowd"] for row in truths)
    if not objects or not found:
        return 0.0 if objects else None
    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO()
        reference.dataset = {
            "images": [{"id": i} for i in range(len(batch["ids"]))],
            "categories": [{"id": 0}],
            "annotations": [row | {"id": i + 1} for i, row in enumerate(truths)],
        }
        reference.createIndex()
        judge = cocoeval.COCOeval(reference, reference.loadRes(found), "bbox")
        judge.params.iouThrs, judge.params.recThrs = (
            np.array([threshold]),
            np.arange(1, objects + 1) / objects,
        )
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.evaluate()
        judge.accumulate()
    return float(judge.eval["precision"][0, :, 0, 0, -1].mean())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(0, 4))
def test_average_precision_with_crowds_is_that_of_pycocotools(seed, images, areas):
    rng = np.random.default_rng(seed)
    batch = random_batch(rng, images, detections=10, slots=5)
    batch["gt_difficult"] = torch.zeros_like(batch["gt_difficult"])
    crowds = random_batch(rng, images, slots=areas)
    batch["gt_ignored"], batch["gt_ignored_labels"] = crowds["gt_boxes"], crowds["gt_labels"]
    batch["gt_ignored"][batch["gt_ignored_labels"] < 0] = 0  # -1 is padding here: COCO's crowds have a class
    # No ties in score, and none in overlap: COCO prefers the last of equals and we the first.
    scores = rng.permutation(images * 10).reshape(images, 10) / 1000 + 0.01
    batch["scores"] = torch.tensor(scores).float()
    batch["boxes"] = batch["boxes"] + torch.tensor(rng.random((images, 10, 4))).float()
    thresholds = (0.4, 0.5, 0.75)
    evaluator = DetectionEvaluator(NAMES, iou_thresholds=thresholds)
    evaluator.update(**batch)
    result = evaluator.compute()
    for class_id, name in enumerate(NAMES):
        expected = [coco_average(batch, class_id, threshold) for threshold in thresholds]
        assert result.per_class[name].AP_per_iou == pytest.approx(expected, abs=1e-6)
