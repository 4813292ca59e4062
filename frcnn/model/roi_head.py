"""The second stage: what a region shows, and the detections that its outputs mean."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.model.backbones.blocks import Body, glorot
from frcnn.model.rpn import Proposals
from frcnn.ops.boxes import clip, decode
from frcnn.ops.devices import carry
from frcnn.ops.nms import NmsForm, nms, take, top_k


@dataclass(frozen=True, kw_only=True)
class DetectionSettings:
    """Everything between an image and its detections that is not a weight.

    Attributes:
        pre_nms_top_n, post_nms_top_n, rpn_nms_iou: the proposals, see `ProposalSettings`.
        score_threshold: detections score more than this.
        nms_iou: the overlap above which the lower-scored detection of the same class goes.
        max_detections: N, the slots per image.
        unused_proposals: whether slots without a proposal detect, too. TAO: they are boxes at the origin.
    """

    pre_nms_top_n: int = 6000
    post_nms_top_n: int = 300
    rpn_nms_iou: float = 0.7
    score_threshold: float = 1e-4
    nms_iou: float = 0.3
    max_detections: int = 100
    unused_proposals: bool = False


class Detections(NamedTuple):
    """N slots per image, by falling score; unused ones have label -1, score 0 and box 0."""

    boxes: Tensor  # (B, N, 4) xyxy pixels of the network input
    scores: Tensor  # (B, N)
    labels: Tensor  # (B, N) int64
    proposals: Tensor  # (B, R, 4)
    proposals_valid: Tensor  # (B, R) bool


class RoiOutput(NamedTuple):
    """Per region; channel c, and 4 * c + (dx, dy, dw, dh). M = B * R."""

    logits: Tensor  # (M, K + 1), before the softmax, background last
    deltas: Tensor  # (M, 4K)


class RoiHead(nn.Module):
    """The body and two dense layers; layers named as TAO's."""

    def __init__(self, *, body: Body, num_classes: int) -> None:
        super().__init__()
        self.body = body
        self.dense_class = glorot(nn.Linear(body.out_features, num_classes + 1))
        self.dense_regress = glorot(nn.Linear(body.out_features, 4 * num_classes))

    def forward(self, crops: Tensor, valid: Tensor | None = None) -> RoiOutput:
        """crops: (M, Cf, P, P); valid: (M,) bool crops that enter batch statistics, None for all."""
        vectors = self.body(crops, valid)
        outputs = (layer(carry(vectors, to=layer.weight)) for layer in (self.dense_class, self.dense_regress))
        return RoiOutput(*outputs)


def decoded(
    output: RoiOutput, proposals: Proposals, image_sizes: Tensor, *, stds: Tensor
) -> tuple[Tensor, Tensor]:
    """Every region's box for each class, clipped, and its score; arguments as in `postprocess`.

    Returns:
        boxes (B, R, K, 4), scores (B, R, K) float32.
    """
    batch, regions = proposals.valid.shape
    scores = F.softmax(output.logits.float(), dim=-1)[:, :-1].view(batch, regions, -1)
    classes = scores.shape[2]
    deltas = output.deltas.float().view(batch, regions, classes, 4) / stds
    boxes = decode(deltas, proposals.boxes.unsqueeze(2), plus_one=True)
    return clip(boxes.flatten(1, 2), image_sizes).view(batch, regions, classes, 4), scores


@torch.no_grad()
def postprocess(
    output: RoiOutput,
    proposals: Proposals,
    image_sizes: Tensor,
    *,
    settings: DetectionSettings,
    stds: Tensor,
    nms_form: NmsForm = "auto",
) -> Detections:
    """Decode every class of every region, suppress per class, keep the best (facts: section 10).

    Args:
        output: of the head, for these proposals.
        proposals: B x R; unused slots detect nothing, unless the settings say so.
        image_sizes: (B, 2) height and width of the valid part of each image.
        settings: thresholds and limits.
        stds: (4,) what the targets (dx, dy, dw, dh) were multiplied by.
        nms_form: see `frcnn.ops.nms.nms`.
    """
    boxes, scores = decoded(output, proposals, image_sizes, stds=stds)
    batch, regions, classes = scores.shape
    valid = scores > settings.score_threshold
    if not settings.unused_proposals:
        valid = valid & proposals.valid.unsqueeze(2)

    # One NMS problem per image and class: (B * K, R).
    boxes, scores, valid = (x.transpose(1, 2).flatten(0, 1) for x in (boxes, scores, valid))
    kept, found = nms(
        boxes,
        scores,
        valid,
        iou_threshold=settings.nms_iou,
        max_output=min(settings.max_detections, regions),
        form=nms_form,
    )
    boxes, scores = take(boxes, kept), take(scores, kept).masked_fill(~found, 0.0)

    boxes, scores = boxes.view(batch, -1, 4), scores.view(batch, -1)
    labels = (
        torch.arange(classes, device=scores.device)[:, None]
        .expand(-1, kept.shape[1])
        .flatten()
        .expand_as(scores)
    )
    missing = max(settings.max_detections - scores.shape[1], 0)
    scores, order = top_k(F.pad(scores, (0, missing)), settings.max_detections)
    used = scores > 0
    boxes = take(F.pad(boxes, (0, 0, 0, missing)), order) * used.unsqueeze(-1)
    labels = F.pad(labels, (0, missing)).gather(1, order).masked_fill(~used, -1)
    return Detections(boxes, scores, labels, *proposals)
