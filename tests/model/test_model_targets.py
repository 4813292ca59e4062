import numpy as np
import pytest
import slow_reference as slow
import torch

from frcnn.model.rpn import Proposals
from frcnn.model.targets import rpn_targets, sample_regions
from frcnn.ops.anchors import cell_anchors, grid_anchors

SCALES, RATIOS, SIZE = [32.0, 64.0], [1.0, 0.5, 2.0], (160, 192)
STDS = torch.tensor([10.0, 10, 5, 5])


def anchors():
    cell = cell_anchors(scales=SCALES, ratios=RATIOS)
    return grid_anchors(cell, feature_size=(10, 12), stride=16).flatten(0, 2)


def objects(count, slots=8, seed=0):
    rng = np.random.default_rng(seed)
    boxes, labels = torch.zeros(1, slots, 4), torch.full((1, slots), -1)
    for i in range(count):
        w, h = rng.integers(3, 80, 2)
        x, y = rng.integers(0, SIZE[1] - w), rng.integers(0, SIZE[0] - h)
        boxes[0, i] = torch.tensor([x, y, x + w - 1, y + h - 1])
        labels[0, i] = rng.integers(0, 3)
    return boxes, labels


def all_targets(boxes, labels, sample=10_000, **options):
    options = {"negative_iou": 0.3, "positive_iou": 0.6} | options
    sizes = torch.tensor([SIZE] * len(boxes)).float()
    return rpn_targets(anchors(), boxes, labels, sizes, sample=sample, **options)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count", [0, 1, 8])
def test_labels_and_deltas_equal_the_loop(seed, count):
    boxes, labels = objects(count, seed=seed)
    found = all_targets(boxes, labels, std_scaling=2.0)
    truth = [box.tolist() for box in boxes[0, :count]]
    expected, matched = slow.rpn_labels(anchors().tolist(), truth, SIZE, 0.3, 0.6)
    assert found.labels[0].int().tolist() == expected.tolist()
    for i in np.flatnonzero(expected == 1):
        deltas = [2 * d for d in slow.encode(truth[matched[i]], anchors()[i].tolist())]
        np.testing.assert_allclose(found.deltas[0, i], deltas, atol=1e-4)


def test_last_of_two_lonely_objects_takes_the_anchor():
    boxes = torch.tensor([[[44.0, 44, 66, 66], [46, 46, 68, 68], [0, 0, 0, 0]]])
    found = all_targets(boxes, torch.tensor([[0, 1, -1]]))
    expected, matched = slow.rpn_labels(anchors().tolist(), boxes[0, :2].tolist(), SIZE, 0.3, 0.6)
    (positive,) = np.flatnonzero(expected == 1)
    assert matched[positive] == 1  # the case this test is about
    assert found.labels[0].eq(1).nonzero().flatten().tolist() == [positive]
    np.testing.assert_allclose(
        found.deltas[0, positive], slow.encode(boxes[0, 1].tolist(), anchors()[positive].tolist()), atol=1e-4
    )


