"""IoU thresholds as people wrote them, and as the original computes with them."""

import pytest

from frcnn.spec.evaluation import EvaluationConfig, IoUThresholdRange
from frcnn.spec.values import iou_thresholds


def test_a_range_leaves_out_its_end():
    span = EvaluationConfig(gt_matching_iou_threshold_range=IoUThresholdRange(start=0.5, end=1.0, step=0.05))
    assert iou_thresholds(span) == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    original = iou_thresholds(span, tao_quirks=True)
    assert len(original) == 10
    assert (original[0], original[1], original[9]) == (0.5, 0.5500000007450581, 0.9500000067055225)


@pytest.mark.parametrize(("quirks", "expected"), [(False, 0.7), (True, 0.699999988079071)])
def test_a_single_threshold(quirks, expected):
    assert iou_thresholds(EvaluationConfig(gt_matching_iou_threshold=0.7), tao_quirks=quirks) == [expected]
