"""How often an epoch shows each source, and in which order."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frcnn.data.sampling import Share, draw_epoch, expected_draws, is_even

LARGE, SMALL = Share("large", 3000, 1.0), Share("small", 1000, 3.0)


def test_expected_draws_by_hand() -> None:
    # 3000 x 1 and 1000 x 3 weigh the same: half of 4000 samples each
    assert expected_draws([LARGE, SMALL]) == [2000.0, 2000.0]
    assert expected_draws([Share("a", 10, 0.5), Share("b", 30, 0.5)]) == [10.0, 30.0]


def test_even_shares() -> None:
    assert is_even([]) and is_even([LARGE])
    assert is_even([Share("a", 1, 2.0), Share("b", 5, 2.0), Share("empty", 0, 7.0)])
    assert not is_even([LARGE, SMALL])


def test_sources_are_drawn_as_often_as_they_should() -> None:
    numbers = draw_epoch([LARGE, SMALL], seed=0, epoch=0) % 4000
    # binomial(4000, 1/2): 2000 with a deviation of 31.6
    assert abs(int((numbers >= 3000).sum()) - 2000) < 4 * math.sqrt(4000 / 4)


def test_a_source_comes_in_passes_and_each_visit_has_a_number_of_its_own() -> None:
    numbers = draw_epoch([LARGE, SMALL], seed=0, epoch=0)
    assert len(numbers) == 4000 == len(np.unique(numbers))
    small = numbers[numbers % 4000 >= 3000]
    visits, images = np.divmod(small, 4000)
    assert (np.diff(visits) >= 0).all()  # a pass is over before the next begins
    first, second = images[visits == 0], images[visits == 1]
    assert sorted(first) == list(range(3000, 4000))
    assert first[:50].tolist() != second[:50].tolist()


def test_seed_and_epoch_decide() -> None:
    shares = [LARGE, SMALL]
    one = draw_epoch(shares, seed=1, epoch=2)
    np.testing.assert_array_equal(one, draw_epoch(shares, seed=1, epoch=2))
    for other in (draw_epoch(shares, seed=2, epoch=1), draw_epoch(shares, seed=1, epoch=3)):
        assert (one != other).mean() > 0.9


share = st.builds(Share, st.just("x"), st.integers(1, 9), st.sampled_from([0.1, 0.5, 1.0, 4.0, 50.0]))


@settings(max_examples=80, deadline=None)
@given(st.lists(share, min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_visits_of_images_of_a_source_differ_by_one_at_most(shares: list[Share], seed: int) -> None:
    total = sum(share.images for share in shares)
    numbers = draw_epoch(shares, seed=seed, epoch=0)
    visits = np.bincount(numbers % total, minlength=total)
    assert visits.sum() == total
    # every visit of an image has the next number: 0, 1, 2, ...
    assert set(numbers.tolist()) == {i + k * total for i, count in enumerate(visits) for k in range(count)}
    for part in np.split(visits, np.cumsum([share.images for share in shares])[:-1]):
        assert np.ptp(part) <= 1


@pytest.mark.parametrize("weights", [(0.0, 1.0), (1.0, 0.0)])
def test_a_source_without_weight_is_never_drawn(weights: tuple[float, float]) -> None:
    shares = [Share(f"{i}", 4, weight) for i, weight in enumerate(weights)]
    numbers = draw_epoch(shares, seed=0, epoch=0) % 8
    assert set(numbers.tolist()) == set(range(4, 8) if weights[1] else range(4))
