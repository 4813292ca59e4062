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

Transform: TypeAlias = Callable[[Tensor, Tensor, Generator], tuple[Tensor, Tensor]]


def chain(
    *,
    size: tuple[int, int],
    auto_resize: bool,
    mean: Sequence[float],
    scale: float,
    bgr: bool,
    hflip_probability: float = 0.0,
) -> tuple[Transform, ...]:
    """The steps from file to network input; without a flip they are those of validation and inference.

    Args:
        size: (height, width) of the network input.
        auto_resize: stretch to `size`; otherwise pad or crop at the right and the bottom.
        mean: subtracted per channel, in the order red, green, blue, or one for gray.
        scale: divides afterwards.
        bgr: hand the network blue first.
        hflip_probability: chance of mirroring an image; 0 leaves the step out.
    """
    steps: list[Transform] = [partial(resize if auto_resize else pad_or_crop, size=size)]
    if hflip_probability > 0:
        steps.append(partial(flip_horizontally, probability=hflip_probability))
    steps.append(partial(normalize, mean=tuple(mean), scale=scale, bgr=bgr))
    return tuple(steps)


def sample_generator(*, seed: int, epoch: int, index: int) -> Generator:
    """A generator that depends on nothing else: an epoch looks the same with any number of workers."""
    state = np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)
    return Generator().manual_seed(int(state[0]))


def resize(image: Tensor, boxes: Tensor, _: Generator, *, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Stretch to size (height, width): bilinear, half-pixel centres, antialiased, not rounded."""
    before = (image.shape[1], image.shape[2])
    if before != size:
        image = F.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]
    return image, boxes * box_factors([before], size=size)


def pad_or_crop(
    image: Tensor, boxes: Tensor, _: Generator, *, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Bring to size (height, width) at the right and the bottom; boxes stay where they are.

    TAO: padding is black before normalisation, so that the network sees -mean / scale there.
    """
    height, width = size
    return F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1])), boxes


def flip_horizontally(
    image: Tensor, boxes: Tensor, generator: Generator, *, probability: float
) -> tuple[Tensor, Tensor]:
    """Mirror left to right with a probability. TAO: x becomes W - x."""
    if torch.rand((), generator=generator) >= probability:
        return image, boxes
    x1, y1, x2, y2 = boxes.unbind(1)
    return image.flip(2), torch.stack([image.shape[2] - x2, y1, image.shape[2] - x1, y2], dim=1)


def normalize(
    image: Tensor, boxes: Tensor, _: Generator, *, mean: tuple[float, ...], scale: float, bgr: bool
) -> tuple[Tensor, Tensor]:
    """(x - mean) / scale with a mean per colour, then the channel order of the network."""
    image = (image - torch.tensor(mean)[:, None, None]) / scale
    return (image.flip(0) if bgr else image), boxes


def box_factors(sizes: Sequence[tuple[int, int]] | np.ndarray, *, size: tuple[int, int]) -> Tensor:
    """(m, 4) float32 that boxes are multiplied by when images of `sizes` (m, 2) are stretched to `size`."""
    factors = torch.from_numpy(np.asarray(size) / np.asarray(sizes)).float()
    return factors[:, [1, 0, 1, 0]]


def clip_boxes(boxes: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Clip xyxy boxes to [0, width - 1] x [0, height - 1] of size (height, width)."""
    height, width = size
    limit = torch.tensor([width - 1, height - 1, width - 1, height - 1], dtype=boxes.dtype)
    return torch.minimum(boxes.clamp(min=0), limit)


def box_sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Width and height of (n, 4) xyxy boxes, (n,) each."""
    return boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
