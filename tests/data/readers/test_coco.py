import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_data import coco, write_coco, write_image

from frcnn.data.index import Source
from frcnn.data.readers.coco import read_coco
from frcnn.errors import DataError

GOOD = coco(["a.jpg"], [(10, "car", [1, 2, 8, 9], 0)])


def read(root: Path, content: Any) -> Source:
    (root / "labels.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return read_coco(annotations=root / "labels.json", image_root=root)


def changed(entry: str, **values: Any) -> dict[str, Any]:
    """The good file with keys of its one image, category or annotation replaced; None removes the key."""
    content: dict[str, Any] = json.loads(json.dumps(GOOD))
    merged = content[entry][0] | values
    content[entry] = [{key: value for key, value in merged.items() if value is not None}]
    return content


def test_a_file_becomes_an_index(tmp_path: Path) -> None:
    content = coco(
        ["train/b.jpg", "a.PNG", "c.jpg"],
        [
            (11, "Traffic Light", [1.5, 2, 4.25, 8], 0),
            (10, "car", [-3, 4, 10, 2], 0),
            (11, "car", [3, 3, 0.5, 9], 0),  # between two whole pixels
            (11, "car", [0, 0, 32, 16], 1),
        ],
    )
    source = read_coco(annotations=write_coco(tmp_path, content), image_root=tmp_path)
    index = source.index
    assert [index.path(i) for i in range(3)] == [
        tmp_path / "train" / "b.jpg",
        tmp_path / "a.PNG",
        tmp_path / "c.jpg",
    ]
    assert [index.frames[i] for i in range(3)] == ["train/b", "a", "c"]
    assert [index.class_names[i] for i in index.class_ids] == ["car", "trafficlight", "car"]
    np.testing.assert_array_equal(index.boxes, [[-3, 4, 7, 6], [1.5, 2, 5.75, 10], [0, 0, 32, 16]])
    np.testing.assert_array_equal(index.ignored, [False, False, True])
    np.testing.assert_array_equal(index.difficult, [False] * 3)
    np.testing.assert_array_equal(index.offsets, [0, 1, 3, 3])
    np.testing.assert_array_equal(index.sizes, [[16, 32]] * 3)
    assert dict(source.degenerate) == {"car": 1}
    assert source.name == str(tmp_path / "labels.json")


def test_a_size_that_is_not_given_comes_from_the_image(tmp_path: Path) -> None:
    content = coco(["a.jpg", "b.png"], [])
    write_coco(tmp_path, content)
    write_image(tmp_path / "b.png", width=7, height=5)
    content["images"][0] |= {"width": 64.0, "height": 48}
    del content["images"][1]["width"], content["images"][1]["height"]
    np.testing.assert_array_equal(read(tmp_path, content).index.sizes, [[48, 64], [5, 7]])


def test_ids_may_be_text_and_a_crowd_mark_is_optional(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    content = changed("images", id="x")
    content["annotations"] = [{"image_id": "x", "category_id": 1, "bbox": [1, 2, 3, 4]}]
    index = read(tmp_path, content).index
    np.testing.assert_array_equal(index.boxes, [[1, 2, 4, 6]])
    assert not index.ignored.any()


def test_a_byte_order_mark_and_an_empty_set_of_objects(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    assert len(read(tmp_path, "\ufeff \n" + json.dumps(GOOD | {"annotations": []})).index) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [],\n "categories" []}', r"labels\.json:2:15: not JSON: Expecting ':' delimiter"),
        ('{"images": [}', r"labels\.json:1:13: not JSON"),
        ("[]", r"not a COCO detection file\n  found: \[\]\n(.*\n)*.*a result, not a label"),
        ("", "found: nothing"),
        ("\0" * 100, r"not a COCO detection file\n  found: \\x00\\x00"),
        ('{"images": [], "categories": []}', "lacks the list annotations\n.*images.*\n(.*\n)*.*image_info"),
        ('{"images": [], "categories": [], "annotations": []}', "the file lists no images"),
        ('{"images": {}, "categories": [], "annotations": []}', "lacks the list images"),
        ('{"a": ' + "[" * 100_000, "not a COCO detection file\n  found: maximum recursion"),
        ('{"a": ' + "1" * 10_000 + "}", "not a COCO detection file\n  found: Exceeds the limit"),
        ('{"a": "\u00e9\n"}', "labels.json:1:9: not JSON: Invalid control character"),
    ],
)
def test_files_that_are_no_detection_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as info:
        read(tmp_path, text)
    assert str(tmp_path / "labels.json") in str(info.value)


