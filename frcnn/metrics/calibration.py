"""Whether scores mean what they say: eight in ten detections that score 0.8 should be right."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BINS = 10
FROM = 0.05
"""Score from which detections count: below lie most of them, nearly all wrong, which hides all others."""


class Calibration(NamedTuple):
    """Detections in bins of equal width between 0 and 1, those without a detection left out.

    The error is the mean over detections of the distance between score and precision of their bin (expected
    calibration error; Guo et al., 2017).
    """

    error: float
    score: tuple[float, ...]  # mean score of a bin
    precision: tuple[float, ...]  # share of its detections that are right
    detections: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in self._asdict().items()}


def calibration(scores: NDArray[np.floating], correct: NDArray[np.bool_]) -> Calibration | None:
    """Reliability of scores (D,) of detections that are right or wrong (D,); None without a detection."""
    counted = scores >= FROM
    score, right = scores[counted].astype(np.float64), correct[counted].astype(np.float64)
    if not len(score):
        return None
    place = np.minimum((score * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(place, minlength=BINS)
    filled = count > 0
    count = count[filled]
    mean = np.bincount(place, score, minlength=BINS)[filled] / count
    precision = np.bincount(place, right, minlength=BINS)[filled] / count
    error = float((count * np.abs(mean - precision)).sum() / count.sum())
    return Calibration(error, tuple(mean.tolist()), tuple(precision.tolist()), tuple(count.tolist()))
