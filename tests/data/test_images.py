import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tiny_data import write_image

from frcnn.data.images import read_image
from frcnn.data.readers.headers import image_size
from frcnn.errors import DataError

RED = (200, 10, 30)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def test_size_and_pixels_of_a_png(tmp_path: Path) -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    path = saved(tmp_path / "a.png", Image.fromarray(pixels))
    assert image_size(path) == (2, 4)
    image = read_image(path, channels=3)
    assert image.dtype == torch.uint8
    np.testing.assert_array_equal(image, pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "CMYK"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGB", (3, 2), RED)
    image = image.quantize() if mode == "P" else image.convert(mode)
    if mode == "RGBA":
        image.putalpha(0)
    path = saved(tmp_path / ("a.jpg" if mode == "CMYK" else "a.png"), image)
    found = read_image(path, channels=3)
    assert found.shape == (3, 2, 3)
    assert (found[:, 0, 0].int() - torch.tensor(RED)).abs().max() <= (3 if mode == "CMYK" else 0)


def test_gray_is_repeated_and_colour_becomes_luma(tmp_path: Path) -> None:
    gray = saved(tmp_path / "gray.png", Image.new("L", (3, 2), 77))
    assert (read_image(gray, channels=3) == 77).all()
    colour = saved(tmp_path / "colour.png", Image.new("RGB", (3, 2), RED))
    found = read_image(colour, channels=1)
    assert found.shape == (1, 2, 3)
    assert found[0, 0, 0] == round(0.299 * 200 + 0.587 * 10 + 0.114 * 30)


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_keep_the_high_byte(tmp_path: Path, channels: int) -> None:
    values = np.array([[0, 255, 256, 0x1234, 65535]], np.uint16)
    path = saved(tmp_path / "a.png", Image.fromarray(values))
    assert read_image(path, channels=channels)[0].tolist() == [[0, 0, 1, 0x12, 255]]


def test_exif_orientation_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown rotated by 90 degrees
    path = saved(tmp_path / "a.jpg", Image.new("RGB", (8, 4)), exif=exif)
    assert image_size(path) == (4, 8)
    assert read_image(path, channels=3).shape == (3, 4, 8)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str) -> None:
    path = write_image(tmp_path / f"a.{suffix}", width=64, height=64)
    path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(DataError, match=rf"a\.{suffix}: the image cannot be read\n  found: .*truncated"):
        read_image(path, channels=3)


def test_missing_and_wrong_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    for read in (image_size, lambda path: read_image(path, channels=3)):
        with pytest.raises(DataError, match=r"b\.png: the image does not exist"):
            read(tmp_path / "b.png")
        with pytest.raises(DataError, match=r"a\.png: the image cannot be read"):
            read(tmp_path / "a.png")
    saved(tmp_path / "f.tiff", Image.new("F", (2, 2)))
    with pytest.raises(DataError, match="no fixed range"):
        read_image(tmp_path / "f.tiff", channels=3)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    form=st.sampled_from(["PNG", "JPEG"]),
    damage=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=8),
    cut=st.integers(0, 10_000),
)
def test_damage_gives_an_image_or_a_data_error(
    tmp_path: Path, form: str, damage: list[tuple[int, int]], cut: int
) -> None:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((24, 16)).convert("RGB").save(buffer, form)
    data = bytearray(buffer.getvalue())
    for place, value in damage:
        data[place % len(data)] = value
    (tmp_path / "a").write_bytes(data[: max(8, cut)])
    try:
        found = read_image(tmp_path / "a", channels=3)
    except DataError as error:
        assert str(tmp_path / "a") in str(error)
    else:
        assert found.dtype == torch.uint8 and found.shape[0] == 3
