from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_data import label, write_image, write_kitti

from frcnn.data.readers.kitti import parse_label, read_kitti, read_labels
from frcnn.errors import DataError

LINE = "Car 0.50 2 -1.57 10.5 20.25 30 40 1.5 1.6 3.9 1 2 30 0.1"


def test_a_label_line() -> None:
    found = parse_label(LINE, where="f:1")
    assert (found.name, found.occlusion, found.box) == ("car", 2, (10.5, 20.25, 30.0, 40.0))
    assert not found.degenerate


@pytest.mark.parametrize(
    ("box", "degenerate"),
    [
        ("10 10 11 11", False),
        ("10.9 10 11.0 20", False),
        ("10.1 10 10.9 20", True),  # both ends truncate to 10
        ("10 10 10 20", True),
        ("10 20 20 10", True),
        ("-0.9 0 0.9 5", True),  # truncation is toward 0
    ],
)
def test_degenerate_boxes_truncate_to_nothing(box: str, degenerate: bool) -> None:
    assert parse_label(f"car 0 0 0 {box} 0 0 0 0 0 0 0", where="").degenerate is degenerate


def test_a_score_column_needs_permission() -> None:
    assert parse_label(LINE + " 0.87", where="", allow_scores=True).name == "car"
    with pytest.raises(DataError) as info:
        parse_label(LINE + " 0.87", where="labels/7.txt:3")
    assert str(info.value).startswith("labels/7.txt:3: not a KITTI label\n  found: 16 columns: Car 0.50")
    assert "15 columns: class truncated occluded alpha x1" in str(info.value)
    assert "column 16 of detector output is a score" in str(info.value)


@pytest.mark.parametrize("columns", [1, 14, 17])
def test_other_column_counts(columns: int) -> None:
    with pytest.raises(DataError, match=rf"found: {columns} columns"):
        parse_label(" ".join(["1"] * columns), where="", allow_scores=True)


@pytest.mark.parametrize(
    "bad", ["nan", "inf", "-inf", "1e39", "-1e400", "x", "1,5", "0x10", "1_000", "\u0661\u0662", "\uff11"]
)
def test_numbers_must_be_finite(bad: str) -> None:
    columns = LINE.split()
    columns[6] = bad
    with pytest.raises(DataError) as info:
        parse_label(" ".join(columns), where="a.txt:2")
    assert info.value.message == "column 7 (x2) is no finite number"
    assert (info.value.where, info.value.found) == ("a.txt:2", bad)


