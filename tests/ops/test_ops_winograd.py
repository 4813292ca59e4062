"""Winograd's convolution is the convolution, forward and backward."""

import pytest
import torch
import torch.nn.functional as F

from frcnn.ops.winograd import conv3x3, worthwhile


def tensors(count, channels, filters, height, width):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, channels, height, width, generator=generator)
    weight = torch.randn(filters, channels, 3, 3, generator=generator) / (9 * channels) ** 0.5
    return x.requires_grad_(), weight.requires_grad_()


@pytest.mark.parametrize("size", [(7, 7), (3, 3), (4, 8), (1, 5), (14, 6)])
def test_it_equals_the_direct_kernel(size):
    x, weight = tensors(23, 12, 8, *size)
    expected, found = F.conv2d(x, weight, padding=1), conv3x3(x, weight)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    gradient = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(found, (x, weight), gradient),
        torch.autograd.grad(expected, (x, weight), gradient),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


def test_by_hand():
    """Ones under a kernel of ones: 9 inside, 6 at an edge, 4 in a corner."""
    found = conv3x3(torch.ones(1, 1, 3, 4), torch.ones(1, 1, 3, 3))[0, 0]
    torch.testing.assert_close(
        found, torch.tensor([[4.0, 6, 6, 4], [6, 9, 9, 6], [4, 6, 6, 4]]), rtol=0, atol=1e-5
    )


def test_only_gradients_that_are_wanted_are_computed():
    x, weight = tensors(4, 4, 4, 4, 4)
    conv3x3(x.detach(), weight).sum().backward()
    assert x.grad is None
    assert weight.grad is not None


def test_where_it_is_used():
    x, weight = torch.empty(64, 256, 7, 7), torch.empty(512, 256, 3, 3)
    one = {"stride": (1, 1), "padding": (1, 1)}
    assert worthwhile(x, weight, **one)
    assert not worthwhile(x, weight, stride=(2, 2), padding=(1, 1))
    assert not worthwhile(x, torch.empty(512, 256, 1, 1), **one)
    assert not worthwhile(x[:4], weight, **one)  # too few patches
    assert not worthwhile(x[:, :64], weight[:, :64], **one)  # too shallow
    assert not worthwhile(x, torch.empty(256, 1, 3, 3), **one)  # depthwise
    assert not worthwhile(torch.empty(8, 256, 96, 312), weight, **one)  # an image, not a patch
    with torch.autocast("cpu", torch.bfloat16):
        assert not worthwhile(x, weight, **one)
