"""Image files as 8-bit tensors."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from frcnn.data.readers.files import open_regular
from frcnn.data.readers.headers import UNREADABLE, unreadable


def read_image(path: Path, *, channels: int) -> Tensor:
    """Decode an image to (C, H, W) uint8: RGB for 3 channels, luma for 1.

    Palettes are resolved, alpha is dropped, 16-bit samples keep their high byte. Pillow rather than
    torchvision.io, which is 1.1 to 1.4 times as fast but leaves 16 bits and palettes to the caller.

    Raises:
        DataError: the file is missing, truncated or no image.
    """
    try:
        with open_regular(path) as file, Image.open(file) as image:
            # TAO: an EXIF orientation is not applied; labels are in pixels as stored.
            return image_tensor(eight_bit(image, channels=channels))
    except UNREADABLE as error:
        raise unreadable(path, error) from error


def image_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """(H, W, 3) or (H, W) as (C, H, W) over the same memory."""
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)


def eight_bit(image: Image.Image, *, channels: int) -> NDArray[np.uint8]:
    """Pixels (H, W, 3) RGB for 3 channels, (H, W) luma for 1, of any picture that Pillow opens.

    Pillow itself would clip 16-bit gray at 255 instead of scaling it.

    Raises:
        ValueError: floating-point pixels.
        OSError: a file that is truncated.
    """
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point pixels have no fixed range")
    mode = "RGB" if channels == 3 else "L"
    return np.array(image if image.mode == mode else image.convert(mode))  # convert copies in any case
