"""Images of a few boxes, as an evaluator is fed."""

import torch

CAR, BIKE = 0, 1
NAMES = ("car", "bike")


def square(x, size=10.0):
    return [x, 0.0, x + size, size]


def feed(evaluator, *, detections=(), truths=(), areas=(), name="a", proposals=None):
    """An image: detections (box, score, label), truths (box, label, difficult), areas (box, label), and padding."""
    pad_box = [0.0] * 4
    given = [*detections, (pad_box, 0.0, -1)]
    real = [*truths, (pad_box, -1, False)]
    evaluator.update(
        boxes=torch.tensor([[d[0] for d in given]]),
        scores=torch.tensor([[d[1] for d in given]]),
        labels=torch.tensor([[d[2] for d in given]]),
        gt_boxes=torch.tensor([[t[0] for t in real]]),
        gt_labels=torch.tensor([[t[1] for t in real]]),
        gt_difficult=torch.tensor([[t[2] for t in real]]),
        gt_ignored=torch.tensor([[a[0] for a in [*areas, (pad_box, -1)]]]),
        gt_ignored_labels=torch.tensor([[a[1] for a in [*areas, (pad_box, -1)]]]),
        ids=[name],
        proposals=None if proposals is None else torch.tensor([proposals]),
        proposals_valid=None if proposals is None else torch.tensor([[any(p) for p in proposals]]),
    )
