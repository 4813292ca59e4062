"""TFRecord files of the TAO converter, read without TensorFlow."""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain, islice
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory, text_format

from frcnn.data.index import ImageFolder, IndexBuilder, Source
from frcnn.data.readers.files import Problem, check_images, open_regular, refuse
from frcnn.errors import DataError

_CORNERS = [f"target/coordinates_{corner}" for corner in ("x1", "y1", "x2", "y2")]
_POLYGON = [f"target/coordinates/{part}" for part in ("x", "y", "index")]
_NEEDED = ["frame/id", "frame/height", "frame/width", "target/object_class", "target/occlusion"]
_VERTICES = 4
MAX_RECORD = 16 << 20  # bytes of payload, 80,000 objects; parsing takes up to 25 times as much memory
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
    payload. A length is believed only after its CRC, up to `MAX_RECORD`, and against what is left of the
    file, so that a lie takes no more memory than that.

    Raises:
        DataError: a checksum does not fit, a record is too large, or the file ends inside one.
    """
    try:
        with open_regular(path) as file:
            left = os.fstat(file.fileno()).st_size
            offset = 0
            while left:
                head = file.read(12)
                length = int.from_bytes(head[:8], "little")
                if len(head) < 12 or masked_crc(head[:8]) != int.from_bytes(head[8:], "little"):
                    raise _bad_head(head, offset, path)
                if length > MAX_RECORD or length + 16 > left:
                    raise _bad_length(length, left, offset, path)
                payload = file.read(length)
                if masked_crc(payload) != int.from_bytes(file.read(4), "little"):
                    raise DataError(
                        "the checksum of the record does not fit",
                        where=_place(path, offset),
                        hint="the file is damaged",
                    )
                yield offset, payload
                offset += length + 16
                left -= length + 16
    except OSError as error:
        raise DataError("the record file cannot be read", where=path, found=error.strerror) from error


def _place(path: Path, offset: int) -> str:
    return f"{path}, record at byte {offset}"


def _bad_head(head: bytes, offset: int, path: Path) -> DataError:
    where = _place(path, offset)
    if len(head) < 12:
        return DataError("the file ends inside a record", where=where, found=f"{len(head)} bytes")
    if head.startswith(b"\x1f\x8b") and not offset:
        return DataError("the file is compressed", where=where, hint="gunzip it: plain TFRecords are read")
    return DataError(
        "the checksum of the record's length does not fit",
        where=where,
        found=head.hex(" "),
        hint="the file is damaged" if offset else "is this a TFRecord file?",
    )


def _bad_length(length: int, left: int, offset: int, path: Path) -> DataError:
    where = _place(path, offset)
    if length + 16 > left:
        return DataError(
            "the file ends inside a record",
            where=where,
            found=f"{left} bytes",
            allowed=f"{length + 16} bytes, as the record says",
        )
    return DataError(
        "the record is too large",
        where=where,
        found=f"{length} bytes",
        allowed=f"up to {MAX_RECORD} bytes; an image with five objects takes about 1000",
    )


@cache
def example_class() -> Any:
    """The message class of `tf.train.Example`, in a pool of its own beside TensorFlow's."""
    pool = descriptor_pool.DescriptorPool()
    pool.Add(text_format.Parse(_EXAMPLE_PROTO, descriptor_pb2.FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("frcnn.tf.Example"))


def read_tfrecords(
    *,
    files: Sequence[Path],
    image_root: Path,
    image_extension: str = "png",
    name: str | None = None,
    problem: Problem = refuse,
) -> Source:
    """Index the records of the TAO converter; the image of a frame is `<image_root>/<frame/id>.<extension>`.

    Args:
        files: record files, in the order to read them; some may be empty.
        image_root: the folder that frame ids are relative to.
        image_extension: with or without its dot.
        name: what to call the source in reports; the first file by default.
        problem: is told of single records that are damaged or hold nonsense, and of missing images; behind a
            damaged record nothing of its file is read.

    Raises:
        DataError: a file is damaged, a record lacks a key or holds nonsense, images are missing, or
            there is no record at all.
    """
    builder = IndexBuilder(ImageFolder(str(image_root), image_extension.removeprefix(".")))
    for path in files:
        try:
            for offset, payload in read_records(path):
                try:
                    _add_record(builder, payload)
                except DataError as error:
                    error.where = _place(path, offset)
                    problem(error)
        except DataError as error:
            problem(error)
    index = builder.build()
    name = name or (str(files[0]) if files else "no files")
    if not len(index):
        raise DataError("the record files hold no records", where=name, found=f"{len(files)} files")
    check_images(index, what="records", problem=problem)
    return Source(name, index)


def _add_record(builder: IndexBuilder, payload: bytes) -> None:
    """Parse one record and add its frame; its `DataError` does not know the place yet."""
    try:
        features = example_class().FromString(payload).features.feature
    except message.DecodeError as error:
        raise DataError("the record is no tf.train.Example", found=error) from error
    polygons = _CORNERS[0] not in features and _POLYGON[0] in features
    if missing := [key for key in (*_NEEDED, *(_POLYGON if polygons else _CORNERS)) if key not in features]:
        raise DataError(
            f"the record lacks {', '.join(missing)}",
            found=_some(sorted(features)) or "no keys",
            hint="other detectors write other keys: convert the labels for detection",
        )
    (frame,) = _texts(features, "frame/id", count=1)
    (height,) = _values(features, "frame/height", "int64_list", count=1)
    (width,) = _values(features, "frame/width", "int64_list", count=1)
    if not frame or not (0 < height < 2**31 and 0 < width < 2**31):
        raise DataError("the frame has no name or no size", found=f"'{frame[:200]}', {width}x{height}")
    names = _texts(features, "target/object_class")
    occlusion = _values(features, "target/occlusion", "int64_list", count=len(names))
    boxes = (_polygon_boxes if polygons else _corner_boxes)(features, len(names))
    if not math.isfinite(sum(boxes)):  # float32 values, whose sum is far from the largest float
        raise DataError("a coordinate is no finite number", found=f"frame {frame[:200]}")
    builder.add(
        frame, (height, width), names=names, boxes=boxes, difficult=[level >= 1 for level in occlusion]
    )


def _corner_boxes(features: Mapping[str, Any], count: int) -> list[float]:
    """Flat x1, y1, x2, y2, x1, ... of the record's objects."""
    x1, y1, x2, y2 = (_values(features, key, "float_list", count=count) for key in _CORNERS)
    return list(chain.from_iterable(zip(x1, y1, x2, y2, strict=True)))


def _polygon_boxes(features: Mapping[str, Any], count: int) -> list[float]:
    """Flat boxes around the four vertices of each object, which `index` tells apart."""
    x, y, owners = (
        np.asarray(_values(features, key, kind, count=_VERTICES * count))
        for key, kind in zip(_POLYGON, ("float_list", "float_list", "int64_list"), strict=True)
    )
    order = np.argsort(owners, kind="stable")
    if not np.array_equal(owners[order], np.repeat(np.arange(count), _VERTICES)):
        raise DataError(f"{_POLYGON[2]} does not give every object {_VERTICES} vertices", found=_some(owners))
    x, y = x[order].reshape(-1, _VERTICES), y[order].reshape(-1, _VERTICES)
    corners: list[float] = np.stack([x.min(1), y.min(1), x.max(1), y.max(1)], axis=1).ravel().tolist()
    return corners


def _values(features: Mapping[str, Any], key: str, kind: str, *, count: int | None = None) -> list[Any]:
    """The list under a key, of the right kind and length; a list of no kind is empty."""
    values: list[Any] = getattr(features[key], kind).value[:]
    if len(values) == count and count:
        return values
    # A list of another kind looks empty, and asking for the kind takes as long as all the rest.
    if not values and (found := features[key].WhichOneof("kind")) not in (kind, None):
        raise DataError(f"{key} is of the wrong kind", found=found, allowed=kind)
    if count is not None and len(values) != count:
        raise DataError(f"{key} has the wrong length", found=len(values), allowed=count)
    return values


def _texts(features: Mapping[str, Any], key: str, *, count: int | None = None) -> list[str]:
    values = _values(features, key, "bytes_list", count=count)
    try:
        return [value.decode() for value in values]
    except UnicodeDecodeError as error:
        raise DataError(f"{key} is not UTF-8 text", found=_some(map(repr, values))) from error


def _some(items: Iterable[object]) -> str:
    """The first ten items, for a message."""
    first = [str(item)[:80] for item in islice(items, 11)]
    return ", ".join(first[:10]) + ", ..." * (len(first) > 10)
