import numpy as np
import slow_reference as slow
import torch

from frcnn.model.rpn import ProposalSettings, Rpn, RpnOutput, propose
from frcnn.ops.anchors import cell_anchors, grid_anchors

SCALES, RATIOS = [32.0, 48.0], [1.0, 0.5]


def output(height=4, width=5, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    anchors = len(SCALES) * len(RATIOS)
    logits = torch.randn(batch, anchors, height, width, generator=generator)
    logits[:, :, 0] = 0.5  # equal scores
    return RpnOutput(logits, torch.randn(batch, 4 * anchors, height, width, generator=generator) * 0.4)


def grid(height=4, width=5):
    return grid_anchors(cell_anchors(scales=SCALES, ratios=RATIOS), feature_size=(height, width), stride=16)


def test_proposals_equal_the_loop():
    sizes = [(64, 80), (50, 60)]
    out = output()
    settings = ProposalSettings(pre_nms_top_n=60, post_nms_top_n=25, nms_iou=0.5)
    boxes, valid = propose(out, grid(), torch.tensor(sizes).float(), settings=settings, std_scaling=2.0)
    for b, size in enumerate(sizes):
        expected = slow.proposals(
            out.logits[b].sigmoid().numpy(),
            out.deltas[b].numpy() / 2,
            4,
            5,
            SCALES,
            RATIOS,
            size,
            60,
            25,
            0.5,
        )
        assert valid[b].sum().item() == len(expected) > 5
        np.testing.assert_allclose(boxes[b][valid[b]], expected, atol=1e-3)
        assert not boxes[b][~valid[b]].any()


def test_boxes_of_one_pixel_are_dropped():
    out = output(batch=1)
    out.deltas[:, 2::4] = -10.0  # width e^-10 of the anchor's
    settings = ProposalSettings(pre_nms_top_n=60, post_nms_top_n=25, nms_iou=0.5)
    boxes, valid = propose(out, grid(), torch.tensor([[64.0, 80.0]]), settings=settings)
    assert not valid.any()
    assert not boxes.any()


def test_fewer_anchors_than_slots():
    settings = ProposalSettings(pre_nms_top_n=1000, post_nms_top_n=500, nms_iou=0.9)
    boxes, valid = propose(output(), grid(), torch.tensor([[64.0, 80.0]] * 2), settings=settings)
    assert boxes.shape == (2, 500, 4)
    assert valid.sum(1).max() <= 80


def test_channels_and_cells_of_the_loss_match_the_anchors():
    out = output()
    logits, deltas = out.by_cell()
    row, column, a = 2, 3, 1
    index = (row * 5 + column) * 4 + a
    assert logits[1, index] == out.logits[1, a, row, column]
    assert deltas[1, index].tolist() == out.deltas[1, 4 * a : 4 * a + 4, row, column].tolist()


def test_layer_shapes():
    rpn = Rpn(in_channels=8, num_anchors=4, hidden_channels=6)
    logits, deltas = rpn(torch.zeros(2, 8, 3, 5))
    assert logits.shape == (2, 4, 3, 5)
    assert deltas.shape == (2, 16, 3, 5)