def test_bom_crlf_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbf" + f"{LINE}\r\n\r\n  \r\n{LINE}".encode())
    assert [item.name for item in read_labels(path)] == ["car", "car"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_ends_of_lines(tmp_path: Path, end: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(f"{LINE}{end}{LINE}{end}car 1{end}".encode())
    with pytest.raises(DataError, match=r"a\.txt:3: not a KITTI label\n  found: 2 columns: car 1\n"):
        read_labels(path)


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x85", "\xa0", "\u2028"])
def test_other_separators_end_a_column_and_no_line(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"{LINE}\ntraffic{separator}{LINE}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.txt:2: not a KITTI label\n  found: 16 columns"):
        read_labels(path)


def test_names_may_be_any_word(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n".join(LINE.replace("Car", name) for name in ("Pers_sitting", "VÉLO", "12", "歩行者")))
    assert [item.name for item in read_labels(path)] == ["pers_sitting", "vélo", "12", "歩行者"]


def test_text_that_is_not_utf8_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(LINE.encode() + b"\ncar\xff 0 0\n")
    with pytest.raises(DataError, match=r"a\.txt:2: not UTF-8 text\n  found: byte 0xff"):
        read_labels(path)


@given(st.text(max_size=120) | st.lists(st.floats() | st.text("carN0.-e \t", max_size=6), max_size=18))
def test_any_line_is_a_label_or_a_data_error(line: object) -> None:
    text = line if isinstance(line, str) else " ".join(map(str, line))  # type: ignore[arg-type]
    try:
        found = parse_label("x " + text, where="f:1")
    except DataError:
        return
    assert len(text.split()) == 14
    assert np.isfinite(np.array(found.box, np.float32)).all()
    assert isinstance(found.degenerate, bool)


def test_folders_become_an_index(tmp_path: Path) -> None:
    write_kitti(
        tmp_path,
        {
            "b": [
                label("Car", 1, 2, 11, 12, occlusion=1),
                label("Van", 3, 3, 3.5, 9),
                label("car", 0, 0, 5, 5),
            ],
            "a": [],
        },
    )
    (tmp_path / "label_2" / "stray.txt").write_text("")
    source = read_kitti(image_root=tmp_path, labels=tmp_path / "label_2")
    index = source.index
    assert [index.frames[i] for i in range(2)] == ["image_2/a", "image_2/b"]
    assert index.path(1) == tmp_path / "image_2" / "b.png"
    assert index.class_names == ("car",)
    np.testing.assert_array_equal(index.boxes, [[1, 2, 11, 12], [0, 0, 5, 5]])
    np.testing.assert_array_equal(index.difficult, [True, False])
    np.testing.assert_array_equal(index.sizes, [[16, 32], [16, 32]])
    assert dict(source.degenerate) == {"van": 1}
    assert source.unused_labels == 1
    assert source.name == str(tmp_path / "label_2")


@pytest.mark.parametrize("images", ["image_2", "."])
def test_explicit_folders_and_extensions(tmp_path: Path, images: str) -> None:
    write_image(tmp_path / "pictures" / images / "x.JPG")
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "x.txt").write_text(LINE)
    source = read_kitti(image_root=tmp_path / "pictures", labels=tmp_path / "truth", image_extension=".JPG")
    assert source.index.path(0).samefile(tmp_path / "pictures" / images / "x.JPG")


def test_images_beside_the_labels_win_over_the_default_folder(tmp_path: Path) -> None:
    write_kitti(tmp_path, {"left": []})
    write_image(tmp_path / "image_3" / "right.png")
    (tmp_path / "label_3").mkdir()
    (tmp_path / "label_3" / "right.txt").write_text("")
    index = read_kitti(image_root=tmp_path, labels=tmp_path / "label_3").index
    assert index.frames[0] == "image_3/right"


def test_images_without_labels_are_listed(tmp_path: Path) -> None:
    write_kitti(tmp_path, {str(i): [] for i in range(8)})
    for i in range(1, 8):
        (tmp_path / "label_2" / f"{i}.txt").unlink()
    with pytest.raises(DataError, match="7 of 8 images have no label file") as info:
        read_kitti(image_root=tmp_path, labels=tmp_path / "label_2")
    assert info.value.found == "no 1.txt, 2.txt, 3.txt, 4.txt, 5.txt, ..."


def test_missing_labels_can_be_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_kitti(tmp_path, {"a": [LINE], "b": [LINE], "c": [LINE]})
    for stem in ("a", "c"):
        (tmp_path / "label_2" / f"{stem}.txt").unlink()
    (tmp_path / "label_2" / "stray.txt").write_text("")
    source = read_kitti(image_root=tmp_path, labels=tmp_path / "label_2", allow_missing=True)
    np.testing.assert_array_equal(source.index.offsets, [0, 0, 1, 1])
    assert source.unused_labels == 1
    assert "2 of 3 images have no label file and so no objects: no a.txt, c.txt" in caplog.text


def test_scores_can_be_allowed(tmp_path: Path) -> None:
    write_kitti(tmp_path, {"a": [LINE + " 0.5"]})
    folder = tmp_path / "label_2"
    assert len(read_kitti(image_root=tmp_path, labels=folder, allow_scores=True).index.boxes) == 1
    with pytest.raises(DataError, match=r"a\.txt:1: not a KITTI label(.*\n)*.*run\.allow_label_scores=true"):
        read_kitti(image_root=tmp_path, labels=folder)


def test_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    write_kitti(tmp_path, {"a": []})
    (tmp_path / "image_2" / "caf\udce9.png").touch()
    with pytest.raises(DataError, match=r"image_2: a file name is not UTF-8\n  found: 'caf\\udce9\.png'"):
        read_kitti(image_root=tmp_path, labels=tmp_path / "label_2")


def test_no_images_says_what_is_there(tmp_path: Path) -> None:
    write_kitti(tmp_path, {"a": [], "b": []})
    with pytest.raises(DataError, match=r"no \.jpg images") as info:
        read_kitti(image_root=tmp_path, labels=tmp_path / "label_2", image_extension="jpg")
    assert info.value.found == "2 files .png"


def test_no_label_folder(tmp_path: Path) -> None:
    write_kitti(tmp_path, {"a": []})
    with pytest.raises(DataError, match="label folder does not exist"):
        read_kitti(image_root=tmp_path, labels=tmp_path / "labels")


def test_a_bad_line_names_file_and_line(tmp_path: Path) -> None:
    write_kitti(tmp_path, {"a": [label("car", 1, 1, 5, 5), "car 1 2"]})
    with pytest.raises(DataError, match=r"label_2/a\.txt:2: not a KITTI label"):
        read_kitti(image_root=tmp_path, labels=tmp_path / "label_2")


def test_a_broken_image_header_names_the_file(tmp_path: Path) -> None:
    write_kitti(tmp_path, {"a": []})
    (tmp_path / "image_2" / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"image_2/a\.png: the image cannot be read"):
        read_kitti(image_root=tmp_path, labels=tmp_path / "label_2")
