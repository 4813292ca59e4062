"""A data source is read by what its path holds."""

import json
from pathlib import Path

import pytest
from specs import TINY
from tiny_data import (
    coco,
    example,
    frame,
    label,
    record,
    voc,
    write_coco,
    write_image,
    write_kitti,
    write_voc,
)

from frcnn.bridge import prototxt
from frcnn.build import read_sources
from frcnn.errors import DataError
from frcnn.spec.run import Run

VALIDATION = (
    "  validation_data_source { tfrecords_path: 'validation/label_2' image_directory_path: 'validation' }\n"
)
LABEL = label("Car", 1, 2, 9, 10)


def spec(*sources, validation="", extension="png"):
    """The tiny spec with (labels, images) as its training sources."""
    old = "data_sources { tfrecords_path: 'training/label_2' image_directory_path: 'training' }"
    assert old in TINY and VALIDATION in TINY
    new = "".join(
        f"data_sources {{ tfrecords_path: '{a}' image_directory_path: '{b}' }}\n" for a, b in sources
    )
    text = TINY.replace(old, new).replace(VALIDATION, validation)
    return prototxt.loads(text.replace("image_extension: 'png'", f"image_extension: '{extension}'"))


def write_shards(folder: Path) -> Path:
    for fold in (0, 1):
        payload = example(frame(f"image_2/{fold}", [("car", 0, 1.0, 2.0, 9.0, 10.0)], size=(16, 32)))
        write_image(folder / "image_2" / f"{fold}.png")
        (folder / f"t-fold-{fold:03d}-of-002-shard-00000-of-00001").write_bytes(record(payload))
    (folder / "t_warning.json").write_text("{}")
    return folder


def test_every_layout_is_read_for_what_it_is(tmp_path):
    records, kitti = write_shards(tmp_path / "records"), write_kitti(tmp_path / "kitti", {"a": [LABEL]})
    json_file = write_coco(tmp_path / "coco", coco(["a.jpg"], [(10, "Car", [1, 2, 8, 8], 0)]))
    tree = write_voc(
        tmp_path / "voc", {"a": voc([("CAR", 1, 2, 9, 10)], filename="a.jpg"), "b": voc([], filename="b.jpg")}
    )
    (tree / "ImageSets" / "Main" / "val.txt").write_text("a\n")
    found = read_sources(
        spec(
            (records / "t*", records),
            (kitti / "label_2", kitti),
            (json_file, json_file.parent),
            (tree / "Annotations", tree),
            (tree / "ImageSets" / "Main" / "val.txt", tree),
        ),
        Run(),
        validation=False,
    )
    assert [len(source.index) for source in found] == [2, 1, 1, 2, 1]
    assert [source.index.class_names for source in found] == [("car",)] * 3 + [("CAR",)] * 2
    assert all(source.index.boxes[0].tolist() == [1, 2, 9, 10] for source in found)
    assert all(source.index.path(0).is_file() for source in found)


def test_a_fold_needs_records_and_says_what_to_do(tmp_path):
    write_kitti(tmp_path / "kitti", {"a": [LABEL]})
    json_file = write_coco(tmp_path / "coco", coco(["a.jpg"], []))
    tree = write_voc(tmp_path / "voc", {"a": voc([])})
    for labels, images, kind in (
        (tmp_path / "kitti" / "label_2", tmp_path / "kitti", "a KITTI label folder"),
        (json_file, json_file.parent, "a COCO file"),
        (tree / "Annotations", tree, "VOC annotations"),
    ):
        with pytest.raises(DataError, match="validation_fold needs TFRecords") as info:
            read_sources(spec((labels, images), validation="validation_fold: 0"), Run(), validation=True)
        assert info.value.found == f"{labels}, {kind}"
        assert info.value.hint == "give validation_data_source instead"


def test_a_plain_source_beside_records_with_a_fold_only_trains(tmp_path):
    records, kitti = write_shards(tmp_path / "records"), write_kitti(tmp_path / "kitti", {"a": [LABEL]})
    settings = spec((kitti / "label_2", kitti), (records / "t*", records), validation="validation_fold: 0")
    assert [source.index.frames[0] for source in read_sources(settings, Run(), validation=True)] == [
        "image_2/0"
    ]
    training = read_sources(settings, Run(), validation=False)
    assert [source.index.frames[0] for source in training] == ["image_2/1", "image_2/a"]


def test_what_label_files_lack_or_hold_in_excess_can_be_allowed(tmp_path):
    write_kitti(tmp_path, {"a": [LABEL + " 0.9"], "b": []})
    (tmp_path / "label_2" / "b.txt").unlink()
    settings = spec((tmp_path / "label_2", tmp_path))
    with pytest.raises(DataError, match=r"run\.allow_missing_labels=true"):
        read_sources(settings, Run(allow_label_scores=True), validation=False)
    with pytest.raises(DataError, match=r"run\.allow_label_scores=true"):
        read_sources(settings, Run(allow_missing_labels=True), validation=False)
    (source,) = read_sources(
        settings, Run(allow_missing_labels=True, allow_label_scores=True), validation=False
    )
    assert len(source.index) == 2 and len(source.index.boxes) == 1


def test_two_json_files_need_two_sources(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(coco([], [])))
    with pytest.raises(DataError, match="a data source of its own"):
        read_sources(spec((tmp_path / "*.json", tmp_path)), Run(), validation=False)


def test_a_source_of_the_fold_alone_only_validates(tmp_path, caplog):
    """One glob per fold (spec-and-data 4.1): only no training file at all would be an error."""
    records = write_shards(tmp_path / "records")
    settings = spec(
        (records / "t-fold-000*", records),
        (records / "t-fold-001*", records),
        validation="validation_fold: 0",
    )
    assert [source.index.frames[0] for source in read_sources(settings, Run(), validation=True)] == [
        "image_2/0"
    ]
    assert [source.index.frames[0] for source in read_sources(settings, Run(), validation=False)] == [
        "image_2/1"
    ]
    assert "is fold 0 only: none of it is training data" in caplog.text


def test_a_fold_that_nobody_has_is_not_blamed_on_a_plain_source(tmp_path, caplog):
    """A source without records has no fold at all, which is another thing than having only that fold."""
    records, kitti = write_shards(tmp_path / "records"), write_kitti(tmp_path / "kitti", {"a": [LABEL]})
    settings = spec((kitti / "label_2", kitti), (records / "t*", records), validation="validation_fold: 7")
    with pytest.raises(DataError, match="validation_fold needs TFRecords"):
        read_sources(settings, Run(), validation=False)
    assert "only" not in caplog.text
