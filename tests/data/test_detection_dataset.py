import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_data import label, write_image, write_kitti

from frcnn.data.augment import move
from frcnn.data.dataset import DetectionDataset
from frcnn.data.geometry import fixed
from frcnn.data.images import read_image
from frcnn.data.index import Index
from frcnn.data.prepare import prepare
from frcnn.data.readers.kitti import read_kitti
from frcnn.data.sample import Batch, Sample, collate
from frcnn.data.transforms import chain
from frcnn.errors import DataError

SMALL = partial(fixed, size=(32, 64), auto_resize=True)
LABELS = {
    "a": [label("car", 2, 2, 10, 12, occlusion=1), label("person", 20, 3, 28, 14), label("tree", 1, 1, 9, 9)],
    "b": [],
}


def indexed(root: Path) -> Index:
    source = read_kitti(image_root=root, labels=root / "label_2")
    mapping = {"car": "car", "person": "person"}
    return prepare([source], class_mapping=mapping, geometry=SMALL, max_objects=4)[0]


def dataset(root: Path, *, flip: float = 0.0, channels: int = 3, seed: int = 0) -> DetectionDataset:
    mean = (1.0, 2.0, 3.0) if channels == 3 else (5.0,)
    steps = chain(
        geometry=SMALL,
        mean=mean,
        scale=2.0,
        bgr=channels == 3,
        augmentation=(partial(move, hflip_probability=flip),) if flip else (),
    )
    return DetectionDataset(indexed(root), transforms=steps, channels=channels, seed=seed)


def test_a_sample(tmp_path: Path) -> None:
    found = dataset(write_kitti(tmp_path, LABELS))[0]
    assert isinstance(found, Sample)
    assert found.image.shape == (3, 32, 64) and found.image.dtype == torch.float32
    assert found.boxes.tolist() == [[4, 4, 20, 24], [40, 6, 56, 28]]
    assert found.labels.tolist() == [0, 1] and found.labels.dtype == torch.int64
    assert found.difficult.tolist() == [True, False]
    assert found.original_size == (16, 32)
    assert found.id == str(tmp_path / "image_2" / "a.png")


def test_pixels_are_those_of_the_file(tmp_path: Path) -> None:
    write_kitti(tmp_path, {"a": [label("car", 0, 0, 64, 32)]}, width=64, height=32)
    source = read_kitti(image_root=tmp_path, labels=tmp_path / "label_2")
    index, _ = prepare([source], class_mapping={"car": "c"}, max_objects=1, geometry=SMALL)
    steps = chain(mean=(1.0, 2.0, 3.0), scale=2.0, bgr=True, geometry=SMALL)
    sample = DetectionDataset(index, transforms=steps).sample(0)
    raw = read_image(tmp_path / "image_2" / "a.png", channels=3).float()
    expected = ((raw - torch.tensor([1.0, 2.0, 3.0])[:, None, None]) / 2).flip(0)
    torch.testing.assert_close(sample.image, expected)
    assert sample.boxes.tolist() == [[0, 0, 63, 31]]  # clipped to the last pixel, not rounded


def test_one_channel(tmp_path: Path) -> None:
    found = dataset(write_kitti(tmp_path, LABELS), channels=1)[0]
    assert isinstance(found, Sample)
    assert found.image.shape == (1, 32, 64)


def test_flips_come_from_seed_epoch_and_number(tmp_path: Path) -> None:
    root = write_kitti(tmp_path, LABELS)
    one, same, other = dataset(root, flip=0.5), dataset(root, flip=0.5), dataset(root, flip=0.5, seed=1)

    def first_edges(data: DetectionDataset) -> list[float]:
        return [float(data.sample(0, epoch=epoch).boxes[0, 0]) for epoch in range(16)]

    assert first_edges(one) == first_edges(same)
    assert set(first_edges(one)) == {4.0, 44.0}  # 64 - 20
    assert first_edges(one) != first_edges(other)


def test_a_data_set_survives_pickling(tmp_path: Path) -> None:
    data = dataset(write_kitti(tmp_path, LABELS), flip=0.5)
    again = pickle.loads(pickle.dumps(data))
    torch.testing.assert_close(again.sample(0, epoch=3).image, data.sample(0, epoch=3).image)


def test_the_recorded_size_scales_boxes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = write_kitti(tmp_path, LABELS)
    data = dataset(root)
    write_image(root / "image_2" / "a.png", width=8, height=8)
    for _ in range(2):
        found = data.sample(0)
    assert found.boxes.tolist() == [[4, 4, 20, 24], [40, 6, 56, 28]]
    assert found.original_size == (8, 8)
    assert len(caplog.records) == 1
    assert "a.png is 8x8, its label says 32x16" in caplog.text


