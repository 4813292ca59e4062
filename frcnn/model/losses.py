"""The four losses, each a mean over images of a sum divided by the sample's nominal size."""

import math

import torch.nn.functional as F
from torch import Tensor

# Keras keeps probabilities within [e, 1 - e]: a loss outside of their logarithms has no gradient.
_EPSILON = 1e-7
_LOGIT_LIMIT = math.log((1 - _EPSILON) / _EPSILON)


def rpn_class_loss(logits: Tensor, labels: Tensor, *, sample: int) -> Tensor:
    """Binary cross-entropy of sampled anchors; logits and labels: (B, A), label -1 does not count.

    The divisor is `sample`, the nominal number of anchors per image, however many there were
    (tao/model-and-training.md 4.3).
    """
    limited = logits.clamp(-_LOGIT_LIMIT, _LOGIT_LIMIT)
    loss = F.binary_cross_entropy_with_logits(limited, labels.clamp(min=0), reduction="none")
    return (loss * (labels >= 0)).sum() / (sample * len(labels))


def rpn_box_loss(deltas: Tensor, targets: Tensor, labels: Tensor, *, sample: int) -> Tensor:
    """Smooth L1 with sigma 3, summed over the four deltas (B, A, 4) of anchors labelled 1."""
    loss = F.smooth_l1_loss(deltas, targets, beta=1 / 9, reduction="none").sum(-1)
    return loss.where(labels == 1, 0).sum() / (sample * len(labels))


def rcnn_class_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of sampled regions; logits: (B, R, K + 1), labels: (B, R), -1 does not count."""
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-1, reduction="none")
    limited = loss.clamp(-math.log(1 - _EPSILON), -math.log(_EPSILON))
    return limited.where(labels.flatten() >= 0, 0).sum() / labels.numel()


def rcnn_box_loss(deltas: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
    """Smooth L1 with sigma 1 of the true class's deltas, summed over the four.

    Args:
        deltas: (B, R, 4K), class by class.
        targets: (B, R, 4).
        labels: (B, R); K (background) and -1 do not count.
    """
    deltas = deltas.view(*labels.shape, -1, 4)
    classes = deltas.shape[2]
    positive = (labels >= 0) & (labels < classes)
    index = labels.clamp(0, classes - 1)[..., None, None].expand(*labels.shape, 1, 4)
    chosen = deltas.gather(2, index).squeeze(2)
    loss = F.smooth_l1_loss(chosen, targets, reduction="none").sum(-1)
    return loss.where(positive, 0).sum() / labels.numel()
