import math
from copy import deepcopy

import pytest
import torch
from torch import nn

from frcnn.optim.optimizers import SGD, Adam, l1_penalty, parameter_groups, rmsprop


def run(make, rates, gradients):
    """Values of one weight, 0 at first, after each step."""
    p = nn.Parameter(torch.zeros(1))
    optimizer = make([p])
    values = []
    for lr, gradient in zip(rates, gradients, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        p.grad = torch.tensor([gradient])
        optimizer.step()
        values.append(p.item())
    return values


def test_sgd_keeps_the_rate_in_the_velocity():
    # v: -1; 0.9 * -1 - 0 = -0.9. torch's SGD would stand still at rate 0.
    values = run(lambda p: SGD(p, lr=1.0, momentum=0.9), rates=[1.0, 0.0], gradients=[1.0, 1.0])
    assert values == pytest.approx([-1, -1.9])


def test_sgd_nesterov_by_hand():
    # v = -1, p = 0.9 * -1 - 1; v = -1.9, p += 0.9 * -1.9 - 1.
    values = run(
        lambda p: SGD(p, lr=1.0, momentum=0.9, nesterov=True), rates=[1.0, 1.0], gradients=[1.0, 1.0]
    )
    assert values == pytest.approx([-1.9, -4.61])


def test_sgd_without_momentum_decays_weights():
    p = nn.Parameter(torch.tensor([2.0]))
    optimizer = SGD([p], lr=0.1, weight_decay=0.5)
    p.grad = torch.tensor([1.0])
    optimizer.step()
    assert p.item() == pytest.approx(2 - 0.1 * (1 + 0.5 * 2))


def test_sgd_equals_torchs_at_a_constant_rate():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(4, 3), nn.Linear(4, 3)
    theirs.load_state_dict(ours.state_dict())
    options = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    optimizers = SGD(ours.parameters(), **options), torch.optim.SGD(theirs.parameters(), **options)
    x = torch.randn(5, 4)
    for _ in range(4):
        for layer, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight)


def adam_by_hand(gradients, lr, beta_1, beta_2, epsilon, amsgrad):
    p = m = v = top = 0.0
    values = []
    for t, g in enumerate(gradients, start=1):
        m = beta_1 * m + (1 - beta_1) * g
        v = beta_2 * v + (1 - beta_2) * g * g
        top = max(top, v) if amsgrad else v
        p -= lr * math.sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (math.sqrt(top) + epsilon)
        values.append(p)
    return values


@pytest.mark.parametrize("amsgrad", [False, True])
def test_adam_keeps_epsilon_out_of_the_correction(amsgrad):
    gradients = [1e-4, 3e-4, -1e-5, 1e-6]
    options = {"lr": 0.1, "betas": (0.9, 0.999), "amsgrad": amsgrad, "epsilon": 1e-4}
    values = run(lambda p: Adam(p, **options), [0.1] * 4, gradients)
    assert values == pytest.approx(adam_by_hand(gradients, 0.1, 0.9, 0.999, 1e-4, amsgrad), rel=1e-4)
    # With so large an epsilon the place of it shows: torch's own form goes elsewhere.
    torchs = run(lambda p: torch.optim.Adam(p, 0.1, eps=1e-4, amsgrad=amsgrad), [0.1] * 4, gradients)
    assert abs(torchs[0] - values[0]) > 0.02


def test_adam_resumes_where_it_was():
    def steps(optimizer, p, gradients):
        for gradient in gradients:
            p.grad = torch.tensor([gradient])
            optimizer.step()

    p = nn.Parameter(torch.zeros(1))
    whole = Adam([p], lr=0.1)
    steps(whole, p, [1.0, 2.0])
    copy = nn.Parameter(p.detach().clone())
    resumed = Adam([copy], lr=0.1)
    resumed.load_state_dict(deepcopy(whole.state_dict()))
    steps(whole, p, [-1.0])
    steps(resumed, copy, [-1.0])
    assert torch.equal(p, copy)


def test_rmsprop_by_hand():
    # a = 0.1 * 4, p = -0.01 * 2 / sqrt(0.4).
    assert run(lambda p: rmsprop(p, lr=0.01), [0.01], [2.0]) == pytest.approx([-0.01 * 2 / 0.4**0.5])


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(4, 2)
    )


def test_only_kernels_decay_and_depthwise_ones_do_not():
    layers = network()
    decayed, others = parameter_groups(layers, l2=1e-4)
    assert decayed["weight_decay"] == 2e-4
    assert others["weight_decay"] == 0
    assert [id(p) for p in decayed["params"]] == [id(layers[0].weight), id(layers[4].weight)]
    assert len(others["params"]) == len(list(layers.parameters())) - 2


def test_frozen_parameters_are_left_out():
    layers = network()
    layers[0].requires_grad_(False)
    groups = parameter_groups(layers)
    assert [len(group["params"]) for group in groups] == [1, 5]


def test_decay_is_the_gradient_of_the_documented_penalty():
    # weight * x^2 without 1/2: gradient 2 * weight * x.
    layer = nn.Linear(1, 1, bias=False)
    nn.init.constant_(layer.weight, 3.0)
    optimizer = SGD(parameter_groups(layer, l2=0.01), lr=1.0)
    layer.weight.grad = torch.zeros(1, 1)
    optimizer.step()
    assert layer.weight.item() == pytest.approx(3 - 2 * 0.01 * 3)


def test_l1_penalty_by_hand():
    layer = nn.Linear(2, 1)
    layer.weight.data = torch.tensor([[3.0, -4.0]])
    penalty = l1_penalty(layer, 0.1)
    penalty.backward()
    assert penalty.item() == pytest.approx(0.7)
    assert layer.weight.grad.tolist() == [pytest.approx([0.1, -0.1])]
    assert layer.bias.grad is None
