"""How well anchors fit the boxes of a data set, and which would fit better."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from frcnn.ops.anchors import cell_anchors

Array = NDArray[np.float64]

MOST_BOXES = 20_000
"""Boxes that anchors are looked for with; of more, an even choice."""
ROUNDS = 60


def best_iou(
    boxes: Array, sizes: Array, *, scales: Sequence[float], ratios: Sequence[float], stride: int = 16
) -> Array:
    """(n,) overlap (+1 convention) of each box with the best anchor that takes part in training.

    That anchor of a shape is best whose centre is nearest, among those that lie within the image
    (`frcnn.model.targets.rpn_targets`); overlaps along x and y are independent of each other.

    Args:
        boxes: (n, 4) xyxy pixels of the network input.
        sizes: (n, 2) height and width of the input that each box lies in.
        scales: sides of the square anchors, pixels.
        ratios: width / height.
        stride: pixels between two cells.
    """
    corners = cell_anchors(scales=scales, ratios=ratios).numpy().astype(np.float64)
    best = np.zeros(len(boxes))
    areas = np.prod(boxes[:, 2:] - boxes[:, :2] + 1, axis=1)
    for corner in corners:
        half = corner[2:]  # x, y
        inner = np.ones(len(boxes))
        for axis in (0, 1):
            inner *= _along(boxes[:, axis], boxes[:, axis + 2], sizes[:, 1 - axis], half[axis], stride)
        best = np.maximum(best, inner / (areas + np.prod(2 * half + 1) - inner))
    return best


def _along(low: Array, high: Array, size: Array, half: float, stride: int) -> Array:
    """How far boxes and the nearest anchor of half a length overlap on one axis, 0 where none fits."""
    first = np.ceil(half / stride - 0.5)
    last = np.minimum(np.floor((size - 1 - half) / stride - 0.5), np.ceil(size / stride) - 1)
    cell = np.clip(np.rint((low + high) / 2 / stride - 0.5), first, np.maximum(last, first))
    centre = (cell + 0.5) * stride
    overlap = np.minimum(high, centre + half) - np.maximum(low, centre - half) + 1
    return np.where(last >= first, np.maximum(overlap, 0), 0)


def propose(
    boxes: Array, sizes: Array, *, scales: Sequence[float], ratios: Sequence[float], positive_iou: float
) -> tuple[list[float], list[float]]:
    """Scales and ratios, as many as there are, that fit the boxes best by k-means with IoU as distance.

    A spec's anchors are all pairs of a scale and a ratio, so the centres are bound to such a grid: each box
    goes to the anchor that overlaps it most, then each scale and ratio becomes the geometric mean of its
    boxes. Starts from the quantiles of the boxes and from what there is; there is no chance in it. Of all
    rounds that counts whose anchors reach the positive IoU most often, and fit best where that is equal.

    Args:
        boxes: (n, 4) xyxy pixels of the network input.
        sizes: (n, 2) height and width of the input that each box lies in.
        scales: those that there are.
        ratios: likewise.
        positive_iou: `rpn_max_overlap`.
    """
    if len(boxes) > MOST_BOXES:
        rows = np.linspace(0, len(boxes) - 1, MOST_BOXES).astype(np.intp)
        boxes, sizes = boxes[rows], sizes[rows]
    sides = boxes[:, 2:] - boxes[:, :2]
    size, ratio = np.log(np.sqrt(sides.prod(axis=1))), np.log(sides[:, 0] / sides[:, 1])
    starts = [
        (np.quantile(size, _middles(len(scales))), np.quantile(ratio, _middles(len(ratios)))),
        (np.log(np.asarray(scales, float)), np.log(np.asarray(ratios, float))),
    ]
    best: tuple[float, float] = (-1.0, -1.0)
    found = list(scales), list(ratios)
    for log_scales, log_ratios in starts:
        seen = set()
        for _ in range(ROUNDS):
            now = _rounded(np.exp(log_scales), np.exp(log_ratios))
            if str(now) in seen:
                break
            seen.add(str(now))
            fit = best_iou(boxes, sizes, scales=now[0], ratios=now[1])
            score = float((fit >= positive_iou).mean()), float(fit.mean())
            distinct = all(len({*values}) == len(values) for values in now)
            if score > best and distinct:
                best, found = score, now
            nearest = _nearest(sides, np.exp(log_scales), np.exp(log_ratios))
            log_scales = _means(size, nearest // len(ratios), log_scales)
            log_ratios = _means(ratio, nearest % len(ratios), log_ratios)
    return found


def _middles(count: int) -> Array:
    return (np.arange(count) + 0.5) / count


def _nearest(sides: Array, scales: Array, ratios: Array) -> NDArray[np.intp]:
    """(n,) the anchor, in the order of `cell_anchors`, that overlaps each box most on a common centre."""
    root = np.sqrt(ratios)
    shapes = np.stack([scales[:, None] * root, scales[:, None] / root], axis=-1).reshape(-1, 2)
    inner = np.minimum(sides[:, None], shapes).prod(axis=2)
    overlap = inner / (sides.prod(axis=1)[:, None] + shapes.prod(axis=1) - inner)
    return np.asarray(overlap.argmax(axis=1), np.intp)


def _means(values: Array, groups: NDArray[np.intp], before: Array) -> Array:
    """The mean of each group; a group without members stays."""
    count = np.bincount(groups, minlength=len(before))
    total = np.bincount(groups, weights=values, minlength=len(before))
    return np.where(count > 0, total / np.maximum(count, 1), before)


def _rounded(scales: Array, ratios: Array) -> tuple[list[float], list[float]]:
    return (
        sorted(max(round(float(value), 0 if value >= 16 else 1), 1.0) for value in scales),
        sorted(max(round(float(value), 2), 0.01) for value in ratios),
    )
