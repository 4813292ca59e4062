"""Batch normalisation as the detector needs it: statistics that start well, freezing, masks, processes."""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.ops import winograd
from frcnn.ops.devices import carry

_RECENT = 10  # the share of the steps so far that running statistics are of: one tenth


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` (same state dict) with four differences.

    Running statistics are bias-corrected: step t weighs its batch by `max(10 / (t + 9), momentum)`, with
    t = `num_batches_tracked`. They are usable after one step, where a small momentum alone keeps most of
    the initial zeros and ones for a hundred, and about the last tenth of the steps dominates them, where a
    plain average would be of networks that are long gone. Weights from elsewhere keep their statistics if t
    starts large.

    `frozen` uses the running statistics in training too; gamma and beta still train unless their
    requires_grad says otherwise.

    `valid` (N,) leaves rows of a batch out of the statistics.

    `synced` takes the statistics of the batches of all processes together; all of them have to come here
    equally often.

    Args:
        channels: C.
        eps: TAO: 1e-3 almost everywhere.
        momentum: torch's convention, the weight of the new value: 1 - Keras' momentum.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, channels: int, *, eps: float = 1e-3, momentum: float = 0.01) -> None:
        super().__init__(channels, eps=eps, momentum=momentum)
        self.frozen = False
        self.synced = False

    @property
    def uses_running_statistics(self) -> bool:
        """Whether the next call takes stored statistics instead of the batch's."""
        return self.frozen or not self.training

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """(N, C, H, W) -> the same; valid: (N,) bool, or None where every row counts."""
        if self.uses_running_statistics:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        together = self.synced and dist.is_initialized() and dist.get_world_size() > 1
        if valid is not None or together:
            every = torch.ones(len(x), dtype=torch.bool, device=x.device)
            return self._masked(x, every if valid is None else valid, together=together)
        # With momentum 1 torch leaves the batch's own mean and (Bessel-corrected) variance in these.
        mean, variance = torch.zeros_like(self.running_mean), torch.ones_like(self.running_var)
        y = F.batch_norm(x, mean, variance, self.weight, self.bias, training=True, momentum=1.0, eps=self.eps)
        self._track(mean, variance, 1)
        return y

    def _masked(self, x: Tensor, valid: Tensor, *, together: bool) -> Tensor:
        rows = valid.float()[:, None]
        count = rows.sum().clamp(min=1)
        mean = (x.float().mean((2, 3)) * rows).sum(0) / count
        centred = x - mean[:, None, None]
        variance = (centred.square().mean((2, 3)) * rows).sum(0) / count
        samples = count * x.shape[2] * x.shape[3]
        counts = valid.any()
        if together:
            mean, variance, samples = _pooled(mean, variance, samples * counts)
            centred, counts = x - mean[:, None, None], samples > 0
        self._track(mean, variance * (samples / (samples - 1).clamp(min=1)), counts)
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, counts: Tensor | int) -> None:
        self.num_batches_tracked.add_(counts)
        steps = self.num_batches_tracked.float()
        weight = (_RECENT / (steps + _RECENT - 1)).clamp(min=self.momentum, max=1) * counts
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)


def _pooled(mean: Tensor, variance: Tensor, samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), biased variance (C,) and number of the samples of all processes together.

    The variance of a union is the mean of the variances plus that of the means (Chan, Golub and LeVeque
    1979): nothing cancels, as it would between sums of squares.
    """
    channels, size = len(mean), dist.get_world_size()
    row = torch.cat([mean, variance, samples[None]])
    table = row.new_zeros(size, len(row)).index_put((torch.tensor(dist.get_rank(), device=row.device),), row)
    means, variances, counts = _Sum.apply(table).split([channels, channels, 1], dim=1)
    total = counts.sum()
    shares = counts / total.clamp(min=1)
    mean = (means * shares).sum(0)
    return mean, ((variances + (means - mean).square()) * shares).sum(0), total


class _Sum(torch.autograd.Function):
    """The sum over all processes; what one of them feels of it, all of them caused."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def conv_bn(conv: nn.Module, bn: nn.Module, x: Tensor, valid: Tensor | None = None) -> Tensor:
    """`bn(conv(x), valid)`; without a gradient and with stored statistics as one convolution.

    Folding costs a pass over the weights and saves two over the activations. Nothing is cached, so nothing
    can be stale. Layers of other types or with hooks (fake-quantised, observed) and layers that are being
    compiled or exported are called one by one, as are a pair on two devices.
    """
    if type(conv) is not nn.Conv2d or type(bn) is not BatchNorm2d or _observed(conv, bn):
        return _normed(bn, conv(x), valid)
    together = conv.weight.device == bn.weight.device
    if together and bn.uses_running_statistics and not torch.is_grad_enabled():
        return convolve(conv, x, *fold(conv, bn))
    return _normed(bn, convolve(conv, x, conv.weight, conv.bias), valid)


def _normed(bn: Any, x: Tensor, valid: Tensor | None) -> Tensor:
    x = carry(x, to=bn.weight)
    y: Tensor = bn(x, None if valid is None else carry(valid, to=x))
    return y


def convolve(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv` with other weights, by Winograd's algorithm where that is faster."""
    if conv.dilation == (1, 1) and winograd.worthwhile(x, weight, stride=conv.stride, padding=conv.padding):
        y = winograd.conv3x3(x, weight)
        return y if bias is None else y.add_(bias[:, None, None])
    shape = (conv.kernel_size, conv.stride, conv.padding, conv.groups)
    if weight.shape[1] < 16 and shape == ((1, 1), (2, 2), (0, 0), 1) and x.device.type == "cpu":
        # oneDNN 3.12 writes beyond its memory in the gradient of these if channels are interleaved.
        return F.conv2d(x[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last), weight, bias)
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def fold(conv: nn.Conv2d, bn: BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that equals `bn(conv(x))` with stored statistics."""
    scale = torch.rsqrt(bn.running_var + bn.eps) * bn.weight
    shift = -bn.running_mean if conv.bias is None else conv.bias - bn.running_mean
    return conv.weight * scale[:, None, None, None], shift * scale + bn.bias


def _observed(*layers: nn.Module) -> bool:
    traced = torch.compiler.is_compiling() or torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export()
    return traced or any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)
