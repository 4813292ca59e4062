"""The pictures that a run leaves in its report folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from frcnn.callbacks.validation_map import ValidationSample
from frcnn.data.sample import Sample
from frcnn.report.draw import draw_boxes, image_grid
from frcnn.report.plots import map_figure, read_metrics, training_figure


def write_curves(metrics: Path, folder: Path) -> None:
    """Losses, learning rate and mAP of a metrics.csv as losses.png and map.png."""
    series = read_metrics(metrics)
    training_figure(series).savefig(folder / "losses.png", dpi=120)
    if "val/mAP" in series:
        map_figure(series).savefig(folder / "map.png", dpi=120)


def write_samples(
    samples: Sequence[ValidationSample],
    path: Path,
    *,
    class_names: Sequence[str],
    mean: Sequence[float],
    scale: float,
    bgr: bool,
    min_score: float = 0.5,
) -> None:
    """A grid of validated images with ground truth and detections.

    Args:
        samples: images as the network sees them, with boxes.
        path: PNG to write.
        class_names: (K,) in the order of class ids.
        mean: what normalisation subtracted, in the order r, g, b or l.
        scale: what it divided by.
        bgr: whether it reversed the channels.
        min_score: detections below it are not drawn.
    """
    pictures = [
        draw_boxes(
            picture(sample.image, mean=mean, scale=scale, bgr=bgr),
            class_names=class_names,
            boxes=sample.boxes.numpy(),
            scores=sample.scores.numpy(),
            labels=sample.labels.numpy(),
            gt_boxes=sample.gt_boxes.numpy(),
            gt_labels=sample.gt_labels.numpy(),
            gt_difficult=sample.gt_difficult.numpy(),
            gt_ignored=sample.gt_ignored.numpy(),
            min_score=min_score,
        )
        for sample in samples
    ]
    titles = [Path(sample.id).name for sample in samples]
    areas = any(bool(sample.gt_ignored.any()) for sample in samples)
    image_grid(pictures, titles=titles, class_names=class_names, areas=areas).save(path)


def write_training_samples(
    samples: Sequence[Sample],
    path: Path,
    *,
    titles: Sequence[str] = (),
    columns: int | None = None,
    class_names: Sequence[str],
    mean: Sequence[float],
    scale: float,
    bgr: bool,
) -> None:
    """A grid of training samples with their objects in the colours of their classes.

    Args:
        samples: images as the network sees them.
        path: PNG to write.
        titles: one per sample; their file names by default.
        columns: of the grid.
        class_names: (K,) in the order of class ids.
        mean: what normalisation subtracted, in the order r, g, b or l.
        scale: what it divided by.
        bgr: whether it reversed the channels.
    """
    pictures = [
        draw_boxes(
            picture(sample.image, mean=mean, scale=scale, bgr=bgr),
            class_names=class_names,
            boxes=sample.boxes.numpy(),
            scores=np.ones(len(sample.boxes)),
            labels=sample.labels.numpy(),
            gt_ignored=sample.ignored.numpy(),
            captions=False,
        )
        for sample in samples
    ]
    image_grid(
        pictures,
        titles=titles or [Path(sample.id).name for sample in samples],
        class_names=class_names,
        columns=columns,
        truth=False,
        areas=any(len(sample.ignored) for sample in samples),
    ).save(path)


def picture(image: Tensor, *, mean: Sequence[float], scale: float, bgr: bool) -> NDArray[np.uint8]:
    """(C, H, W) normalised -> (H, W, 3) RGB, 0 to 255."""
    colours = image.flip(0) if bgr else image
    offsets = colours.new_tensor(list(mean)).view(-1, 1, 1)
    pixels = (colours * scale + offsets).round().clamp(0, 255).byte()
    array: NDArray[np.uint8] = pixels.expand(3, -1, -1).permute(1, 2, 0).numpy()
    return array
