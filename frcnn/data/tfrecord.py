"""TFRecord files of the TAO converter, read without TensorFlow."""

import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, text_format

from frcnn.data.index import ImageFolder, Index, IndexBuilder, Source
from frcnn.errors import DataError

_CORNERS = [f"target/coordinates_{corner}" for corner in ("x1", "y1", "x2", "y2")]
_POLYGON = [f"target/coordinates/{part}" for part in ("x", "y", "index")]
_NEEDED = ["frame/id", "frame/height", "frame/width", "target/object_class", "target/occlusion"]
_VERTICES = 4
_EXAMPLE_PROTO = """
name: "example.proto" package: "frcnn.tf" syntax: "proto3"
message_type { name: "BytesList" field { name: "value" number: 1 type: TYPE_BYTES label: LABEL_REPEATED } }
message_type { name: "FloatList" field { name: "value" number: 1 type: TYPE_FLOAT label: LABEL_REPEATED } }
message_type { name: "Int64List" field { name: "value" number: 1 type: TYPE_INT64 label: LABEL_REPEATED } }
message_type {
  name: "Feature"
  field { name: "bytes_list" number: 1 type_name: "BytesList" oneof_index: 0 }
  field { name: "float_list" number: 2 type_name: "FloatList" oneof_index: 0 }
  field { name: "int64_list" number: 3 type_name: "Int64List" oneof_index: 0 }
  oneof_decl { name: "kind" }
}
message_type {
  name: "Features"
  field { name: "feature" number: 1 type_name: "FeatureEntry" label: LABEL_REPEATED }
  nested_type {
    name: "FeatureEntry"
    field { name: "key" number: 1 type: TYPE_STRING }
    field { name: "value" number: 2 type_name: "Feature" }
    options { map_entry: true }
  }
}
message_type { name: "Example" field { name: "features" number: 1 type_name: "Features" } }
"""


def masked_crc(data: bytes) -> int:
    """CRC-32C, rotated right by 15 bits plus a constant, as TFRecord stores it."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_records(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (byte offset, payload) of every record of a file.

    A record is length (8 bytes, little endian), masked CRC of the length, payload, masked CRC of the
    payload. A length is believed only after its CRC and against what is left of the file.

    Raises:
        DataError: a checksum does not fit, or the file ends inside a record.
    """
    try:
        with open(path, "rb") as file:
            left = os.fstat(file.fileno()).st_size
            offset = 0
            while left:
                where = f"{path}, record at byte {offset}"
                head = file.read(12)
                if len(head) < 12:
                    raise DataError("the file ends inside a record", where=where, found=f"{len(head)} bytes")
                length, crc = struct.unpack("<QI", head)
                if crc != masked_crc(head[:8]):
                    raise DataError(
                        "the checksum of the record's length does not fit",
                        where=where,
                        hint="the file is damaged" if offset else "is this a TFRecord file?",
                    )
                if length + 16 > left:
                    raise DataError(
                        "the file ends inside a record",
                        where=where,
                        found=f"{left} bytes",
                        allowed=f"{length + 16} bytes, as the record says",
                    )
                body = file.read(length + 4)
                payload = body[:-4]
                if len(body) != length + 4 or masked_crc(payload) != int.from_bytes(body[-4:], "little"):
                    raise DataError(
                        "the checksum of the record does not fit", where=where, hint="the file is damaged"
                    )
                yield offset, payload
                offset += length + 16
                left -= length + 16
    except OSError as error:
        raise DataError("the record file cannot be read", where=path, found=error.strerror) from error