def test_sample_is_half_positive_at_most():
    boxes, labels = objects(8, seed=1)
    generator = torch.Generator().manual_seed(0)
    for sample in (4, 16, 256):
        everything = all_targets(boxes, labels, positive_iou=0.4).labels
        found = all_targets(boxes, labels, sample=sample, positive_iou=0.4, generator=generator).labels
        positives = min(sample // 2, int((everything == 1).sum()))
        assert int((found == 1).sum()) == positives
        assert int((found == 0).sum()) == min(sample - positives, int((everything == 0).sum()))
        assert (everything[found >= 0] == found[found >= 0]).all()


def test_image_without_objects_gives_negatives_only():
    found = all_targets(*objects(0), sample=64)
    assert (found.labels == 0).sum() == 64
    assert not (found.labels == 1).any()


def test_padding_of_a_smaller_image_has_no_anchors():
    boxes, labels = objects(0)
    found = rpn_targets(
        anchors(),
        boxes,
        labels,
        torch.tensor([[80.0, 96.0]]),
        negative_iou=0.3,
        positive_iou=0.7,
        sample=9999,
    )
    used = anchors()[found.labels[0] >= 0]
    assert used[:, 2].max() <= 95
    assert used[:, 3].max() <= 79


# Regions: 8 near the object (IoU with +1: 0.6 and more), the others far away.
OBJECT = torch.tensor([[[20.0, 20, 59, 59], [0, 0, 0, 0]]])
LABEL = torch.tensor([[2, -1]])


def regions(near, far, slots=40):
    boxes, valid = torch.zeros(1, slots, 4), torch.zeros(1, slots, dtype=torch.bool)
    for i in range(near + far):
        boxes[0, i] = OBJECT[0, 0] + (i if i < near else 70 + i)
        valid[0, i] = True
    return Proposals(boxes, valid)


def sampled(proposals, boxes=OBJECT, labels=LABEL, **options):
    settings = {"negative_iou": 0.0, "positive_iou": 0.5, "sample": 16, "num_classes": 3, "stds": STDS}
    generator = torch.Generator().manual_seed(0)
    return sample_regions(proposals, boxes, labels, generator=generator, **(settings | options))


def distinct(found, mask):
    return len({tuple(box) for box in found.boxes[0][mask[0]].tolist()})


def test_a_quarter_is_positive_if_both_kinds_exist():
    found = sampled(regions(near=6, far=30))
    assert (found.labels == 2).sum() == 4
    assert (found.labels == 3).sum() == 12
    assert distinct(found, found.labels == 2) == 4
    assert distinct(found, found.labels == 3) == 12


def test_few_negatives_are_repeated():
    found = sampled(regions(near=2, far=3))
    assert (found.labels == 2).sum() == 2
    assert (found.labels == 3).sum() == 14
    assert distinct(found, found.labels == 3) <= 3


def test_only_positives_lift_the_cap():
    found = sampled(regions(near=6, far=0))
    assert found.labels.tolist() == [[2] * 16]
    assert distinct(found, found.labels == 2) <= 6
    assert distinct(sampled(regions(near=6, far=0), sample=6), torch.ones(1, 6, dtype=torch.bool)) == 6


def test_nothing_near_is_background():
    assert sampled(regions(near=0, far=30)).labels.tolist() == [[3] * 16]


def test_image_without_objects_is_background():
    found = sampled(regions(near=6, far=30), labels=torch.full((1, 2), -1))
    assert found.labels.tolist() == [[3] * 16]


def test_nothing_at_all_is_unused():
    found = sampled(regions(near=0, far=0))
    assert found.labels.tolist() == [[-1] * 16]
    assert not found.boxes.any()
    assert found.deltas.isfinite().all()


def test_below_the_lower_bound_is_unused():
    found = sampled(regions(near=6, far=30), negative_iou=0.1)
    assert found.labels.tolist() == [[2] * 16]


def test_ground_truth_can_be_a_region():
    found = sampled(regions(near=0, far=30), with_ground_truth=True)
    assert found.boxes[0, 0].tolist() == OBJECT[0, 0].tolist()
    assert (found.labels == 2).sum() == 1
    assert found.deltas[0, 0].tolist() == [0, 0, 0, 0]


def test_region_deltas_equal_the_loop():
    found = sampled(regions(near=6, far=30))
    for box, deltas in zip(found.boxes[0, :4].tolist(), found.deltas[0, :4], strict=True):
        expected = np.array(slow.encode(OBJECT[0, 0].tolist(), box)) * STDS.numpy()
        np.testing.assert_allclose(deltas, expected, atol=1e-4)


# Four anchors in a row, 10 x 10 each, with room between them.
ROW = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]])
# 4.9 columns of the first anchor, 6 of the second, none of the third, 5 of the fourth; and padding.
AREAS = torch.tensor([[[0.0, 0, 4.9, 10], [24, 0, 40, 10], [65, 0, 80, 10], [0, 0, 0, 0]]])


def row_labels(objects, classes, **options):
    sizes = torch.tensor([[100.0, 100]])
    settings = {"negative_iou": 0.3, "positive_iou": 0.7, "sample": 8}
    return rpn_targets(ROW, objects, classes, sizes, **settings, **options).labels.tolist()


def test_an_anchor_that_lies_half_in_an_area_is_no_negative():
    nothing = torch.zeros(1, 1, 4), torch.tensor([[-1]])
    assert row_labels(*nothing) == [[0, 0, 0, 0]]
    assert row_labels(*nothing, ignored=torch.zeros(1, 0, 4)) == [[0, 0, 0, 0]]
    assert row_labels(*nothing, ignored=AREAS) == [[0, -1, 0, -1]]


def test_a_positive_anchor_stays_one_in_an_area():
    thing = ROW[None, 1:2], torch.tensor([[0]])
    assert row_labels(*thing, ignored=AREAS) == [[0, 1, 0, -1]]
    everything = torch.tensor([[[0.0, 0, 100, 100]]])
    assert row_labels(*thing, ignored=everything) == [[-1, 1, -1, -1]]


def test_a_region_that_lies_half_in_an_area_is_no_background():
    proposals = Proposals(ROW[None], torch.ones(1, 4, dtype=torch.bool))
    options = {"sample": 12, "num_classes": 3, "negative_iou": 0.0, "positive_iou": 0.5, "stds": STDS}

    def lefts(labels, wanted, **more):
        found = sample_regions(proposals, ROW[None, 1:2], labels, **options, **more)
        return set(found.boxes[0, found.labels[0] == wanted, 0].tolist())

    thing, nothing = torch.tensor([[2]]), torch.tensor([[-1]])
    assert lefts(thing, 3) == {0, 40, 60}
    assert lefts(thing, 3, ignored=AREAS) == {0, 40}
    assert lefts(thing, 2, ignored=AREAS) == {20}
    assert lefts(nothing, 3, ignored=AREAS) == {0, 40}
    assert lefts(nothing, -1, ignored=torch.tensor([[[0.0, 0, 100, 100]]])) == {0}  # nothing to learn from


def test_each_image_has_its_own_areas():
    twice = torch.zeros(2, 1, 4), torch.full((2, 1), -1)
    sizes, areas = torch.tensor([[100.0, 100]] * 2), torch.cat([AREAS, torch.zeros(1, 4, 4)])
    found = rpn_targets(ROW, *twice, sizes, negative_iou=0.3, positive_iou=0.7, sample=8, ignored=areas)
    assert found.labels.tolist() == [[0, -1, 0, -1], [0, 0, 0, 0]]
