"""Anchors: the boxes that the region proposal network starts from."""

from collections.abc import Sequence

import torch
from torch import Tensor


def cell_anchors(*, scales: Sequence[float], ratios: Sequence[float]) -> Tensor:
    """Anchors of one cell, centred on the origin: (A, 4) with A = len(scales) * len(ratios).

    A scale is the side of the square anchor in input pixels, a ratio is width / height; the area is
    scale^2 for all. Ratios run fastest (tao/model-and-training.md 3).
    """
    scale = torch.tensor(scales, dtype=torch.float64)[:, None]
    root = torch.tensor(ratios, dtype=torch.float64).sqrt()
    half = torch.stack([scale * root, scale / root], dim=-1).flatten(0, 1) / 2
    return torch.cat([-half, half], dim=-1).float()


def grid_anchors(cell: Tensor, *, feature_size: tuple[int, int], stride: int) -> Tensor:
    """Anchors of a feature map of (height, width) cells: (height, width, A, 4).

    Cell (i, j) is centred on pixel (stride * (j + 0.5), stride * (i + 0.5)); nothing is rounded or clipped.
    """
    height, width = feature_size
    y = (torch.arange(height, device=cell.device, dtype=cell.dtype) + 0.5) * stride
    x = (torch.arange(width, device=cell.device, dtype=cell.dtype) + 0.5) * stride
    centre = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)
    return centre.repeat(1, 1, 2).unsqueeze(2) + cell
