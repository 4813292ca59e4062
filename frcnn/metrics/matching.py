"""Assignment of detections to ground truth: overlaps, then the greedy match that average precision counts.

Shapes: D detections, G objects, E pairs of the two that overlap, A variants of what counts, T IoU thresholds.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Bools = NDArray[np.bool_]


class Pairs(NamedTuple):
    """Detections and objects of one group (an image and class) that overlap, by number of the detection."""

    detection: Ints  # (E,)
    target: Ints  # (E,) number of the object
    overlap: Floats  # (E,)

    def take(self, places: Ints | Bools) -> "Pairs":
        """Some of the pairs, in this order."""
        return Pairs(self.detection[places], self.target[places], self.overlap[places])


def pairwise_iou(a: Floats, b: Floats, *, offset: float = 0.0) -> NDArray[np.float64]:
    """Intersection over union of every box of `a` with every box of `b`, in double precision.

    Args:
        a: (..., N, 4) xyxy pixels.
        b: (..., M, 4) xyxy pixels.
        offset: added to every width and height; 1.0 reads coordinates as inclusive pixel indices.

    Returns:
        (..., N, M) in [0, 1]; 0 where both boxes are empty.
    """
    intersection, area_a, area_b = _areas(a[..., :, None, :], b[..., None, :, :], offset)
    return _ratio(intersection, area_a + area_b - intersection)


def overlapping(
    groups: Ints,
    boxes: Floats,
    *,
    target_groups: Ints,
    target_boxes: Floats,
    by_share: Bools,
    smallest: float,
    offset: float = 0.0,
    margin: float = 0.0,
) -> Pairs:
    """Every detection with every object of its group that it overlaps enough.

    Args:
        groups: (D,) of detections.
        boxes: (D, 4) xyxy pixels.
        target_groups: (G,) of objects, ascending.
        target_boxes: (G, 4).
        by_share: (G,) whether overlap is the share of the detection in the object instead of the IoU. COCO
            measures overlap with a crowd and KITTI overlap with a DontCare area this way.
        smallest: overlap of a pair.
        offset: as in `pairwise_iou`.
        margin: added to the union.
    """
    first = np.searchsorted(target_groups, groups, "left")
    count = np.searchsorted(target_groups, groups, "right") - first
    detection = np.repeat(np.arange(len(groups)), count)
    target = np.arange(len(detection)) + np.repeat(first - (np.cumsum(count) - count), count)
    intersection, own, other = _areas(boxes[detection], target_boxes[target], offset)
    whole = np.where(by_share[target], own, own + other - intersection)
    overlap = _ratio(intersection, whole + margin)
    close = overlap >= smallest
    return Pairs(detection[close], target[close], overlap[close])


def match(
    pairs: Pairs,
    *,
    detections: int,
    excused: Bools,
    absorbing: Bools,
    thresholds: Floats,
    last_of_equals: bool = False,
) -> tuple[Bools, Bools]:
    """Give detections, best score first, each the best object that is still free.

    Objects that need not be found come after all others, and a detection that gets one is ignored: neither
    right nor wrong. An absorbing object takes any number of detections.

    Args:
        pairs: of detections that are numbered by falling score within their group.
        detections: D.
        excused: (A, G) objects that need not be found; each row is a matching of its own.
        absorbing: (G,), among the excused ones of every row.
        thresholds: (T,) smallest overlap of a match.
        last_of_equals: whether of equal overlaps the last object wins, as in COCO, or the first.

    Returns:
        hit, ignored: (A, T, D) each; what is neither is a false positive.
    """
    variants, objects = excused.shape
    found = np.zeros((2, variants, len(thresholds), detections), np.bool_)
    tie = -pairs.target if last_of_equals else pairs.target
    order = np.lexsort((tie, -pairs.overlap, pairs.detection))
    pairs = pairs.take(order)
    for variant, excused_now in enumerate(excused):
        later = excused_now[pairs.target]
        ranked = pairs.take(np.argsort(2 * pairs.detection + later, kind="stable"))
        level, place = (ranked.overlap >= thresholds[:, None]).nonzero()
        detection, target, later = (
            ranked.detection[place],
            ranked.target[place],
            excused_now[ranked.target[place]],
        )
        chosen = greedy_choices(
            level * detections + detection,
            level * objects + target,
            absorbing[target],
            len(thresholds) * objects,
        )
        found[later[chosen].astype(np.intp), variant, level[chosen], detection[chosen]] = True
    return found[0], found[1]


def greedy_choices(detection: Ints, target: Ints, absorbing: Bools, targets: int) -> Ints:
    """The pairs that a greedy match keeps; pairs are sorted by detection, and by preference within.

    All detections ask at once, an object keeps the best that asked so far, and who lost asks the next one
    (Gale and Shapley, 1962). Objects agree on who is best, so there is one stable match: the greedy one.
    """
    nobody = len(detection)
    first = starts(detection)
    last = np.append(first[1:], True)
    holder = np.full(targets, nobody)
    absorbed, asking = [], first.nonzero()[0]
    while len(asking):
        free = absorbing[asking]
        absorbed.append(asking[free])
        asking = asking[~free]
        wanted = target[asking]
        before = holder[wanted]
        np.minimum.at(holder, wanted, asking)
        after = holder[wanted]
        lost = np.concatenate(
            [asking[after != asking], np.unique(before[(before != after) & (before < nobody)])]
        )
        asking = lost[~last[lost]] + 1
    return np.concatenate([*absorbed, holder[holder < nobody]])


def starts(values: Ints) -> Bools:
    """(n,) where a run of equal values begins."""
    return np.append(True, values[1:] != values[:-1])[: len(values)]


def _areas(a: Floats, b: Floats, offset: float) -> tuple[Floats, Floats, Floats]:
    """Intersections of boxes with those beside them, and the areas of both."""
    ax1, ay1, ax2, ay2 = np.moveaxis(a.astype(np.float64), -1, 0)
    bx1, by1, bx2, by2 = np.moveaxis(b.astype(np.float64), -1, 0)
    width = (np.minimum(ax2, bx2) - np.maximum(ax1, bx1) + offset).clip(min=0)
    height = (np.minimum(ay2, by2) - np.maximum(ay1, by1) + offset).clip(min=0)
    area_a = (ax2 - ax1 + offset).clip(min=0) * (ay2 - ay1 + offset).clip(min=0)
    area_b = (bx2 - bx1 + offset).clip(min=0) * (by2 - by1 + offset).clip(min=0)
    return width * height, area_a, area_b


def _ratio(part: Floats, whole: Floats) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = part / np.where(whole > 0, whole, 1.0)
    return ratio
