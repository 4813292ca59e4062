import numpy as np
import pytest
import slow_reference as slow
import torch

from frcnn.model.roi_head import DetectionSettings, RoiOutput, postprocess
from frcnn.model.rpn import Proposals

STDS = torch.tensor([10.0, 10, 5, 5])
SIZES = torch.tensor([[100.0, 120.0], [60.0, 70.0]])


def outputs(regions=12, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, regions, 2, generator=generator) * torch.tensor([50.0, 40.0])
    boxes = torch.cat([corner, corner + 10 + 20 * torch.rand(2, regions, 2, generator=generator)], dim=-1)
    logits = torch.randn(2 * regions, classes + 1, generator=generator)
    deltas = torch.randn(2 * regions, 4 * classes, generator=generator)
    return RoiOutput(logits, deltas), Proposals(boxes, torch.ones(2, regions, dtype=torch.bool))


@pytest.mark.parametrize("limit", [5, 100])
@pytest.mark.parametrize("form", ["greedy", "matrix"])
def test_detections_equal_the_loop(limit, form):
    output, proposals = outputs()
    settings = DetectionSettings(score_threshold=0.2, nms_iou=0.3, max_detections=limit)
    found = postprocess(output, proposals, SIZES, settings=settings, stds=STDS, nms_form=form)
    assert found.boxes.shape == (2, limit, 4)
    probabilities = output.logits.softmax(-1).view(2, 12, 4).numpy()
    for b in range(2):
        expected = slow.detections(
            probabilities[b],
            output.deltas.view(2, 12, 12)[b].numpy(),
            proposals.boxes[b].numpy(),
            STDS.numpy(),
            SIZES[b].tolist(),
            0.2,
            0.3,
            limit,
        )
        used = found.labels[b] >= 0
        assert found.labels[b][used].tolist() == [row[0] for row in expected]
        np.testing.assert_allclose(found.scores[b][used], [row[1] for row in expected], atol=1e-6)
        np.testing.assert_allclose(found.boxes[b][used], [row[2] for row in expected], atol=1e-3)
        assert not found.boxes[b][~used].any()
        assert not found.scores[b][~used].any()


def test_unused_proposals_detect_nothing():
    output, proposals = outputs()
    output.logits[0] = torch.tensor([50.0, 0, 0, 0])  # a certain detection, in a slot without a proposal
    proposals.valid[0, 0] = False
    settings = DetectionSettings(score_threshold=0.9)
    found = postprocess(output, proposals, SIZES, settings=settings, stds=STDS)
    assert found.scores[0].max() < 0.99
    original = DetectionSettings(score_threshold=0.9, unused_proposals=True)
    assert postprocess(output, proposals, SIZES, settings=original, stds=STDS).scores[0].max() > 0.99
    proposals.valid[0, 0] = True
    assert postprocess(output, proposals, SIZES, settings=settings, stds=STDS).scores[0].max() > 0.99


def test_one_region_can_be_of_two_classes():
    output = RoiOutput(torch.tensor([[1.0, 1.0, 0.0]]), torch.zeros(1, 8))
    proposals = Proposals(torch.tensor([[[10.0, 10, 30, 30]]]), torch.ones(1, 1, dtype=torch.bool))
    found = postprocess(output, proposals, SIZES[:1], settings=DetectionSettings(), stds=STDS)
    assert found.labels[0, :3].tolist() == [0, 1, -1]
    # Decoded with +1 that is never subtracted.
    assert found.boxes[0, 0].tolist() == [10, 10, 31, 31]
