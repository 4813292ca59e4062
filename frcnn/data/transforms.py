"""From a decoded image to network input: a chain of pure functions on (image, boxes).

Every step takes and returns an image (C, H, W) float32 in 0..255 and boxes (g, 4) float32 xyxy pixels
of that image, one row per object from first to last; rows that fall outside are dropped after the
chain. Chance comes from the sample's own generator, so a new step goes into the list and nothing
else changes.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from frcnn.data.geometry import Geometry, Placement, Sizes

Transform: TypeAlias = Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]


def chain(
    *,
    geometry: Geometry,
    mean: Sequence[float],
    scale: float,
    bgr: bool,
    augmentation: Sequence[Transform] = (),
) -> tuple[Transform, ...]:
    """The steps from file to network input; without augmentation they are those of validation and inference.

    Args:
        geometry: where the file's pixels lie in the network input.
        mean: subtracted per channel, in the order red, green, blue, or one for gray.
        scale: divides afterwards.
        bgr: hand the network blue first.
        augmentation: steps with chance, on pixels in 0..255.
    """
    normal = partial(normalize, mean=tuple(mean), scale=scale, bgr=bgr)
    return (partial(place, geometry=geometry), *augmentation, normal)


def sample_generator(*, seed: int, epoch: int, index: int) -> Generator:
    """A generator that depends on nothing else: an epoch looks the same with any number of workers."""
    state = np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)
    return Generator().manual_seed(int(state[0]))


def place(image: Tensor, boxes: Tensor, _: Generator, *, geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Stretch and cut or pad as the geometry says: bilinear, half-pixel centres, antialiased, not rounded.

    TAO: padding is black before normalisation, so that the network sees -mean / scale there.

    An image (C, H, W) uint8 gives the same result and takes a quarter of the memory.
    """
    before = np.array([image.shape[1:]])
    placement = geometry(before)
    boxes = place_boxes(boxes, before, placement)
    height, width = placement.content[0].tolist()
    if (height, width) != image.shape[1:]:
        # Bytes one channel at a time: a large image as floats would be gigabytes.
        parts = (image,) if image.is_floating_point() else torch.split(image, 1)
        stretch = partial(F.interpolate, size=(height, width), mode="bilinear", antialias=True)
        image = torch.cat([stretch(part[None].float().contiguous())[0] for part in parts])
    height, width = placement.output[0].tolist()
    return window(image, placement.corner, size=(height, width), fill=0.0).float(), boxes


def place_boxes(boxes: Tensor, sizes: Sizes, placement: Placement) -> Tensor:
    """Where boxes (n, 4) of images of `sizes` (n, 2), or of one size (1, 2), lie after `place`.

    They end where the picture ends, at the window's edge or before it: what is cut away cannot come back
    when the image is moved later.
    """
    corner = torch.tensor([*placement.corner, *placement.corner])
    boxes = boxes * torch.from_numpy(placement.factors(sizes)).float() - corner
    ends = np.minimum(placement.output, placement.content - np.array(placement.corner)[::-1])
    limits = torch.from_numpy(np.maximum(ends, 0)).to(boxes.dtype)[:, [1, 0, 1, 0]]
    return torch.minimum(boxes.clamp(min=0), limits)


def place_back(boxes: Tensor, size: tuple[int, int], placement: Placement) -> Tensor:
    """Where boxes of the network input lie in the file: undoes `place_boxes`.

    Args:
        boxes: (n, 4) xyxy pixels of the network input.
        size: (height, width) of the file.
        placement: of that one file.

    Returns:
        (n, 4) pixels of the file, not rounded; what lies in padding ends at the picture's edge.
    """
    corner = torch.tensor([*placement.corner, *placement.corner])
    boxes = (boxes + corner) / torch.from_numpy(placement.factors(np.array([size]))).float()
    height, width = size
    return torch.minimum(boxes.clamp(min=0), torch.tensor([width, height, width, height]).float())


def window(image: Tensor, corner: tuple[int, int], *, size: tuple[int, int], fill: float) -> Tensor:
    """The part of an image (C, H, W) from corner (left, top), of size (height, width), filled outside."""
    (left, top), (height, width) = corner, size
    # Cutting away more than there is would be an error.
    left = max(min(left, image.shape[2]), -width)
    top = max(min(top, image.shape[1]), -height)
    pads = (-left, width + left - image.shape[2], -top, height + top - image.shape[1])
    return F.pad(image, pads, value=fill) if any(pads) else image


def normalize(
    image: Tensor, boxes: Tensor, _: Generator, *, mean: tuple[float, ...], scale: float, bgr: bool
) -> tuple[Tensor, Tensor]:
    """(x - mean) / scale with a mean per colour, then the channel order of the network."""
    image = (image - torch.tensor(mean)[:, None, None]).div_(scale)
    return (image.flip(0) if bgr else image), boxes


def box_factors(sizes: Sequence[tuple[int, int]] | np.ndarray, *, size: tuple[int, int]) -> Tensor:
    """(m, 4) float32 that boxes are multiplied by when images of `sizes` (m, 2) are stretched to `size`."""
    factors = torch.from_numpy(np.asarray(size) / np.asarray(sizes)).float()
    return factors[:, [1, 0, 1, 0]]


def clip_boxes(boxes: Tensor, *, size: tuple[int, int] | np.ndarray) -> Tensor:
    """Clip xyxy boxes (n, 4) to [0, width - 1] x [0, height - 1] of one size (height, width), or of n."""
    limit = torch.from_numpy(np.array(size) - 1).to(boxes.dtype)
    return torch.minimum(boxes.clamp(min=0), limit[..., [1, 0, 1, 0]])


def box_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Width and height of (n, 4) xyxy boxes, (n,) each."""
    return boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
