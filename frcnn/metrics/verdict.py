"""Which detections of a data set are right, wrong or neither.

Shapes: D detections, G objects, I areas to ignore, M targets (objects and areas of one class each),
K classes, T IoU thresholds.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from frcnn.metrics.coco import Detected, Objects
from frcnn.metrics.matching import Bools, Floats, Ints, match, overlapping, starts


class ImageRecord(NamedTuple):
    """What one image contributes: arrays only, so that processes can exchange it."""

    scores: NDArray[np.float32]  # (D,) descending
    labels: NDArray[np.int64]  # (D,)
    boxes: NDArray[np.float32]  # (D, 4)
    object_labels: NDArray[np.int64]  # (G,)
    object_boxes: NDArray[np.float32]  # (G, 4)
    difficult: NDArray[np.bool_]  # (G,)
    area_labels: NDArray[np.int64]  # (I,) areas to ignore; -1: of any class
    area_boxes: NDArray[np.float32]  # (I, 4)
    proposed: NDArray[np.int64] | None  # (K,) objects, difficult included, that a proposal overlaps
    size: tuple[float, float]  # (height, width) of the network input; infinite if unknown
    magnification: float  # square pixels of the image file per square pixel of the network input


class Scenes(NamedTuple):
    """All images in flat arrays; images are numbered."""

    classes: int
    image: Ints  # (D,) ascending, by falling score within an image
    label: Ints  # (D,)
    score: Floats  # (D,)
    box: Floats  # (D, 4)
    object_image: Ints  # (G,)
    object_label: Ints  # (G,)
    object_box: Floats  # (G, 4)
    difficult: Bools  # (G,)
    area_image: Ints  # (I,) an area about any class is there once for each
    area_label: Ints  # (I,)
    area_box: Floats  # (I, 4)
    proposed: Ints | None  # (K,)
    sizes: Floats  # (images, 2)
    magnification: Floats  # (images,)

    def targets(self) -> tuple[Ints, Floats, Bools, Bools]:
        """Groups (image and class; ascending), boxes, whether ignored and whether an area, of M targets."""
        group = np.append(
            self.object_image * self.classes + self.object_label,
            self.area_image * self.classes + self.area_label,
        )
        box = np.concatenate([self.object_box, self.area_box])
        area = np.arange(len(group)) >= len(self.object_label)
        excused = np.append(self.difficult, np.ones(len(self.area_label), np.bool_))
        order = np.argsort(group, kind="stable")
        return group[order], box[order], excused[order], area[order]

    def for_coco(self) -> tuple[Detected, Objects]:
        """The same in COCO's words: difficult objects and areas are ignored, areas are crowds."""
        image = np.append(self.object_image, self.area_image)
        box = np.concatenate([self.object_box, self.area_box])
        crowd = np.arange(len(image)) >= len(self.object_label)
        ignored = np.append(self.difficult, np.ones(len(self.area_label), np.bool_))
        label = np.append(self.object_label, self.area_label)
        found = _square(self.box) * self.magnification[self.image]
        area = _square(box) * self.magnification[image]
        return (
            Detected(self.image, self.label, self.score, self.box, found),
            Objects(image, label, box, area, ignored, crowd),
        )


class Verdict(NamedTuple):
    """Detections by falling score, judged at each IoU threshold, and the objects that there were to find."""

    image: Ints  # (D,)
    label: Ints  # (D,)
    score: Floats  # (D,)
    hit: Bools  # (T, D)
    ignored: Bools  # (T, D)
    object_label: Ints  # (G,)
    difficult: Bools  # (G,)


