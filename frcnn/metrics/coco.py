"""COCO's summary of detections: mean AP and AR over IoU 0.50:0.95, by size and by number of detections.

Formulas: pycocotools' COCOeval, whose figures these are. Shapes: D detections, G objects, K classes, A ranges
of area, T IoU thresholds, R levels of recall.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from frcnn.metrics.matching import Bools, Floats, Ints, match, overlapping, starts

THRESHOLDS = np.linspace(0.5, 0.95, 10)
LEVELS = np.linspace(0.0, 1.0, 101)
RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
)
MOST = (1, 10, 100)  # detections of an image and class


class Detected(NamedTuple):
    """Detections of a data set, in any order."""

    image: Ints  # (D,)
    label: Ints  # (D,) class ids
    score: Floats  # (D,)
    box: Floats  # (D, 4) xyxy pixels
    area: Floats  # (D,) square pixels, where size counts


class Objects(NamedTuple):
    """What there is to detect, in any order."""

    image: Ints  # (G,)
    label: Ints  # (G,)
    box: Floats  # (G, 4)
    area: Floats  # (G,)
    ignored: Bools  # (G,) need not be found, and may be found by any number of detections
    by_share: Bools  # (G,) overlap is the share of a detection that lies inside; COCO's crowds, also ignored


def coco_summary(
    found: Detected, objects: Objects, *, classes: int, last_of_equals: bool = True
) -> dict[str, float | None]:
    """`AP`, `AP50`, `AP75`, `AP_small`, .. `AR1`, `AR10`, `AR100`, `AR_small`, ..; None where undefined.

    Args:
        found: detections; equal scores rank in the order of images, then in the order given.
        objects: ground truth.
        classes: K.
        last_of_equals: as in `match`.
    """
    order = np.lexsort((-found.score, found.image * classes + found.label))
    group = (found.image * classes + found.label)[order]
    rank = _rank_in(group)
    order, rank = order[rank < MOST[-1]], rank[rank < MOST[-1]]
    found = Detected._make(column[order] for column in found)
    group = found.image * classes + found.label

    target_group = objects.image * classes + objects.label
    by_group = np.argsort(target_group, kind="stable")
    objects = Objects._make(column[by_group] for column in objects)
    excused = _outside(objects.area) | objects.ignored
    pairs = overlapping(
        group,
        found.box,
        target_groups=target_group[by_group],
        target_boxes=objects.box,
        by_share=objects.by_share,
        smallest=THRESHOLDS[0],
    )
    hit, ignored = match(
        pairs,
        detections=len(rank),
        excused=excused,
        absorbing=objects.ignored,
        thresholds=THRESHOLDS,
        last_of_equals=last_of_equals,
    )
    ignored |= _outside(found.area)[:, None] & ~hit
    positives = np.stack([np.bincount(objects.label[~row], minlength=classes) for row in excused])

    precision = _mean_precision(found, hit, ignored, positives)
    recall = {most: _recall(found.label, hit & (rank < most), positives) for most in MOST}
    sizes = list(RANGES)[1:]
    return {
        "AP": _mean(precision[0]),
        "AP50": _mean(precision[0, 0]),
        "AP75": _mean(precision[0, 5]),
        **{f"AP_{name}": _mean(precision[i]) for i, name in enumerate(sizes, start=1)},
        **{f"AR{most}": _mean(recall[most][0]) for most in MOST},
        **{f"AR_{name}": _mean(recall[MOST[-1]][i]) for i, name in enumerate(sizes, start=1)},
    }


def _rank_in(group: Ints) -> Ints:
    """The place of each row among those of its group; rows are sorted by group."""
    number = np.arange(len(group))
    return number - np.maximum.accumulate(np.where(starts(group), number, 0))


def _outside(area: Floats) -> Bools:
    """(A, n) whether each of n areas is outside each range; both of a range's ends are inside."""
    low, high = np.array(list(RANGES.values())).T[:, :, None]
    outside: Bools = (area < low) | (area > high)
    return outside


def _recall(label: Ints, hit: Bools, positives: Ints) -> NDArray[np.float64]:
    """(A, T, K), NaN for a class without an object."""
    ranges, levels, _ = hit.shape
    counts = np.zeros((ranges, levels, positives.shape[1]))
    i, t, d = hit.nonzero()
    np.add.at(counts, (i, t, label[d]), 1)
    return _share(counts, positives[:, None])


def _mean_precision(found: Detected, hit: Bools, ignored: Bools, positives: Ints) -> NDArray[np.float64]:
    """(A, T, K) mean over levels of recall of the best precision from there on, NaN without an object."""
    order = np.lexsort((-found.score, found.label))
    hit, judged, label = hit[..., order], ~ignored[..., order], found.label[order]
    ranges, levels, _ = hit.shape
    classes = positives.shape[1]
    before = np.searchsorted(label, np.arange(classes))  # detections of earlier classes
    counted = np.zeros((ranges, levels, len(label) + 1), np.int32)
    np.cumsum(judged, axis=2, out=counted[..., 1:])
    i, t, d = hit.nonzero()  # sorted by range, threshold, class, score
    segment = (i * levels + t) * classes + label[d]
    number = _rank_in(segment) + 1.0
    precision = number / (counted[i, t, d + 1] - counted[i, t, before[label[d]]])
    # Segments lie 2 apart, so that one running maximum from the right serves them all.
    shift = 2.0 * (segment.max(initial=0) - segment)
    best = np.maximum.accumulate((precision + shift)[::-1])[::-1] - shift

    many = np.bincount(segment, minlength=ranges * levels * classes)
    first = np.cumsum(many) - many
    objects = np.broadcast_to(positives[:, None], (ranges, levels, classes)).reshape(-1, 1)
    needed = np.maximum(np.floor(LEVELS * objects), 1)
    needed += needed / np.maximum(objects, 1) < LEVELS
    reached = needed <= many[:, None]
    at = np.where(reached, first[:, None] + needed.astype(np.int64) - 1, 0)
    sampled = np.where(reached, np.append(best, 0.0)[at], 0.0).mean(axis=1)
    return np.where(objects[:, 0] > 0, sampled, np.nan).reshape(ranges, levels, classes)


def _share(part: NDArray[np.float64], whole: Ints) -> NDArray[np.float64]:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values: NDArray[np.float64]) -> float | None:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else None
