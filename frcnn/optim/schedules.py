"""Learning rates as pure functions of a run's progress, 0 at its start and 1 at its end."""

import math
from collections.abc import Sequence

from frcnn.errors import RunError


def soft_start(
    progress: float,
    *,
    base_lr: float,
    start_lr: float,
    soft_start: float,
    annealing_points: Sequence[float],
    annealing_divider: float,
) -> float:
    """Linear from start_lr to base_lr, then divided at each annealing point (facts 7.3).

    Args:
        progress: share of the run that is done.
        base_lr: the rate after the start.
        start_lr: the rate of the first step.
        soft_start: progress at which base_lr is reached.
        annealing_points: progress values; the rate falls strictly after each.
        annealing_divider: by what.

    Raises:
        RunError: progress is outside [0, 1].
    """
    _check(progress)
    if base_lr == 0:
        return 0.0
    if progress < soft_start:
        return start_lr + (base_lr - start_lr) * progress / soft_start
    return base_lr / annealing_divider ** sum(point < progress for point in annealing_points)


def step(progress: float, *, base_lr: float, gamma: float, step_size: float, smooth: bool = False) -> float:
    """Multiply by gamma every `step_size` percent of the run (facts 7.3).

    TAO documents a staircase and computes `base_lr * gamma ^ (progress / step_size)`; `smooth` is that one.

    Raises:
        RunError: progress is outside [0, 1].
    """
    _check(progress)
    steps = 100 * progress / step_size
    # 100 * 0.07 / 7 must be a whole step, whatever its last bit says.
    return float(base_lr * gamma ** (steps if smooth else math.floor(steps + 1e-9)))


def inverse_time_decay(lr: float, *, decay: float, steps: int) -> float:
    """`lr / (1 + decay * steps)`: what Keras' `decay` makes of a scheduled rate."""
    return lr / (1 + decay * steps)


def _check(progress: float) -> None:
    if not 0 <= progress <= 1:
        raise RunError(
            "training goes on after the end of its learning-rate schedule",
            found=f"progress {progress}",
            allowed="0 to 1",
            hint="raise the number of epochs",
        )
