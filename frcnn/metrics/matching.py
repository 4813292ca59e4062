"""Assignment of detections to ground truth: overlaps, then the greedy match that average precision counts.

Shapes: B images, N detections, G ground truth slots, I areas to ignore, T IoU thresholds.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]


def pairwise_iou(a: Floats, b: Floats, *, offset: float = 0.0) -> NDArray[np.float64]:
    """Intersection over union of every box of `a` with every box of `b`, in double precision.

    Args:
        a: (..., N, 4) xyxy pixels.
        b: (..., M, 4) xyxy pixels.
        offset: added to every width and height; 1.0 reads coordinates as inclusive pixel indices.

    Returns:
        (..., N, M) in [0, 1]; 0 where both boxes are empty.
    """
    intersection, area_a, area_b = _areas(a, b, offset)
    union = area_a + area_b - intersection
    iou: NDArray[np.float64] = intersection / np.where(union > 0, union, 1.0)
    return iou


def pairwise_coverage(a: Floats, b: Floats) -> NDArray[np.float64]:
    """The share of every box of `a` (..., N, 4) that lies in each box of `b` (..., M, 4): (..., N, M).

    COCO measures overlap with a crowd and KITTI overlap with a DontCare area this way.
    """
    intersection, area, _ = _areas(a, b, 0.0)
    share: NDArray[np.float64] = intersection / np.where(area > 0, area, 1.0)
    return share


def _areas(a: Floats, b: Floats, offset: float) -> tuple[Floats, Floats, Floats]:
    """Intersections (..., N, M), areas of `a` (..., N, 1) and of `b` (..., 1, M)."""
    ax1, ay1, ax2, ay2 = np.moveaxis(a.astype(np.float64), -1, 0)[..., None]
    bx1, by1, bx2, by2 = np.moveaxis(b.astype(np.float64), -1, 0)[..., None, :]
    width = (np.minimum(ax2, bx2) - np.maximum(ax1, bx1) + offset).clip(min=0)
    height = (np.minimum(ay2, by2) - np.maximum(ay1, by1) + offset).clip(min=0)
    area_a = (ax2 - ax1 + offset).clip(min=0) * (ay2 - ay1 + offset).clip(min=0)
    area_b = (bx2 - bx1 + offset).clip(min=0) * (by2 - by1 + offset).clip(min=0)
    return width * height, area_a, area_b


def greedy_match(
    overlaps: Floats, same_class: Bools, difficult: Bools, *, thresholds: Floats
) -> tuple[Bools, Bools]:
    """Match detections, best score first, each to the best ground truth of its class that is still free.

    A detection without a free partner that overlaps a difficult object is ignored: neither right nor
    wrong. A difficult object absorbs any number of them. Ties in overlap go to the first ground truth.

    Args:
        overlaps: (B, N, G) IoU, detections in descending order of score.
        same_class: (B, N, G) whether both are real (not padding) and of one class.
        difficult: (B, G).
        thresholds: (T,) smallest IoU of a match.

    Returns:
        matched, ignored: (T, B, N) each; what is neither is a false positive.
    """
    candidates = np.where(same_class, overlaps, -1.0)
    ordinary = np.where(difficult[:, None], -1.0, candidates)
    images, detections, slots = candidates.shape
    matched = np.zeros((len(thresholds), images, detections), dtype=np.bool_)
    if not slots:
        return matched, matched.copy()

    free = np.ones((len(thresholds), images, slots), dtype=np.bool_)
    for rank in range(detections):  # one step serves every image and threshold
        overlap = np.where(free, ordinary[:, rank], -1.0)
        hit = overlap.max(axis=-1) >= thresholds[:, None]
        matched[:, :, rank] = hit
        threshold, image = hit.nonzero()
        free[threshold, image, overlap.argmax(axis=-1)[hit]] = False

    excused = np.where(difficult[:, None], candidates, -1.0).max(axis=-1) >= thresholds[:, None, None]
    return matched, excused & ~matched
