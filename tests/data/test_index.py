import pickle
from pathlib import Path

import numpy as np

from frcnn.data.index import ImageFolder, Index, IndexBuilder, concatenate, overlap


def build(root: str, frames: dict[str, list[tuple[str, float]]]) -> Index:
    builder = IndexBuilder(ImageFolder(root, "png"))
    for frame, objects in frames.items():
        builder.add(
            frame,
            (16, 32),
            names=[name for name, _ in objects],
            boxes=[value for _, x in objects for value in (x, 1.0, x + 4.0, 5.0)],
            difficult=[x > 9 for _, x in objects],
        )
    return builder.build()


def test_columns_of_three_images() -> None:
    index = build("/data", {"a/0": [("car", 1.0), ("van", 10.0)], "a/é": [], "b": [("car", 2.0)]})
    assert len(index) == 3
    assert index.class_names == ("car", "van")
    np.testing.assert_array_equal(index.offsets, [0, 2, 2, 3])
    np.testing.assert_array_equal(index.class_ids, [0, 1, 0])
    np.testing.assert_array_equal(index.difficult, [False, True, False])
    np.testing.assert_array_equal(index.boxes[index.objects(2)], [[2, 1, 6, 5]])
    np.testing.assert_array_equal(index.image_of_object(), [0, 0, 2])
    assert [index.path(i) for i in range(3)] == [
        Path("/data/a/0.png"),
        Path("/data/a/é.png"),
        Path("/data/b.png"),
    ]


def test_an_empty_index_has_columns_too() -> None:
    index = build("/data", {})
    assert len(index) == 0
    assert index.boxes.shape == (0, 4)
    assert pickle.loads(pickle.dumps(index)).class_names == ()


def test_select_keeps_images_and_moves_offsets() -> None:
    index = build("/data", {"0": [("a", 1.0), ("b", 2.0)], "1": [("b", 3.0)], "2": [("a", 4.0)]})
    mapped = np.array([0, -1, -1, 0], np.int16)
    selected = index.select(mapped >= 0, class_ids=mapped, class_names=["thing"])
    np.testing.assert_array_equal(selected.offsets, [0, 1, 1, 2])
    np.testing.assert_array_equal(selected.boxes[:, 0], [1, 4])
    assert selected.class_names == ("thing",)


def test_concatenate_keeps_each_image_with_its_objects_and_folder() -> None:
    first = build("/one", {"0": [("car", 1.0)], "1": []})
    second = build("/two", {"x": [("car", 2.0), ("car", 3.0)]})
    both = concatenate([first, second, first])
    assert [str(both.path(i)) for i in range(5)] == [
        "/one/0.png",
        "/one/1.png",
        "/two/x.png",
        "/one/0.png",
        "/one/1.png",
    ]
    np.testing.assert_array_equal(both.boxes[both.objects(2)][:, 0], [2, 3])
    np.testing.assert_array_equal(both.boxes[both.objects(3)][:, 0], [1])
    assert both.boxes[both.objects(4)].shape == (0, 4)
    assert both.class_ids.dtype == np.int16 and both.folder_ids.dtype == np.int16


def test_bytes_per_object_and_image_with_a_hundred_thousand_objects() -> None:
    builder = IndexBuilder(ImageFolder("/data/kitti/training", "png"))
    boxes = [1.0, 2.0, 30.0, 40.0] * 10
    for i in range(10_000):
        names = ["car"] * 10
        builder.add(f"image_2/{i:06d}", (375, 1242), names=names, boxes=boxes, difficult=[False] * 10)
    index = builder.build()
    limit = 64 * 100_000 + 128 * 10_000
    assert index.nbytes < limit
    assert len(pickle.dumps(index)) < limit
    assert len(pickle.loads(pickle.dumps(index)).frames) == 10_000


def test_overlap_is_the_share_of_validation_files_seen_in_training(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    train = build(str(tmp_path / "real"), {"a": [], "b": [], "c": []})
    assert overlap(build(str(tmp_path / "link"), {"a": [], "b": [], "x": [], "y": []}), train) == 0.5
    assert overlap(build(str(tmp_path / "other"), {"a": []}), train) == 0.0
    assert overlap(build(str(tmp_path), {"real/a": []}), train) == 1.0


def test_the_most_areas_of_an_image() -> None:
    builder = IndexBuilder(ImageFolder("/data", "png"))
    for i, ignored in enumerate([[True, False], [], [True, True, False, True]]):
        count = len(ignored)
        boxes, difficult = [1.0, 1.0, 5.0, 5.0] * count, [False] * count
        builder.add(f"{i}", (16, 32), names=["x"] * count, boxes=boxes, difficult=difficult, ignored=ignored)
    assert builder.build().max_ignored == 3
    assert build("/data", {"0": [("car", 1.0)]}).max_ignored == 0
    assert build("/data", {}).max_ignored == 0
