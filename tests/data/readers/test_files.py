from pathlib import Path

import numpy as np
import pytest

from frcnn.data.index import ImageFolder, Index, IndexBuilder
from frcnn.data.readers.fields import is_degenerate, number
from frcnn.data.readers.files import check_images, names_in, read_text, stems_in, with_suffixes
from frcnn.errors import DataError


def index_of(root: Path, *frames: str) -> Index:
    builder = IndexBuilder(ImageFolder(str(root), "png"))
    for frame in frames:
        builder.add(frame, (1, 1), names=[], boxes=[], difficult=[])
    return builder.build()


@pytest.mark.parametrize(
    ("data", "line", "found"),
    [
        (b"ab\ncd\xff", 2, "byte 0xff at offset 5"),
        (b"\xef\xbb\xbfab\ncd\xff", 2, "byte 0xff at offset 8"),
        (b"ab\n\0", 2, "byte 0x00 at offset 3"),
        (b"\xff\xfea\0", 1, "byte 0xff at offset 0"),
    ],
)
def test_text_that_is_not_utf8_names_line_and_offset(
    tmp_path: Path, data: bytes, line: int, found: str
) -> None:
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(DataError, match="not UTF-8 text") as info:
        read_text(tmp_path / "x", what="list")
    assert (info.value.where, info.value.found) == (f"{tmp_path / 'x'}:{line}", found)


def test_files_beyond_the_limit(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_text(tmp_path / "x", what="list", limit=5) == "12345"
    with pytest.raises(
        DataError, match="x: the list is too large\n  found: 5 bytes\n  allowed: up to 4 bytes"
    ):
        read_text(tmp_path / "x", what="list", limit=4)


def test_names_in_folders(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", ".txt", "c.TXT"):
        (tmp_path / name).touch()
    assert stems_in(tmp_path, ".txt") == ["", "a", "b"]
    assert names_in(str(tmp_path / "nowhere")) == names_in("a\0b") == set()
    with pytest.raises(DataError, match="nowhere: the folder cannot be listed\n  found: No such file"):
        stems_in(tmp_path / "nowhere", ".txt")


def test_a_suffix_for_each_image(tmp_path: Path) -> None:
    index = with_suffixes(index_of(Path(), "a", "b", "c/d"), ["jpg", "PNG", "jpg"], root=tmp_path)
    assert [index.path(i) for i in range(3)] == [
        tmp_path / "a.jpg",
        tmp_path / "b.PNG",
        tmp_path / "c" / "d.jpg",
    ]
    np.testing.assert_array_equal(index.folder_ids, [0, 1, 0])


def test_missing_images_in_many_folders_are_said_in_short(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="20 of 20 frames have no image") as info:
        check_images(index_of(tmp_path, *(f"{i}/x" for i in range(20))), what="frames")
    assert str(info.value.found).count("holds 0 files") == 4


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1.0), ("-1.5e2", -150.0), (".5", 0.5), ("3.4e38", 3.4e38), ("-0", 0.0)]
)
def test_numbers(text: str, value: float) -> None:
    assert number(text) == value


@pytest.mark.parametrize("text", ["", "x", "1_0", "0x1", "١", "nan", "inf", "3.5e38", "1e400", "1,5"])
def test_what_is_no_number(text: str) -> None:
    assert np.isnan(number(text))


def test_boxes_without_a_whole_pixel() -> None:
    assert is_degenerate((-0.9, 0, 0.9, 5))
    assert not is_degenerate((0.9, 0, 1, 1))
