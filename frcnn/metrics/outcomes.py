"""How each image came out: objects found and missed, and detections of nothing."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from frcnn.metrics.matching import Ints
from frcnn.metrics.verdict import ImageRecord, Scenes, Verdict

SHOWN = 6
"""Images that are named as the best ones, and as the worst ones, at most."""


class Outcome(NamedTuple):
    """One image, with the detections of a class from the score of its best F1 on."""

    image: str
    right: int
    wrong: int  # detections that are no object, duplicates among them
    missed: int  # objects
    record: ImageRecord


def count_outcomes(scenes: Scenes, verdict: Verdict, *, cuts: Sequence[float]) -> tuple[Ints, Ints, Ints]:
    """Right detections, wrong ones and missed objects of each image, at the first threshold of a verdict.

    Args:
        scenes: what was judged.
        verdict: on it.
        cuts: (K,) score from which detections of a class count.

    Returns:
        right, wrong, missed: (images,) each.
    """
    images = len(scenes.sizes)
    counts = verdict.score >= np.asarray(cuts)[verdict.label]
    hit = verdict.hit[0] & counts
    right = np.bincount(verdict.image[hit], minlength=images)
    wrong = np.bincount(verdict.image[counts & ~hit & ~verdict.ignored[0]], minlength=images)
    there = np.bincount(scenes.object_image[~scenes.difficult], minlength=images)
    return right, wrong, there - right


def best_and_worst(
    records: Sequence[tuple[str, ImageRecord]], right: Ints, wrong: Ints, missed: Ints
) -> tuple[tuple[Outcome, ...], tuple[Outcome, ...]]:
    """The images with most that is right and least that is not, and those with most that is not.

    Only images where something is right are among the best, only those where something is not among the
    worst, and none is in both; of a few images half can be the worst.
    """
    most = min(SHOWN, -(-len(records) // 2))
    mistakes = wrong + missed
    order = np.lexsort((right, -mistakes))
    worst = order[mistakes[order] > 0][:most]
    order = np.lexsort((-right, mistakes))
    best = order[(right[order] > 0) & ~np.isin(order, worst)][:SHOWN]

    def outcome(i: int) -> Outcome:
        name, record = records[i]
        return Outcome(name, int(right[i]), int(wrong[i]), int(missed[i]), record)

    return tuple(map(outcome, best.tolist())), tuple(map(outcome, worst.tolist()))
