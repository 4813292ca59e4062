"""KITTI folders as the TAO converter reads them."""

import json

import numpy as np
import pytest
from tiny_data import label, write_kitti

from frcnn.data.convert.kitti import KittiReader, missing_files, plan_random, plan_sequences, read_calibration
from frcnn.data.convert.pipeline import Skipped, write_set
from frcnn.data.convert.sample_modifier import SampleModifier
from frcnn.data.readers.tfrecord import example_class, read_records
from frcnn.errors import DataError

CAR = label("Car", 1, 2, 9, 8)
CALIBRATION = """P0: 0 0 0 0 0 0 0 0 0 0 0 0
P1: 0 0 0 0 0 0 0 0 0 0 0 0
P2: 2 0 0 1 0 2 0 0 0 0 1 0
P3: 0 0 0 0 0 0 0 0 0 0 0 0
R0_rect: 0 1 0 1 0 0 0 0 1
Tr_velo_to_cam: 1 0 0 5 0 1 0 6 0 0 1 7
Tr_imu_to_velo: 0 0 0 0 0 0 0 0 0 0 0 0
"""


def reader(root, **more):
    return KittiReader(root=root, images="image_2", labels="label_2", extension=".png", **more)


def features(converted):
    return example_class().FromString(converted.record[12:-4]).features.feature


def test_an_image_with_its_objects(tmp_path):
    write_kitti(tmp_path, {"a": [CAR, label("Van", 5.9, 2, 5.1, 8.7), label("DontCare", -1, -1, 3, 3)]})
    converted = reader(tmp_path)("a")
    found = features(converted)
    assert found["frame/id"].bytes_list.value[0] == b"image_2/a"
    assert (found["frame/height"].int64_list.value[0], found["frame/width"].int64_list.value[0]) == (16, 32)
    assert list(found["target/object_class"].bytes_list.value) == [b"car", b"dontcare"]
    assert list(found["target/coordinates_x1"].float_list.value) == [1, -1]
    assert converted.classes == ("car", "dontcare")
    # spec-and-data 3.2: truncated coordinates under <label file>_<index>
    assert converted.skipped == (Skipped(f"{tmp_path}/label_2/a.txt_1", "van", (5, 2, 5, 8)),)


@pytest.mark.parametrize("folder", ["image_2", "image_2/", "./image_2"])
def test_the_frame_id_spells_the_folder_as_the_spec_does(tmp_path, folder):
    write_kitti(tmp_path, {"a": []})
    converted = KittiReader(tmp_path, folder, "label_2", ".png", point_clouds="velo")("a")
    assert features(converted)["frame/id"].bytes_list.value[0].decode() == f"{folder.rstrip('/')}/a"
    assert features(converted)["point_cloud/id"].bytes_list.value[0] == b"velo/a"


def test_random_mode_sorts_by_file_name(tmp_path):
    # "a-b.png" comes before "a.png", though "a" comes before "a-b".
    write_kitti(tmp_path, {stem: [CAR] for stem in ("a", "a-b", "b", "c")})
    plan = plan_random(reader(tmp_path), val_split=25, shards=1)
    assert plan.partitions[0] == ["a-b"]
    assert sorted(plan.partitions[1]) == ["a", "b", "c"]
    assert (plan.folds, plan.shards, plan.warnings) == (2, [1, 1], [])


@pytest.mark.parametrize("val_split", [0, 24])
def test_without_validation_images_fold_0_is_training_and_said_so(tmp_path, val_split):
    write_kitti(tmp_path, {stem: [CAR] for stem in "abcd"})
    plan = plan_random(reader(tmp_path), val_split=val_split, shards=1)
    assert plan.partitions[0] == []
    (warning,) = plan.warnings
    assert "fold 000 holds the training images" in warning
    assert "validation_data_source" in warning


def test_sequences(tmp_path):
    write_kitti(tmp_path, {stem: [CAR] for stem in ("a0", "a1", "b0")})
    (tmp_path / "s.json").write_text(json.dumps({"a": ["a0", "a1"], "b": ["b0"]}))
    plan = plan_sequences(reader(tmp_path), file="s.json", partitions=2, shards=0)
    assert [sorted(part) for part in plan.partitions] == [["b0"], ["a0", "a1"]]
    plan = plan_sequences(reader(tmp_path), file="s.json", partitions=3, shards=0)
    assert "1 are empty, and the others are fold 000 to 001" in plan.warnings[0]


