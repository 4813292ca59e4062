"""Matching boxes to ground truth, drawing random samples of the result."""

import torch
from torch import Tensor

from frcnn.ops.boxes import iou


def match(boxes: Tensor, ground_truth: Tensor, present: Tensor) -> Tensor:
    """Overlap (+1 convention) of boxes (B, M, 4) or (M, 4) with ground_truth (B, G, 4): (B, M, G).

    Slots that are not `present` (B, G) get 0: the overlap with nothing.
    """
    return iou(boxes, ground_truth, plus_one=True) * present.unsqueeze(-2)


def random_subset(
    mask: Tensor, *, at_most: int, limit: Tensor | None = None, generator: torch.Generator | None
) -> Tensor:
    """Keep randomly chosen members of each row of mask (B, M), or all if there are fewer than allowed.

    Args:
        mask: (B, M) bool.
        at_most: how many of a row to keep.
        limit: (B,) a smaller number per row.
        generator: on the device of `mask`; None is torch's default one.

    Returns:
        (B, M) bool.
    """
    best, chosen = _random_keys(mask, generator).topk(min(at_most, mask.shape[1]), dim=1)
    kept = best >= 0
    if limit is not None:
        kept &= torch.arange(chosen.shape[1], device=mask.device) < limit[:, None]
    return torch.zeros_like(mask).scatter(1, chosen, kept)


def random_draw(mask: Tensor, count: Tensor, *, slots: int, generator: torch.Generator | None) -> Tensor:
    """Draw `count` (B,) <= slots members of each row of mask (B, M) into (B, slots) indices.

    Without replacement if a row has that many members, else all with replacement. Only the first `count`
    entries of a row mean anything, and none in a row without members.
    """
    members = mask.sum(1, keepdim=True)
    # A row that needs replacement has fewer members than slots, so the first `slots` hold them all.
    order = _random_keys(mask, generator).topk(min(slots, mask.shape[1]), dim=1).indices
    uniform = torch.rand(len(mask), slots, device=mask.device, generator=generator)
    rank = torch.arange(slots, device=mask.device).expand(len(mask), slots)
    rank = torch.where(members < count[:, None], (uniform * members).long(), rank)
    return order.gather(1, rank.clamp(max=order.shape[1] - 1))


def _random_keys(mask: Tensor, generator: torch.Generator | None) -> Tensor:
    keys = torch.rand(mask.shape, device=mask.device, generator=generator)
    return keys.masked_fill(~mask, -1.0)
