"""COCO's figures by our code, faster-coco-eval and pycocotools, on the same drawn detections.

Measured is what each needs from objects in memory to the twelve figures. What comes before is not: reading
files, building the peers' indices by image and class, our flat arrays. The peers start each round from fresh
copies of what they keep between calls.
"""

import argparse
import contextlib
import io
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from frcnn.metrics.coco import Detected, Objects, coco_summary

CASES = {"2,000 x 20 x 3": (2000, 20, 3), "2,000 x 100 x 20": (2000, 100, 20)}
NAMES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)


def draw(images: int, detections: int, classes: int, *, seed: int = 0) -> tuple[Detected, Objects]:
    """Half as many objects as detections, one in fifty a crowd; a third of the classes are drawn by lot."""
    rng = np.random.default_rng(seed)
    count = detections // 2
    centre = rng.uniform(0, [1248, 384], (images, count, 2))
    side = np.exp(rng.uniform(np.log(12), np.log(250), (images, count, 2)))
    truth = np.concatenate([centre - side / 2, centre + side / 2], axis=2)
    label = rng.integers(0, classes, (images, count))
    source = rng.integers(0, count, (images, detections))
    near = np.take_along_axis(truth, source[..., None], axis=1)
    size = near[..., 2:] - near[..., :2]
    loose = np.exp(rng.uniform(np.log(0.01), np.log(0.6), (images, detections, 1)))
    box = near + rng.normal(0, 1, near.shape) * np.tile(size, 2) * loose
    box = np.concatenate([np.minimum(box[..., :2], box[..., 2:]), np.maximum(box[..., :2], box[..., 2:])], 2)
    wrong = rng.random((images, detections)) < 1 / 3
    found_label = np.where(
        wrong, rng.integers(0, classes, (images, detections)), np.take_along_axis(label, source, axis=1)
    )
    score = np.round(rng.beta(1, 3, (images, detections)) * (1.2 - loose[..., 0]) / 1.2, 4)
    crowd = (rng.random((images, count)) < 0.02).ravel()
    number = np.arange(images)
    truth, box = truth.reshape(-1, 4), box.reshape(-1, 4)
    return (
        Detected(np.repeat(number, detections), found_label.ravel(), score.ravel(), box, _area(box)),
        Objects(np.repeat(number, count), label.ravel(), truth, _area(truth), crowd, crowd),
    )


def _area(box: np.ndarray) -> np.ndarray:
    return (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])


def records(found: Detected, objects: Objects, images: int, classes: int) -> tuple[dict[str, Any], list[Any]]:
    """The same as COCO's dictionaries."""

    def rows(scenes: Detected | Objects) -> list[dict[str, Any]]:
        sides = scenes.box.copy()
        sides[:, 2:] -= sides[:, :2]
        columns = (scenes.image.tolist(), scenes.label.tolist(), sides.tolist(), scenes.area.tolist())
        keys = ("image_id", "category_id", "bbox", "area")
        return [dict(zip(keys, row, strict=True)) for row in zip(*columns, strict=True)]

    truths = [
        row | {"id": i + 1, "iscrowd": int(crowd)}
        for i, (row, crowd) in enumerate(zip(rows(objects), objects.by_share, strict=True))
    ]
    answers = [row | {"score": s} for row, s in zip(rows(found), found.score.tolist(), strict=True)]
    data = {
        "images": [{"id": i} for i in range(images)],
        "categories": [{"id": i} for i in range(classes)],
        "annotations": truths,
    }
    return data, answers


def peer(package: str, data: dict[str, Any], answers: list[Any]) -> Callable[[], tuple[float, list[float]]]:
    """A function that returns the seconds of evaluate, accumulate and summarize, and the figures."""
    if package == "faster-coco-eval":
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    else:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

    def run() -> tuple[float, list[float]]:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = {**data, "annotations": [dict(row) for row in data["annotations"]]}
            truth.createIndex()
            judge = COCOeval(truth, truth.loadRes([dict(row) for row in answers]), "bbox")
            start = time.perf_counter()
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
            return time.perf_counter() - start, list(judge.stats[:12])

    return run


def main() -> None:
    """Command line, measurement, table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--slow-rounds", type=int, default=1, help="rounds that pycocotools takes part in")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    args = parser.parse_args()
    report = {}
    for name, (images, detections, classes) in CASES.items():
        found, objects = draw(images, detections, classes)
        data = records(found, objects, images, classes)
        fast, slow = peer("faster-coco-eval", *data), peer("pycocotools", *data)
        seconds: dict[str, list[float]] = {"ours": [], "faster-coco-eval": [], "pycocotools": []}
        for number in range(args.rounds + 1):
            start = time.perf_counter()
            ours = coco_summary(found, objects, classes=classes)
            times = {"ours": time.perf_counter() - start}
            times["faster-coco-eval"], figures = fast()
            if 0 < number <= args.slow_rounds:
                times["pycocotools"], reference = slow()
            if number:  # the first round warms up
                for key, value in times.items():
                    seconds[key].append(value)
        expected = dict(zip(NAMES, reference, strict=True))
        off = max(abs((ours[key] or 0.0) - expected[key]) for key in NAMES)
        peer_off = max(abs(a - b) for a, b in zip(figures, reference, strict=True))
        ratios = [b / a for a, b in zip(seconds["ours"], seconds["faster-coco-eval"], strict=True)]
        medians = {key: statistics.median(values) for key, values in seconds.items() if values}
        print(f"{name} (images x detections x classes)")
        for key, value in medians.items():
            print(f"  {key:18}{value:9.3f} s")
        print(f"  speed against faster-coco-eval: {statistics.median(ratios):.2f}x (median of paired rounds)")
        print(f"  largest difference to pycocotools: ours {off:.1e}, faster-coco-eval {peer_off:.1e}")
        report[name] = {"seconds": medians, "ratio": statistics.median(ratios), "difference": off}
    if args.json:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
