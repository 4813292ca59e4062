"""Where the pixels of an image file lie in the network input before chance, for one image or a million."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Sizes: TypeAlias = NDArray[np.integer]


class Placement(NamedTuple):
    """Content is stretched to a size, and a window of it is the network input; m images."""

    content: Sizes  # (m, 2) height, width that the whole image is stretched to
    corner: tuple[int, int]  # left, top of the window in the content; what lies outside is black
    output: Sizes  # (m, 2) height, width of the window

    def factors(self, sizes: Sizes) -> NDArray[np.float64]:
        """(m, 4) that xyxy boxes of images of `sizes` (m, 2) are multiplied by, before the corner moves."""
        return (self.content / np.asarray(sizes))[:, [1, 0, 1, 0]]


Geometry: TypeAlias = Callable[[Sizes], Placement]
"""Sizes (m, 2) of image files to where the files lie in the input; `fixed` or `shortest_side`, bound."""


def fixed(
    sizes: Sizes,
    *,
    size: tuple[int, int],
    auto_resize: bool,
    scale: tuple[float, float] = (0.0, 0.0),
    crop: tuple[int, int] = (0, 0),
) -> Placement:
    """Inputs of one size: stretch or not, scale, then take the window (facts: spec-and-data 5.1).

    Args:
        sizes: (m, 2) height, width of the files.
        size: (height, width) of the network input.
        auto_resize: stretch to `size`; otherwise images keep their size.
        scale: (height, width) factors on what is there by now; 0 leaves a side as it is.
        crop: (left, top) of the window. It is black where the content ends.
    """
    content = np.broadcast_to(size, np.shape(sizes)) if auto_resize else np.asarray(sizes)
    if any(scale):
        factors = [factor or 1.0 for factor in scale]
        content = np.maximum(np.rint(content * factors), 1).astype(np.int64)
    return Placement(content, crop, np.broadcast_to(size, np.shape(sizes)))


def shortest_side(sizes: Sizes, *, shortest: int, longest: int) -> Placement:
    """Inputs of varying size: the aspect is kept, and neither limit is passed (facts: 5.6).

    The shorter side becomes `shortest` pixels, or fewer where the longer one would exceed `longest`.

    Args:
        sizes: (m, 2) height, width of the files.
        shortest: pixels that the shorter side gets.
        longest: pixels that the longer side may have.
    """
    sizes = np.asarray(sizes, np.int64)
    short, long = sizes.min(axis=1), sizes.max(axis=1)
    new_short = np.minimum(shortest, longest * short // long)
    new_long = np.minimum(shortest * long // short, longest)
    upright = sizes[:, 0] > sizes[:, 1]
    content = np.where(upright, [new_long, new_short], [new_short, new_long]).T
    content = np.maximum(content, 1)
    return Placement(content, (0, 0), content)
