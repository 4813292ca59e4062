"""What both stages should have answered: the regions they learn from, their classes and deltas."""

from typing import NamedTuple

import torch
from torch import Tensor

from frcnn.model.rpn import Proposals
from frcnn.ops.boxes import covered, encode, inside
from frcnn.ops.matching import match, random_draw, random_subset
from frcnn.ops.nms import take

# TAO: the share of positive regions among the sampled ones, hard-coded.
POSITIVE_SHARE = 0.25

IGNORED_SHARE = 0.5
"""What has at least this share of itself within one area to ignore is no background."""


class RpnTargets(NamedTuple):
    """Per anchor."""

    labels: Tensor  # (B, A) float: 1 positive, 0 negative, -1 not in the sample
    deltas: Tensor  # (B, A, 4), meaningful where labels are 1


class RoiTargets(NamedTuple):
    """Per sampled region."""

    boxes: Tensor  # (B, R, 4); unused slots 0
    labels: Tensor  # (B, R) int64: class, K for background, -1 in unused slots
    deltas: Tensor  # (B, R, 4), meaningful where labels are a class


@torch.no_grad()
def rpn_targets(
    anchors: Tensor,
    boxes: Tensor,
    labels: Tensor,
    image_sizes: Tensor,
    *,
    negative_iou: float,
    positive_iou: float,
    sample: int,
    std_scaling: float = 1.0,
    ignored: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> RpnTargets:
    """Label anchors by overlap, rescue lonely objects, sample (facts: section 4.1).

    Args:
        anchors: (A, 4), in (row, column, anchor) order.
        boxes: (B, G, 4) ground truth.
        labels: (B, G) int64, -1 in padding.
        image_sizes: (B, 2) height and width; anchors that leave the image take no part.
        negative_iou: at most this: negative.
        positive_iou: at least this: positive. Between the two: ignored.
        sample: anchors per image; at most half of them positive.
        std_scaling: multiplies the deltas.
        ignored: (B, I, 4) areas to ignore, 0 in padding: an anchor half in one is no negative.
        generator: of the random choice.
    """
    present = labels >= 0
    overlap = match(anchors, boxes, present)
    usable = inside(anchors, image_sizes)
    overlap *= usable.unsqueeze(-1)
    best, matched = overlap.max(dim=2)
    positive = usable & (best >= positive_iou)

    # An object that no positive anchor is matched to takes its best anchor, whatever that had been. Where
    # several want the same one the last wins.
    claimed = torch.zeros_like(present).scatter_reduce(1, matched, positive, "amax")
    object_best, object_anchor = overlap.max(dim=1)
    lonely = present & ~claimed & (object_best > 0)
    slot = torch.arange(boxes.shape[1], device=boxes.device).expand_as(lonely)
    rescuer = torch.full_like(matched, -1)
    rescuer.scatter_reduce_(1, object_anchor, slot.where(lonely, -1), "amax")
    rescued = rescuer >= 0
    matched = rescuer.where(rescued, matched)
    positive = positive | rescued
    negative = usable & (best <= negative_iou) & ~positive
    negative = _outside(anchors, ignored, negative)

    positive = random_subset(positive, at_most=sample // 2, generator=generator)
    negative = random_subset(negative, at_most=sample, limit=sample - positive.sum(1), generator=generator)
    answer = torch.where(positive, 1.0, torch.where(negative, 0.0, -1.0))
    return RpnTargets(answer, encode(take(boxes, matched), anchors) * std_scaling)


@torch.no_grad()
def sample_regions(
    proposals: Proposals,
    boxes: Tensor,
    labels: Tensor,
    *,
    negative_iou: float,
    positive_iou: float,
    sample: int,
    num_classes: int,
    stds: Tensor,
    with_ground_truth: bool = False,
    ignored: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> RoiTargets:
    """Choose the regions that the second stage learns from (facts: section 6).

    A quarter positives at most, the rest negatives; only one kind: all of that kind; too few: with
    replacement. An image without ground truth gives background, its overlap with nothing being 0.

    Args:
        proposals: B x R' candidates.
        boxes: (B, G, 4) ground truth.
        labels: (B, G) int64, -1 in padding.
        negative_iou: at least this, and less than `positive_iou`: negative.
        positive_iou: at least this: positive.
        sample: R, regions per image.
        num_classes: K, the label of the background.
        stds: (4,) multiply the deltas.
        with_ground_truth: the ground truth boxes are candidates too.
        ignored: as in `rpn_targets`, for regions.
        generator: of the random choice.
    """
    present = labels >= 0
    candidates, valid = proposals
    if with_ground_truth:
        candidates, valid = torch.cat([candidates, boxes], dim=1), torch.cat([valid, present], dim=1)
    best, matched = match(candidates, boxes, present).max(dim=2)
    positive = valid & (best >= positive_iou)
    negative = valid & (best >= negative_iou) & (best < positive_iou)
    negative = _outside(candidates, ignored, negative)

    positives, negatives = positive.sum(1), negative.sum(1)
    take_positive = torch.where(negatives > 0, positives.clamp(max=int(POSITIVE_SHARE * sample)), sample)
    take_positive = take_positive.where(positives > 0, 0)
    take_negative = (sample - take_positive).where(negatives > 0, 0)
    drawn_positive = random_draw(positive, take_positive, slots=sample, generator=generator)
    drawn_negative = random_draw(negative, take_negative, slots=sample, generator=generator)

    slot = torch.arange(sample, device=boxes.device)
    is_positive = slot < take_positive.unsqueeze(1)
    used = slot < (take_positive + take_negative).unsqueeze(1)
    rank = (slot - take_positive.unsqueeze(1)).clamp(min=0)
    chosen = torch.where(is_positive, drawn_positive, drawn_negative.gather(1, rank))
    regions = take(candidates, chosen) * used.unsqueeze(-1)
    matched = matched.gather(1, chosen)
    answer = labels.gather(1, matched).where(is_positive, num_classes).masked_fill(~used, -1)
    return RoiTargets(regions, answer, encode(take(boxes, matched), regions) * stds)


def _outside(boxes: Tensor, ignored: Tensor | None, negative: Tensor) -> Tensor:
    """The negatives (B, M) among boxes (M, 4) or (B, M, 4) that no area (B, I, 4) excuses."""
    if ignored is None or ignored.shape[1] == 0:
        return negative
    return negative & (covered(boxes, ignored) < IGNORED_SHARE)
