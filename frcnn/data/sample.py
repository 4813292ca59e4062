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
    image_sizes: Tensor  # (B, 2) float32, (height, width) each image takes of the padded tensor
    original_sizes: Tensor  # (B, 2) float32, (height, width) of the image file
    ids: list[str]


def collate(samples: Sequence[Sample | DataError], *, max_objects: int) -> Batch | DataError:
    """Stack samples; images of different sizes are padded right and bottom with 0, the mean colour.

    Args:
        samples: B samples. A `DataError` among them is handed through, see `DetectionLoader`.
        max_objects: G, the ground truth slots of each image; no sample holds more objects.
    """
    good: list[Sample] = []
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
        good.append(sample)
    sizes = torch.tensor([sample.image.shape[-2:] for sample in good])
    height, width = sizes.amax(0).tolist()
    images = torch.zeros(len(good), good[0].image.shape[0], height, width)
    boxes = torch.zeros(len(good), max_objects, 4)
    labels = torch.full((len(good), max_objects), -1)
    difficult = torch.zeros(len(good), max_objects, dtype=torch.bool)
    for row, sample in enumerate(good):
        objects = len(sample.labels)
        images[row, :, : sample.image.shape[1], : sample.image.shape[2]] = sample.image
        boxes[row, :objects] = sample.boxes
        labels[row, :objects] = sample.labels
        difficult[row, :objects] = sample.difficult
    originals = torch.tensor([sample.original_size for sample in good], dtype=torch.float32)
    return Batch(images, boxes, labels, difficult, sizes.float(), originals, [sample.id for sample in good])
