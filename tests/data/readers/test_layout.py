from pathlib import Path

import pytest

from frcnn.data.readers.layout import Layout, layout_of
from frcnn.errors import DataError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("names", "pattern", "layout", "found"),
    [
        (["t-00", "t-01", "t_warning.json"], "t*", Layout.RECORDS, "t*"),
        (["t.tfrecord"], "t.tfrecord", Layout.RECORDS, "t.tfrecord"),
        (["a.txt", "b.txt"], "", Layout.KITTI, ""),
        ([], "", Layout.KITTI, ""),
        (["a.xml", "b.png"], "", Layout.VOC, ""),
        (["train.txt", "val.txt"], "train.txt", Layout.VOC, "train.txt"),
        (["labels.JSON", "x_warning.json"], "*", Layout.COCO, "labels.JSON"),
        (["[1].json", "1.json"], "[1].json", Layout.COCO, "[1].json"),
        ([], "nothing*", Layout.RECORDS, "nothing*"),
    ],
)
def test_what_a_path_holds(
    tmp_path: Path, names: list[str], pattern: str, layout: Layout, found: str
) -> None:
    touch(tmp_path, *names)
    assert layout_of(str(tmp_path / pattern)) == (layout, tmp_path / found)


@pytest.mark.parametrize(
    ("names", "pattern", "found", "hint"),
    [
        (["a.txt", "a.xml", "b.xml"], "", "2 .xml, 1 .txt", ""),
        (["t-00", "t-01"], "", "2 without suffix", "for TFRecords give a glob: {folder}/*"),
        (["Annotations/a.xml", "x.md"], "", "1 .md", "give {folder}/Annotations"),
        (["a.json", "b.json"], "*.json", "2 .json", "a data source of its own"),
        (["a.json", "t-00"], "*", "1 .json, 1 without suffix", "a data source of its own"),
        (["a.txt", "b.txt"], "*.txt", "2 .txt", "given as their folder"),
        (["a.xml"], "a.xml", "1 .xml", "given as their folder"),
    ],
)
def test_mixtures_and_near_misses(
    tmp_path: Path, names: list[str], pattern: str, found: str, hint: str
) -> None:
    touch(tmp_path, *names)
    with pytest.raises(DataError) as info:
        layout_of(str(tmp_path / pattern))
    assert {*found.split(", ")} <= {*str(info.value.found).split(", ")}
    assert hint.format(folder=tmp_path) in str(info.value.hint)
    assert "VOC list such as ImageSets/Main/train.txt" in str(info.value)
