"""Real pictures, where they are at hand: folder of $FRCNN_SHARED_DATA or beside the repository."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from frcnn.data.dataset import DetectionDataset
from frcnn.data.index import Index, Source, concatenate, overlap
from frcnn.data.kitti import read_kitti
from frcnn.data.prepare import prepare
from frcnn.data.shards import find_records, select_fold
from frcnn.data.tfrecord import read_tfrecords
from frcnn.data.transforms import chain

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
SHARED = Path(os.environ.get("FRCNN_SHARED_DATA", BESIDE))
IMAGES = {"bccd": (292, 72), "carla": (300, 100)}
CLASSES = {
    "bccd": ("wbc", "rbc", "platelets"),
    "carla": ("vehicle", "traffic_light", "traffic_sign", "bike", "motobike"),
}

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no {SHARED.name} data folder")


def folders(name: str, split: str) -> Source:
    root = SHARED / name / split
    return read_kitti(image_root=root, labels=root / "label_2", image_extension="jpg")


def records(name: str, split: str, files: list[Path]) -> Source:
    return read_tfrecords(files=files, image_root=SHARED / name / split, image_extension="jpg")


def by_frame(index: Index) -> dict[str, list[tuple[str, bool, tuple[float, ...]]]]:
    return {
        index.frames[i]: [
            (index.class_names[index.class_ids[row]], bool(index.difficult[row]), tuple(index.boxes[row]))
            for row in range(*index.objects(i).indices(len(index.boxes)))
        ]
        for i in range(len(index))
    }


def test_bccd_counts_as_published() -> None:
    counts: Counter[str] = Counter()
    for split in ("train", "val"):
        source = folders("bccd", split)
        for class_id, count in zip(*np.unique(source.index.class_ids, return_counts=True), strict=True):
            counts[source.index.class_names[class_id]] += int(count)
        counts.update(source.degenerate)
    assert counts == {"rbc": 4153, "wbc": 372, "platelets": 361}


@pytest.mark.parametrize("name", ["bccd", "carla"])
def test_records_equal_folders_object_by_object(name: str) -> None:
    files = find_records(str(SHARED / name / "tfrecords" / "train*"))
    assert len(files) == 8
    folds = [select_fold(files, 0, validation=validation) for validation in (True, False)]
    validation, training = (records(name, "train", fold) for fold in folds)
    assert overlap(validation.index, training.index) == 0.0
    found = by_frame(validation.index) | by_frame(training.index)
    assert len(found) == len(validation.index) + len(training.index) == IMAGES[name][0]
    kitti = folders(name, "train")
    assert found == by_frame(kitti.index)
    assert overlap(kitti.index, training.index) == len(training.index) / len(kitti.index)
    np.testing.assert_array_equal(
        sorted(map(tuple, np.concatenate([validation.index.sizes, training.index.sizes]))),
        sorted(map(tuple, kitti.index.sizes)),
    )


@pytest.mark.parametrize("name", ["bccd", "carla"])
def test_the_validation_folder(name: str) -> None:
    found = records(name, "val", find_records(str(SHARED / name / "tfrecords" / "val*")))
    kitti = folders(name, "val")
    assert len(found.index) == IMAGES[name][1]
    assert by_frame(found.index) == by_frame(kitti.index)
    assert overlap(kitti.index, folders(name, "train").index) == 0.0


@pytest.mark.parametrize("name", ["bccd", "carla"])
def test_samples_of_real_pictures(name: str) -> None:
    mapping = {label.upper(): label for label in CLASSES[name]}
    size = (240, 320)
    index, table = prepare(
        [folders(name, "val")], class_mapping=mapping, size=size, auto_resize=True, max_objects=100
    )
    assert sum(table.kept.values()) == len(index.boxes) > 0
    total, unmapped = table.sources[0].total, table.sources[0].unmapped
    raw = folders(name, "val")
    lost = total.degenerate + total.outside + total.too_small
    assert total.kept + lost == len(raw.index.boxes) + sum(raw.degenerate.values())
    assert unmapped == {}
    steps = chain(size=size, auto_resize=True, mean=(124.0, 117.0, 104.0), scale=1.0, bgr=True)
    sample = DetectionDataset(index, transforms=steps).sample(0)
    assert sample.image.shape == (3, *size)
    assert 10 < float(sample.image.std()) < 120
    assert len(concatenate([index, index])) == 2 * len(index)
