"""Records against an encoder of the tests' own (tiny_data) and the reader."""

import pytest
import tiny_data

from frcnn.data.convert.records import Calibration, Frame, framed, record
from frcnn.data.readers.kitti import parse_label
from frcnn.data.readers.tfrecord import example_class, read_records
from frcnn.errors import DataError

LABEL = "Car 0.50 2 -1.57 1.25 2 9 8.5 1 2 3 4 5 6 0.25"
# spec-and-data 3.7: key, kind and the values of the label above
FEATURES = {
    "frame/id": ("bytes", [b"image_2/000001"]),
    "frame/height": ("int", [16]),
    "frame/width": ("int", [32]),
    "target/object_class": ("bytes", [b"car", b"car"]),
    "target/truncation": ("float", [0.5, 0.5]),
    "target/occlusion": ("int", [2, 2]),
    "target/observation_angle": ("float", [-1.57, -1.57]),
    **{
        f"target/coordinates_{key}": ("float", [value] * 2)
        for key, value in {"x1": 1.25, "y1": 2, "x2": 9, "y2": 8.5}.items()
    },
    **{
        f"target/world_bbox_{key}": ("float", [value] * 2)
        for key, value in {"h": 1, "w": 2, "l": 3, "x": 4, "y": 5, "z": 6, "rot_y": 0.25}.items()
    },
}


def frame(count=2, **more):
    return Frame("image_2/000001", 16, 32, [parse_label(LABEL, where="")] * count, **more)


def features(data):
    return example_class().FromString(data[12:-4]).features.feature


def test_keys_kinds_and_values():
    expected = example_class().FromString(tiny_data.example(FEATURES)).features.feature
    assert dict(features(record(frame()))) == dict(expected)


def test_without_objects_the_keys_are_there_and_of_their_kind():
    empty = {
        key: (kind, [] if key.startswith("target") else values) for key, (kind, values) in FEATURES.items()
    }
    found = features(record(frame(0)))
    assert dict(found) == dict(example_class().FromString(tiny_data.example(empty)).features.feature)
    assert found["target/occlusion"].WhichOneof("kind") == "int64_list"


def test_framing():
    assert framed(b"abc") == tiny_data.record(b"abc")
    # spec-and-data 3.8: masked CRC-32C of 123456789
    assert framed(b"123456789")[-4:] == 0xC78AB0E5.to_bytes(4, "little")


def test_the_same_frame_gives_the_same_bytes(tmp_path):
    assert record(frame()) == record(frame())
    (tmp_path / "r").write_bytes(record(frame()) * 2)
    assert [offset for offset, _ in read_records(tmp_path / "r")] == [0, len(record(frame()))]


def test_point_clouds_and_calibrations():
    matrices = Calibration([float(i) for i in range(16)], [float(i) for i in range(12)])
    found = features(record(frame(point_cloud="velodyne/000001", calibration=matrices)))
    assert list(found["point_cloud/id"].bytes_list.value) == [b"velodyne/000001"]
    assert list(found["point_cloud/num_input_channels"].int64_list.value) == [4]
    assert list(found["calibration/T_lidar_to_camera"].float_list.value) == list(range(16))
    assert list(found["calibration/P_lidar_to_image"].float_list.value) == list(range(12))
    assert not any(key.startswith(("point", "calib")) for key in features(record(frame())))


@pytest.mark.parametrize("broken", [{"id": "a\udcff"}, {"label": {"occlusion": 2**63}}])
def test_what_no_record_can_hold(broken):
    label = parse_label(LABEL, where="")._replace(**broken.get("label", {}))
    with pytest.raises(DataError, match="cannot be written"):
        record(Frame(broken.get("id", "a"), 1, 1, [label]))
