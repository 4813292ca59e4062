"""One image as the network takes it, alone and in a batch."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from frcnn.errors import DataError


class Sample(NamedTuple):
    """One image with the g objects that survived; boxes are xyxy pixels of the network input."""

    image: Tensor  # (C, H, W) float32, normalised
    boxes: Tensor  # (g, 4) float32
    labels: Tensor  # (g,) int64
    difficult: Tensor  # (g,) bool
    ignored: Tensor  # (k, 4) float32 areas without a verdict: neither object nor background
    ignored_labels: Tensor  # (k,) int64 class that an area is about; -1: any
    original_size: tuple[int, int]  # (height, width) of the image file
    id: str  # frame id, unique within a data set


class Batch(NamedTuple):
    """B samples in tensors of fixed shape: G ground truth slots, whatever an image holds.

    A named tuple, so that Lightning moves it to a device and torch pins it without being told how.
    """

    images: Tensor  # (B, C, H, W) float32, normalised
    boxes: Tensor  # (B, G, 4) float32 xyxy pixels of the network input; padding rows are 0
    labels: Tensor  # (B, G) int64; padding is -1
    difficult: Tensor  # (B, G) bool
    ignored: Tensor  # (B, I, 4) areas to ignore, I the most of any image of the data set; padding rows are 0
    ignored_labels: Tensor  # (B, I) int64; -1: any class, or padding
    image_sizes: Tensor  # (B, 2) float32, (height, width) each image takes of the padded tensor
    original_sizes: Tensor  # (B, 2) float32, (height, width) of the image file
    ids: list[str]


def collate(
    samples: Sequence[Sample | DataError], *, max_objects: int, max_ignored: int = 0
) -> Batch | DataError:
    """Stack samples; images of different sizes are padded right and bottom with 0, the mean colour.

    Args:
        samples: B samples. A `DataError` among them is handed through, see `DetectionLoader`.
        max_objects: G, the ground truth slots of each image; no sample holds more objects.
        max_ignored: I, the slots of areas to ignore.
    """
    good: list[Sample] = []
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
        good.append(sample)
    sizes = torch.tensor([sample.image.shape[-2:] for sample in good])
    height, width = sizes.amax(0).tolist()
    images = torch.zeros(len(good), good[0].image.shape[0], height, width)
    boxes, labels = _slots(len(good), max_objects)
    difficult = torch.zeros(len(good), max_objects, dtype=torch.bool)
    ignored, ignored_labels = _slots(len(good), max_ignored)
    for row, sample in enumerate(good):
        objects, areas = len(sample.labels), len(sample.ignored_labels)
        images[row, :, : sample.image.shape[1], : sample.image.shape[2]] = sample.image
        boxes[row, :objects], labels[row, :objects] = sample.boxes, sample.labels
        difficult[row, :objects] = sample.difficult
        ignored[row, :areas], ignored_labels[row, :areas] = sample.ignored, sample.ignored_labels
    originals = torch.tensor([sample.original_size for sample in good], dtype=torch.float32)
    ids = [sample.id for sample in good]
    return Batch(images, boxes, labels, difficult, ignored, ignored_labels, sizes.float(), originals, ids)


def unbatch(batch: Batch) -> list[Sample]:
    """The samples of a batch, on the host and without its padding."""
    samples = []
    for i, name in enumerate(batch.ids):
        height, width = batch.image_sizes[i].int().tolist()
        original_height, original_width = batch.original_sizes[i].int().tolist()
        real = batch.labels[i] >= 0
        ignored = (batch.ignored[i, :, 2:] > batch.ignored[i, :, :2]).all(1)
        sample = Sample(
            image=batch.images[i, :, :height, :width].cpu(),
            boxes=batch.boxes[i][real].cpu(),
            labels=batch.labels[i][real].cpu(),
            difficult=batch.difficult[i][real].cpu(),
            ignored=batch.ignored[i][ignored].cpu(),
            ignored_labels=batch.ignored_labels[i][ignored].cpu(),
            original_size=(original_height, original_width),
            id=name,
        )
        samples.append(sample)
    return samples


def _slots(rows: int, count: int) -> tuple[Tensor, Tensor]:
    """Boxes (rows, count, 4) and labels (rows, count) that hold nothing yet."""
    return torch.zeros(rows, count, 4), torch.full((rows, count), -1)
