"""Sizes of image files, read from their headers without decoding them."""

import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from frcnn.data.readers.files import Problem, open_regular, refuse
from frcnn.errors import DataError

# What Pillow raises on damaged files, found by fuzzing PNG and JPEG.
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
# Start of frame, the segment that holds the size; 0xC4, 0xC8 and 0xCC between them are something else.
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_JPEG_SCAN = 0xDA
_READERS, _BLOCK = 8, 64
_JPEG_SKIPPED = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})  # tables, comments, EXIF, ICC


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) as stored, from the file's header: an EXIF orientation is not applied.

    Reads the headers of plain PNG and JPEG files itself, in half of the time that Pillow takes to open them;
    whatever looks odd, and every other format, is left to Pillow.

    Raises:
        DataError: the file is missing or no image.
    """
    try:
        with open_regular(path) as file:
            head = file.read(33)
            size = _png_size(head) if head.startswith(_PNG) else _jpeg_size(file, head)
            if size and 0 < size[0] * size[1] <= (Image.MAX_IMAGE_PIXELS or 0):
                return size
            file.seek(0)
            with Image.open(file) as image:
                return image.height, image.width
    except UNREADABLE as error:
        raise unreadable(path, error) from error


def image_sizes(paths: Sequence[Path], *, problem: Problem = refuse) -> list[tuple[int, int]]:
    """(height, width) of many files; the headers are read a few at a time, as a file server likes it.

    Args:
        paths: the files.
        problem: is told of each that is missing or no image; its size is (0, 0) then.

    Raises:
        DataError: of the first such file, unless `problem` takes it.
    """
    blocks = [paths[start : start + _BLOCK] for start in range(0, len(paths), _BLOCK)]
    with ThreadPoolExecutor(_READERS) as pool:
        found = [
            size for sizes in pool.map(lambda block: [*map(_size_or_error, block)], blocks) for size in sizes
        ]
    sizes = []
    for size in found:
        if isinstance(size, DataError):
            problem(size)
            size = (0, 0)
        sizes.append(size)
    return sizes


def _size_or_error(path: Path) -> tuple[int, int] | DataError:
    try:
        return image_size(path)
    except DataError as error:
        return error


def _png_size(head: bytes) -> tuple[int, int] | None:
    """The size in the first 33 bytes of a PNG file, if their checksum fits."""
    if len(head) < 33 or zlib.crc32(head[12:29]) != int.from_bytes(head[29:], "big"):
        return None
    width, height = struct.unpack(">II", head[16:24])
    return height, width


def _jpeg_size(file: BinaryIO, head: bytes) -> tuple[int, int] | None:
    """The size in the only frame header before the first scan, if all up to there is as it should be."""
    if not head.startswith(b"\xff\xd8\xff"):
        return None
    size, place = None, 2
    while True:
        file.seek(place)
        segment = file.read(10)
        if len(segment) < 10 or segment[0] != 0xFF:
            return None
        _, marker, length, precision, height, width, components = struct.unpack(">BBHBHHB", segment)
        if marker == _JPEG_SCAN:
            return size
        if marker in _JPEG_FRAMES and size is None:
            if precision != 8 or components not in (1, 3, 4) or length != 8 + 3 * components:
                return None
            size = height, width
        elif marker not in _JPEG_SKIPPED or length < 2:
            return None
        place += 2 + length


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that Pillow refuses with `error`."""
    if isinstance(error, FileNotFoundError):
        return DataError("the image does not exist", where=path)
    found = "no image format that we know" if isinstance(error, UnidentifiedImageError) else error
    return DataError("the image cannot be read", where=path, found=found, allowed="a whole PNG or JPEG file")
