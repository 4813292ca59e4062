"""Chance in geometry and colour: one matrix for all of each, drawn from the sample's own generator.

Steps, ranges and order are the original's (facts: spec-and-data 5.2 and 5.4), except that all four corners
of a box turn with the image, that images can be turned upside down, and that angles are radians. Every
draw has a place of its own, so switching one step on leaves what the others do.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor

from frcnn.data.transforms import window

Matrix = NDArray[np.float64]

GRAY = 127.5
"""What lies outside the image that is moved. TAO: half of full scale, while padding is black."""

# TAO: the matrices of its hue rotation, rows red, green, blue in, columns out.
_LUMA = np.array([[0.299] * 3, [0.587] * 3, [0.114] * 3])
_COSINE = np.array([[0.701, -0.299, -0.299], [-0.587, 0.413, -0.587], [-0.114, -0.114, 0.886]])
_SINE = np.array([[0.168, -0.328, 1.25], [0.330, 0.035, -1.05], [-0.497, 0.292, -0.203]])


def move(
    image: Tensor,
    boxes: Tensor,
    generator: Generator,
    *,
    hflip_probability: float = 0.0,
    vflip_probability: float = 0.0,
    translate: tuple[float, float] = (0.0, 0.0),
    zoom: tuple[float, float] = (1.0, 1.0),
    rotate_max: float = 0.0,
    rotate_probability: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Flip, shift, zoom and turn an image in one sampling; the size stays.

    Args:
        image: (C, H, W) float32 in 0..255.
        boxes: (n, 4) xyxy pixels; they become the bounds of the four corners, inside the image or not.
        generator: of the draws.
        hflip_probability: chance of mirroring left to right, x becomes W - x.
        vflip_probability: chance of mirroring top to bottom, y becomes H - y.
        translate: largest shift (x, y) in whole pixels, either way.
        zoom: (smallest, largest) ratio; above 1 the content shrinks.
        rotate_max: largest angle either way, radians, about the centre.
        rotate_probability: chance of turning at all.
    """
    height, width = image.shape[1:]
    draw = torch.rand(9, generator=generator, dtype=torch.float32).double().tolist()
    matrix = np.eye(3)
    if draw[0] < hflip_probability:
        matrix = matrix @ mirrored(width, axis=0)
    if draw[1] < vflip_probability:
        matrix = matrix @ mirrored(height, axis=1)
    if any(translate):
        x, y = (_whole(limit, u) for limit, u in zip(translate, draw[2:4], strict=True))
        matrix = matrix @ shifted(x, y)
    if zoom != (1.0, 1.0):
        ratio = zoom[0] + draw[4] * (zoom[1] - zoom[0])
        corner = [u * (side - side / ratio) for side, u in zip((width, height), draw[5:7], strict=True)]
        matrix = matrix @ zoomed(ratio, corner[0], corner[1])
    if rotate_max and draw[7] < rotate_probability:
        matrix = matrix @ turned((2 * draw[8] - 1) * rotate_max, width, height)
    return warp(image, matrix), warp_boxes(boxes, matrix)


def mirrored(side: int, *, axis: int) -> Matrix:
    """Mirror axis 0 (x) or 1 (y) of an image with that side. Every matrix maps output to source."""
    matrix = np.eye(3)
    matrix[axis, axis], matrix[axis, 2] = -1, side
    return matrix


def shifted(x: float, y: float) -> Matrix:
    """The output shows what lies (x, y) further, so that content moves by (-x, -y)."""
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def zoomed(ratio: float, left: float, top: float) -> Matrix:
    """Content of 1 / ratio of its size with its corner at (left, top)."""
    return np.array([[ratio, 0, -ratio * left], [0, ratio, -ratio * top], [0, 0, 1.0]])


def turned(angle: float, width: int, height: int) -> Matrix:
    """A turn by an angle in radians about the centre of an image."""
    cos, sin, x, y = math.cos(angle), math.sin(angle), width / 2, height / 2
    return np.array([[cos, -sin, x - x * cos + y * sin], [sin, cos, y - x * sin - y * cos], [0, 0, 1.0]])


