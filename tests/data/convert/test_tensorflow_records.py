"""Our records and TensorFlow's are interchangeable: `make test-tensorflow`, or skipped without TensorFlow."""

from itertools import chain

import numpy as np
import pytest
from tiny_data import label, write_kitti

from frcnn.data.convert.kitti import KittiReader, plan_random
from frcnn.data.convert.pipeline import write_set
from frcnn.data.convert.sample_modifier import SampleModifier
from frcnn.data.readers.kitti import read_labels
from frcnn.data.readers.shards import find_records
from frcnn.data.readers.tfrecord import read_records, read_tfrecords

pytestmark = pytest.mark.tensorflow

OBJECTS = ("truncation", "observation_angle", *(f"coordinates_{key}" for key in ("x1", "y1", "x2", "y2")))
WORLD = tuple(f"world_bbox_{key}" for key in ("h", "w", "l", "x", "y", "z", "rot_y"))


@pytest.fixture(scope="module")
def tf():
    return pytest.importorskip("tensorflow")


@pytest.fixture
def kitti(tmp_path):
    """Three images: two objects, one with a name outside ASCII, none."""
    cars = [
        label("Car", 1.25, 2, 9.75, 8.1, occlusion=2),
        "Van 0.5 1 -1.57 3 4 10 12 1.5 1.6 4.1 -3 1.7 25 0.3",
    ]
    labels = {"a": cars, "b": [label("größe", 0, 0, 5, 5)], "c": []}
    return write_kitti(tmp_path / "kitti", labels)


@pytest.fixture
def records(kitti, tmp_path):
    reader = KittiReader(kitti, "image_2", "label_2", ".png", point_clouds="velodyne")
    plan = plan_random(reader, val_split=40, shards=2)
    write_set(plan, tmp_path / "out" / "t", modifier=SampleModifier(class_mapping={}), processes=1)
    return find_records(str(tmp_path / "out" / "t*"))


def test_tensorflow_reads_ours(tf, kitti, records):
    spec = {
        "frame/id": tf.io.FixedLenFeature([], tf.string),
        "frame/height": tf.io.FixedLenFeature([], tf.int64),
        "frame/width": tf.io.FixedLenFeature([], tf.int64),
        "point_cloud/id": tf.io.FixedLenFeature([], tf.string),
        "point_cloud/num_input_channels": tf.io.FixedLenFeature([], tf.int64),
        "target/object_class": tf.io.VarLenFeature(tf.string),
        "target/occlusion": tf.io.VarLenFeature(tf.int64),
        **{f"target/{key}": tf.io.VarLenFeature(tf.float32) for key in (*OBJECTS, *WORLD)},
    }
    seen = []
    for payload in tf.data.TFRecordDataset([str(path) for path in records]):
        assert set(tf.train.Example.FromString(payload.numpy()).features.feature) == set(spec)
        found = tf.io.parse_single_example(payload, spec)
        stem = found["frame/id"].numpy().decode().removeprefix("image_2/")
        seen.append(stem)
        assert found["point_cloud/id"].numpy().decode() == f"velodyne/{stem}"
        assert (found["frame/height"], found["frame/width"], found["point_cloud/num_input_channels"]) == (
            16,
            32,
            4,
        )
        columns = {key: found[f"target/{key}"].values.numpy() for key in (*OBJECTS, *WORLD)}
        labels = read_labels(kitti / "label_2" / f"{stem}.txt")
        assert [name.decode() for name in found["target/object_class"].values.numpy()] == [
            item.name for item in labels
        ]
        assert found["target/occlusion"].values.numpy().tolist() == [item.occlusion for item in labels]
        rows = [
            (item.truncation, item.alpha, *item.box, *item.dimensions, *item.location, item.rotation_y)
            for item in labels
        ]
        expected = np.array(rows, np.float32).reshape(-1, 13)
        np.testing.assert_array_equal(np.stack([*columns.values()], axis=1), expected)
    assert sorted(seen) == ["a", "b", "c"]


def test_we_read_what_tensorflow_writes(tf, kitti, records, tmp_path):
    payloads = [payload for path in records for _, payload in read_records(path)]
    theirs = tmp_path / "theirs"
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for payload in payloads:
            example = tf.train.Example.FromString(payload)
            writer.write(example.SerializeToString())
    assert [tf.train.Example.FromString(payload) for _, payload in read_records(theirs)] == [
        tf.train.Example.FromString(payload) for payload in payloads
    ]
    ours = read_tfrecords(files=records, image_root=kitti, image_extension="png").index
    index = read_tfrecords(files=[theirs], image_root=kitti, image_extension="png").index
    assert [index.frames[i] for i in range(3)] == [ours.frames[i] for i in range(3)]
    np.testing.assert_array_equal(index.boxes, ours.boxes)


def test_the_same_payload_gives_the_same_file(tf, records, tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "theirs")) as writer:
        for payload in chain.from_iterable(read_records(path) for path in records):
            writer.write(payload[1])
    assert (tmp_path / "theirs").read_bytes() == b"".join(path.read_bytes() for path in records)
