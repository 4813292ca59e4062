"""Frames as records of the TAO converter, written without TensorFlow."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from frcnn.data.readers.kitti import Label
from frcnn.data.readers.tfrecord import example_class, masked_crc
from frcnn.errors import DataError

POINT_CLOUD_CHANNELS = 4
_COLUMNS = [
    *(f"target/coordinates_{corner}" for corner in ("x1", "y1", "x2", "y2")),
    *(f"target/world_bbox_{name}" for name in ("h", "w", "l", "x", "y", "z", "rot_y")),
    *("target/truncation", "target/observation_angle"),
]


class Calibration(NamedTuple):
    """Where the lidar looks; matrices row by row."""

    lidar_to_camera: Sequence[float]  # 4x4
    lidar_to_image: Sequence[float]  # 3x4


class Frame(NamedTuple):
    """An image with its objects, as a record holds them."""

    id: str
    height: int
    width: int
    objects: Sequence[Label]
    point_cloud: str | None = None
    calibration: Calibration | None = None


def record(frame: Frame) -> bytes:
    """A frame as a record: length, masked CRC, `tf.train.Example`, masked CRC (spec-and-data 3.7 and 3.8).

    The same frame gives the same bytes: keys are sorted, which protobuf leaves open.

    Raises:
        DataError: a name is no Unicode text, or a number is too large.
    """
    example = example_class()()
    features = example.features.feature
    try:
        for key, kind, values in _features(frame):
            column = getattr(features[key], kind)
            if values:
                column.value.extend(values)
            else:
                column.SetInParent()  # TAO: an empty list is there, and of its kind
    except (UnicodeEncodeError, ValueError) as error:
        where = frame.id.encode(errors="backslashreplace").decode()
        raise DataError("the frame cannot be written", where=where, found=error) from None
    return framed(example.SerializeToString(deterministic=True))


def framed(payload: bytes) -> bytes:
    """A payload between its length and checksums."""
    length = struct.pack("<Q", len(payload))
    return b"".join(
        [length, struct.pack("<I", masked_crc(length)), payload, struct.pack("<I", masked_crc(payload))]
    )


def _features(frame: Frame) -> Iterator[tuple[str, str, Sequence[bytes] | Sequence[int] | Sequence[float]]]:
    """Key, kind and values of everything in a frame's record."""
    objects = frame.objects
    yield "frame/id", "bytes_list", [frame.id.encode()]
    yield "frame/height", "int64_list", [frame.height]
    yield "frame/width", "int64_list", [frame.width]
    yield "target/object_class", "bytes_list", [label.name.encode() for label in objects]
    yield "target/occlusion", "int64_list", [label.occlusion for label in objects]
    rows = [
        (*label.box, *label.dimensions, *label.location, label.rotation_y, label.truncation, label.alpha)
        for label in objects
    ]
    columns: Iterable[Sequence[float]] = zip(*rows, strict=True) if rows else [()] * len(_COLUMNS)
    for key, column in zip(_COLUMNS, columns, strict=True):
        yield key, "float_list", column
    if frame.point_cloud is not None:
        yield "point_cloud/id", "bytes_list", [frame.point_cloud.encode()]
        yield "point_cloud/num_input_channels", "int64_list", [POINT_CLOUD_CHANNELS]
    if frame.calibration is not None:
        yield "calibration/T_lidar_to_camera", "float_list", frame.calibration.lidar_to_camera
        yield "calibration/P_lidar_to_image", "float_list", frame.calibration.lidar_to_image
