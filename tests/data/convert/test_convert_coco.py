"""COCO annotation files as the TAO converter reads them."""

import copy
import json

import pytest
from tiny_data import write_image

from frcnn.data.convert.coco import plan_coco
from frcnn.data.convert.pipeline import write_set
from frcnn.data.convert.sample_modifier import SampleModifier
from frcnn.data.readers.tfrecord import example_class, read_records
from frcnn.errors import DataError

DATA = {
    "images": [
        {"id": 7, "file_name": "b.c.jpg", "height": 16, "width": 32},
        {"id": 3, "file_name": "sub/a.jpg", "height": 8, "width": 9},
    ],
    "annotations": [
        {"id": 1, "image_id": 3, "category_id": 5, "bbox": [1, 2, 3.5, 4], "iscrowd": 1},
        {"id": 2, "image_id": 7, "category_id": 2, "bbox": [1.5, 2, 0.25, 4]},
        {"id": 9, "image_id": 7, "category_id": 2, "bbox": [0, 0, 2, 2]},
    ],
    "categories": [{"id": 2, "name": "Person"}, {"id": 5, "name": "traffic  Light"}],
}


def plan(root, *datas, shards=(1,)):
    (root / "images" / "sub").mkdir(parents=True, exist_ok=True)
    for name in ("b.c.jpg", "sub/a.jpg"):
        (root / "images" / name).touch()
    for i, data in enumerate(datas):
        (root / f"{i}.json").write_text(json.dumps(data))
    count = len(datas)
    files = [f"{i}.json" for i in range(count)]
    shards = list(shards) * (count if len(shards) == 1 else 1)
    return plan_coco(root=root, folders=["images"] * count, files=files, partitions=count, shards=shards)


def features(converted):
    return example_class().FromString(converted.record[12:-4]).features.feature


def test_images_in_the_order_of_the_file(tmp_path):
    found = plan(tmp_path, DATA)
    first, second = map(found.read, found.partitions[0])
    assert features(first)["frame/id"].bytes_list.value[0] == b"images/b.c"
    assert features(first)["frame/width"].int64_list.value[0] == 32
    assert first.classes == ("person",)
    assert first.skipped == (("2", "person", (1, 2, 1, 6)),)
    record = features(second)
    # A crowd is an object, names lose their spaces, the box is x, y, x + w, y + h.
    assert list(record["target/object_class"].bytes_list.value) == [b"trafficlight"]
    corners = [record[f"target/coordinates_{key}"].float_list.value[0] for key in ("x1", "y1", "x2", "y2")]
    assert corners == [1, 2, 4.5, 6]
    assert list(record["target/truncation"].float_list.value) == [0]
    assert record["target/occlusion"].int64_list.value[0] == 0
    assert found.warnings == []


def test_a_partition_per_file_with_its_own_shards(tmp_path):
    found = plan(tmp_path, DATA, DATA, shards=(1, 2))
    write_set(found, tmp_path / "t", modifier=SampleModifier(class_mapping={}), processes=4)
    assert sorted(path.name for path in tmp_path.glob("t*")) == [
        "t-fold-000-of-002-shard-00000-of-00001",
        "t-fold-001-of-002-shard-00000-of-00002",
        "t-fold-001-of-002-shard-00001-of-00002",
        "t_warning.json",
    ]
    records = list(read_records(tmp_path / "t-fold-000-of-002-shard-00000-of-00001"))
    assert len(records) == 2


def changed(path, value):
    """DATA with the value at a path, or without it if the value is `del`."""
    data = copy.deepcopy(DATA)
    block = data
    for key in path[:-1]:
        block = block[key]
    if value == "del":
        del block[path[-1]]
    else:
        block[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (["images"], [], "has no images"),
        (["annotations"], [], "has no annotations"),
        (["categories"], "del", "has no categories"),
        (["images", 1, "id"], 7, "repeats id 7"),
        (["annotations", 1, "id"], 1, "repeats id 1"),
        (["annotations", 1, "id"], "del", "has no id"),
        (["categories", 1, "id"], 2, "repeats id 2"),
        (["images", 0], 3, "has no id"),
        (["categories", 0, "name"], " ", "has no name"),
        (["images", 0, "width"], "del", "no size"),
        (["images", 0, "height"], 0, "no size"),
        (["images", 0, "file_name"], "../a.jpg", "no path below"),
        (["images", 0, "file_name"], "/a.jpg", "no path below"),
        (["images", 0, "file_name"], "del", "no path below"),
        (["images", 0, "file_name"], "sub/a.png", "same name"),
        (["annotations", 0, "category_id"], 4, "unknown category"),
        (["annotations", 0, "bbox"], [1, 2, 3], "no box"),
        (["annotations", 0, "bbox"], "del", "no box"),
        (["annotations", 0, "bbox", 2], "3", "no box"),
        (["annotations", 0, "bbox", 2], 1e39, "no box"),
        (["annotations", 0, "bbox", 2], float("nan"), "no box"),
    ],
)
def test_what_makes_no_sense_is_refused_and_named(tmp_path, path, value, words):
    with pytest.raises(DataError, match=words) as info:
        found = plan(tmp_path, changed(path, value))
        list(map(found.read, found.partitions[0]))
    assert "0.json" in str(info.value.where)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\x00", '{"images": {}}'])
def test_no_annotation_file(tmp_path, text):
    (tmp_path / "0.json").write_text(text)
    with pytest.raises(DataError, match=r"0\.json"):
        plan_coco(root=tmp_path, folders=["i"], files=["0.json"], partitions=1, shards=[1])
    with pytest.raises(DataError, match="cannot be read"):
        plan_coco(root=tmp_path, folders=["i"], files=["none.json"], partitions=1, shards=[1])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["categories", 0, "id"], 6),
        (["categories", 0, "name"], "man"),
        (["categories"], DATA["categories"][:1]),
    ],
)
def test_categories_that_differ_between_files(tmp_path, path, value):
    with pytest.raises(DataError, match="categories of the annotation files differ"):
        plan(tmp_path, DATA, changed(path, value))


def test_what_training_will_stumble_over_is_said(tmp_path):
    data = copy.deepcopy(DATA)
    data["images"].append({"id": 8, "file_name": "d.png", "height": 1, "width": 1})
    data["annotations"][0]["image_id"] = 99
    warnings = "\n".join(plan(tmp_path, data).warnings)
    assert "1 annotations belong to no image" in warnings
    assert "several suffixes (2 .jpg, 1 .png)" in warnings
    assert "1 of 3 images are not there, d.png first" in warnings
    write_image(tmp_path / "images" / "d.png")
    assert "are not there" not in "\n".join(plan(tmp_path, data).warnings)
