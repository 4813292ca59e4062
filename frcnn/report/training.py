"""Training and validation images as people see them: drawn one by one, or side by side in a grid."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from frcnn.callbacks.validation_map import ValidationSample
from frcnn.data.sample import Sample
from frcnn.metrics.outcomes import Outcome
from frcnn.report.draw import draw_boxes, image_grid


class Look(NamedTuple):
    """What it takes to show network input to people."""

    class_names: Sequence[str]  # (K,) in the order of class ids
    mean: Sequence[float]  # what normalisation subtracted, in the order r, g, b or l
    scale: float  # what it divided by
    bgr: bool  # whether it reversed the channels
    min_score: float = 0.5  # detections below it are not drawn


def pixels(image: Tensor, look: Look) -> NDArray[np.uint8]:
    """(C, H, W) normalised -> (H, W, 3) RGB, 0 to 255."""
    colours = image.flip(0) if look.bgr else image
    offsets = colours.new_tensor(list(look.mean)).view(-1, 1, 1)
    values = (colours * look.scale + offsets).round().clamp(0, 255).byte()
    array: NDArray[np.uint8] = values.expand(3, -1, -1).permute(1, 2, 0).numpy()
    return array


def draw_validation(sample: ValidationSample, look: Look) -> Image.Image:
    """A validated image with ground truth and detections."""
    return draw_boxes(
        pixels(sample.image, look),
        class_names=look.class_names,
        boxes=sample.boxes.numpy(),
        scores=sample.scores.numpy(),
        labels=sample.labels.numpy(),
        gt_boxes=sample.gt_boxes.numpy(),
        gt_labels=sample.gt_labels.numpy(),
        gt_difficult=sample.gt_difficult.numpy(),
        gt_ignored=sample.gt_ignored.numpy(),
        min_score=look.min_score,
    )


def draw_outcome(found: Outcome, image: Tensor, look: Look, *, cuts: Sequence[float]) -> Image.Image:
    """A validated image (C, H, W) with ground truth and the detections that its counts are of."""
    record = found.record
    counted = record.scores >= np.asarray(cuts)[record.labels]
    return draw_boxes(
        pixels(image, look),
        class_names=look.class_names,
        boxes=record.boxes[counted],
        scores=record.scores[counted],
        labels=record.labels[counted],
        gt_boxes=record.object_boxes,
        gt_labels=record.object_labels,
        gt_difficult=record.difficult,
        gt_ignored=record.area_boxes,
        min_score=0.0,
    )


def draw_training(sample: Sample, look: Look) -> Image.Image:
    """A training image with its objects in the colours of their classes."""
    return draw_boxes(
        pixels(sample.image, look),
        class_names=look.class_names,
        boxes=sample.boxes.numpy(),
        scores=np.ones(len(sample.boxes)),
        labels=sample.labels.numpy(),
        gt_ignored=sample.ignored.numpy(),
        captions=False,
    )


def validation_grid(samples: Sequence[ValidationSample], look: Look) -> Image.Image:
    """Validated images side by side."""
    return image_grid(
        [draw_validation(sample, look) for sample in samples],
        titles=[Path(sample.id).name for sample in samples],
        class_names=look.class_names,
        areas=any(bool(sample.gt_ignored.any()) for sample in samples),
    )


def training_grid(
    samples: Sequence[Sample], look: Look, *, titles: Sequence[str] = (), columns: int | None = None
) -> Image.Image:
    """Training images side by side; titles are their file names by default."""
    return image_grid(
        [draw_training(sample, look) for sample in samples],
        titles=titles or [Path(sample.id).name for sample in samples],
        class_names=look.class_names,
        columns=columns,
        truth=False,
        areas=any(len(sample.ignored) for sample in samples),
    )
