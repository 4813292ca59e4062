import torch

from frcnn.ops.anchors import cell_anchors, grid_anchors
from frcnn.ops.boxes import inside

SCALES, RATIOS = (64.0, 128.0, 256.0), (1.0, 0.5, 2.0)


def test_first_anchor_of_the_original():
    grid = grid_anchors(cell_anchors(scales=SCALES, ratios=RATIOS), feature_size=(24, 78), stride=16)
    assert grid.shape == (24, 78, 9, 4)
    assert grid[0, 0, 0].tolist() == [-24, -24, 40, 40]
    assert grid[2, 5, 0].tolist() == [56, 8, 120, 72]


def test_ratio_is_width_over_height_at_equal_area():
    cell = cell_anchors(scales=[64.0], ratios=[4.0])
    assert cell.tolist() == [[-64, -16, 64, 16]]


def test_ratios_run_fastest():
    sides = cell_anchors(scales=[1.0, 2.0], ratios=[1.0, 4.0])
    assert (sides[:, 2] * 2).tolist() == [1, 2, 2, 4]


def test_anchors_inside_the_sample_input():
    # tao/model-and-training.md 4.1: 8,904 of 16,848 at 384 x 1248.
    grid = grid_anchors(cell_anchors(scales=SCALES, ratios=RATIOS), feature_size=(24, 78), stride=16)
    assert grid.flatten(0, 2).shape[0] == 16848
    assert inside(grid.flatten(0, 2), torch.tensor([[384.0, 1248.0]])).sum().item() == 8904