@cache
def example_class() -> Any:
    """The message class of `tf.train.Example`, in a pool of its own beside TensorFlow's."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_EXAMPLE_PROTO, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("frcnn.tf.Example"))


def read_tfrecords(
    *, files: Sequence[Path], image_root: Path, image_extension: str = "png", name: str | None = None
) -> Source:
    """Index the records of the TAO converter; the image of a frame is `<image_root>/<frame/id>.<extension>`.

    Args:
        files: record files, in the order to read them; some may be empty.
        image_root: the folder that frame ids are relative to.
        image_extension: with or without its dot.
        name: what to call the source in reports; the first file by default.

    Raises:
        DataError: a file is damaged, a record lacks a key or holds nonsense, images are missing, or
            there is no record at all.
    """
    builder = IndexBuilder(ImageFolder(str(image_root), image_extension.removeprefix(".")))
    for path in files:
        for offset, payload in read_records(path):
            _add_record(builder, payload, where=f"{path}, record at byte {offset}")
    index = builder.build()
    name = name or (str(files[0]) if files else "no files")
    if not len(index):
        raise DataError("the record files hold no records", where=name, found=f"{len(files)} files")
    _check_images(index)
    return Source(name, index)


def _add_record(builder: IndexBuilder, payload: bytes, *, where: str) -> None:
    """Parse one record and add its frame."""
    try:
        features = example_class().FromString(payload).features.feature
    except message.DecodeError as error:
        raise DataError("the record is no tf.train.Example", where=where, found=error) from error
    polygons = _CORNERS[0] not in features and _POLYGON[0] in features
    if missing := [key for key in (*_NEEDED, *(_POLYGON if polygons else _CORNERS)) if key not in features]:
        raise DataError(
            f"the record lacks {', '.join(missing)}",
            where=where,
            found=", ".join(sorted(features)) or "no keys",
            hint="other detectors write other keys: convert the labels for detection",
        )
    frame, *_ = _texts(features, "frame/id", where=where, count=1)
    height, width = (
        _values(features, key, "int64_list", where=where, count=1)[0]
        for key in ("frame/height", "frame/width")
    )
    if not frame or not (0 < height < 2**31 and 0 < width < 2**31):
        raise DataError("the frame has no name or no size", where=where, found=f"'{frame}', {width}x{height}")
    names = _texts(features, "target/object_class", where=where)
    occlusion = _values(features, "target/occlusion", "int64_list", where=where, count=len(names))
    read = _polygon_boxes if polygons else _corner_boxes
    boxes = read(features, len(names), where)
    if not all(map(math.isfinite, boxes)):
        raise DataError("a coordinate is no finite number", where=where, found=f"frame {frame}")
    builder.add(
        frame, (height, width), names=names, boxes=boxes, difficult=[level >= 1 for level in occlusion]
    )


def _corner_boxes(features: Mapping[str, Any], count: int, where: str) -> list[float]:
    """Flat x1, y1, x2, y2, x1, ... of the record's objects."""
    columns = [_values(features, key, "float_list", where=where, count=count) for key in _CORNERS]
    return list(chain.from_iterable(zip(*columns, strict=True)))


def _polygon_boxes(features: Mapping[str, Any], count: int, where: str) -> list[float]:
    """Flat boxes around the four vertices of each object, which `index` tells apart."""
    x, y, owners = (
        _values(features, key, kind, where=where, count=_VERTICES * count)
        for key, kind in zip(_POLYGON, ("float_list", "float_list", "int64_list"), strict=True)
    )
    if sorted(owners) != [i for i in range(count) for _ in range(_VERTICES)]:
        raise DataError(
            f"{_POLYGON[2]} does not give every object {_VERTICES} vertices", where=where, found=list(owners)
        )
    boxes = []
    for i in range(count):
        xs = [value for value, owner in zip(x, owners, strict=True) if owner == i]
        ys = [value for value, owner in zip(y, owners, strict=True) if owner == i]
        boxes += [min(xs), min(ys), max(xs), max(ys)]
    return boxes


def _values(
    features: Mapping[str, Any], key: str, kind: str, *, where: str, count: int | None = None
) -> Sequence[Any]:
    """The list under a key, of the right kind and length; a list of no kind is empty."""
    found = features[key].WhichOneof("kind")
    if found not in (kind, None):
        raise DataError(f"{key} is of the wrong kind", where=where, found=found, allowed=kind)
    values: Sequence[Any] = getattr(features[key], kind).value
    if count is not None and len(values) != count:
        raise DataError(f"{key} has the wrong length", where=where, found=len(values), allowed=count)
    return values


def _texts(features: Mapping[str, Any], key: str, *, where: str, count: int | None = None) -> list[str]:
    values = _values(features, key, "bytes_list", where=where, count=count)
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError as error:
        raise DataError(f"{key} is not UTF-8 text", where=where, found=list(values)) from error


def _check_images(index: Index) -> None:
    """Raise `DataError` if frames have no image file. Lists folders instead of asking for each file."""
    present: dict[Path, set[str]] = {}
    missing: list[Path] = []
    for i in range(len(index)):
        path = index.path(i)
        if path.parent not in present:
            present[path.parent] = set(os.listdir(path.parent)) if path.parent.is_dir() else set()  # noqa: PTH208
        if path.name not in present[path.parent]:
            missing.append(path)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(index)} records have no image",
            where=missing[0],
            found="; ".join(f"{folder} holds {len(names)} files" for folder, names in present.items()),
            hint="check the image folder and the extension",
        )
