import struct
import timeit
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_data import write_image

from frcnn.data.readers import headers
from frcnn.data.readers.headers import image_size, image_sizes
from frcnn.errors import DataError


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def photo(width: int, height: int) -> Image.Image:
    return Image.linear_gradient("L").resize((width, height)).convert("RGB")


EXIF = Image.Exif()
EXIF[0x0112], EXIF[0x9286] = 6, "x" * 60_000  # orientation, a comment
FILES: dict[str, tuple[str, Image.Image, dict[str, Any]]] = {
    "jpeg": ("jpg", photo(1248, 384), {}),
    "progressive": ("jpg", photo(37, 53), {"progressive": True}),
    "gray jpeg": ("jpg", photo(300, 1).convert("L"), {}),
    "cmyk": ("jpg", photo(5, 7).convert("CMYK"), {}),
    "big exif": ("jpg", photo(640, 480), {"exif": EXIF}),
    "big icc": ("jpg", photo(640, 481), {"icc_profile": bytes(300_000)}),
    "comment and dpi": ("jpg", photo(9, 8), {"comment": "\xff\xc0" * 50, "dpi": (300, 300)}),
    "restarts": ("jpg", photo(90, 80), {"restart_marker_rows": 1}),
    "png": ("png", photo(1248, 384), {}),
    "palette": ("png", photo(12, 3).quantize(), {}),
    "alpha": ("png", photo(12, 3).convert("RGBA"), {}),
    "16 bits": ("png", Image.fromarray(np.zeros((4, 6), np.uint16)), {}),
    "one bit": ("png", photo(1, 9).convert("1"), {}),
}
OTHERS: dict[str, tuple[str, Image.Image, dict[str, Any]]] = {
    "bmp": ("bmp", photo(11, 22), {}),
    "tiff": ("tiff", photo(11, 22), {}),
    "webp": ("webp", photo(13, 22), {}),
    "gif": ("gif", photo(13, 22), {}),
    "mpo": ("mpo", photo(14, 22), {"save_all": True, "append_images": [photo(3, 3)]}),
    "apng": ("png", photo(14, 23), {"save_all": True, "append_images": [photo(14, 23)]}),
}


@pytest.mark.parametrize("name", [*FILES, *OTHERS])
def test_sizes_agree_with_pillow(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    suffix, image, options = (FILES | OTHERS)[name]
    path = saved(tmp_path / f"a.{suffix}", image, **options)
    with Image.open(path) as opened:
        expected = opened.height, opened.width
    if name in FILES:  # ... and need no help from it
        monkeypatch.setattr(headers.Image, "open", None)
    assert image_size(path) == expected == (image.height, image.width)


def test_interlaced_png(tmp_path: Path) -> None:
    """A header that Pillow does not write: 7x5 pixels of 8-bit gray, Adam7."""
    head = b"IHDR" + struct.pack(">IIBBBBB", 7, 5, 8, 0, 0, 0, 1)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    assert image_size(tmp_path / "a.png") == (5, 7)


def test_odd_headers_are_left_to_pillow(tmp_path: Path) -> None:
    good = saved(tmp_path / "a.jpg", photo(30, 20)).read_bytes()
    frame = good.index(b"\xff\xc0")
    filled = good[:frame] + b"\xff\xff" + good[frame:]  # fill bytes before a marker are legal
    (tmp_path / "a.jpg").write_bytes(filled)
    assert image_size(tmp_path / "a.jpg") == (20, 30)
    twice = good[:frame] + good[frame : frame + 19] + good[frame:]
    (tmp_path / "a.jpg").write_bytes(twice)
    assert image_size(tmp_path / "a.jpg") == (20, 30)
    damaged = bytearray(saved(tmp_path / "a.png", photo(30, 20)).read_bytes())
    damaged[18] ^= 1  # the width, but not its checksum
    (tmp_path / "a.png").write_bytes(damaged)
    with pytest.raises(DataError, match=r"a\.png: the image cannot be read"):
        image_size(tmp_path / "a.png")


def test_sizes_of_many_files_in_their_order(tmp_path: Path) -> None:
    paths = [write_image(tmp_path / f"{i}.png", width=i + 1, height=2) for i in range(150)]
    assert image_sizes(paths) == [(2, i + 1) for i in range(150)]
    assert image_sizes([]) == []
    paths[70].unlink()
    paths[140].unlink()
    with pytest.raises(DataError, match=r"70\.png: the image does not exist"):
        image_sizes(paths)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_header_takes_a_fifth_of_decoding(tmp_path: Path, suffix: str) -> None:
    """A hundredth on an idle machine; the least of several runs knows less of a busy one."""
    path = saved(tmp_path / f"a.{suffix}", photo(1248, 384))

    def decode() -> None:
        with Image.open(path) as image:
            image.load()

    header, whole = (
        min(timeit.repeat(call, number=5, repeat=5)) for call in (lambda: image_size(path), decode)
    )
    assert header < whole / 5
