import pytest
from hypothesis import given
from hypothesis import strategies as st

from frcnn.errors import RunError
from frcnn.optim.schedules import inverse_time_decay, soft_start, step

SOFT = {
    "base_lr": 0.02,
    "start_lr": 0.002,
    "soft_start": 0.1,
    "annealing_points": [0.8, 0.9],
    "annealing_divider": 10.0,
}


# tao/model-and-training.md 7.3.
@pytest.mark.parametrize(
    ("progress", "lr"),
    [
        (0, 0.002),
        (0.05, 0.011),
        (0.1, 0.02),
        (0.8, 0.02),
        (0.8001, 0.002),
        (0.9, 0.002),
        (0.9001, 0.0002),
        (1, 0.0002),
    ],
)
def test_soft_start_of_the_original(progress, lr):
    assert soft_start(progress, **SOFT) == pytest.approx(lr)


def test_soft_start_without_warm_up_or_annealing():
    options = SOFT | {"soft_start": 0.0, "annealing_points": [], "annealing_divider": 0.0}
    assert soft_start(0.0, **options) == soft_start(1.0, **options) == 0.02


@pytest.mark.parametrize(("progress", "lr"), [(0.15, 0.00316228), (0.3, 0.001), (1.0, 4.64159e-6)])
def test_smooth_step_of_the_original(progress, lr):
    assert step(progress, base_lr=0.01, gamma=0.1, step_size=30, smooth=True) == pytest.approx(lr)


@pytest.mark.parametrize(
    ("progress", "lr"), [(0, 0.01), (0.15, 0.01), (0.29, 0.01), (0.3, 0.001), (0.6, 1e-4), (1.0, 1e-5)]
)
def test_step_is_a_staircase(progress, lr):
    assert step(progress, base_lr=0.01, gamma=0.1, step_size=30) == pytest.approx(lr)


@given(st.integers(1, 100), st.integers(1, 1000))
def test_step_falls_exactly_at_whole_steps(size, total):
    for k in range(1, 100 // size + 1):
        if (k * size * total) % 100 == 0:
            progress = k * size * total // 100 / total
            assert step(progress, base_lr=1.0, gamma=0.5, step_size=size) == 0.5**k


@given(st.floats(0, 1))
def test_smooth_and_staircase_meet_within_one_step(progress):
    smooth, stairs = (step(progress, base_lr=1.0, gamma=0.1, step_size=25, smooth=s) for s in (True, False))
    assert 0.0999 * stairs <= smooth <= stairs * 1.0001


@pytest.mark.parametrize("progress", [-0.01, 1.01])
def test_progress_outside_of_the_run_is_an_error(progress):
    with pytest.raises(RunError, match="schedule"):
        soft_start(progress, **SOFT)
    with pytest.raises(RunError, match="schedule"):
        step(progress, base_lr=1.0, gamma=0.1, step_size=30)


def test_inverse_time_decay():
    assert inverse_time_decay(0.1, decay=0.01, steps=100) == pytest.approx(0.05)
    assert inverse_time_decay(0.1, decay=0.0, steps=100) == 0.1
