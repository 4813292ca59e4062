"""Crop and resize: fixed-size patches of a feature map under boxes."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from frcnn.errors import SpecError

MARGIN = 1e-4
"""Cells; positions on the edge of the largest maps are off by a tenth of it in float32."""

CropForm = Literal["auto", "gather", "grid_sample", "matmul", "roi_align"]


def crop_and_resize(
    features: Tensor, boxes: Tensor, *, input_size: tuple[int, int], size: int, form: CropForm = "auto"
) -> Tensor:
    """Sample size x size points per box, bilinearly, first and last on the box's edges.

    `in_y(i) = y1 * s + i * (y2 - y1) * s / (size - 1)` with `s = (Hf - 1) / (H - 1)`; size 1 samples the
    centre. This is TensorFlow's op of that name (tao/model-and-training.md 1.4), with its zeros for points
    outside of the input; "grid_sample" and "matmul" fade to them, "roi_align" has the edge for one cell.

    Args:
        features: (B, C, Hf, Wf).
        boxes: (B, R, 4) xyxy pixels of the input, as a rule clipped to it. No gradient reaches them.
        input_size: (H, W) of the tensor that went into the network.
        size: points per side.
        form: equal up to rounding. "gather" is the fastest on a CPU (7 ms forward and backward where
            grid_sample takes 50 and roi_align 110: 256 boxes, 256 channels, 7x7) and gives channels_last
            patches; "grid_sample" is for exports; "roi_align" is torchvision's kernel. On a GPU the gradients
            of these three are sums in any order; those of "matmul", which takes more arithmetic, are matrix
            products. "auto": gather on the CPU, where it is deterministic; else grid_sample, or matmul while
            `torch.use_deterministic_algorithms` is on.

    Returns:
        (B * R, C, size, size).
    """
    if form == "auto":
        form = _auto(features.device)
    try:
        sample = _FORMS[form]
    except KeyError:
        raise SpecError("unknown form of crop_and_resize", found=form, allowed=", ".join(_FORMS)) from None
    height, width = input_size
    # The picture of a long thin file may have a side of one pixel.
    return sample(features, _scaled(boxes.detach(), 1 / max(width - 1, 1), 1 / max(height - 1, 1)), size)


def _auto(device: torch.device) -> CropForm:
    if device.type == "cpu":
        return "gather"
    return "matmul" if torch.are_deterministic_algorithms_enabled() else "grid_sample"


def _scaled(boxes: Tensor, x: float, y: float) -> Tensor:
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([x1 * x, y1 * y, x2 * x, y2 * y], dim=-1)


def _sample_points(boxes: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(B, R, 4) -> x and y of the sample points, (B, R, size) each, in the unit of the boxes."""
    step = (
        torch.linspace(0, 1, size, device=boxes.device)
        if size > 1
        else torch.full((1,), 0.5, device=boxes.device)
    )
    x1, y1, x2, y2 = boxes.unsqueeze(-1).unbind(2)
    return x1 + step * (x2 - x1), y1 + step * (y2 - y1)


def _gather(features: Tensor, boxes: Tensor, size: int) -> Tensor:
    # A point of a patch is a weighted sum of four rows of the (cells, channels) table: an embedding bag.
    batch, channels, height, width = features.shape
    x, y = _sample_points(boxes, size)
    column, column_share = _neighbours(x * (width - 1), width)
    row, row_share = _neighbours(y * (height - 1), height)
    row = row + height * torch.arange(batch, device=boxes.device).view(batch, 1, 1, 1)
    cells = row[:, :, :, None, :, None] * width + column[:, :, None, :, None, :]
    shares = row_share[:, :, :, None, :, None] * column_share[:, :, None, :, None, :]
    table = features.permute(0, 2, 3, 1).reshape(-1, channels).float()
    crops = F.embedding_bag(cells.reshape(-1, 4), table, per_sample_weights=shares.reshape(-1, 4), mode="sum")
    return crops.view(-1, size, size, channels).permute(0, 3, 1, 2).to(features.dtype)


def _neighbours(position: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The two of `count` cells around each position, and the share of each: (..., 2) int64, (..., 2).

    Positions outside have no share in any. A margin keeps those that rounding moved off the edge.
    """
    before = position.floor().clamp(0, max(count - 2, 0))
    share = position - before
    index = before.long()
    inside = (position >= -MARGIN) & (position <= count - 1 + MARGIN)
    shares = torch.stack([1 - share, share], -1) * inside.unsqueeze(-1)
    return torch.stack([index, (index + 1).clamp(max=count - 1)], -1), shares


def _grid_sample(features: Tensor, boxes: Tensor, size: int) -> Tensor:
    batch, regions = boxes.shape[:2]
    x, y = _sample_points(2 * boxes - 1, size)
    shape = (batch, regions, size, size)
    grid = torch.stack([x.unsqueeze(2).expand(shape), y.unsqueeze(3).expand(shape)], dim=-1)
    # In float32: a bfloat16 coordinate is off by up to a pixel.
    crops = F.grid_sample(features.float(), grid.flatten(1, 2), align_corners=True).to(features.dtype)
    return crops.view(batch, -1, regions, size, size).transpose(1, 2).flatten(0, 1)


def _matmul(features: Tensor, boxes: Tensor, size: int) -> Tensor:
    # A patch is down @ map @ across^T: each point's row and column weights, zero but for two cells each.
    batch, channels, height, width = features.shape
    x, y = _sample_points(boxes, size)
    across, down = _hats(x * (width - 1), width), _hats(y * (height - 1), height)
    rows = features.float().permute(0, 2, 1, 3).flatten(1, 2)  # (B, Hf * C, Wf)
    with torch.autocast(features.device.type, enabled=False):  # bfloat16 shares would move the points
        columns = rows @ across.flatten(1, 2).transpose(1, 2)  # (B, Hf * C, R * P)
        columns = columns.view(batch, height, channels, -1, size).permute(0, 3, 1, 2, 4).flatten(3)
        crops = down @ columns  # (B, R, P, C * P)
    crops = crops.view(-1, size, channels, size).transpose(1, 2)
    return crops.to(features.dtype)


def _hats(position: Tensor, count: int) -> Tensor:
    """The share of each of `count` cells at each position: (...) -> (..., count)."""
    cells = torch.arange(count, device=position.device, dtype=position.dtype)
    return (1 - (position.unsqueeze(-1) - cells).abs()).clamp(min=0)


def _roi_align(features: Tensor, boxes: Tensor, size: int) -> Tensor:
    # RoiAlign with one sample per bin takes bin centres: widen the box by half a step on each side
    # (tao/eval-prune-export.md 9.2a). A single bin keeps its box, the centre is what it samples anyway.
    height, width = features.shape[-2:]
    scaled = _scaled(boxes, width - 1, height - 1)
    low, high = scaled[..., :2], scaled[..., 2:]
    margin = (high - low) / (2 * (size - 1)) if size > 1 else torch.zeros_like(low)
    regions = torch.cat([low - margin + 0.5, high + margin + 0.5], dim=-1)
    crops: Tensor = roi_align(features.float(), list(regions), size, sampling_ratio=1, aligned=True)
    return crops.to(features.dtype)


_FORMS: dict[str, Callable[[Tensor, Tensor, int], Tensor]] = {
    "gather": _gather,
    "grid_sample": _grid_sample,
    "matmul": _matmul,
    "roi_align": _roi_align,
}
