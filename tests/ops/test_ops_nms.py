import pytest
import torch

from frcnn.errors import SpecError
from frcnn.ops.nms import nms, top_k

FORMS = ("greedy", "blocked", "matrix")


def random_boxes(batch, count, seed):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(batch, count, 2, generator=generator) * 300
    boxes = torch.cat([corner, corner + 20 + 60 * torch.rand(batch, count, 2, generator=generator)], dim=-1)
    # Few distinct scores: ties must fall the same way everywhere.
    scores = (torch.rand(batch, count, generator=generator) * 50).round() / 50
    return boxes, scores, torch.rand(batch, count, generator=generator) > 0.2


def kept(result):
    return [row[valid].tolist() for row, valid in zip(*result, strict=True)]


def by_hand(boxes, scores, valid, threshold, limit):
    from torchvision.ops import box_iou

    out = []
    for image_boxes, image_scores, image_valid in zip(boxes, scores, valid, strict=True):
        over = box_iou(image_boxes, image_boxes) > threshold
        keep = []
        for i in sorted(range(len(image_boxes)), key=lambda i: (-image_scores[i].item(), i)):
            if image_valid[i] and len(keep) < limit and not over[i, keep].any():
                keep.append(i)
        out.append(keep)
    return out


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.7])
@pytest.mark.parametrize("limit", [20, 1000])
def test_all_forms_equal_the_plain_loop(form, threshold, limit):
    boxes, scores, valid = random_boxes(2, 600, seed=0)
    result = nms(boxes, scores, valid, iou_threshold=threshold, max_output=limit, form=form)
    assert result[0].shape == result[1].shape == (2, limit)
    assert kept(result) == by_hand(boxes, scores, valid, threshold, limit)


@pytest.mark.parametrize("form", FORMS)
def test_threshold_is_strict(form):
    # Halves overlap by exactly 1/2: 10 x 10 against 10 x 5.
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 5]]])
    scores, valid = torch.tensor([[0.9, 0.8]]), torch.ones(1, 2, dtype=torch.bool)
    assert kept(nms(boxes, scores, valid, iou_threshold=0.5, max_output=2, form=form)) == [[0, 1]]
    assert kept(nms(boxes, scores, valid, iou_threshold=0.49, max_output=2, form=form)) == [[0]]


def chain_of_boxes(length, form):
    # Each box overlaps its neighbours by 9/11, the next but one by 8/12.
    left = torch.arange(float(length))
    boxes = torch.stack([left, torch.zeros(length), left + 10, torch.full((length,), 10.0)], dim=-1)[None]
    scores, valid = torch.linspace(1, 0.5, length)[None], torch.ones(1, length, dtype=torch.bool)
    return kept(nms(boxes, scores, valid, iou_threshold=0.7, max_output=length, form=form))


@pytest.mark.parametrize("form", FORMS)
def test_a_suppressed_box_suppresses_nothing(form):
    assert chain_of_boxes(17, form) == [list(range(0, 17, 2))]


def test_longer_chains_than_promised_are_cut_short_never_doubled():
    assert chain_of_boxes(40, "greedy") == [list(range(0, 40, 2))]
    assert chain_of_boxes(40, "matrix") == [list(range(0, 17, 2))]


@pytest.mark.parametrize("form", FORMS)
def test_nothing_valid_keeps_nothing(form):
    boxes, scores, _ = random_boxes(1, 10, seed=1)
    _, valid = nms(
        boxes, scores, torch.zeros(1, 10, dtype=torch.bool), iou_threshold=0.5, max_output=5, form=form
    )
    assert not valid.any()


def test_greedy_looks_further_if_a_prefix_keeps_too_few():
    boxes = torch.tensor([[0.0, 0, 10, 10]]).repeat(100, 1)
    boxes[99] += 50
    scores, valid = torch.linspace(1, 0, 100)[None], torch.ones(1, 100, dtype=torch.bool)
    result = nms(boxes[None], scores, valid, iou_threshold=0.5, max_output=2, form="greedy")
    assert kept(result) == [[0, 99]]


def test_unknown_form_lists_the_known():
    with pytest.raises(SpecError, match="greedy, blocked, matrix"):
        nms(*random_boxes(1, 2, seed=0), iou_threshold=0.5, max_output=2, form="fast")


def test_top_k_prefers_the_first_of_equals():
    scores = torch.tensor([[0.0, 1.0] * 200])
    assert top_k(scores, 3)[1].tolist() == [[1, 3, 5]]