def gather(records: Sequence[ImageRecord], *, classes: int) -> Scenes:
    """Put images behind each other."""

    def column(name: str, empty: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([getattr(record, name) for record in records] or [empty])

    def numbers(name: str) -> Ints:
        return np.repeat(np.arange(len(records)), [len(getattr(record, name)) for record in records])

    none, flags = np.zeros(0, np.int64), np.zeros(0, np.bool_)
    scores, boxes = np.zeros(0, np.float32), np.zeros((0, 4), np.float32)
    area_label, area_image, area_box = (
        column("area_labels", none),
        numbers("area_labels"),
        column("area_boxes", boxes),
    )
    row, label = ((area_label[:, None] == np.arange(classes)) | (area_label[:, None] < 0)).nonzero()
    known = [record.proposed for record in records if record.proposed is not None]
    return Scenes(
        classes=classes,
        image=numbers("labels"),
        label=column("labels", none),
        score=column("scores", scores),
        box=column("boxes", boxes),
        object_image=numbers("object_labels"),
        object_label=column("object_labels", none),
        object_box=column("object_boxes", boxes),
        difficult=column("difficult", flags),
        area_image=area_image[row],
        area_label=label,
        area_box=area_box[row],
        proposed=np.sum(known, axis=0) if len(known) == len(records) > 0 else None,
        sizes=np.array([record.size for record in records]).reshape(-1, 2),
        magnification=np.array([record.magnification for record in records]),
    )


def judge_scenes(scenes: Scenes, *, thresholds: Floats) -> Verdict:
    """Each detection, best score first, takes the best object of its class that is still free.

    A detection without one is ignored if it overlaps a difficult object, or if a share of it, at least the
    IoU threshold, lies in an area to ignore. Ties in overlap go to the first object.
    """
    order = np.lexsort((-scenes.score, scenes.image * scenes.classes + scenes.label))
    group, box, excused, area = scenes.targets()
    pairs = overlapping(
        (scenes.image * scenes.classes + scenes.label)[order],
        scenes.box[order],
        target_groups=group,
        target_boxes=box,
        by_share=area,
        smallest=thresholds.min(),
    )
    hit, ignored = match(
        pairs, detections=len(order), excused=excused[None], absorbing=excused, thresholds=thresholds
    )
    score, label = scenes.score[order], scenes.label[order]
    # Equal scores rank by image, and within an image as the network gave them.
    ranked = np.lexsort((order, -score))
    return Verdict(
        scenes.image[order][ranked],
        label[ranked],
        score[ranked],
        hit[0][:, ranked],
        ignored[0][:, ranked],
        scenes.object_label,
        scenes.difficult,
    )


def judge_as_tao(scenes: Scenes, *, thresholds: Floats) -> Verdict:
    """As the original does it (facts: eval-prune-export 2.2, 2.3).

    Detections are truncated and objects rounded to whole, inclusive pixels. A detection takes the best object
    of its class, found before or not, difficult or not: a difficult one discards it, one that was found
    before makes it wrong. Of equal scores in an image the later one comes first. Areas to ignore are unknown.
    """
    objects = whole_pixels(scenes.object_box, scenes.sizes[scenes.object_image])
    there = _square(objects) > 0
    objects, difficult = objects[there], scenes.difficult[there]
    object_label = scenes.object_label[there]
    target_group = scenes.object_image[there] * scenes.classes + object_label
    by_group = np.argsort(target_group, kind="stable")

    order = np.lexsort((-np.arange(len(scenes.score)), scenes.image, -scenes.score))
    image, label = scenes.image[order], scenes.label[order]
    box = np.trunc(scenes.box[order].astype(np.float64)).clip(0, _last(scenes.sizes)[image])
    pairs = overlapping(
        image * scenes.classes + label,
        # An empty box overlaps nothing; with inclusive pixels it would be one wide.
        np.where(_square(box)[:, None] > 0, box, -9.0),
        target_groups=target_group[by_group],
        target_boxes=objects[by_group],
        by_share=np.zeros(len(objects), np.bool_),
        smallest=thresholds.min(),
        offset=1.0,
        margin=1e-6,
    )
    pairs = pairs.take(np.lexsort((pairs.target, -pairs.overlap, pairs.detection)))
    detection, target, overlap = pairs.take(starts(pairs.detection))

    hit, ignored = np.zeros((2, len(thresholds), len(order)), np.bool_)
    for level, threshold in enumerate(thresholds):
        enough = overlap >= threshold
        discarded = difficult[by_group][target[enough]]
        ignored[level, detection[enough][discarded]] = True
        rest, wanted = detection[enough][~discarded], target[enough][~discarded]
        _, earliest = np.unique(wanted, return_index=True)  # `rest` ascends: the best score comes first
        hit[level, rest[earliest]] = True
    return Verdict(image, label, scenes.score[order], hit, ignored, object_label, difficult)


def whole_pixels(boxes: Floats, sizes: Floats) -> NDArray[np.float64]:
    """Objects (..., 4) as the original has them, rounded, within images of (height, width) (..., 2)."""
    rounded: NDArray[np.float64] = np.rint(boxes.astype(np.float64)).clip(0, _last(sizes))
    return rounded


def _last(sizes: Floats) -> Floats:
    """The last pixel of x, y, x, y."""
    return sizes[..., [1, 0, 1, 0]] - 1


def _square(box: Floats) -> NDArray[np.float64]:
    sides = (box[:, 2:].astype(np.float64) - box[:, :2]).clip(min=0)
    area: NDArray[np.float64] = sides.prod(axis=1)
    return area
