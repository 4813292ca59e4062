import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from frcnn.errors import SpecError
from frcnn.ops.roi import crop_and_resize

sys.path.append(str(Path(__file__).parents[1] / "model"))
import slow_reference as slow

FORMS = ("gather", "grid_sample", "matmul", "roi_align")
SIZE = (96, 128)


@pytest.fixture
def case():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 3, 6, 8, generator=generator)
    corners = torch.rand(2, 5, 2, 2, generator=generator) * torch.tensor([127.0, 95.0])
    boxes = torch.cat([corners.amin(2), corners.amax(2)], dim=-1)
    boxes[0, 0] = torch.tensor([0.0, 0, 127, 95])  # the whole image
    boxes[1, 0] = torch.tensor([40.0, 30, 40.5, 30.25])  # less than a pixel
    boxes[1, 1] = 0  # an unused slot
    return features, boxes


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 2, 7])
def test_equals_the_loop(case, form, size):
    features, boxes = case
    crops = crop_and_resize(features, boxes, input_size=SIZE, size=size, form=form)
    expected = [
        slow.crop_and_resize(features[b].numpy().astype(float), boxes[b, r].tolist(), size, SIZE)
        for b in range(2)
        for r in range(5)
    ]
    torch.testing.assert_close(crops, torch.from_numpy(np.stack(expected)).float(), atol=1e-4, rtol=1e-4)


def test_points_outside_are_zero_and_points_on_the_edge_are_not():
    """Facts 1.4. Points of a 3x3 crop in x: one cell before the first, on the first, on the last but one."""
    features = torch.arange(1.0, 13.0).reshape(1, 1, 3, 4)  # 1 2 3 4 / 5 6 7 8 / 9 10 11 12
    left = torch.tensor([[[-10.0, 0.0, 10.0, 20.0]]])  # cells of 10 pixels: x -1, 0, 1; y 0, 1, 2
    crops = crop_and_resize(features, left, input_size=(21, 31), size=3, form="gather")
    assert crops[0, 0].tolist() == [[0, 1, 2], [0, 5, 6], [0, 9, 10]]
    below = torch.tensor([[[20.0, 10.0, 30.0, 40.0]]])  # x 2, 2.5, 3; y 1, 2.5, 4
    crops = crop_and_resize(features, below, input_size=(21, 31), size=3, form="gather")
    assert crops[0, 0].tolist() == [[7, 7.5, 8], [0, 0, 0], [0, 0, 0]]


def test_rounding_does_not_take_the_edge_away():
    sizes = [(17 * side + 3, 7 * side + 5) for side in range(16, 200, 7)]
    for height, width in sizes:
        features = torch.ones(1, 1, -(-height // 16), -(-width // 16))
        whole = torch.tensor([[[0.0, 0.0, width - 1, height - 1]]])
        crops = crop_and_resize(features, whole, input_size=(height, width), size=7, form="gather")
        torch.testing.assert_close(crops, torch.ones_like(crops), atol=1e-3, rtol=0)


@pytest.mark.parametrize("form", FORMS[1:])
def test_gradients_agree(case, form):
    features, boxes = case
    weight = torch.randn(10, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    gradients = []
    for one in (FORMS[0], form):
        leaf = features.clone().requires_grad_()
        (crop_and_resize(leaf, boxes, input_size=SIZE, size=4, form=one) * weight).sum().backward()
        gradients.append(leaf.grad)
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-4)


def test_gather_gradient_against_differences(case):
    features, boxes = case
    leaf = features[:1, :1].clone().requires_grad_()
    total = crop_and_resize(leaf, boxes[:1], input_size=SIZE, size=3, form="gather").square().sum()
    (gradient,) = torch.autograd.grad(total, leaf)
    bumped = leaf.detach().clone()
    bumped[0, 0, 2, 3] += 1e-2
    after = crop_and_resize(bumped, boxes[:1], input_size=SIZE, size=3, form="gather").square().sum()
    assert abs((after - total).item() / 1e-2 - gradient[0, 0, 2, 3].item()) < 0.05


@pytest.mark.parametrize("form", FORMS)
def test_no_gradient_reaches_the_boxes(case, form):
    features, boxes = case
    boxes.requires_grad_()
    crop_and_resize(features.requires_grad_(), boxes, input_size=SIZE, size=2, form=form).sum().backward()
    assert boxes.grad is None


def test_corners_of_the_image_are_corners_of_the_map(case):
    features, boxes = case
    crop = crop_and_resize(features, boxes, input_size=SIZE, size=2)[0]
    torch.testing.assert_close(crop, features[0][:, [0, -1]][:, :, [0, -1]])


def test_unknown_form_lists_the_known(case):
    with pytest.raises(SpecError, match="gather, grid_sample, matmul, roi_align"):
        crop_and_resize(*case, input_size=SIZE, size=2, form="pool")
