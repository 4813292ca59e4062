import gzip
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_data import crc32c, example, frame, masked, record, write_image

from frcnn.data.index import Source
from frcnn.data.readers import tfrecord
from frcnn.data.readers.tfrecord import masked_crc, read_records, read_tfrecords
from frcnn.errors import DataError

OBJECTS = [("car", 0, 1.5, 2.0, 9.0, 10.0), ("van", 2, 0.0, 0.0, 5.0, 5.0)]


def read(folder: Path, *payloads: bytes) -> Source:
    write_image(folder / "image_2" / "a.png")
    (folder / "records").write_bytes(b"".join(map(record, payloads)))
    return read_tfrecords(files=[folder / "records"], image_root=folder)


def changed(**features: Any) -> bytes:
    """A valid frame with some features replaced, or left out where the value is None."""
    merged = frame("image_2/a", OBJECTS, size=(16, 32)) | {
        key.replace("__", "/"): value for key, value in features.items()
    }
    return example({key: value for key, value in merged.items() if value is not None})


def test_crc_vector() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert masked_crc(b"123456789") == 0xC78AB0E5
    assert masked(b"123456789") == struct.pack("<I", 0xC78AB0E5)


def test_records_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "r"
    path.write_bytes(record(b"one") + record(b"") + record(b"three"))
    assert list(read_records(path)) == [(0, b"one"), (19, b""), (35, b"three")]


def test_a_frame_with_objects_and_one_without(tmp_path: Path) -> None:
    source = read(tmp_path, changed(), example(frame("image_2/a", [], size=(8, 8))))
    index = source.index
    assert index.class_names == ("car", "van")
    np.testing.assert_array_equal(index.boxes, [[1.5, 2, 9, 10], [0, 0, 5, 5]])
    np.testing.assert_array_equal(index.difficult, [False, True])
    np.testing.assert_array_equal(index.offsets, [0, 2, 2])
    np.testing.assert_array_equal(index.sizes, [[16, 32], [8, 8]])
    assert index.path(0) == tmp_path / "image_2" / "a.png"


def test_other_features_and_negative_occlusion_do_not_matter(tmp_path: Path) -> None:
    payload = changed(
        target__occlusion=("int", [-1, 0]),
        target__truncation=None,
        calibration__P=("float", [1.0] * 12),
    )
    np.testing.assert_array_equal(read(tmp_path, payload).index.difficult, [False, False])


def test_polygons_become_boxes_around_their_vertices(tmp_path: Path) -> None:
    corners = {f"target__coordinates_{corner}": None for corner in ("x1", "y1", "x2", "y2")}
    x = [1.0, 9.0, 9.0, 1.0, 0.0, 5.0, 6.0, 0.0]
    y = [2.0, 2.0, 10.0, 10.0, 1.0, 0.0, 5.0, 5.0]
    polygons = {
        "target__coordinates__x": ("float", x),
        "target__coordinates__y": ("float", y),
        "target__coordinates__index": ("int", [0] * 4 + [1] * 4),
    }
    index = read(tmp_path, changed(**corners, **polygons)).index
    np.testing.assert_array_equal(index.boxes, [[1, 2, 9, 10], [0, 0, 6, 5]])
    polygons["target__coordinates__index"] = ("int", [0] * 5 + [1] * 3)
    with pytest.raises(DataError, match="does not give every object 4 vertices"):
        read(tmp_path, changed(**corners, **polygons))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"frame__width": None, "target__coordinates_y2": None}, "lacks frame/width, target/coordinates_y2"),
        ({"target__coordinates_x1": ("float", [1.0])}, "target/coordinates_x1 has the wrong length"),
        ({"target__occlusion": ("int", [])}, "target/occlusion has the wrong length"),
        ({"target__occlusion": ("float", [0.0, 0.0])}, "target/occlusion is of the wrong kind"),
        ({"target__object_class": ("bytes", [b"\xff", b"a"])}, "target/object_class is not UTF-8"),
        ({"target__coordinates_x2": ("float", [np.nan, 1.0])}, "a coordinate is no finite number"),
        ({"frame__height": ("int", [0])}, "the frame has no name or no size"),
        ({"frame__height": ("int", [2**40])}, "the frame has no name or no size"),
        ({"frame__id": ("bytes", [b""])}, "the frame has no name or no size"),
        ({"frame__id": ("bytes", [])}, "frame/id has the wrong length"),
    ],
)
def test_nonsense_in_a_record_names_file_and_offset(
    tmp_path: Path, features: dict[str, Any], message: str
) -> None:
    good = changed()
    with pytest.raises(DataError, match=message) as info:
        read(tmp_path, good, changed(**features))
    assert info.value.where == f"{tmp_path / 'records'}, record at byte {len(record(good))}"


