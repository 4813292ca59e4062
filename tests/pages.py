"""A run's page with something in every section, and names that are no friends of HTML."""

import numpy as np
from PIL import Image

from frcnn.data.table import Counts, DataTable, SourceTable
from frcnn.metrics import ClassResult, EvaluationResult, OperatingPoint
from frcnn.metrics.calibration import Calibration
from frcnn.metrics.confusion import Confusion
from frcnn.report.page import Picture, RunPage, Setting
from frcnn.report.plots import Series

NAMES = ["<b>car</b>", 'a "van" & co', "x" * 60]
COCO = {
    "AP": 0.5,
    "AP50": 0.6,
    "AP75": 0.5,
    "AP_small": None,
    "AP_medium": 0.4,
    "AP_large": 0.7,
    "AR1": 0.3,
    "AR10": 0.5,
    "AR100": 0.6,
    "AR_small": None,
    "AR_medium": 0.4,
    "AR_large": 0.7,
}


def series(values):
    steps = np.arange(1.0, len(values) + 1)
    return Series(steps, np.ceil(steps / 10), np.array(values, dtype=float))


def result():
    curve = (np.array([1.0, 0.5, 2 / 3]), np.array([0.5, 0.5, 1.0]))
    common = {"precision": 0.5, "recall": None, "rpn_recall": 0.25, "ground_truth": 2, "difficult": 1}
    per_class = {
        name: ClassResult(
            AP=ap,
            AP_per_iou=(ap, ap),
            best_f1=OperatingPoint(0.3, 2 / 3, 1.0) if ap else None,
            detections=4,
            ignored=1 if ap else 0,
            calibration=Calibration(0.1, (0.3, 0.9), (0.2, 1.0), (5, 3)) if ap else None,
            curves=(curve, curve),
            **common,
        )
        for name, ap in zip(NAMES, (0.8, 0.4, None), strict=True)
    }
    return EvaluationResult(
        mAP=0.6,
        mAP_per_iou=(0.6, 0.6),
        metric="area",
        iou_thresholds=(0.5, 0.75),
        score_threshold=1e-4,
        images=1234,
        per_class=per_class,
        coco=COCO,
        confusion=Confusion(((5, 1, 0, 2), (0, 3, 0, 1), (0, 0, 0, 0), (2, 1, 0, 0)), (0.3, 0.3, 0.5)),
    )


def source(name):
    return SourceTable(
        name=name,
        images=10,
        images_without_objects=1,
        unused_labels=2,
        classes={name: Counts(kept=5, too_small=1) for name in NAMES},
        areas={},
        unmapped={"<dontcare>": 3},
    )


def full_page(**options):
    """A `RunPage` with every section; options replace its fields."""
    noise = np.random.default_rng(0)
    losses = np.exp(-np.arange(200) / 60) * noise.uniform(0.8, 1.2, 200)
    parts = ("loss", "loss_rpn_class", "loss_rpn_box", "loss_rcnn_class", "loss_rcnn_box")
    curves = {f"train/{name}": series(losses / (i + 1)) for i, name in enumerate(parts)}
    curves |= {"lr": series(np.linspace(0, 1e-3, 200)), "val/mAP": series([0.1, 0.4, 0.6])}
    curves |= {f"val/AP/{name}": series([0.1 * i, 0.3, 0.5]) for i, name in enumerate(NAMES)}
    picture = Image.fromarray(noise.integers(0, 255, (384, 1248, 3), np.uint8))
    fields = {
        "title": "resnet_18-<data>",
        "command": "train",
        "state": "finished",
        "folder": "/a/very/long/path" * 10,
        "facts": {"mAP": "0.600", "Epochs": "3 of 3", "Duration": "0:10:00"},
        "curves": curves,
        "result": result(),
        "evaluated": "after epoch 3",
        "times": {"pre-processing": 12.3, "network": 234.5, "post-processing": 3.21},
        "class_names": NAMES,
        "worst": [Picture(f"<{i}>.png: 1 right, 2 wrong, 3 missed", picture) for i in range(6)],
        "best": [Picture(f"{i}.png: 3 right, 0 wrong, 0 missed", picture) for i in range(6)],
        "validation": [Picture(f"<{i}>.png", picture) for i in range(12)],
        "training": [Picture(f"{i}.png", picture) for i in range(12)],
        "data": {"training": DataTable((source("a"), source("b")))},
        "model": [{"part": "trunk", "block": 0, "layers": 1}, {"part": "total", "block": None, "layers": 1}],
        "settings": [
            Setting("random_seed", 42, "default"),
            Setting("training_config.num_epochs", 3, "command line"),
            Setting("dataset_config.target_class_mapping", {"a": "<b>"}, "spec their.txt:12"),
        ],
        "environment": {"Device": "CPU", "Threads": 2, "python": "3.11.7"},
    }
    return RunPage(**{**fields, **options})