def warp(image: Tensor, matrix: Matrix) -> Tensor:
    """Sample (C, H, W) bilinearly at `matrix @ (x, y, 1)` of each output pixel's centre; gray outside.

    Flips and whole shifts copy pixels, the rest blends with the gray at the edges of the image.
    """
    height, width = image.shape[1:]
    if np.array_equal(np.abs(matrix[:2, :2]), np.eye(2)) and np.array_equal(matrix, np.rint(matrix)):
        (flip_x, _, x), (_, flip_y, y), _ = matrix.astype(int).tolist()
        axes = [axis for axis, sign in ((2, flip_x), (1, flip_y)) if sign < 0]
        x, y = x if flip_x > 0 else width - x, y if flip_y > 0 else height - y
        return window(image.flip(axes) if axes else image, (x, y), size=(height, width), fill=GRAY)
    unit = np.array([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1.0]])  # pixels to -1..1
    theta = torch.from_numpy((unit @ matrix @ np.linalg.inv(unit))[:2]).float()
    grid = F.affine_grid(theta[None], [1, *image.shape], align_corners=False)
    return F.grid_sample((image - GRAY)[None], grid, align_corners=False)[0].add_(GRAY)


def warp_boxes(boxes: Tensor, matrix: Matrix) -> Tensor:
    """The bounds of the four corners of xyxy boxes (n, 4) after `warp`."""
    inverse = torch.from_numpy(np.linalg.inv(matrix)).to(boxes.dtype)
    x, y = boxes[:, [0, 2, 2, 0]], boxes[:, [1, 1, 3, 3]]
    x, y = (row[0] * x + row[1] * y + row[2] for row in inverse[:2])
    return torch.stack([x.amin(1), y.amin(1), x.amax(1), y.amax(1)], dim=1)


def recolour(
    image: Tensor,
    boxes: Tensor,
    generator: Generator,
    *,
    brightness_std: float = 0.0,
    hue_max: float = 0.0,
    saturation_max: float = 0.0,
    contrast_max: float = 0.0,
    contrast_center: float = 0.5,
) -> tuple[Tensor, Tensor]:
    """Contrast, hue and saturation, then brightness in one matrix, clipped to 0..255.

    Args:
        image: (3, H, W) float32 RGB in 0..255.
        boxes: pass through.
        generator: of the draws; contrast, hue and brightness are normal within two deviations.
        brightness_std: deviation of what is added to all channels, share of full scale.
        hue_max: largest turn of the hue, degrees.
        saturation_max: largest change of the factor 1 on colourfulness.
        contrast_max: largest change of the factor 1 on the distance from `contrast_center`.
        contrast_center: the value that contrast leaves alone, share of full scale.
    """
    if not (brightness_std or hue_max or saturation_max or contrast_max):
        return image, boxes
    draw = torch.rand(4, generator=generator, dtype=torch.float32).double()
    normal = _truncated_normal(draw).tolist()
    matrix, offset = colour_matrix(
        contrast=normal[0] * contrast_max / 2,
        contrast_center=contrast_center,
        hue=normal[1] * hue_max / 2,
        saturation=(2 * float(draw[2]) - 1) * saturation_max,
        brightness=normal[3] * brightness_std,
    )
    weights, bias = torch.from_numpy(matrix.T).float(), torch.from_numpy(255 * offset).float()
    pixels = torch.addmm(bias[:, None], weights, image.reshape(3, -1))
    return pixels.clamp_(0, 255).view_as(image), boxes


def colour_matrix(
    *, contrast: float, contrast_center: float, hue: float, saturation: float, brightness: float
) -> tuple[Matrix, Matrix]:
    """(3, 3) and (3,) such that a pixel (r, g, b) in 0..1 becomes `pixel @ matrix + offset`.

    Args:
        contrast: (1 + contrast) v - contrast * contrast_center comes first.
        contrast_center: see there.
        hue: degrees.
        saturation: added to the factor 1.
        brightness: added last.
    """
    angle = math.radians(hue)
    colour = _LUMA + (1 + saturation) * (math.cos(angle) * _COSINE + math.sin(angle) * _SINE)
    return (1 + contrast) * colour, -contrast * contrast_center * colour.sum(axis=0) + brightness


def _whole(limit: float, u: float) -> int:
    """One of the whole numbers from -limit to limit, all as likely, for u in [0, 1)."""
    largest = math.floor(limit)
    return math.floor(u * (2 * largest + 1)) - largest


def _truncated_normal(u: Tensor) -> Tensor:
    """Standard normal values within two deviations, for u uniform in [0, 1)."""
    low, high = torch.special.ndtr(torch.tensor([-2.0, 2.0], dtype=torch.float64))
    values: Tensor = torch.special.ndtri(low + u * (high - low))
    return values
