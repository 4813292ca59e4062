"""Optimizer, schedule and penalties of a spec."""

from collections.abc import Callable
from functools import partial

from torch import nn
from torch.optim import Optimizer

from frcnn.errors import SpecError
from frcnn.optim import optimizers, schedules
from frcnn.spec.experiment import Experiment
from frcnn.spec.training import LRConfig, OptimizerConfig, RegularizationType


def optimizer(spec: Experiment) -> Callable[[nn.Module], Optimizer]:
    """What makes the optimizer for a detector; the schedule sets its rate."""
    make, l2 = _optimizer_class(spec.training_config.optimizer), penalty(spec, "L2")
    return lambda detector: make(optimizers.parameter_groups(detector, l2=l2), lr=1.0)


def _optimizer_class(config: OptimizerConfig) -> Callable[..., Optimizer]:
    if config.adam:
        adam = config.adam
        betas = (adam.beta_1, adam.beta_2)
        return partial(optimizers.Adam, betas=betas, amsgrad=adam.amsgrad, epsilon=adam.epsilon)
    if config.sgd:
        return partial(optimizers.SGD, momentum=config.sgd.momentum, nesterov=config.sgd.nesterov)
    return optimizers.rmsprop


def penalty(spec: Experiment, kind: str) -> float:
    """Weight of the penalty `L1` or `L2`; 0 where the regularizer is another."""
    regularizer = spec.training_config.regularizer
    return regularizer.weight if regularizer.type == RegularizationType[kind] else 0.0


def schedule(spec: Experiment, *, tao_quirks: bool = False) -> Callable[[int, int], float]:
    """The learning rate as a function of step and number of steps, for one device."""
    by_progress = _schedule(spec.training_config.learning_rate, tao_quirks)
    config = spec.training_config.optimizer
    decay = next((member.decay for member in (config.adam, config.sgd) if member), 0.0)

    def rate(step: int, steps: int) -> float:
        return schedules.inverse_time_decay(by_progress(step / max(steps, 1)), decay=decay, steps=step)

    return rate


def _schedule(config: LRConfig, smooth: bool) -> Callable[[float], float]:
    if config.soft_start:
        soft = config.soft_start
        return partial(
            schedules.soft_start,
            base_lr=soft.base_lr,
            start_lr=soft.start_lr,
            soft_start=soft.soft_start,
            annealing_points=soft.annealing_points,
            annealing_divider=soft.annealing_divider,
        )
    if config.step:
        step = config.step
        return partial(
            schedules.step, base_lr=step.base_lr, gamma=step.gamma, step_size=step.step_size, smooth=smooth
        )
    raise SpecError("is required", where="training_config.learning_rate", allowed="soft_start or step")
