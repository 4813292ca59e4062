"""The original's rule, worked by hand (tao/eval-prune-export.md 4.1 to 4.3)."""

import math

import pytest
import torch

from frcnn.prune.keep import CRITERIA, NORMALIZERS, choose, norms


def kept(strengths, *, threshold=0.5, granularity=1, min_filters=1):
    choice = choose(
        torch.tensor(strengths, dtype=torch.float64),
        threshold=threshold,
        granularity=granularity,
        min_filters=min_filters,
    )
    return choice.filters.tolist()


def test_a_filters_norm_is_over_everything_but_the_filters():
    convolution = torch.zeros(2, 2, 1, 2)
    convolution[0, 0, 0, 0], convolution[0, 1, 0, 1], convolution[1, 1, 0, 0] = 3.0, -4.0, 2.0
    assert norms(convolution).tolist() == [5.0, 2.0]
    assert norms(torch.tensor([[1.0, 2.0, 2.0], [0.0, 0.0, 0.0]])).tolist() == [3.0, 0.0]  # dense
    depthwise = torch.tensor([[[[6.0, 8.0]]], [[[0.0, 1.0]]]])
    assert norms(depthwise).tolist() == [10.0, 1.0]


def test_the_two_normalizers():
    found = torch.tensor([3.0, 4.0, 0.0, 12.0], dtype=torch.float64)  # L2 norm 13
    assert NORMALIZERS["max"](found).tolist() == [0.25, pytest.approx(1 / 3), 0.0, 1.0]
    assert NORMALIZERS["L2"](found).tolist() == pytest.approx([12 / 13, 16 / 13, 0.0, 48 / 13])
    # n equal filters have sqrt(n) each: thresholds of L2 are on another scale.
    assert NORMALIZERS["L2"](torch.full((64,), 7.0)).tolist() == pytest.approx([8.0] * 64)
    assert [normalize(torch.zeros(2)).tolist() for normalize in NORMALIZERS.values()] == [[0.0, 0.0]] * 2


# Two layers that are added, normalised: they disagree about channels 0 and 1.
TABLE = torch.tensor([[0.9, 0.1, 0.4, 1.0, 0.0], [0.1, 1.0, 0.6, 0.4, 0.9]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("criterion", "strengths", "filters"),
    [
        ("union", [0.9, 1.0, 0.6, 1.0, 0.9], [0, 1, 2, 3, 4]),
        ("intersection", [0.1, 0.1, 0.4, 0.4, 0.0], [2, 3]),
        ("arithmetic_mean", [0.5, 0.55, 0.5, 0.7, 0.45], [0, 1, 2, 3, 4]),
        ("geometric_mean", [0.3, math.sqrt(0.1), math.sqrt(0.24), math.sqrt(0.4), 0.0], [1, 2, 3]),
    ],
)
def test_the_four_criteria(criterion, strengths, filters):
    found = CRITERIA[criterion](TABLE)
    assert found.tolist() == pytest.approx(strengths)
    thresholds = {"union": 0.5, "intersection": 0.3, "arithmetic_mean": 0.42, "geometric_mean": 0.31}
    assert kept(found.tolist(), threshold=thresholds[criterion]) == filters


def test_a_strength_at_the_threshold_does_not_count():
    assert kept([0.5, 0.6, 0.4, 0.9]) == [1, 3]


def test_the_number_is_rounded_up_and_the_strongest_fill_it():
    # 3 of 12 exceed 0.5; rounded up to 4 the next strongest, filter 7, joins them in its place.
    strengths = [0.9, 0.1, 0.1, 0.8, 0.1, 0.1, 0.1, 0.3, 0.1, 0.7, 0.1, 0.1]
    assert kept(strengths, granularity=4) == [0, 3, 7, 9]
    assert kept(strengths, granularity=3) == [0, 3, 9]


def test_a_width_that_rounding_reaches_stays_whole():
    assert kept([0.9, 0.8, 0.7, 0.6, 0.1], granularity=8) == [0, 1, 2, 3, 4]  # narrower than the granularity
    strengths = [0.9] * 9 + [0.1]
    assert len(kept(strengths, granularity=8)) == 10  # 9 -> 16 -> 10
    assert len(kept([0.9] * 8 + [0.1] * 2, granularity=8)) == 8


def test_at_least_so_many_stay():
    strengths = [0.1 * i for i in range(10)]  # rising: the last are the strongest
    assert kept(strengths, threshold=2, min_filters=4) == [6, 7, 8, 9]
    assert kept(strengths, threshold=2, min_filters=4, granularity=3) == [4, 5, 6, 7, 8, 9]
    assert kept(strengths, threshold=2, min_filters=16) == list(range(10))


def test_the_defaults_on_a_layer_of_64():
    # 18 filters above 0.1 -> 18 >= 16 -> 24; 3 above -> 16 -> 16.
    assert len(kept([1.0] * 18 + [0.05] * 46, threshold=0.1, granularity=8, min_filters=16)) == 24
    assert len(kept([1.0] * 3 + [0.05] * 61, threshold=0.1, granularity=8, min_filters=16)) == 16


def test_of_equal_filters_the_first_stay():
    assert kept([0.2] * 6, min_filters=3) == [0, 1, 2]


def test_the_reason_says_what_decided():
    def reason(count, **settings):
        return choose(torch.tensor([0.9] * count + [0.1] * (64 - count)), threshold=0.5, **settings).reason

    assert reason(24, granularity=8, min_filters=16) == "24 of 64 above 0.5"
    assert reason(18, granularity=8, min_filters=16) == "18 of 64 above 0.5, rounded up to 24"
    assert reason(3, granularity=8, min_filters=16) == "3 of 64 above 0.5, at least 16"
    assert reason(3, granularity=24, min_filters=16) == "3 of 64 above 0.5, at least 16, rounded up to 24"