def test_missing_files_are_counted_in_one_error(tmp_path):
    write_kitti(tmp_path, {stem: [CAR] for stem in "abcdefgh"})
    for stem in "bcdefg":
        (tmp_path / "label_2" / f"{stem}.txt").unlink()
    with pytest.raises(DataError, match=r"6 of 8 images have no label file") as info:
        plan_random(reader(tmp_path), val_split=0, shards=1)
    assert info.value.found == "no b.txt, c.txt, d.txt, e.txt, f.txt, ..."
    assert "--allow-missing-labels" in info.value.hint
    lenient = reader(tmp_path, allow_missing=True)
    plan = plan_random(lenient, val_split=0, shards=1)
    assert plan.missing_labels == [f"{stem}.txt" for stem in "bcdefg"]
    summary = write_set(plan, tmp_path / "t", modifier=SampleModifier(class_mapping={}), processes=1)
    assert (summary.folds[0].images, summary.folds[0].empty) == (8, 6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        ("[1]", "no frames by sequence"),
        ("{}", "no frames by sequence"),
        ('{"s": [1]}', "no list of frames"),
        ('{"s": "a"}', "no list of frames"),
        ('{"s": ["../a"]}', "outside the image folder"),
        ('{"s": ["/etc/a"]}', "outside the image folder"),
        ('{"s": ["a", "nowhere"]}', "1 of 2 frames have no image"),
    ],
)
def test_broken_sequence_files(tmp_path, text, words):
    write_kitti(tmp_path, {"a": []})
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(DataError, match=words):
        plan_sequences(reader(tmp_path), file="s.json", partitions=2, shards=1)


def test_folders_that_are_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be listed"):
        plan_random(reader(tmp_path), val_split=0, shards=1)
    write_kitti(tmp_path, {"a": []})
    with pytest.raises(DataError, match=r"no \.jpg images") as info:
        plan_random(KittiReader(tmp_path, "image_2", "label_2", ".jpg"), val_split=0, shards=1)
    assert info.value.found == "files with suffix .png"
    with pytest.raises(DataError, match="label folder does not exist"):
        plan_random(KittiReader(tmp_path, "image_2", "labels", ".png"), val_split=0, shards=1)


def test_scores_only_when_asked_for(tmp_path):
    write_kitti(tmp_path, {"a": [f"{CAR} 0.9"]})
    with pytest.raises(DataError, match="16 columns"):
        reader(tmp_path)("a")
    assert reader(tmp_path, allow_scores=True)("a").classes == ("car",)


def test_calibration(tmp_path):
    # Read off the public implementation: T = R0_rect · Tr_velo_to_cam, P = P2 · T. R0_rect here swaps x and y,
    # Tr moves by (5, 6, 7), P2 doubles x and y and adds 1 to x.
    (tmp_path / "a.txt").write_text(CALIBRATION)
    found = read_calibration(tmp_path / "a.txt")
    transform = [[0, 1, 0, 6], [1, 0, 0, 5], [0, 0, 1, 7], [0, 0, 0, 1]]
    assert np.reshape(found.lidar_to_camera, (4, 4)).tolist() == transform
    assert np.reshape(found.lidar_to_image, (3, 4)).tolist() == [[0, 2, 0, 13], [2, 0, 0, 10], [0, 0, 1, 7]]
    write_kitti(tmp_path, {"a": []})
    (tmp_path / "calib").mkdir()
    with pytest.raises(DataError, match="calibration file cannot be read"):
        reader(tmp_path, calibrations="calib")("a")
    (tmp_path / "calib" / "a.txt").write_text(CALIBRATION)
    stored = features(reader(tmp_path, calibrations="calib")("a"))
    assert np.ravel(transform).tolist() == list(stored["calibration/T_lidar_to_camera"].float_list.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [("R0_rect:", "other:"), ("0 1 0 1 0 0 0 0 1", "0 1"), ("P2: 2", "P2: x"), ("P2: 2", "P2: nan")],
)
def test_broken_calibration(tmp_path, old, new):
    (tmp_path / "a.txt").write_text(CALIBRATION.replace(old, new))
    with pytest.raises(DataError, match="no calibration matrix"):
        read_calibration(tmp_path / "a.txt")


def test_missing_files_looks_into_folders(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.png").touch()
    assert missing_files(tmp_path, ["s/a.png", "s/b.png", "t/a.png"]) == ["s/b.png", "t/a.png"]


@pytest.mark.parametrize(("data", "val_split"), [("bccd", 14), ("carla", 14)])
def test_records_that_tensorflow_wrote(shared_data, tmp_path, data, val_split):
    """File by file and record by record what a TensorFlow converter with the original's rules made."""
    root = shared_data / data / "train"
    plan = plan_random(
        KittiReader(root=root, images="image_2", labels="label_2", extension=".jpg"),
        val_split=val_split,
        shards=4,
    )
    write_set(plan, tmp_path / "train", modifier=SampleModifier(class_mapping={}), processes=1)
    theirs = sorted((shared_data / data / "tfrecords").glob("train*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in theirs]
    for path in theirs:
        expected, found = (
            [example_class().FromString(payload).features for _, payload in read_records(file)]
            for file in (path, tmp_path / path.name)
        )
        assert found == expected
