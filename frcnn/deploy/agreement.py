"""Whether two lists of boxes that should be the same are, up to what rounding may decide either way.

Two implementations of one network differ in the last bits. Where a value lies that close to a limit, one
keeps a box that the other drops; and a box that is kept suppresses others. Everything else is a disagreement.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from frcnn.metrics.matching import pairwise_iou

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

NEAR = 1e-4
"""How close to a limit a score or an overlap may be decided either way."""


class Boxes(NamedTuple):
    """The n boxes that one side kept in an image."""

    boxes: Floats  # (n, 4) xyxy pixels
    scores: Floats  # (n,)
    labels: Ints  # (n,)

    def take(self, places: Ints | NDArray[np.bool_] | list[int]) -> "Boxes":
        """Some of them."""
        return Boxes(self.boxes[places], self.scores[places], self.labels[places])


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What decides whether a box is kept.

    Attributes:
        score: boxes score more.
        iou: the overlap above which the lower-scored box of a label goes.
        most: boxes that are kept.
    """

    score: float
    iou: float
    most: int


@dataclass
class Agreement:
    """What comparing two lists found.

    Attributes:
        pairs: (m, 2) places of partners in both lists.
        box_difference: largest difference of a coordinate between partners, pixels.
        score_difference: largest difference of their scores.
        reasons: side (0 or 1) and place of each box without a partner, and the limit it lies at; None where
            it lies at none.
    """

    pairs: Ints
    box_difference: float
    score_difference: float
    reasons: dict[tuple[int, int], str | None] = field(default_factory=dict)

    @property
    def unexplained(self) -> list[tuple[int, int]]:
        """Side and place of the boxes whose partner is missing for no reason."""
        return [where for where, reason in self.reasons.items() if reason is None]


def compare(
    first: Boxes,
    second: Boxes,
    *,
    limits: Limits,
    box_tolerance: float = 0.05,
    score_tolerance: float = NEAR,
    candidates: tuple[Boxes, Boxes] | None = None,
    doubtful: tuple[Collection[int], Collection[int]] = ((), ()),
) -> Agreement:
    """Give each box of one list its partner in the other, and say why one has none.

    Partners have the same label, scores and coordinates that differ by no more than the tolerances. One
    without is excused where

    - its score is within `NEAR` of the score limit, or of the last one that a full list kept,
    - its overlap with a box of its label is within `NEAR` of the overlap limit,
    - a box that suppresses it has the same score up to `NEAR`, so that either may suppress the other (only
      where candidates show that both sides had both),
    - the box that suppresses it on the other side is itself one that is excused,
    - it comes from a region that is (`doubtful`);

    and, where candidates are known, only if the other side had it among them.

    Args:
        first: one side.
        second: the other.
        limits: those of both sides.
        box_tolerance: pixels.
        score_tolerance: largest difference of scores.
        candidates: what each side chose from.
        doubtful: places in each list of boxes that come from regions without a partner.
    """
    sides = (first, second)
    pairs = _partners(first, second, box_tolerance, score_tolerance)
    coordinates = np.abs(first.boxes[pairs[:, 0]] - second.boxes[pairs[:, 1]])
    scores = np.abs(first.scores[pairs[:, 0]] - second.scores[pairs[:, 1]])
    found = Agreement(pairs, float(coordinates.max(initial=0)), float(scores.max(initial=0)))
    alone = [sorted(set(range(len(side.scores))) - set(pairs[:, i].tolist())) for i, side in enumerate(sides)]
    strangers = set()  # that the other side never had, and so dropped for no limit
    for side, own in enumerate(sides):
        for place in alone[side]:
            here, reason = own.take([place]), None
            if place in doubtful[side]:
                reason = "region"
            elif candidates is not None and not near(here, candidates[1 - side]).any():
                strangers.add((side, place))
            else:
                seen = None if candidates is None else candidates[side]
                reason = _at_limit(here, own, sides[1 - side], limits, seen)
            found.reasons[side, place] = reason
    _follow(found, sides, limits, strangers)
    return found


def _partners(first: Boxes, second: Boxes, box_tolerance: float, score_tolerance: float) -> Ints:
    """(m, 2): best-scored first, each with the nearest that is free."""
    apart = np.abs(first.boxes[:, None] - second.boxes[None]).max(-1, initial=0)
    apart = np.where(near(first, second, box_tolerance, score_tolerance), apart, np.inf)
    pairs, taken = [], np.zeros(len(second.scores), np.bool_)
    for i in np.argsort(-first.scores, kind="stable"):
        row = np.where(taken, np.inf, apart[i])
        if len(row) and np.isfinite(row[j := int(row.argmin())]):
            taken[j] = True
            pairs.append((int(i), j))
    return np.array(pairs, np.int64).reshape(-1, 2)


def near(
    first: Boxes, second: Boxes, box_tolerance: float = 0.05, score_tolerance: float = NEAR
) -> NDArray[np.bool_]:
    """(n, m) which boxes may be partners."""
    apart = np.abs(first.boxes[:, None] - second.boxes[None]).max(-1, initial=0)
    close = np.abs(first.scores[:, None] - second.scores[None]) <= score_tolerance
    near_by: NDArray[np.bool_] = (first.labels[:, None] == second.labels) & close & (apart <= box_tolerance)
    return near_by


def _at_limit(here: Boxes, own: Boxes, other: Boxes, limits: Limits, candidates: Boxes | None) -> str | None:
    """The limit that a box (`here`, of `own`) lies at, if it does at one."""
    score, label = here.scores[0], here.labels[0]
    if score <= limits.score + NEAR:
        return "score"
    if len(other.scores) >= limits.most and score <= other.scores.min() + NEAR:
        return "number"
    for side in (own, other):
        overlaps = np.where(side.labels == label, pairwise_iou(here.boxes, side.boxes)[0], -1)
        if (np.abs(overlaps - limits.iou) <= NEAR).any():
            return "overlap"
    rivals = (overlaps > limits.iou) & (np.abs(other.scores - score) <= NEAR)
    if candidates is not None and rivals.any():
        return "order" if near(other.take(rivals), candidates).any() else None
    return None


def _follow(
    found: Agreement, sides: tuple[Boxes, Boxes], limits: Limits, strangers: set[tuple[int, int]]
) -> None:
    """Excuse what boxes that are excused suppress, or push out of a full list, and so on."""
    changed = True
    while changed:
        changed = False
        for side, place in set(found.unexplained) - strangers:
            own, other = sides[side], sides[1 - side]
            excused = [j for (s, j), reason in found.reasons.items() if s == 1 - side and reason]
            rivals = [j for j in excused if other.labels[j] == own.labels[place]]
            overlaps = pairwise_iou(own.boxes[place : place + 1], other.boxes[rivals])[0]
            pushed = len(other.scores) >= limits.most and len(excused) > 0
            later = pushed and place >= len(own.scores) - len(excused)
            if (overlaps > limits.iou).any() or later:
                found.reasons[side, place] = "follows"
                changed = True
