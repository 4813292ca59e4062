"""The evaluator: it takes batches of detections and ground truth, and returns mAP with all that explains it.

Shapes: B images, N detections, G ground truth slots, I areas to ignore, R regions, K classes without
background, T IoU thresholds, D detections of one image.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
from frcnn.metrics.calibration import Calibration, calibration
from frcnn.metrics.coco import coco_summary
from frcnn.metrics.confusion import Confusion, confusion
from frcnn.metrics.matching import pairwise_iou
from frcnn.metrics.outcomes import Outcome, best_and_worst, count_outcomes
from frcnn.metrics.verdict import (
    ImageRecord,
    Scenes,
    Verdict,
    gather,
    judge_as_tao,
    judge_scenes,
    whole_pixels,
)

log = logging.getLogger(__name__)

RPN_RECALL_IOU = 0.5  # TAO: fixed, whatever the matching threshold
UNPROVEN = 0.5  # score from which a class counts in the confusion matrix that has no best F1


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
    ignored: int  # of the detections: neither right nor wrong, smallest IoU threshold
    calibration: Calibration | None
    curves: tuple[tuple[Curve, Curve], ...] = field(repr=False, compare=False)  # precision, recall per IoU
    precision_per_iou: tuple[float | None, ...] = ()
    recall_per_iou: tuple[float | None, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the curves."""
        figures = {name: value for name, value in vars(self).items() if name != "curves"}
        best_f1 = None if self.best_f1 is None else self.best_f1._asdict()
        calibrated = None if self.calibration is None else self.calibration.to_dict()
        lists = {name: list(values) for name, values in figures.items() if name.endswith("_per_iou")}
        return figures | lists | {"best_f1": best_f1, "calibration": calibrated}


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
    coco: Mapping[str, float | None]  # COCO's twelve figures, see `coco_summary`
    confusion: Confusion
    best_images: tuple[Outcome, ...] = field(default=(), repr=False, compare=False)
    worst_images: tuple[Outcome, ...] = field(default=(), repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The evaluation's part of results.json."""
        per_class = {name: result.to_dict() for name, result in self.per_class.items()}
        lists = {"mAP_per_iou": list(self.mAP_per_iou), "iou_thresholds": list(self.iou_thresholds)}
        more = {"coco": dict(self.coco), "confusion": self.confusion.to_dict(list(self.per_class))}
        named = ("best_images", "worst_images")
        images = {name: [_named(found) for found in vars(self)[name]] for name in named}
        return vars(self) | lists | {"per_class": per_class} | more | images


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
        tao_quirks: match and average as the original did (see `judge_as_tao`), with its repeated images.
        batch: images of its batches.
    """

    def __init__(
        self,
        class_names: Sequence[str],
        *,
        iou_thresholds: Sequence[float] = (0.5,),
        voc07: bool = False,
        score_threshold: float = 0.0,
        ignore_difficult: bool = True,
        tao_quirks: bool = False,
        batch: int = 1,
    ) -> None:
        self.class_names = tuple(class_names)
        self.iou_thresholds = tuple(float(threshold) for threshold in iou_thresholds)
        self.metric = "voc07" if voc07 else "area"
        self.score_threshold = score_threshold
        self.ignore_difficult = ignore_difficult
        self.tao_quirks, self.batch = tao_quirks, batch
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
        sizes: torch.Tensor | None = None,
        original_sizes: torch.Tensor | None = None,
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
            proposals: (B, R, 4); without them, or with R = 0, RPN recall stays undefined.
            proposals_valid: (B, R) bool.
            sizes: (B, 2) height and width of each image in the network input.
            original_sizes: (B, 2) those of its file; COCO's sizes are those of objects in the file.
        """
        score, label, gt_label = _numpy(scores), _numpy(labels), _numpy(gt_labels)
        box, gt_box, real = _numpy(boxes), _numpy(gt_boxes), gt_label >= 0
        difficult = _numpy(gt_difficult) & self.ignore_difficult
        keep = (label >= 0) & (score >= self.score_threshold)
        order = np.where(keep, -score, np.inf).argsort(axis=1, kind="stable")
        counts = keep.sum(axis=1)
        area_box, area_label = np.zeros((len(ids), 0, 4), np.float32), np.zeros((len(ids), 0), np.int64)
        if gt_ignored is not None and gt_ignored_labels is not None:
            area_box, area_label = _numpy(gt_ignored), _numpy(gt_ignored_labels)
        filled = (area_box[..., 2] > area_box[..., 0]) & (area_box[..., 3] > area_box[..., 1])
        size = np.full((len(ids), 2), np.inf) if sizes is None else _numpy(sizes)
        proposed = None
        if proposals is not None and proposals_valid is not None and proposals.shape[1]:
            # TAO: coordinates are inclusive pixels, and one proposal may serve many objects.
            objects = whole_pixels(gt_box, size[:, None]) if self.tao_quirks else gt_box
            there = real & (objects[..., 2:] > objects[..., :2]).all(axis=-1)
            overlaps = pairwise_iou(objects, _numpy(proposals), offset=1.0) * _numpy(proposals_valid)[:, None]
            proposed = (overlaps.max(axis=-1, initial=0.0) >= RPN_RECALL_IOU) & there
        magnification = np.ones(len(ids))
        if sizes is not None and original_sizes is not None:
            magnification = _numpy(original_sizes).prod(axis=1) / size.prod(axis=1)

        repeated = [name for name in ids if name in self._records]
        if repeated:
            log.warning("%d images came twice and count once, %s first", len(repeated), repeated[0])
        for i, name in enumerate(ids):
            kept = order[i, : counts[i]]
            record = ImageRecord(
                scores=score[i, kept],
                labels=label[i, kept],
                boxes=box[i, kept],
                object_labels=gt_label[i, real[i]],
                object_boxes=gt_box[i, real[i]],
                difficult=difficult[i, real[i]],
                area_labels=area_label[i, filled[i]],
                area_boxes=area_box[i, filled[i]],
                proposed=None if proposed is None else self._per_class(gt_label[i, proposed[i]]),
                size=(float(size[i, 0]), float(size[i, 1])),
                magnification=float(magnification[i]),
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
        once = self._scenes()
        scenes = self._scenes(repeated=True) if self.tao_quirks else once
        judge = judge_as_tao if self.tao_quirks else judge_scenes
        verdict = judge(scenes, thresholds=np.asarray(self.iou_thresholds))
        per_class = {name: self._class_result(i, scenes, verdict) for i, name in enumerate(self.class_names)}
        per_iou = zip(*(result.AP_per_iou for result in per_class.values()), strict=True)
        mean_per_iou = tuple(_mean(column) for column in per_iou)
        cuts = [UNPROVEN if r.best_f1 is None else r.best_f1.score for r in per_class.values()]
        ours = judge_scenes(once, thresholds=np.asarray(self.iou_thresholds)) if self.tao_quirks else verdict
        outcomes = count_outcomes(once, ours, cuts=cuts)
        best, worst = best_and_worst(sorted(self._records.items()), *outcomes)
        return EvaluationResult(
            mAP=_mean(mean_per_iou),
            mAP_per_iou=mean_per_iou,
            metric=self.metric,
            iou_thresholds=self.iou_thresholds,
            score_threshold=self.score_threshold,
            images=len(self._records),
            per_class=per_class,
            coco=coco_summary(*once.for_coco(), classes=len(self.class_names)),
            confusion=confusion(once, cuts=cuts),
            best_images=best,
            worst_images=worst,
        )

    def _scenes(self, *, repeated: bool = False) -> Scenes:
        # Equal scores keep the order of their images; sorting by id makes that the same in every run.
        records = [record for _, record in sorted(self._records.items())]
        if repeated:  # TAO: the last batch is filled up with the first images
            records = list(self._records.values())
            records = [records[i % len(records)] for i in range(-(-len(records) // self.batch) * self.batch)]
        return gather(records, classes=len(self.class_names))

    def _class_result(self, number: int, scenes: Scenes, verdict: Verdict) -> ClassResult:
        own = verdict.label == number
        scores, hit, ignored = verdict.score[own], verdict.hit[:, own], verdict.ignored[:, own]
        mine = verdict.object_label == number
        difficult = int((mine & verdict.difficult).sum())
        ground_truth = int(mine.sum()) - difficult
        average = eleven_point_mean if self.metric == "voc07" else area_under_envelope
        judged = [right[~skip] for right, skip in zip(hit, ignored, strict=True)]
        curves = tuple(precision_recall(correct, positives=max(ground_truth, 1)) for correct in judged)
        # TAO: a class counts that was only detected, and the first one always, for the sake of empty slots.
        counts = [ground_truth > 0 or (self.tao_quirks and (number == 0 or len(c) > 0)) for c in judged]
        aps = tuple(average(*curve) if c else None for curve, c in zip(curves, counts, strict=True))
        precision, recall = curves[0]
        nothing = 0.0 if self.tao_quirks else None
        precisions = tuple(float(p[-1]) if len(p) else nothing for p, _ in curves)
        reached = (float(r[-1]) if len(r) else 0.0 for _, r in curves)
        recalls = tuple(value if ground_truth else nothing for value in reached)
        proposed = None if scenes.proposed is None else scenes.proposed[number]
        return ClassResult(
            AP=_mean(aps),
            AP_per_iou=aps,
            precision=precisions[0],
            recall=recalls[0],
            best_f1=best_f1_point(scores[~ignored[0]], precision, recall) if ground_truth else None,
            rpn_recall=float(proposed / mine.sum()) if proposed is not None and mine.any() else None,
            ground_truth=ground_truth,
            difficult=difficult,
            detections=len(scores),
            ignored=int(ignored[0].sum()),
            calibration=calibration(scores[~ignored[0]], judged[0]),
            curves=curves,
            precision_per_iou=precisions,
            recall_per_iou=recalls,
        )


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _named(found: Outcome) -> dict[str, Any]:
    return {name: value for name, value in found._asdict().items() if name != "record"}


def _numpy(tensor: torch.Tensor) -> NDArray[Any]:
    """To the host; half precisions become single, which NumPy can compute with."""
    return (tensor.float() if tensor.is_floating_point() else tensor).detach().cpu().numpy()
