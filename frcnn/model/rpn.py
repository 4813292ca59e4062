"""Region proposal network: its layers, and the proposals that its outputs mean."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from frcnn.model.backbones.blocks import glorot, relu
from frcnn.ops.boxes import clip, decode
from frcnn.ops.devices import carry
from frcnn.ops.nms import NmsForm, nms, take, top_k


@dataclass(frozen=True, kw_only=True)
class ProposalSettings:
    """How many boxes the RPN hands on.

    Attributes:
        pre_nms_top_n: best-scored boxes that enter non-maximum suppression.
        post_nms_top_n: R, the slots it leaves.
        nms_iou: the overlap above which the lower-scored box goes.
    """

    pre_nms_top_n: int = 12000
    post_nms_top_n: int = 2000
    nms_iou: float = 0.7


class RpnOutput(NamedTuple):
    """Per anchor of every cell; channel a, and 4 * a + (dx, dy, dw, dh)."""

    logits: Tensor  # (B, A, Hf, Wf), before the sigmoid
    deltas: Tensor  # (B, 4A, Hf, Wf)

    def by_cell(self) -> tuple[Tensor, Tensor]:
        """Logits (B, Hf*Wf*A) and deltas (B, Hf*Wf*A, 4) in the order of `grid_anchors`, float32."""
        logits, deltas = (x.permute(0, 2, 3, 1).float() for x in self)
        return logits.flatten(1), deltas.reshape(len(deltas), -1, 4)


class Proposals(NamedTuple):
    """R slots per image."""

    boxes: Tensor  # (B, R, 4) xyxy pixels, by falling score; unused slots 0
    valid: Tensor  # (B, R) bool


class Rpn(nn.Module):
    """A 3x3 convolution, then 1x1 ones for scores and deltas; layers named as TAO's."""

    def __init__(self, *, in_channels: int, num_anchors: int, hidden_channels: int = 512) -> None:
        super().__init__()
        self.rpn_conv1 = glorot(nn.Conv2d(in_channels, hidden_channels, 3, padding=1))
        self.rpn_out_class = glorot(nn.Conv2d(hidden_channels, num_anchors, 1))
        self.rpn_out_regress = glorot(nn.Conv2d(hidden_channels, 4 * num_anchors, 1))
        self.ceiling: float | None = None  # as in `Blocks`

    def forward(self, features: Tensor) -> RpnOutput:
        """(B, Cf, Hf, Wf) -> scores and deltas per anchor."""
        hidden = relu(self.rpn_conv1(carry(features, to=self.rpn_conv1.weight)), self.ceiling)
        outputs = (
            layer(carry(hidden, to=layer.weight)) for layer in (self.rpn_out_class, self.rpn_out_regress)
        )
        return RpnOutput(*outputs)


def decoded(
    output: RpnOutput, anchors: Tensor, image_sizes: Tensor, *, std_scaling: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Every anchor's box, clipped, and its score; arguments as in `propose`.

    Returns:
        boxes (B, A * Hf * Wf, 4), scores (B, A * Hf * Wf) float32.
    """
    # TAO ranks in (A, H, W) order, which decides between equal scores.
    scores = output.logits.float().sigmoid().flatten(1)
    batch, _, height, width = output.logits.shape
    deltas = output.deltas.float().view(batch, -1, 4, height, width).permute(0, 1, 3, 4, 2).flatten(1, 3)
    boxes = decode(deltas / std_scaling, anchors.permute(2, 0, 1, 3).flatten(0, 2), plus_one=False)
    return clip(boxes, image_sizes), scores


@torch.no_grad()
def propose(
    output: RpnOutput,
    anchors: Tensor,
    image_sizes: Tensor,
    *,
    settings: ProposalSettings,
    std_scaling: float = 1.0,
    nms_form: NmsForm = "auto",
) -> Proposals:
    """Decode, clip, drop boxes of at most one pixel, keep the best, suppress (facts: section 5).

    Args:
        output: of the RPN.
        anchors: (Hf, Wf, A, 4).
        image_sizes: (B, 2) height and width of the valid part of each image.
        settings: how many boxes to keep.
        std_scaling: what the RPN's targets were multiplied by.
        nms_form: see `frcnn.ops.nms.nms`.
    """
    boxes, scores = decoded(output, anchors, image_sizes, std_scaling=std_scaling)
    large = (boxes[..., 2:] - boxes[..., :2] > 1).all(-1)
    scores, order = top_k(scores.masked_fill(~large, -1.0), min(settings.pre_nms_top_n, scores.shape[1]))
    boxes = take(boxes, order)
    kept, valid = nms(
        boxes,
        scores,
        scores >= 0,
        iou_threshold=settings.nms_iou,
        max_output=settings.post_nms_top_n,
        form=nms_form,
    )
    # Not times valid: what is no number would stay none.
    return Proposals(take(boxes, kept).masked_fill(~valid.unsqueeze(-1), 0.0), valid)
