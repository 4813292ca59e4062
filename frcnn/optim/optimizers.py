"""Optimizers with Keras' update rules, and which weights decay (tao/model-and-training.md 7.1, 7.2)."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from frcnn.ops.devices import carry

ParameterGroup = dict[str, Any]
Parameters = Iterable[Tensor] | Iterable[ParameterGroup]


class SGD(Optimizer):
    """`v = m * v - lr * g; p += v`, with nesterov `p += m * v - lr * g`.

    The rate is part of the velocity: unlike with torch's SGD, a step after a change of the rate still
    moves as fast as before. `weight_decay` adds `weight_decay * p` to the gradient.
    """

    def __init__(
        self,
        params: Parameters,
        *,
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(params, group)
        return loss

    def _update(self, params: list[Tensor], group: ParameterGroup) -> None:
        lr, momentum = group["lr"], group["momentum"]
        gradients = [p.grad for p in params if p.grad is not None]
        if group["weight_decay"] != 0:
            gradients = list(torch._foreach_add(gradients, params, alpha=group["weight_decay"]))
        if momentum == 0:
            torch._foreach_add_(params, gradients, alpha=-lr)
            return
        for p in params:
            if "velocity" not in self.state[p]:
                self.state[p]["velocity"] = torch.zeros_like(p)
        velocities = [self.state[p]["velocity"] for p in params]
        torch._foreach_mul_(velocities, momentum)
        torch._foreach_add_(velocities, gradients, alpha=-lr)
        if group["nesterov"]:
            torch._foreach_add_(params, velocities, alpha=momentum)
            torch._foreach_add_(params, gradients, alpha=-lr)
        else:
            torch._foreach_add_(params, velocities)


class Adam(torch.optim.Adam):
    """Adam with epsilon outside the bias correction.

    `p -= lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps)`: torch's with `eps / sqrt(1 - b2^t)` at
    step t, which is set before each step.
    """

    def __init__(
        self,
        params: Parameters,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        amsgrad: bool = False,
        epsilon: float = 1e-7,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=epsilon, amsgrad=amsgrad)
        for group in self.param_groups:
            # In the groups, so that a checkpoint restores them.
            group.update(epsilon=epsilon, steps=0)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update; returns the closure's loss."""
        for group in self.param_groups:
            group["steps"] += 1
            group["eps"] = group["epsilon"] / math.sqrt(1 - group["betas"][1] ** group["steps"])
        return super().step(closure)


def rmsprop(params: Parameters, *, lr: float) -> torch.optim.RMSprop:
    """`a = 0.9 * a + 0.1 * g^2; p -= lr * g / (sqrt(a) + 1e-7)`: torch's own form."""
    return torch.optim.RMSprop(params, lr=lr, alpha=0.9, eps=1e-7)


def parameter_groups(module: nn.Module, *, l2: float = 0.0) -> list[ParameterGroup]:
    """Trainable parameters as two groups: kernels with decay `2 * l2`, and everything else without.

    TAO: the regulariser adds `l2 * x^2` to the loss, without 1/2, and depthwise kernels escape it.
    """
    kernels = list(_kernels(module))
    taken = {id(kernel) for kernel in kernels}
    others = [p for p in module.parameters() if p.requires_grad and id(p) not in taken]
    return [{"params": kernels, "weight_decay": 2 * l2}, {"params": others, "weight_decay": 0.0}]


def group_settings(optimizer: Optimizer) -> list[ParameterGroup]:
    """What each group was made with: without its parameters and its state."""
    state = ("params", "steps")
    return [{k: v for k, v in group.items() if k not in state} for group in optimizer.param_groups]


def l1_penalty(module: nn.Module, weight: float) -> Tensor:
    """`weight * sum |x|` over the trainable kernels that `parameter_groups` decays: a scalar."""
    kernels = list(_kernels(module))
    return weight * torch.stack([carry(kernel.abs().sum(), to=kernels[0]) for kernel in kernels]).sum()


@torch.no_grad()
def l2_penalty(module: nn.Module, weight: float) -> Tensor:
    """`weight * sum x^2` over all kernels, frozen ones too: what TAO's loss shows, a scalar without gradient.

    The optimizer's weight decay is its gradient, see `parameter_groups`.
    """
    norms = torch._foreach_norm(list(_kernels(module, frozen=True)))
    return weight * torch.stack([carry(norm, to=norms[0]) for norm in norms]).square().sum()


def _kernels(module: nn.Module, *, frozen: bool = False) -> Iterator[Tensor]:
    for layer in module.modules():
        depthwise = isinstance(layer, nn.Conv2d) and 1 < layer.groups == layer.in_channels
        if (
            isinstance(layer, nn.Conv2d | nn.Linear)
            and not depthwise
            and (frozen or layer.weight.requires_grad)
        ):
            yield layer.weight
