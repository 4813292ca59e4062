"""Rounding layers: numbers by hand, gradients, ranges in training."""

import pytest
import torch
from torch import nn

from frcnn.quantize.layers import ActivationQuantizer, QuantConv2d, QuantLinear, WeightQuantizer


def quantizer(scale, *, learned=False):
    made = ActivationQuantizer("x", learned=learned)
    made.set_scale(torch.tensor(scale))
    return made.eval()


def test_multiples_of_the_scale_from_minus_128_to_127():
    x = torch.tensor([0.0, 0.24, 0.26, -0.26, 0.75, 63.4, 63.5, 64.0, 99.0, -64.0, -64.5, -99.0])
    expected = [0.0, 0.0, 0.5, -0.5, 1.0, 63.5, 63.5, 63.5, 63.5, -64.0, -64.0, -64.0]
    assert quantizer(0.5)(x).tolist() == expected  # 0.75 is half way: to the even one


def test_the_gradient_passes_within_the_range_only():
    x = torch.tensor([0.3, -63.0, 64.1, -65.0], requires_grad=True)
    quantizer(0.5)(x).sum().backward()
    assert x.grad.tolist() == [1, 1, 0, 0]


def test_weights_have_a_scale_per_output_channel():
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor([[1.27, 0.124], [-0.0127, 0.00126]])
    rounded = QuantLinear(layer, quantizer(1.0))
    assert rounded.weight_quantizer.scale.tolist() == pytest.approx([0.01, 0.0001])
    expected = torch.tensor([[1.27, 0.12], [-0.0127, 0.0013]])
    torch.testing.assert_close(rounded.weight_quantizer(rounded.weight), expected)


def test_a_dense_layer_by_hand():
    """Weights 1.27 and 0.635 keep 127 and 64 steps of 0.01; the input 2.6 becomes 2.5, the bias stays."""
    layer = nn.Linear(2, 1)
    layer.weight.data, layer.bias.data = torch.tensor([[1.27, 0.635]]), torch.tensor([0.1234])
    rounded = QuantLinear(layer, quantizer(0.5)).eval()
    assert rounded(torch.tensor([[2.6, 10.0]])).item() == pytest.approx(1.27 * 2.5 + 0.64 * 10 + 0.1234)


def test_weights_follow_what_they_are_in_training_and_stay_in_evaluation():
    weights = WeightQuantizer(1)
    weights(torch.tensor([[1.27]]))
    assert weights.scale.item() == pytest.approx(0.01)
    weights.eval()(torch.tensor([[12.7]]))
    assert weights.scale.item() == pytest.approx(0.01)
    weights.train().frozen = True
    assert weights(torch.tensor([[12.7]])).item() == pytest.approx(1.27)


def test_a_range_is_averaged_over_the_steps():
    """Step t counts 10 / (t + 9): all of the first, ten elevenths of the second."""
    inputs = ActivationQuantizer("x")
    inputs(torch.tensor([-1.27, 0.5]))
    assert inputs.scale.item() == pytest.approx(0.01)
    inputs(torch.tensor([2.54]))
    assert inputs.scale.item() == pytest.approx(0.01 + 10 / 11 * 0.01)
    inputs.frozen = True
    inputs(torch.tensor([100.0]))
    inputs.eval()(torch.tensor([100.0]))
    assert inputs.scale.item() == pytest.approx(0.01 + 10 / 11 * 0.01)


def test_nothing_but_zeros_stays_zeros():
    assert ActivationQuantizer("x")(torch.zeros(3)).tolist() == [0, 0, 0]


def test_a_learned_scale_has_the_gradient_of_the_paper():
    """LSQ, equation 3: round(v) - v within the range, 127 or -128 beyond it; times 1 / sqrt(n * 127)."""
    inputs = quantizer(0.5, learned=True).train()
    inputs.trains(True)
    x = torch.tensor([0.7, 100.0, -100.0, 0.9], requires_grad=True)
    y = inputs(x)
    assert y.tolist() == pytest.approx([0.5, 63.5, -64.0, 1.0])
    y.sum().backward()
    by_scale = (1 - 1.4) + 127 - 128 + (2 - 1.8)
    expected = by_scale / (4 * 127) ** 0.5 * 0.5  # of the logarithm: times the scale
    assert inputs.log_scale.grad.item() == pytest.approx(expected, rel=1e-5)
    assert x.grad.tolist() == [1, 0, 0, 1]


def test_a_frozen_learned_scale_stays_and_has_a_gradient_of_zero():
    """Data parallel training waits for a gradient of every parameter."""
    inputs = quantizer(0.5, learned=True).train()
    inputs.trains(True)
    inputs.frozen = True
    x = torch.tensor([0.7])
    assert inputs(x).item() == 0.5
    inputs(x).sum().backward()
    assert inputs.log_scale.grad.item() == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_what_it_is(dtype):
    y = quantizer(0.5)(torch.tensor([0.3, 99.0], dtype=dtype))
    assert (y.dtype, y.tolist()) == (dtype, [0.5, 63.5])


@pytest.mark.parametrize("options", [{"stride": 2, "padding": 1}, {"groups": 4}, {"bias": False}])
def test_a_convolution_of_rounded_numbers(options):
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 8, 3, **options)
    x = torch.randn(2, 4, 9, 9)
    rounded = QuantConv2d(layer, quantizer(0.02)).eval()
    scale = layer.weight.abs().amax((1, 2, 3), keepdim=True) / 127
    weight = (layer.weight / scale).round() * scale
    inputs = (x / 0.02).round().clamp(-128, 127) * 0.02
    expected = nn.functional.conv2d(
        inputs, weight, layer.bias, layer.stride, layer.padding, groups=layer.groups
    )
    torch.testing.assert_close(rounded(x), expected, atol=1e-4, rtol=1e-4)
    assert [name for name, _ in rounded.named_parameters()] == [name for name, _ in layer.named_parameters()]