@pytest.mark.parametrize(
    ("entry", "values", "where", "message"),
    [
        ("annotations", {"bbox": None}, "annotation 100 of image 10", "bbox makes no sense"),
        ("annotations", {"bbox": [1, 2, 3]}, "annotation 100 of image 10", "four numbers"),
        ("annotations", {"bbox": [1, 2, "3", 4]}, "annotation 100 of image 10", "four numbers"),
        ("annotations", {"bbox": [1, 2, True, 4]}, "annotation 100 of image 10", "four numbers"),
        ("annotations", {"bbox": [1, 2, float("nan"), 4]}, "annotation 100 of image 10", "four finite"),
        ("annotations", {"bbox": [1, 2, 10**400, 4]}, "annotation 100 of image 10", "four finite"),
        ("annotations", {"bbox": [3e38, 2, 3e38, 4]}, "annotation 100 of image 10", "ends at a finite"),
        ("annotations", {"category_id": 2}, "annotation 100 of image 10", r"found: 2\n  allowed: .* \[1\]"),
        ("annotations", {"category_id": [1]}, "annotation 100 of image 10", "category_id makes no sense"),
        ("annotations", {"category_id": None}, "annotation 100 of image 10", "found: keys"),
        ("annotations", {"iscrowd": 2}, "annotation 100 of image 10", "allowed: 0 or 1"),
        ("annotations", {"image_id": {}}, "annotation 100", "names no image"),
        ("annotations", {"image_id": None, "id": None}, 'annotation "entry 0"', "names no image"),
        ("images", {"file_name": None}, "image 10", "file_name is no text"),
        ("images", {"file_name": "a\ud800.jpg"}, "image 10", r"found: \"a\\ud800.jpg\""),
        ("images", {"file_name": "a"}, "image 10", r"ends in \.png, \.jpg"),
        ("images", {"file_name": ".jpg"}, "image 10", r"ends in \.png"),
        ("images", {"width": 0}, "image 10", "found: height 16, width 0"),
        ("images", {"width": None}, "image 10", "width null"),
        ("images", {"height": "16"}, "image 10", "allowed: two whole numbers"),
        ("images", {"height": 2**31}, "image 10", "allowed: two whole numbers"),
        ("images", {"height": float("inf")}, "image 10", "allowed: two whole numbers"),
        ("images", {"id": None}, "image entry 0", "the image has no id"),
        ("images", {"id": 1.5}, "image entry 0", "a whole number or a text"),
        ("categories", {"name": 3}, "category 1", "name is no text"),
        ("categories", {"name": " "}, "category 1", "the category has no name"),
    ],
)
def test_entries_that_make_no_sense_are_named(
    tmp_path: Path, entry: str, values: dict[str, Any], where: str, message: str
) -> None:
    write_image(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=message) as info:
        read(tmp_path, changed(entry, **values))
    assert info.value.where == f"{tmp_path / 'labels.json'}, {where}"


@pytest.mark.parametrize("entry", ["images", "categories", "annotations"])
def test_entries_that_are_no_objects(tmp_path: Path, entry: str) -> None:
    with pytest.raises(DataError, match=f"{entry.rstrip('s').replace('ie', 'y')} entry 0"):
        read(tmp_path, GOOD | {entry: [[1]]})


@pytest.mark.parametrize("entry", ["images", "categories"])
def test_two_entries_with_one_id(tmp_path: Path, entry: str) -> None:
    with pytest.raises(DataError, match="two entries have this .* id"):
        read(tmp_path, GOOD | {entry: GOOD[entry] * 2})


def test_missing_images_are_counted_before_headers_are_read(tmp_path: Path) -> None:
    content = coco(["a.jpg", "b.jpg", "c/d.jpg"], [])
    write_image(tmp_path / "a.jpg")
    for image in content["images"]:
        del image["width"], image["height"]
    with pytest.raises(DataError, match="2 of 3 images of the JSON have no image") as info:
        read(tmp_path, content)
    assert info.value.where == tmp_path / "b.jpg"


def test_annotations_of_images_that_are_not_listed_are_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A subset of COCO is often made by cutting its list of images only."""
    write_image(tmp_path / "a.jpg")
    content = changed("annotations")
    content["annotations"].append(content["annotations"][0] | {"id": 101, "image_id": 99})
    before = len(read(tmp_path, changed("annotations")).index.boxes)
    assert len(read(tmp_path, content).index.boxes) == before
    assert "1 annotations belong to no image" in caplog.text
