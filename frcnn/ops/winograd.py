"""3x3 convolution of many small patches by Winograd's F(4x4, 3x3), for the region head on a CPU.

Four by four outputs take 36 multiplications in place of 144. What the transforms cost comes back where
patches are many and channels deep, as in the region head; docs/benchmarks.md has the ratios.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

Matrix = Sequence[Sequence[float]]

# Lavin and Gray 2015, "Fast Algorithms for Convolutional Neural Networks", section 4.3.
_INPUT: Matrix = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_KERNEL: Matrix = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_OUTPUT: Matrix = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]

TILES_AT_ONCE = 40  # transformed tiles of a step should stay in the cache
MIN_TILES, MIN_CHANNELS = 64, 128  # below, the direct kernel is as fast


def worthwhile(x: Tensor, weight: Tensor, *, stride: object, padding: object) -> bool:
    """Whether `conv3x3` computes this convolution faster than the direct kernel does."""
    out_channels, in_channels, *kernel = weight.shape
    tiles = x.shape[0] * -(-x.shape[2] // 4) * -(-x.shape[3] // 4)
    return (
        (kernel, stride, padding) == ([3, 3], (1, 1), (1, 1))
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and x.shape[1] == in_channels
        and min(in_channels, out_channels) >= MIN_CHANNELS
        and tiles >= MIN_TILES
        and max(x.shape[2:]) <= 16
    )


def conv3x3(x: Tensor, weight: Tensor) -> Tensor:
    """`F.conv2d(x, weight, padding=1)` up to rounding (about 1e-5 of the largest output).

    Args:
        x: (M, C, H, W) float32.
        weight: (K, C, 3, 3) float32.

    Returns:
        (M, K, H, W), channels last in memory.
    """
    y: Tensor = _Conv3x3.apply(x, weight)
    return y


class _Conv3x3(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolve(x, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        need_x, need_weight = ctx.needs_input_grad
        # The gradient of the input is a convolution too, with the kernel turned around.
        dx = _convolve(gradients[0], weight.transpose(0, 1).flip(2, 3)) if need_x else None
        dw = conv2d_weight(x, weight.shape, gradients[0], padding=1) if need_weight else None  # type: ignore[no-untyped-call]
        return dx, dw


def _convolve(x: Tensor, weight: Tensor) -> Tensor:
    count, channels, height, width = x.shape
    filters = len(weight)
    rows, columns = -(-height // 4), -(-width // 4)
    into, kernel, out = _squared(x, _INPUT), _squared(x, _KERNEL), _squared(x, _OUTPUT)
    filtered = (kernel @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(36, channels, filters)
    patches = x.permute(0, 2, 3, 1)
    result = x.new_empty(count, height, width, filters)
    step = max(TILES_AT_ONCE // (rows * columns), 1)
    for start in range(0, count, step):
        part = patches[start : start + step]
        # Channels, then one row or column of padding before and what fills the last tile after.
        padded = F.pad(part, (0, 0, 1, 4 * columns + 1 - width, 1, 4 * rows + 1 - height))
        tiles = padded.unfold(1, 6, 4).unfold(2, 6, 4).permute(4, 5, 0, 1, 2, 3).reshape(36, -1)
        products = torch.bmm((into @ tiles).view(36, -1, channels), filtered)
        outputs = (out @ products.view(36, -1)).view(4, 4, len(part), rows, columns, filters)
        image = outputs.permute(2, 3, 0, 4, 1, 5).reshape(len(part), 4 * rows, 4 * columns, filters)
        result[start : start + step] = image[:, :height, :width]
    return result.permute(0, 3, 1, 2)


def _squared(like: Tensor, matrix: Matrix) -> Tensor:
    """The two-dimensional transform of one whose matrix is given."""
    one = like.new_tensor(matrix)
    return torch.kron(one, one)
