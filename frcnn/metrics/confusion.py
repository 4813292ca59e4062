"""What is taken for what: classes and background against each other."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from frcnn.metrics.matching import Pairs, greedy_choices, overlapping
from frcnn.metrics.verdict import Scenes

IOU = 0.5


class Confusion(NamedTuple):
    """Objects by class (rows) and what they were detected as (columns); background comes last in both.

    The last column counts objects that were missed, the last row detections of nothing.
    """

    counts: tuple[tuple[int, ...], ...]  # (K + 1, K + 1)
    cuts: tuple[float, ...]  # (K,) score from which detections of a class count

    def to_dict(self, class_names: Sequence[str]) -> dict[str, Any]:
        """JSON-ready."""
        scores = dict(zip(class_names, self.cuts, strict=True))
        return {
            "iou": IOU,
            "scores": scores,
            "labels": [*class_names, ""],
            "counts": [list(row) for row in self.counts],
        }


def confusion(scenes: Scenes, *, cuts: Sequence[float]) -> Confusion:
    """Count at IoU 0.5.

    Objects first go to detections of their own class, as in average precision, so that the diagonal holds its
    true positives. What is left on both sides is matched whatever the class, best score first. Difficult
    objects, areas to ignore and what is detected there do not count.

    Args:
        scenes: detections and ground truth.
        cuts: (K,) score from which detections of a class count.
    """
    classes = scenes.classes
    kept = np.nonzero(scenes.score >= np.asarray(cuts)[scenes.label])[0]
    kept = kept[np.argsort(-scenes.score[kept], kind="stable")]
    image, label, box = scenes.image[kept], scenes.label[kept], scenes.box[kept]
    group, targets, excused, area = scenes.targets()
    pairs = overlapping(
        image * classes + label,
        box,
        target_groups=group,
        target_boxes=targets,
        by_share=area,
        smallest=IOU,
    )
    own = _best(pairs, excused)
    right = own.target[~excused[own.target]]
    taken = [(group[right] % classes, group[right] % classes)]

    free = ~excused
    free[right] = False
    left, open_ = np.setdiff1d(np.arange(len(kept)), own.detection), np.nonzero(free)[0]
    pairs = overlapping(
        image[left],
        box[left],
        target_groups=group[open_] // classes,
        target_boxes=targets[open_],
        by_share=np.zeros(len(open_), np.bool_),
        smallest=IOU,
    )
    mixed = _best(pairs, np.zeros(len(open_), np.bool_))
    truth = group[open_] % classes
    taken.append((truth[mixed.target], label[left][mixed.detection]))
    nothing, missed = np.delete(label[left], mixed.detection), np.delete(truth, mixed.target)
    taken += [(np.full_like(nothing, classes), nothing), (missed, np.full_like(missed, classes))]
    row, column = (np.concatenate(side) for side in zip(*taken, strict=True))
    side = classes + 1
    counts = np.bincount(row * side + column, minlength=side * side).reshape(side, side)
    return Confusion(tuple(map(tuple, counts.tolist())), tuple(float(cut) for cut in cuts))


def _best(pairs: Pairs, excused: NDArray[np.bool_]) -> Pairs:
    """The pairs of a greedy match; detections are numbered by falling score."""
    order = np.lexsort((pairs.target, -pairs.overlap, excused[pairs.target], pairs.detection))
    ranked = pairs.take(order)
    return ranked.take(greedy_choices(ranked.detection, ranked.target, excused[ranked.target], len(excused)))
