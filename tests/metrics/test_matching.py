"""Overlaps and matches on a handful of boxes, and against a plain loop on random ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.metrics import matching
from frcnn.metrics.matching import overlapping, pairwise_iou


def test_iou_of_half_overlapping_boxes():
    a = np.array([[0, 0, 10, 10.0]])
    b = np.array([[5, 0, 15, 10], [0, 0, 10, 10], [20, 20, 30, 30], [10, 0, 20, 10.0]])
    assert pairwise_iou(a, b)[0] == pytest.approx([50 / 150, 1, 0, 0])


def test_offset_counts_pixels():
    # 10 x 10 and 10 x 10 pixels that share a column of 10
    a, b = np.array([[0, 0, 9, 9.0]]), np.array([[9, 0, 18, 9.0]])
    assert pairwise_iou(a, b, offset=1.0).item() == pytest.approx(10 / 190)
    assert pairwise_iou(a, b).item() == 0


def test_empty_boxes_overlap_nothing():
    box = np.zeros((1, 4))
    assert pairwise_iou(box, box).item() == 0


def overlaps(a, b, *, by_share=False):
    """Every box of `a` with every one of `b`, all of one group."""
    pairs = overlapping(
        np.zeros(len(a), int),
        a,
        target_groups=np.zeros(len(b), int),
        target_boxes=b,
        by_share=np.full(len(b), by_share),
        smallest=0.0,
    )
    return pairs.overlap.reshape(len(a), len(b))


def test_pairs_of_one_group_have_the_iou_of_all_pairs():
    rng = np.random.default_rng(0)
    a, b = (np.concatenate([c, c + rng.uniform(1, 9, c.shape)], 1) for c in rng.uniform(0, 9, (2, 7, 2)))
    assert np.array_equal(overlaps(a, b), pairwise_iou(a, b))


def test_only_pairs_within_a_group_and_above_the_smallest_overlap():
    box = np.array([[0, 0, 10, 10.0], [1, 0, 11, 10], [6, 0, 16, 10]])  # IoU with the first: 1, 9/11, 4/16
    pairs = overlapping(
        np.array([3, 8, 8]),
        box[[0, 0, 0]],
        target_groups=np.array([3, 8, 8, 9]),
        target_boxes=box[[0, 1, 2, 0]],
        by_share=np.zeros(4, bool),
        smallest=0.5,
    )
    assert list(zip(*(column.tolist() for column in pairs), strict=True)) == [
        (0, 0, 1.0),
        (1, 1, pytest.approx(9 / 11)),
        (2, 1, pytest.approx(9 / 11)),
    ]


def test_share_is_that_of_the_first_box():
    a = np.array([[0, 0, 10, 10.0], [3, 3, 3, 3]])
    b = np.array([[5, 0, 105, 10], [2, 2, 4, 4], [0, 0, 0, 0.0]])
    assert overlaps(a, b, by_share=True).tolist() == [[0.5, 0.04, 0.0], [0.0, 0.0, 0.0]]


def match(overlaps, *, difficult=None, thresholds=(0.5,), same_class=None, last_of_equals=False):
    """Matches of one image's overlaps (N, G)."""
    overlaps = np.array(overlaps, dtype=float)
    detection, target = (np.ones(overlaps.shape) if same_class is None else np.array(same_class)).nonzero()
    difficult = np.zeros(overlaps.shape[1], bool) if difficult is None else np.array(difficult)
    matched, ignored = matching.match(
        matching.Pairs(detection, target, overlaps[detection, target]),
        detections=len(overlaps),
        excused=difficult[None],
        absorbing=difficult,
        thresholds=np.array(thresholds),
        last_of_equals=last_of_equals,
    )
    return matched[0].tolist(), ignored[0].tolist()


def test_the_second_on_one_object_is_a_duplicate():
    assert match([[0.8], [0.9]]) == ([[True, False]], [[False, False]])


def test_a_detection_falls_back_to_the_best_free_object():
    assert match([[0.9, 0.6], [0.8, 0.7]]) == ([[True, True]], [[False, False]])


def test_each_threshold_matches_on_its_own():
    # at 0.5 the first takes object 0 and leaves object 1 to the second; at 0.65 nothing is left for it
    assert match([[0.9, 0.6], [0.8, 0.6]], thresholds=[0.5, 0.65])[0] == [[True, True], [True, False]]


def test_threshold_is_inclusive():
    assert match([[0.5]])[0] == [[True]]


def test_difficult_objects_absorb_any_number_but_come_second():
    matched, ignored = match([[0.9, 0.6], [0.9, 0.6], [0.9, 0.4]], difficult=[True, False])
    assert matched == [[True, False, False]]
    assert ignored == [[False, True, True]]


def test_of_equal_overlaps_the_first_or_the_last_wins():
    # the second detection reaches object 0 only
    assert match([[0.8, 0.8], [0.9, 0.0]])[0] == [[True, False]]
    assert match([[0.8, 0.8], [0.9, 0.0]], last_of_equals=True)[0] == [[True, True]]


def test_a_chain_in_which_each_pushes_the_next_away():
    # 0 takes object 0, which 1 wanted; 1 takes object 1, which 2 wanted; and so on
    count = 30
    overlaps = np.zeros((count, count))
    for i in range(count):
        overlaps[i, max(i - 1, 0)], overlaps[i, i] = 0.9, 0.8 if i else 0.9
    assert match(overlaps)[0] == [[True] * count]


def test_other_classes_do_not_match():
    assert match([[0.9]], same_class=[[False]]) == ([[False]], [[False]])


def test_no_ground_truth():
    assert match(np.zeros((2, 0))) == ([[False, False]], [[False, False]])


def loop_match(overlaps, same_class, difficult, threshold):
    """What the docstring says, one detection and one object at a time."""
    used, outcome = set(), []
    for overlap, same in zip(overlaps, same_class, strict=True):
        best, partner, excused = threshold, None, False
        for slot, iou in enumerate(overlap):
            if not same[slot] or iou < threshold:
                continue
            if difficult[slot]:
                excused = True
            elif slot not in used and (partner is None or iou > best):
                best, partner = iou, slot
        used.add(partner)
        outcome.append("hit" if partner is not None else "ignored" if excused else "miss")
    return outcome


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(0, 8), st.integers(0, 6))
def test_equals_a_plain_loop(seed, images, detections, slots):
    rng = np.random.default_rng(seed)
    overlaps = rng.integers(0, 11, (images, detections, slots)) / 10  # coarse, so that ties are common
    same_class = rng.random((images, detections, slots)) < 0.7
    difficult = rng.random((images, slots)) < 0.3
    thresholds = (0.3, 0.5, 0.8)
    for i in range(images):
        matched, ignored = match(
            overlaps[i], difficult=difficult[i], thresholds=thresholds, same_class=same_class[i]
        )
        for t, threshold in enumerate(thresholds):
            expected = loop_match(overlaps[i], same_class[i], difficult[i], threshold)
            assert matched[t] == [outcome == "hit" for outcome in expected]
            assert ignored[t] == [outcome == "ignored" for outcome in expected]
