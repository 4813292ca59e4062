"""What a field of a label file may hold, whatever the file's format."""

import math

FLOAT32_MAX = 3.4028234e38  # an index holds float32: more would become infinite there
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
MAX_SIDE = 2**31 - 1  # pixels


def number(text: str) -> float:
    """A number that float32 can hold, as C and JSON write it; NaN for anything else.

    Python's `float` also takes `1_000`, `inf` and the digits of other scripts.
    """
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        return math.nan
    return value if abs(value) <= FLOAT32_MAX else math.nan


def is_degenerate(box: tuple[float, float, float, float]) -> bool:
    """Whether no whole pixel of a box (xyxy) remains. TAO: the converter skips these, truncating toward 0."""
    x1, y1, x2, y2 = map(int, box)
    return x1 >= x2 or y1 >= y2
