"""Box arithmetic: overlap, delta coding, clipping. Boxes are xyxy float32 pixels."""

import torch
from torch import Tensor


def iou(boxes: Tensor, others: Tensor, *, plus_one: bool) -> Tensor:
    """Intersection over union of every pair.

    Args:
        boxes: (..., M, 4).
        others: (..., N, 4), broadcast against `boxes` in the leading dimensions.
        plus_one: measure sides as `x2 - x1 + 1`. TAO: targets do, non-maximum suppression does not.

    Returns:
        (..., M, N); pairs without any area have 0.
    """
    offset = float(plus_one)
    x1, y1, x2, y2 = boxes.unsqueeze(-2).unbind(-1)
    u1, v1, u2, v2 = others.unsqueeze(-3).unbind(-1)
    width = (torch.minimum(x2, u2) - torch.maximum(x1, u1)).add_(offset).clamp_(min=0)
    height = (torch.minimum(y2, v2) - torch.maximum(y1, v1)).add_(offset).clamp_(min=0)
    intersection = width.mul_(height)
    area = (x2 - x1 + offset) * (y2 - y1 + offset)
    other_area = (u2 - u1 + offset) * (v2 - v1 + offset)
    union = (area + other_area).sub_(intersection).clamp_(min=torch.finfo(boxes.dtype).tiny)
    return intersection.div_(union)


def covered(boxes: Tensor, areas: Tensor) -> Tensor:
    """Share of each box that lies in the area which covers most of it: intersection over the box's own area.

    Several areas do not add up. Sides are lengths, so that an empty box or area has no share in anything.

    Args:
        boxes: (..., M, 4).
        areas: (..., N, 4), broadcast against `boxes` in the leading dimensions; N is at least 1.

    Returns:
        (..., M) in [0, 1].
    """
    low = torch.maximum(boxes[..., None, :2], areas[..., None, :, :2])
    high = torch.minimum(boxes[..., None, 2:], areas[..., None, :, 2:])
    shared = (high - low).clamp_(min=0).prod(-1).amax(-1)
    own = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(-1)
    return shared / own.clamp(min=torch.finfo(boxes.dtype).tiny)


def _centres(boxes: Tensor, *, plus_one: bool) -> tuple[Tensor, Tensor]:
    """(..., 4) -> sizes (..., 2) and centres (..., 2), both as (x, y)."""
    low, high = boxes[..., :2], boxes[..., 2:]
    size = high - low + float(plus_one)
    return size, low + 0.5 * size


def encode(boxes: Tensor, references: Tensor) -> Tensor:
    """Deltas (dx, dy, dw, dh) that lead from references to boxes, both (..., 4). Sizes count +1.

    `dx = (xg - xa) / wa, dw = ln(wg / wa)` (tao/model-and-training.md 4.2).
    """
    size, centre = _centres(boxes, plus_one=True)
    reference_size, reference_centre = _centres(references, plus_one=True)
    return torch.cat([(centre - reference_centre) / reference_size, torch.log(size / reference_size)], dim=-1)


def decode(deltas: Tensor, references: Tensor, *, plus_one: bool) -> Tensor:
    """Boxes that deltas (..., 4) make of references (..., 4).

    TAO: the RPN decodes without +1 what it encoded with it, the RoI head decodes with +1 and never
    subtracts it; weights depend on both. Sizes are not bounded, clip the result.
    """
    size, centre = _centres(references, plus_one=plus_one)
    centre = centre + deltas[..., :2] * size
    half = 0.5 * torch.exp(deltas[..., 2:]) * size
    return torch.cat([centre - half, centre + half], dim=-1)


def clip(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """Move corners of boxes (B, M, 4) into [0, W-1] x [0, H-1]; image_sizes: (B, 2) height, width."""
    limits = (image_sizes - 1).flip(-1).repeat(1, 2).unsqueeze(1)
    return torch.minimum(boxes.clamp(min=0), limits)


def inside(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """Which boxes (A, 4) lie within [0, W-1] x [0, H-1] of each image (B, 2): (B, A) bool."""
    limits = (image_sizes - 1).flip(-1).unsqueeze(1)
    return (boxes[:, :2] >= 0).all(-1) & (boxes[:, 2:] <= limits).all(-1)