def test_a_payload_that_is_no_example(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no tf\.train\.Example"):
        read(tmp_path, b"\xff\xff\xff")


def test_empty_shards_are_fine_and_no_record_at_all_is_not(tmp_path: Path) -> None:
    read(tmp_path, changed())
    (tmp_path / "empty").write_bytes(b"")
    files = [tmp_path / "empty", tmp_path / "records"]
    source = read_tfrecords(files=files, image_root=tmp_path, name="glob*")
    assert (len(source.index), source.name) == (1, "glob*")
    with pytest.raises(DataError, match="hold no records"):
        read_tfrecords(files=files[:1], image_root=tmp_path)


def test_missing_images_are_counted_when_reading(tmp_path: Path) -> None:
    payloads = [
        changed(),
        changed(frame__id=("bytes", [b"image_2/b"])),
        changed(frame__id=("bytes", [b"c/d"])),
    ]
    with pytest.raises(DataError, match="2 of 3 records have no image") as info:
        read(tmp_path, *payloads)
    assert info.value.where == tmp_path / "image_2" / "b.png"
    assert info.value.found == f"{tmp_path / 'image_2'} holds 1 files; {tmp_path / 'c'} holds 0 files"


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match="the record file cannot be read"):
            list(read_records(path))


def test_text_is_no_record_file(tmp_path: Path) -> None:
    (tmp_path / "r").write_text("syntax: proto3 and more text")
    with pytest.raises(DataError, match="is this a TFRecord file"):
        list(read_records(tmp_path / "r"))


def test_a_lying_length_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    length = struct.pack("<Q", 1 << 60)
    (tmp_path / "r").write_bytes(record(b"x") + length + masked(length) + b"short")
    with pytest.raises(DataError, match="the file ends inside a record") as info:
        list(read_records(tmp_path / "r"))
    assert info.value.where == f"{tmp_path / 'r'}, record at byte 17"
    assert str((1 << 60) + 16) in str(info.value.allowed)


def test_a_record_larger_than_any_is_refused_by_its_length(tmp_path: Path) -> None:
    length = struct.pack("<Q", tfrecord.MAX_RECORD + 1)
    with open(tmp_path / "r", "wb") as file:
        file.write(length + masked(length))
        file.truncate(1 << 33)  # sparse: takes no room
    with pytest.raises(DataError, match=r"r, record at byte 0: the record is too large\n  found: 16777217"):
        list(read_records(tmp_path / "r"))


def test_compressed_records_are_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(gzip.compress(record(b"x")))
    with pytest.raises(DataError, match="the file is compressed"):
        list(read_records(tmp_path / "r"))


def test_frames_may_lie_outside_the_image_folder(tmp_path: Path) -> None:
    write_image(tmp_path / "else" / "a.png")
    (tmp_path / "root").mkdir()
    for frame_id in (f"{tmp_path}/else/a", "../else/a", "./../else//a"):
        (tmp_path / "r").write_bytes(record(changed(frame__id=("bytes", [frame_id.encode()]))))
        source = read_tfrecords(files=[tmp_path / "r"], image_root=tmp_path / "root")
        assert source.index.path(0).samefile(tmp_path / "else" / "a.png")


@pytest.mark.parametrize("frame_id", ["image_2/" + "a" * 300, "a" * 5000 + "/b", "image_2/a\0", "a.png/b"])
def test_frames_that_no_file_can_have_are_missing(tmp_path: Path, frame_id: str) -> None:
    with pytest.raises(DataError, match="1 of 2 records have no image"):
        read(tmp_path, changed(), changed(frame__id=("bytes", [frame_id.encode()])))


@cache
def valid_file() -> tuple[bytes, list[bytes]]:
    payloads = [changed(), example(frame("image_2/a", [], size=(4, 4))), changed()]
    return b"".join(map(record, payloads)), payloads


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_is_a_data_error_or_leaves_whole_records(tmp_path: Path, data: st.DataObject) -> None:
    whole, payloads = valid_file()
    ends = [0]
    for payload in payloads:
        ends.append(ends[-1] + len(payload) + 16)
    damaged = bytearray(whole)
    if data.draw(st.booleans()):
        cut = data.draw(st.integers(0, len(whole)))
        del damaged[cut:]
        intact = cut in ends
    else:
        damaged[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        intact = False
    (tmp_path / "r").write_bytes(damaged)
    found = []
    try:
        found.extend(payload for _, payload in read_records(tmp_path / "r"))
    except DataError as error:
        assert not intact
        assert str(tmp_path / "r") in str(error)
    else:
        assert intact
        assert found == payloads[: ends.index(len(damaged))]


@given(payload=st.binary(max_size=60))
def test_any_payload_is_a_frame_or_a_data_error(payload: bytes) -> None:
    builder = tfrecord.IndexBuilder(tfrecord.ImageFolder("/", "png"))
    with pytest.raises(DataError):
        tfrecord._add_record(builder, payload)
