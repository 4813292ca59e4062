import pytest
import torch
from torch import nn

from frcnn.model.batch_norm import BatchNorm2d, conv_bn, convolve


def batch(seed=0, rows=6):
    return torch.randn(rows, 3, 4, 5, generator=torch.Generator().manual_seed(seed)) * 2 + 1


def test_one_step_is_enough_for_the_statistics():
    bn, x = BatchNorm2d(3), batch()
    bn(x)
    torch.testing.assert_close(bn.running_mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(bn.running_var, x.transpose(0, 1).flatten(1).var(1))
    assert bn.num_batches_tracked.item() == 1


def test_first_steps_average_later_ones_decay():
    bn = BatchNorm2d(3, momentum=0.85)
    means = [batch(seed).mean((0, 2, 3)) for seed in range(3)]
    for seed in range(3):
        bn(batch(seed))
    # Weights max(10 / (t + 9), 0.85): 1, 10/11, 0.85.
    second = means[0] / 11 + means[1] * 10 / 11
    torch.testing.assert_close(bn.running_mean, 0.15 * second + 0.85 * means[2])


def test_imported_statistics_move_slowly():
    bn = BatchNorm2d(3)
    bn.num_batches_tracked.fill_(10**6)
    bn(batch())
    torch.testing.assert_close(bn.running_mean, 0.01 * batch().mean((0, 2, 3)))


def test_normalises_like_torch_and_shares_its_state_dict():
    ours, theirs = BatchNorm2d(3), nn.BatchNorm2d(3, eps=1e-3)
    theirs.load_state_dict(ours.state_dict())
    leaves = [batch().requires_grad_() for _ in range(2)]
    for bn, leaf in zip((ours, theirs), leaves, strict=True):
        bn(leaf).pow(3).sum().backward()
    torch.testing.assert_close(leaves[0].grad, leaves[1].grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)


def test_frozen_trains_gamma_but_not_statistics():
    bn = BatchNorm2d(3).train()
    bn.frozen = True
    y = bn(batch())
    torch.testing.assert_close(y, batch() / (1 + 1e-3) ** 0.5)
    y.square().sum().backward()
    assert bn.weight.grad.abs().sum() > 0
    assert bn.num_batches_tracked.item() == 0
    assert bn.running_mean.tolist() == [0, 0, 0]


def test_masked_rows_do_not_count():
    x = batch().requires_grad_()
    valid = torch.tensor([True, False, True, True, False, True])
    masked, plain = BatchNorm2d(3), BatchNorm2d(3)
    y = masked(x, valid)
    expected = plain(x[valid])
    torch.testing.assert_close(y[valid], expected)
    torch.testing.assert_close(masked.running_mean, plain.running_mean)
    torch.testing.assert_close(masked.running_var, plain.running_var)
    gradients = [torch.autograd.grad(out.pow(3).sum(), x)[0] for out in (y[valid], expected)]
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


def test_a_batch_without_valid_rows_leaves_the_statistics_alone():
    bn = BatchNorm2d(3)
    y = bn(batch(), torch.zeros(6, dtype=torch.bool))
    assert y.isfinite().all()
    assert bn.running_mean.tolist() == [0, 0, 0]
    assert bn.num_batches_tracked.item() == 0


@pytest.mark.parametrize("bias", [False, True])
def test_folding_changes_nothing(bias):
    torch.manual_seed(0)
    conv, bn = nn.Conv2d(3, 4, 3, padding=1, bias=bias), BatchNorm2d(4).eval()
    for tensor in (bn.weight, bn.bias, bn.running_mean, bn.running_var):
        nn.init.uniform_(tensor, 0.5, 1.5)
    with torch.no_grad():
        torch.testing.assert_close(conv_bn(conv, bn, batch()), bn(conv(batch())))


def test_layers_that_are_watched_are_called():
    conv, bn, seen = nn.Conv2d(3, 4, 1), BatchNorm2d(4).eval(), []
    conv.register_forward_hook(lambda *_: seen.append("conv"))
    with torch.no_grad():
        conv_bn(conv, bn, batch())
    assert seen == ["conv"]


@pytest.mark.parametrize("channels", [4, 8, 12])
def test_a_narrow_projection_has_the_gradients_of_any_other(channels):
    """oneDNN's own of a strided 1x1 convolution of so few interleaved channels corrupt the memory."""
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, 8, 1, 2).to(memory_format=torch.channels_last)
    x = torch.randn(2, channels, 33, 46).to(memory_format=torch.channels_last).requires_grad_()
    y = convolve(conv, x, conv.weight, conv.bias)
    y.square().sum().backward()
    found = y.detach(), x.grad, conv.weight.grad, conv.bias.grad
    weight, bias, image = (t.detach().double().requires_grad_() for t in (conv.weight, conv.bias, x))
    expected = torch.einsum("nchw,kc->nkhw", image[:, :, ::2, ::2], weight[:, :, 0, 0]) + bias[:, None, None]
    expected.square().sum().backward()
    for ours, theirs in zip(found, (expected.detach(), image.grad, weight.grad, bias.grad), strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-3, rtol=1e-4)
