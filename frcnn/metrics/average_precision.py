"""Precision, recall and their averages from detections that are already sorted and judged.

Shapes: D detections in descending order of score. Formulas: PASCAL VOC development kit, 2007 and 2010.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Curve = NDArray[np.float64]


class OperatingPoint(NamedTuple):
    """What a user gets who keeps every detection with at least this score."""

    score: float
    precision: float
    recall: float


def precision_recall(correct: NDArray[np.bool_], *, positives: int) -> tuple[Curve, Curve]:
    """Precision and recall after each detection.

    Args:
        correct: (D,) true and false positives, best score first.
        positives: number of objects that can be found, at least 1.

    Returns:
        precision, recall: (D,) each.
    """
    found = correct.cumsum(dtype=np.float64)
    return found / np.arange(1, len(correct) + 1), found / positives


def area_under_envelope(precision: Curve, recall: Curve) -> float:
    """All-point average precision (VOC 2010): the area under precision made non-increasing in recall."""
    return float(np.sum(np.diff(recall, prepend=0.0) * precision_envelope(precision)))


def precision_envelope(precision: Curve) -> Curve:
    """The best precision at this recall or any higher one, (D,)."""
    return np.maximum.accumulate(precision[::-1])[::-1]


def eleven_point_mean(precision: Curve, recall: Curve) -> float:
    """Average precision of VOC 2007: mean over recall 0, 0.1 .. 1 of the best precision from there on."""
    # k / 10 rounds as found / positives does, so a recall of exactly 3/10 reaches the level 0.3.
    levels = np.arange(11) / 10
    return float(np.mean([precision[recall >= level].max(initial=0.0) for level in levels]))


def best_f1_point(scores: NDArray[np.floating], precision: Curve, recall: Curve) -> OperatingPoint | None:
    """The score whose precision and recall have the largest harmonic mean; None if nothing was found.

    A score cuts between detections, never through a group of equal ones; of equal F1 the higher score wins.
    """
    ends = np.append(scores[1:] != scores[:-1], True)[: len(scores)]
    scores, precision, recall = scores[ends], precision[ends], recall[ends]
    if not recall.any():
        return None
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(np.float64).tiny)
    best = int(f1.argmax())
    return OperatingPoint(float(scores[best]), float(precision[best]), float(recall[best]))
