"""The evaluator: it takes batches of detections and ground truth, and returns mAP with all that explains it.

Shapes: B images, N detections, G ground truth slots, I areas to ignore, R regions, K classes without
background, T IoU thresholds, D detections of one image.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from frcnn.metrics.average_precision import (
    Curve,
    OperatingPoint,
    area_under_envelope,
    best_f1_point,
    eleven_point_mean,
    precision_recall,
)
from frcnn.metrics.matching import greedy_match, pairwise_coverage, pairwise_iou

log = logging.getLogger(__name__)

RPN_RECALL_IOU = 0.5  # TAO: fixed, whatever the matching threshold


class ImageRecord(NamedTuple):
    """What one image contributes: arrays only, so that processes can exchange it."""

    scores: NDArray[np.float32]  # (D,) descending
    labels: NDArray[np.int64]  # (D,)
    matched: NDArray[np.bool_]  # (T, D) true positives
    ignored: NDArray[np.bool_]  # (T, D) on a difficult object or in an area to ignore
    ordinary: NDArray[np.int64]  # (K,) objects that count
    difficult: NDArray[np.int64]  # (K,) objects that do not
    proposed: NDArray[np.int64] | None  # (K,) objects, difficult included, that a proposal overlaps


@dataclass(frozen=True)
class ClassResult:
    """Figures of one class; None where a figure is undefined (no object to find, or nothing detected)."""

    AP: float | None  # mean over the IoU thresholds
    AP_per_iou: tuple[float | None, ...]
    precision: float | None  # at the score threshold, smallest IoU threshold
    recall: float | None
    best_f1: OperatingPoint | None
    rpn_recall: float | None
    ground_truth: int  # without the difficult ones
    difficult: int
    detections: int
    curve: tuple[Curve, Curve] = field(repr=False, compare=False)  # precision, recall; smallest IoU threshold

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the curve."""
        figures = {name: value for name, value in vars(self).items() if name != "curve"}
        best_f1 = None if self.best_f1 is None else self.best_f1._asdict()
        return figures | {"AP_per_iou": list(self.AP_per_iou), "best_f1": best_f1}


@dataclass(frozen=True)
class EvaluationResult:
    """An evaluation of `images` images; `mAP` is None if no class has an object to find."""

    mAP: float | None
    mAP_per_iou: tuple[float | None, ...]
    metric: str  # "area" or "voc07"
    iou_thresholds: tuple[float, ...]
    score_threshold: float
    images: int
    per_class: Mapping[str, ClassResult]

    def to_dict(self) -> dict[str, Any]:
        """The evaluation's part of results.json."""
        per_class = {name: result.to_dict() for name, result in self.per_class.items()}
        lists = {"mAP_per_iou": list(self.mAP_per_iou), "iou_thresholds": list(self.iou_thresholds)}
        return vars(self) | lists | {"per_class": per_class}


