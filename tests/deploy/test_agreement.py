"""The rule that says whether two implementations agree."""

import numpy as np
import pytest

from frcnn.deploy.agreement import Boxes, Limits, compare

LIMITS = Limits(score=0.1, iou=0.5, most=4)


def boxes(*rows):
    """Rows (x1, y1, x2, y2, score, label)."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Boxes(table[:, :4], table[:, 4], table[:, 5].astype(np.int64))


def compared(first, second, **options):
    return compare(boxes(*first), boxes(*second), limits=LIMITS, **options)


A = (0, 0, 10, 10, 0.9, 0)
FAR = (50, 50, 60, 60, 0.8, 1)


def test_partners_may_differ_a_little():
    found = compared([A, FAR], [(0.04, 0, 10, 10, 0.90005, 0), FAR])
    assert found.pairs.tolist() == [[0, 0], [1, 1]]
    assert (found.box_difference, found.score_difference) == pytest.approx((0.04, 0.00005))
    assert found.reasons == {}


@pytest.mark.parametrize(
    "other",
    [(0.06, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.9002, 0), (0, 0, 10, 10, 0.9, 1)],
    ids=["box", "score", "label"],
)
def test_more_is_a_disagreement_on_both_sides(other):
    found = compared([A], [other])
    assert found.unexplained == [(0, 0), (1, 0)]


def test_one_that_is_missing_without_reason():
    assert compared([A, FAR], [A]).unexplained == [(0, 1)]
    assert compared([], [A]).unexplained == [(1, 0)]
    assert compared([], []).unexplained == []


def test_a_score_at_the_threshold():
    low = (50, 50, 60, 60, 0.10005, 1)
    assert compared([A, low], [A]).reasons == {(0, 1): "score"}
    assert compared([A, (50, 50, 60, 60, 0.1002, 1)], [A]).unexplained == [(0, 1)]


def test_a_full_list_drops_its_last():
    rest = [(100 + 20 * i, 0, 110 + 20 * i, 10, 0.5, 0) for i in range(4)]
    one, other = (300, 0, 310, 10, 0.49995, 0), (340, 0, 350, 10, 0.5, 0)
    found = compared([*rest[:3], one], [*rest[:3], other])
    assert found.reasons == {(0, 3): "number", (1, 3): "number"}


def test_an_overlap_at_the_limit():
    # (0, 0, 10, 10) and (0, 0, 10, 5): intersection over union is 50 / 100.
    assert compared([A, (0, 0, 10, 5, 0.6, 0)], [A]).reasons == {(0, 1): "overlap"}
    assert compared([A, (0, 0, 10, 5.1, 0.6, 0)], [A]).unexplained == [(0, 1)]
    assert compared([A, (0, 0, 10, 5, 0.6, 1)], [A]).unexplained == [(0, 1)]


def test_equal_scores_may_suppress_either_way():
    shifted = (1, 0, 11, 10, 0.89995, 0)  # IoU 9/11
    both = (boxes(A, shifted), boxes(A, shifted))
    assert compared([A], [shifted], candidates=both).reasons == {(0, 0): "order", (1, 0): "order"}
    # Not if one side never saw the other's box: then it is the same box in another place.
    assert len(compared([A], [shifted], candidates=(boxes(A), boxes(shifted))).unexplained) == 2
    assert len(compared([A], [(1, 0, 11, 10, 0.8, 0)]).unexplained) == 2


def test_a_box_that_the_other_side_never_had_is_no_matter_of_limits():
    half = (0, 0, 10, 5, 0.6, 0)
    assert compared([A, half], [A], candidates=(boxes(A, half), boxes(A))).unexplained == [(0, 1)]
    assert compared([A, half], [A], candidates=(boxes(A, half), boxes(A, half))).unexplained == []


def test_what_an_excused_box_suppresses_is_excused():
    """The second list drops b at the limit of a; so it keeps c, which b suppresses in the first."""
    a, b, c = (0, 0, 10, 10, 0.9, 0), (0, 0, 10, 5, 0.8, 0), (0, 0, 8, 5, 0.7, 0)
    found = compared([a, b], [a, c])
    assert found.reasons == {(0, 1): "overlap", (1, 1): "follows"}


def test_regions_without_a_partner_excuse_what_comes_of_them():
    assert compared([A, FAR], [A], doubtful=({1}, set())).reasons == {(0, 1): "region"}
