"""How anchors fit boxes."""

import numpy as np
import torch

from frcnn.check.anchors import best_iou, propose
from frcnn.ops.anchors import cell_anchors, grid_anchors
from frcnn.ops.boxes import inside
from frcnn.ops.matching import match

SIZE = (96, 160)


def random_boxes(count, seed=0):
    corners = np.random.default_rng(seed).uniform(0, 1, (count, 2, 2)) * [SIZE[1] - 1, SIZE[0] - 1]
    return np.concatenate([corners.min(1), corners.max(1)], axis=1)


def sizes(boxes):
    return np.tile(np.array(SIZE, float), (len(boxes), 1))


def test_best_overlap_is_that_of_the_targets():
    boxes, scales, ratios = random_boxes(200), (16, 40, 90, 300), (1.0, 0.5, 2.0)
    anchors = grid_anchors(cell_anchors(scales=scales, ratios=ratios), feature_size=(6, 10), stride=16)
    anchors = anchors.flatten(0, 2)
    usable = inside(anchors, torch.tensor([SIZE]))[0]
    overlap = match(anchors, torch.from_numpy(boxes)[None].float(), torch.ones(1, 200, dtype=torch.bool))[0]
    expected = (overlap * usable[:, None]).amax(0)
    found = best_iou(boxes, sizes(boxes), scales=scales, ratios=ratios)
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)


def test_overlaps_by_hand():
    # Centre (24, 24) is that of cell 1; 17 x 17 pixels by the +1 convention against 17 x 17.
    boxes = np.array([[16.0, 16, 32, 32], [16, 16, 32, 24]])
    found = best_iou(boxes, sizes(boxes), scales=[16], ratios=[1.0])
    np.testing.assert_allclose(found, [1, 9 / 17])


def test_proposed_anchors_find_the_sides_of_the_boxes():
    rows = []
    for centre in (40.0, 56, 72):
        for width, height in ((20, 20), (10, 40), (40, 40), (20, 80)):  # scales 20 and 40, ratios 1 and 1/4
            rows.append([centre - width / 2, 40 - height / 2, centre + width / 2, 40 + height / 2])
    boxes = np.array(rows)
    scales, ratios = propose(boxes, sizes(boxes), scales=[90, 95], ratios=[1.0, 3.0], positive_iou=0.9)
    assert (scales, ratios) == ([20, 40], [0.25, 1])
    again = propose(boxes[::-1], sizes(boxes), scales=[90, 95], ratios=[1.0, 3.0], positive_iou=0.9)
    assert again == (scales, ratios)


def test_a_proposal_is_never_worse_than_what_there_is():
    boxes = random_boxes(300, seed=1)
    boxes = boxes[((boxes[:, 2:] - boxes[:, :2]) > 2).all(1)]
    now = {"scales": [30, 60, 90], "ratios": [0.5, 1.0, 2.0]}
    scales, ratios = propose(boxes, sizes(boxes), **now, positive_iou=0.7)
    before, after = (
        best_iou(boxes, sizes(boxes), **now),
        best_iou(boxes, sizes(boxes), scales=scales, ratios=ratios),
    )
    assert (after >= 0.7).mean() >= (before >= 0.7).mean()