def test_sizes_the_wrong_way_round_are_not_taken_for_a_scale(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Width and height swapped in a label file: its coordinates are the file's all the same."""
    root = write_kitti(tmp_path, LABELS)
    data = dataset(root)
    write_image(root / "image_2" / "a.png", width=16, height=32)
    assert data._boxes_in((32, 16), 0)[0].tolist() == [2, 2, 10, 12]
    assert "boxes are taken as they are" in caplog.text


def test_without_resize_another_size_is_an_error(tmp_path: Path) -> None:
    """`prepare` counted objects by the label's size, so scaling here would lose some without a word."""
    root = write_kitti(tmp_path, LABELS)
    steps = chain(
        geometry=partial(fixed, size=(16, 32), auto_resize=False), mean=(0, 0, 0), scale=1.0, bgr=False
    )
    data = DetectionDataset(indexed(root), transforms=steps, other_sizes=False)
    write_image(root / "image_2" / "a.png", width=8, height=8)
    with pytest.raises(DataError, match=r"a\.png: the image is not of the size that its label says"):
        data[0]


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    data = dataset(write_kitti(tmp_path, LABELS))
    (tmp_path / "image_2" / "b.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"image_2/b\.png: the image cannot be read"):
        data[1]


def test_collate_pads_ground_truth(tmp_path: Path) -> None:
    data = dataset(write_kitti(tmp_path, LABELS))
    batch = collate([data.sample(0), data.sample(1)], max_objects=4)
    assert isinstance(batch, Batch)
    assert batch.images.shape == (2, 3, 32, 64)
    assert batch.boxes[0].tolist() == [[4, 4, 20, 24], [40, 6, 56, 28], [0] * 4, [0] * 4]
    assert batch.labels.tolist() == [[0, 1, -1, -1], [-1] * 4]
    assert batch.difficult.tolist() == [[True, False, False, False], [False] * 4]
    assert batch.image_sizes.tolist() == [[32, 64], [32, 64]]
    assert batch.original_sizes.tolist() == [[16, 32], [16, 32]]
    assert [Path(name).stem for name in batch.ids] == ["a", "b"]
    assert (batch.boxes.dtype, batch.labels.dtype) == (torch.float32, torch.int64)


def with_areas(root: Path, *, flip: float = 0.0) -> DetectionDataset:
    trees = [
        label("tree", 1, 1, 9, 9, occlusion=-1),
        label("Tree", 30, 2, 30.3, 9),
        label("tree", 40, 0, 50, 9),
    ]
    write_kitti(root, {"a": LABELS["a"][:2] + trees, "b": []})
    source = read_kitti(image_root=root, labels=root / "label_2")
    mapping = {"car": "car", "person": "person"}
    index, _ = prepare(
        [source],
        class_mapping=mapping,
        geometry=SMALL,
        max_objects=2,
        ignore_classes=["TREE"],
        min_size=(2, 2),
    )
    augmentation = (partial(move, hflip_probability=flip),)
    steps = chain(geometry=SMALL, mean=(0, 0, 0), scale=1.0, bgr=False, augmentation=augmentation)
    return DetectionDataset(index, transforms=steps, min_size=(2, 2))


def test_areas_to_ignore_move_with_the_image(tmp_path: Path) -> None:
    """One lies in the image, one is a line after truncation (no area, so dropped), one lies beside the image."""
    data = with_areas(tmp_path)
    assert data.index.max_ignored == 1
    sample = data.sample(0)
    assert sample.boxes.tolist() == [[4, 4, 20, 24], [40, 6, 56, 28]]
    assert (sample.ignored.tolist(), sample.ignored_labels.tolist()) == ([[2, 2, 18, 18]], [-1])
    flipped = with_areas(tmp_path, flip=1.0).sample(0)
    assert flipped.ignored.tolist() == [[46, 2, 62, 18]]
    assert flipped.labels.tolist() == [0, 1]


def test_collate_pads_areas(tmp_path: Path) -> None:
    data = with_areas(tmp_path)
    batch = collate([data.sample(0), data.sample(1)], max_objects=2, max_ignored=data.index.max_ignored)
    assert isinstance(batch, Batch)
    assert batch.ignored.tolist() == [[[2, 2, 18, 18]], [[0, 0, 0, 0]]]
    assert batch.ignored_labels.tolist() == [[-1], [-1]]
    none = collate([data.sample(1)], max_objects=2)
    assert isinstance(none, Batch)
    assert (none.ignored.shape, none.ignored_labels.shape) == ((1, 0, 4), (1, 0))


def test_a_later_number_is_the_same_image_with_other_chance(tmp_path: Path) -> None:
    data = dataset(write_kitti(tmp_path, LABELS), flip=0.5)
    visits = [data.sample(2 * visit) for visit in range(12)]
    assert {Path(sample.id).stem for sample in visits} == {"a"}
    assert {float(sample.boxes[0, 0]) for sample in visits} == {4.0, 44.0}


def test_collate_pads_images_of_different_sizes() -> None:
    def sample(height: int, width: int) -> Sample:
        nothing = torch.zeros(0)
        image = torch.ones(1, height, width)
        boxes, labels = nothing.reshape(0, 4), nothing.long()
        return Sample(image, boxes, labels, nothing.bool(), boxes, labels, (height, width), "")

    batch = collate([sample(2, 3), sample(4, 1)], max_objects=1)
    assert isinstance(batch, Batch)
    assert batch.images.shape == (2, 1, 4, 3)
    assert batch.images.sum((1, 2, 3)).tolist() == [6, 4]
    assert batch.image_sizes.tolist() == [[2, 3], [4, 1]]


def test_dropping_in_a_sample_agrees_with_the_index(tmp_path: Path) -> None:
    """Random boxes at and over every edge: `prepare` must keep just what an unflipped sample keeps."""
    rng = np.random.default_rng(0)
    lines = [
        label("car", *np.round(rng.uniform(-4, 34, 2), 2), *np.round(rng.uniform(-4, 34, 2), 2))
        for _ in range(300)
    ]
    write_kitti(tmp_path, {"a": lines}, width=31, height=17)
    source = read_kitti(image_root=tmp_path, labels=tmp_path / "label_2")
    min_size = (2.0, 1.5)
    index, _ = prepare(
        [source], class_mapping={"car": "c"}, geometry=SMALL, max_objects=300, min_size=min_size
    )
    steps = chain(geometry=SMALL, mean=(0, 0, 0), scale=1.0, bgr=False)
    sample = DetectionDataset(index, transforms=steps, min_size=min_size).sample(0)
    assert 20 < len(index.boxes) < 150
    assert len(sample.boxes) == len(index.boxes)