class DetectionEvaluator:
    """Average precision over a data set, fed batch by batch, in one process or in many.

    The result depends neither on the order of the images nor on how processes shared them, and an image
    counts once however often its id comes.

    Args:
        class_names: (K,) names in the order of class ids.
        iou_thresholds: (T,) smallest IoU of a match, ascending.
        voc07: eleven-point metric instead of the area under the curve.
        score_threshold: detections below it do not exist. TAO: so AP, too, is cut off there.
        ignore_difficult: difficult objects need not be found, and finding them is no mistake. Otherwise
            they are objects like any other.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        iou_thresholds: Sequence[float] = (0.5,),
        voc07: bool = False,
        score_threshold: float = 0.0,
        ignore_difficult: bool = True,
    ) -> None:
        self.class_names = tuple(class_names)
        self.iou_thresholds = tuple(float(threshold) for threshold in iou_thresholds)
        self.metric = "voc07" if voc07 else "area"
        self.score_threshold = score_threshold
        self.ignore_difficult = ignore_difficult
        self._records: dict[str, ImageRecord] = {}

    def update(
        self,
        *,
        boxes: torch.Tensor,
        scores: torch.Tensor,
        labels: torch.Tensor,
        gt_boxes: torch.Tensor,
        gt_labels: torch.Tensor,
        gt_difficult: torch.Tensor,
        ids: Sequence[str],
        gt_ignored: torch.Tensor | None = None,
        gt_ignored_labels: torch.Tensor | None = None,
        proposals: torch.Tensor | None = None,
        proposals_valid: torch.Tensor | None = None,
    ) -> None:
        """Add a batch; every box is xyxy in network-input pixels.

        Args:
            boxes: (B, N, 4) detections.
            scores: (B, N).
            labels: (B, N) class ids; -1 marks an unused slot.
            gt_boxes: (B, G, 4) ground truth.
            gt_labels: (B, G); -1 marks padding.
            gt_difficult: (B, G) bool.
            ids: (B,) what names an image in the data set.
            gt_ignored: (B, I, 4) areas: a detection that matches no object and has a share of itself in one,
                at least the IoU threshold, is neither right nor wrong. Empty boxes are padding.
            gt_ignored_labels: (B, I) the class that an area is about; -1: any.
            proposals: (B, R, 4); without them RPN recall stays undefined.
            proposals_valid: (B, R) bool.
        """
        score, label, gt_label = _numpy(scores), _numpy(labels), _numpy(gt_labels)
        gt_box, real = _numpy(gt_boxes), gt_label >= 0
        difficult = _numpy(gt_difficult) & real & self.ignore_difficult

        keep = (label >= 0) & (score >= self.score_threshold)
        counts = keep.sum(axis=1)
        order = np.where(keep, -score, np.inf).argsort(axis=1, kind="stable")[:, : counts.max(initial=0)]
        box = np.take_along_axis(_numpy(boxes), order[..., None], axis=1)
        score, label = (np.take_along_axis(array, order, axis=1) for array in (score, label))

        same_class = (label[:, :, None] == gt_label[:, None]) & real[:, None]
        thresholds = np.asarray(self.iou_thresholds)
        matched, ignored = greedy_match(
            pairwise_iou(box, gt_box), same_class, difficult, thresholds=thresholds
        )
        if gt_ignored is not None and gt_ignored_labels is not None:
            about = _numpy(gt_ignored_labels)[:, None]
            share = pairwise_coverage(box, _numpy(gt_ignored)) * ((about < 0) | (about == label[:, :, None]))
            ignored |= (share.max(axis=-1, initial=0.0) >= thresholds[:, None, None]) & ~matched
        proposed = None
        if proposals is not None and proposals_valid is not None:
            # TAO: coordinates are inclusive pixels, and one proposal may serve many objects.
            overlaps = pairwise_iou(gt_box, _numpy(proposals), offset=1.0) * _numpy(proposals_valid)[:, None]
            proposed = (overlaps.max(axis=-1, initial=0.0) >= RPN_RECALL_IOU) & real

        repeated = [name for name in ids if name in self._records]
        if repeated:
            log.warning("%d images came twice and count once, %s first", len(repeated), repeated[0])
        for i, (name, count) in enumerate(zip(ids, counts, strict=True)):
            record = ImageRecord(
                scores=score[i, :count],
                labels=label[i, :count],
                matched=matched[:, i, :count],
                ignored=ignored[:, i, :count],
                ordinary=self._per_class(gt_label[i, real[i] & ~difficult[i]]),
                difficult=self._per_class(gt_label[i, difficult[i]]),
                proposed=None if proposed is None else self._per_class(gt_label[i, proposed[i]]),
            )
            self._records.setdefault(name, record)

    def _per_class(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(labels, minlength=len(self.class_names))

    def state(self) -> dict[str, ImageRecord]:
        """Everything seen so far, for another process to `merge`."""
        return dict(self._records)

    def merge(self, state: Mapping[str, ImageRecord]) -> None:
        """Add another evaluator's state; images that both have seen (distributed padding) count once."""
        self._records = {**state, **self._records}

    def reset(self) -> None:
        """Forget every image."""
        self._records.clear()

    def compute(self) -> EvaluationResult:
        """Evaluate all images so far."""
        # Equal scores keep the order of their images; sorting by id makes that the same in every run.
        records = [record for _, record in sorted(self._records.items())]
        classes = len(self.class_names)
        scores = np.concatenate([r.scores for r in records] or [np.zeros(0, np.float32)])
        labels = np.concatenate([r.labels for r in records] or [np.zeros(0, np.int64)])
        empty = np.zeros((len(self.iou_thresholds), 0), np.bool_)
        matched = np.concatenate([r.matched for r in records] or [empty], axis=1)
        ignored = np.concatenate([r.ignored for r in records] or [empty], axis=1)
        ordinary = sum((r.ordinary for r in records), start=np.zeros(classes, np.int64))
        difficult = sum((r.difficult for r in records), start=np.zeros(classes, np.int64))
        known = [r.proposed for r in records if r.proposed is not None]
        proposed = sum(known, start=np.zeros(classes, np.int64)) if len(known) == len(records) > 0 else None

        order = (-scores).argsort(kind="stable")
        scores, labels, matched, ignored = scores[order], labels[order], matched[:, order], ignored[:, order]
        per_class = {}
        for i, name in enumerate(self.class_names):
            own = labels == i
            objects = int(ordinary[i] + difficult[i])
            per_class[name] = self._class_result(
                scores[own],
                matched[:, own],
                ignored[:, own],
                ground_truth=int(ordinary[i]),
                difficult=int(difficult[i]),
                rpn_recall=float(proposed[i] / objects) if proposed is not None and objects else None,
            )
        per_iou = zip(*(result.AP_per_iou for result in per_class.values()), strict=True)
        mean_per_iou = tuple(_mean(column) for column in per_iou)
        return EvaluationResult(
            mAP=_mean(mean_per_iou),
            mAP_per_iou=mean_per_iou,
            metric=self.metric,
            iou_thresholds=self.iou_thresholds,
            score_threshold=self.score_threshold,
            images=len(records),
            per_class=per_class,
        )

    def _class_result(
        self,
        scores: NDArray[np.float32],
        matched: NDArray[np.bool_],
        ignored: NDArray[np.bool_],
        *,
        ground_truth: int,
        difficult: int,
        rpn_recall: float | None,
    ) -> ClassResult:
        average = eleven_point_mean if self.metric == "voc07" else area_under_envelope
        judged = [right[~skip] for right, skip in zip(matched, ignored, strict=True)]
        curves = [precision_recall(correct, positives=max(ground_truth, 1)) for correct in judged]
        aps = tuple(average(*curve) if ground_truth else None for curve in curves)
        precision, recall = curves[0]
        found = float(recall[-1]) if len(recall) else 0.0
        return ClassResult(
            AP=_mean(aps),
            AP_per_iou=aps,
            precision=float(precision[-1]) if len(precision) else None,
            recall=found if ground_truth else None,
            best_f1=best_f1_point(scores[~ignored[0]], precision, recall),
            rpn_recall=rpn_recall,
            ground_truth=ground_truth,
            difficult=difficult,
            detections=len(scores),
            curve=(precision, recall),
        )


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """To the host; half precisions become single, which NumPy can compute with."""
    return (tensor.float() if tensor.is_floating_point() else tensor).detach().cpu().numpy()
