import torch
from hypothesis import given
from hypothesis import strategies as st

from frcnn.ops.boxes import clip, covered, decode, encode, inside, iou


def test_iou_counts_pixels_or_lengths():
    a, b = torch.tensor([[0.0, 0, 9, 9]]), torch.tensor([[5.0, 0, 14, 9], [20, 20, 30, 30]])
    # +1: 10 x 10 boxes share 5 columns of 10: 50 / 150. Without: 9 x 9 boxes share 4 x 9: 36 / 126.
    torch.testing.assert_close(iou(a, b, plus_one=True), torch.tensor([[1 / 3, 0]]))
    torch.testing.assert_close(iou(a, b, plus_one=False), torch.tensor([[2 / 7, 0]]))


def test_iou_of_empty_boxes_is_zero():
    assert iou(torch.zeros(1, 4), torch.zeros(1, 4), plus_one=False).item() == 0
    assert iou(torch.zeros(1, 4), torch.zeros(1, 4), plus_one=True).item() == 1


def test_encode_by_hand():
    # A 20 x 10 pixel object on a 10 x 10 pixel reference, its centre 10 to the right.
    deltas = encode(torch.tensor([5.0, 0, 24, 9]), torch.tensor([0.0, 0, 9, 9]))
    torch.testing.assert_close(deltas, torch.tensor([1.0, 0, 0.6931472, 0]))


def test_zero_deltas_decode_to_the_reference_and_one_pixel_more():
    reference = torch.tensor([100.0, 50, 200, 80])
    torch.testing.assert_close(decode(torch.zeros(4), reference, plus_one=False), reference)
    # tao/model-and-training.md 11.3: RoI boxes are exactly one pixel too large, 200 -> 201.
    torch.testing.assert_close(
        decode(torch.zeros(4), reference, plus_one=True), torch.tensor([100.0, 50, 201, 81])
    )


corner = st.floats(0, 500, width=32)
side = st.floats(1, 300, width=32)
box = st.builds(lambda x, y, w, h: [x, y, x + w, y + h], corner, corner, side, side)


@given(box, box)
def test_roi_coding_returns_one_pixel_more(target, reference):
    target, reference = torch.tensor(target), torch.tensor(reference)
    back = decode(encode(target, reference), reference, plus_one=True)
    torch.testing.assert_close(back, target + torch.tensor([0.0, 0, 1, 1]), atol=2e-2, rtol=1e-4)


@given(box, box)
def test_iou_is_symmetric_and_bounded(a, b):
    a, b = torch.tensor([a]), torch.tensor([b])
    value = iou(a, b, plus_one=True)
    assert 0 <= value.item() <= 1.00001
    torch.testing.assert_close(value, iou(b, a, plus_one=True).mT)
    torch.testing.assert_close(iou(a, a, plus_one=True), torch.ones(1, 1))


def test_clip_to_each_image():
    boxes = torch.tensor([[[-5.0, -5, 500, 500]]]).expand(2, 1, 4)
    clipped = clip(boxes, torch.tensor([[100.0, 200], [50, 60]]))
    assert clipped.tolist() == [[[0, 0, 199, 99]], [[0, 0, 59, 49]]]


def test_overflow_is_clipped_not_nan():
    far = decode(torch.tensor([[[0.0, 0, 1000, 1000]]]), torch.tensor([0.0, 0, 16, 16]), plus_one=False)
    assert clip(far, torch.tensor([[100.0, 200]])).tolist() == [[[0, 0, 199, 99]]]


def test_inside_includes_the_border():
    boxes = torch.tensor([[0.0, 0, 199, 99], [0, 0, 200, 99], [-1, 0, 10, 10]])
    assert inside(boxes, torch.tensor([[100.0, 200]])).tolist() == [[True, False, False]]


def test_covered_is_the_share_in_the_best_area():
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [5, 5, 5, 5]])
    areas = torch.tensor([[[0.0, 0, 4, 10], [8, 0, 26, 10]], [[0, 0, 0, 0], [0, 0, 0, 0]]])
    # The first box: 4 of 10 columns in one area and 2 in the other, which do not add up.
    torch.testing.assert_close(covered(boxes, areas), torch.tensor([[0.4, 0.6, 0.0], [0.0, 0.0, 0.0]]))


@given(box, box)
def test_covered_times_its_area_is_symmetric(a, b):
    a, b = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    area_a, area_b = ((x[0, 2:] - x[0, :2]).prod() for x in (a, b))
    torch.testing.assert_close(covered(a, b)[0] * area_a, covered(b, a)[0] * area_b)
    torch.testing.assert_close(covered(a, a), torch.ones(1, dtype=torch.float64))
