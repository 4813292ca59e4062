"""Real pictures, where they are at hand: folder of $FRCNN_SHARED_DATA or beside the repository."""

import json
import os
from collections import Counter
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frcnn.data.dataset import DetectionDataset
from frcnn.data.geometry import fixed
from frcnn.data.index import Index, Source, concatenate, overlap
from frcnn.data.prepare import prepare
from frcnn.data.readers.coco import read_coco
from frcnn.data.readers.headers import image_sizes
from frcnn.data.readers.kitti import read_kitti
from frcnn.data.readers.shards import find_records, select_fold
from frcnn.data.readers.tfrecord import read_tfrecords
from frcnn.data.readers.voc import read_voc
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


@pytest.mark.parametrize(("listed", "split"), [("trainval", "train"), ("test", "val")])
def test_voc_equals_its_kitti_twin_object_by_object(listed: str, split: str) -> None:
    images = SHARED / "bccd" / split / "image_2"
    lists = SHARED / "bccd" / "voc" / "ImageSets" / "Main"
    source = read_voc(annotations=lists / f"{listed}.txt", image_root=images)
    twin = folders("bccd", split)
    found = {
        frame: [(c.lower(), *rest) for c, *rest in objects]
        for frame, objects in by_frame(source.index).items()
    }
    assert found == {
        frame.removeprefix("image_2/"): objects for frame, objects in by_frame(twin.index).items()
    }
    # Two boxes without area were left out when the twin was written.
    assert (dict(source.degenerate), twin.degenerate) == ({"RBC": 2} if split == "train" else {}, {})
    np.testing.assert_array_equal(
        sorted(map(tuple, source.index.sizes)), sorted(map(tuple, twin.index.sizes))
    )


def test_a_folder_of_annotations_is_the_whole_set(tmp_path: Path) -> None:
    (tmp_path / "JPEGImages").mkdir()
    for split in ("train", "val"):
        for image in (SHARED / "bccd" / split / "image_2").iterdir():
            (tmp_path / "JPEGImages" / image.name).symlink_to(image)
    source = read_voc(annotations=SHARED / "bccd" / "voc" / "Annotations", image_root=tmp_path)
    names, counts = np.unique(np.array(source.index.class_names)[source.index.class_ids], return_counts=True)
    counted = Counter(dict(zip(names.tolist(), counts.tolist(), strict=True))) + Counter(source.degenerate)
    assert counted == {"RBC": 4155, "WBC": 372, "Platelets": 361}
    assert len(source.index) == 364


@pytest.mark.parametrize("name", ["bccd", "carla"])
def test_coco_made_of_a_folder_equals_it(tmp_path: Path, name: str) -> None:
    """The same labels as COCO: the corner is exact in both, and the far corner to rounding."""
    index = folders(name, "val").index
    path = tmp_path / "labels.json"
    content = {
        "images": [{"id": i, "file_name": f"{index.frames[i]}.jpg"} for i in range(len(index))],
        "categories": [{"id": i, "name": label} for i, label in enumerate(index.class_names)],
        "annotations": [
            {"id": row, "image_id": int(image), "category_id": int(label), "bbox": [x1, y1, x2 - x1, y2 - y1]}
            for row, (image, label, (x1, y1, x2, y2)) in enumerate(
                zip(index.image_of_object(), index.class_ids, index.boxes.tolist(), strict=True)
            )
        ],
    }
    path.write_text(json.dumps(content))
    found = read_coco(annotations=path, image_root=SHARED / name / "val").index
    np.testing.assert_allclose(found.boxes, index.boxes, rtol=1e-6)
    np.testing.assert_array_equal(found.offsets, index.offsets)
    np.testing.assert_array_equal(found.sizes, index.sizes)
    assert [found.path(i) for i in range(len(found))] == [index.path(i) for i in range(len(index))]


@pytest.mark.parametrize("name", ["bccd", "carla"])
def test_image_sizes_agree_with_pillow(name: str) -> None:
    paths = [path for split in ("train", "val") for path in (SHARED / name / split / "image_2").iterdir()]
    expected = []
    for path in paths:
        with Image.open(path) as image:
            expected.append((image.height, image.width))
    assert image_sizes(paths) == expected


@pytest.mark.parametrize("name", ["bccd", "carla"])
def test_samples_of_real_pictures(name: str) -> None:
    mapping = {label.upper(): label for label in CLASSES[name]}
    size = (240, 320)
    geometry = partial(fixed, size=size, auto_resize=True)
    index, table = prepare([folders(name, "val")], class_mapping=mapping, geometry=geometry, max_objects=100)
    assert sum(table.kept.values()) == len(index.boxes) > 0
    total, unmapped = table.sources[0].total, table.sources[0].unmapped
    raw = folders(name, "val")
    lost = total.degenerate + total.outside + total.too_small
    assert total.kept + lost == len(raw.index.boxes) + sum(raw.degenerate.values())
    assert unmapped == {}
    steps = chain(geometry=geometry, mean=(124.0, 117.0, 104.0), scale=1.0, bgr=True)
    sample = DetectionDataset(index, transforms=steps).sample(0)
    assert sample.image.shape == (3, *size)
    assert 10 < float(sample.image.std()) < 120
    assert len(concatenate([index, index])) == 2 * len(index)
