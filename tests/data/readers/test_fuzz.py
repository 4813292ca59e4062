"""Whatever a file holds: the right result or a DataError that names it; no hang, no crash, little memory."""

import json
import os
import re
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from project import ROOT
from tiny_data import coco, example, frame, label, masked, record, voc, write_image

from frcnn.data.readers import tfrecord
from frcnn.data.readers.coco import read_coco
from frcnn.data.readers.headers import image_size
from frcnn.data.readers.kitti import read_labels
from frcnn.data.readers.tfrecord import read_records, read_tfrecords
from frcnn.data.readers.voc import read_voc
from frcnn.errors import DataError

pytestmark = pytest.mark.timeout(120)


def of_records(root: Path, data: bytes) -> object:
    (root / "records").write_bytes(data)
    return read_tfrecords(files=[root / "records"], image_root=root)


def of_labels(root: Path, data: bytes) -> object:
    (root / "labels.txt").write_bytes(data)
    return read_labels(root / "labels.txt")


def of_coco(root: Path, data: bytes) -> object:
    (root / "labels.json").write_bytes(data)
    return read_coco(annotations=root / "labels.json", image_root=root)


def of_voc(root: Path, data: bytes) -> object:
    (root / "Annotations" / "a.xml").write_bytes(data)
    return read_voc(annotations=root / "Annotations", image_root=root, image_extension="png")


def of_list(root: Path, data: bytes) -> object:
    (root / "ImageSets" / "Main" / "train.txt").write_bytes(data)
    return read_voc(
        annotations=root / "ImageSets" / "Main" / "train.txt", image_root=root, image_extension="png"
    )


def of_size(root: Path, data: bytes) -> object:
    (root / "x.png").write_bytes(data)
    return image_size(root / "x.png")


def png() -> bytes:
    """The header of an 8x8 RGB file and nothing behind it, which is all that a size needs."""
    return bytes.fromhex("89504e470d0a1a0a0000000d49484452000000080000000808020000004b6d29dc")


def jpeg() -> bytes:
    """Start, a JFIF segment, the frame header of 16x9 pixels, start of scan; padded."""
    segments = (
        "ffd8 ffe0 0010 4a46494600 0101 00 0001 0001 00 00 ffc0 0011 08 0009 0010 03 012200 021101 031101"
    )
    return bytes.fromhex(segments.replace(" ", "") + "ffda000c03010002110311003f00" + "00" * 4)


OBJECTS = [("car", 0, 1.5, 2.0, 9.0, 10.0), ("van", 2, 0.0, 0.0, 5.0, 5.0)]
RECORD = example(frame("a", OBJECTS, size=(16, 32)))
Reader = Callable[[Path, bytes], object]
READERS: dict[str, tuple[Reader, bytes]] = {
    "records": (of_records, record(RECORD)),
    "labels": (of_labels, "\n".join(label("car", 1, 2, 9, 10) for _ in range(2)).encode()),
    "coco": (of_coco, json.dumps(coco(["a.png"], [(10, "car", [1, 2, 8, 9], 0)])).encode()),
    "voc": (of_voc, voc([("car", 1, 2, 9, 10)]).encode()),
    "voc list": (of_list, b"a\nb\n"),
    "png": (of_size, png()),
    "jpeg": (of_size, jpeg()),
}
each_reader = pytest.mark.parametrize(("read", "good"), READERS.values(), ids=READERS)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images a and b, and the annotation of b."""
    folder = tmp_path_factory.mktemp("data")
    for inner in ("Annotations", "ImageSets/Main"):
        (folder / inner).mkdir(parents=True)
    for name in ("a", "b"):
        write_image(folder / f"{name}.png")
        (folder / "Annotations" / f"{name}.xml").write_text(voc([]))
    return folder


def survives(read: Reader, root: Path, data: bytes) -> bool:
    """Whether the data was read; a refusal must be complete, printable and name the file."""
    if read is of_list:
        (root / "Annotations" / "a.xml").write_text(voc([]))
    try:
        read(root, data)
    except DataError as error:
        str(error).encode()
        assert str(root) in str(error.where)
        assert len(str(error)) < 3000
        return False
    return True


@each_reader
def test_the_undamaged_file_is_read(read: Reader, good: bytes, root: Path) -> None:
    assert survives(read, root, good)


@each_reader
def test_truncation_at_every_byte(read: Reader, good: bytes, root: Path) -> None:
    read_ones = [size for size in range(len(good)) if survives(read, root, good[:size])]
    if read is of_records:
        assert read_ones == []


@each_reader
def test_bits_flipped(read: Reader, good: bytes, root: Path) -> None:
    """Every third bit: two or three of each byte, and each of the eight in turn."""
    for position in range(0, 8 * len(good), 3):
        damaged = bytearray(good)
        damaged[position // 8] ^= 1 << position % 8
        done = survives(read, root, bytes(damaged))
        assert not (done and read is of_records), f"bit {position} is covered by no checksum"


def test_bits_of_a_record_flipped_under_a_right_checksum(root: Path) -> None:
    for position in range(0, 8 * len(RECORD), 3):
        damaged = bytearray(RECORD)
        damaged[position // 8] ^= 1 << position % 8
        survives(of_records, root, record(bytes(damaged)))


TOKENS = [
    *(
        b"\xff",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\0",
        b"\r",
        b"\n",
        b"\x0b",
        b"\x0c",
        b"\x1c",
        b"\xc2\x85",
        b"\xe2\x80\xa8",
    ),
    *(b"nan", b"1e400", b"-1e39", b"0x10", b"1_000", "١٢".encode(), b"Infinity", b"-0", b"9" * 5000),
    *(b"{", b"}", b"[" * 2000, b"]", b'"', b"\\ud800", b"null", b"true", b"{}", b'{"id":1}'),
    *(
        b"<",
        b">",
        b"<!DOCTYPE x>",
        b"&amp;",
        b"&#0;",
        b"<a>" * 2000,
        b"<![CDATA[",
        b"<?xml encoding='utf-16'?>",
    ),
    *(struct.pack("<Q", 1 << 63), b"\xff" * 10, b"\x80" * 20, b"\xff\xc0", b"\xff\xd9"),
]


@each_reader
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(TOKENS) | st.binary(max_size=8)),
        min_size=1,
        max_size=5,
    )
)
def test_pieces_cut_out_and_put_in(
    read: Reader, good: bytes, root: Path, edits: list[tuple[float, int, bytes]]
) -> None:
    data = good
    for place, cut, piece in edits:
        start = int(place * len(data))
        data = data[:start] + piece + data[start + cut :]
    survives(read, root, data)
    if read is of_records:  # the same damage below the checksums
        payload = RECORD
        for place, cut, piece in edits:
            start = int(place * len(payload))
            payload = payload[:start] + piece + payload[start + cut :]
        survives(read, root, record(payload))


@each_reader
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(data=st.binary(max_size=200))
def test_random_bytes(read: Reader, good: bytes, root: Path, data: bytes) -> None:
    survives(read, root, data)
    survives(read, root, good[:8] + data)


@pytest.mark.parametrize("name", ["labels", "coco", "voc", "voc list"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_encodings(name: str, encoding: str, root: Path) -> None:
    """UTF-8 with or without a mark is read; XML may also be UTF-16, as its standard says."""
    read, good = READERS[name]
    text = good.decode().replace("car", "\u00e9") + ("\n\u00e9" if name == "voc list" else "")
    write_image(root / "\u00e9.png")
    (root / "Annotations" / "\u00e9.xml").write_text(voc([]))
    readable = encoding.startswith("utf-16") if name == "voc" else False
    assert survives(read, root, text.encode(encoding)) is (readable or encoding.startswith("utf-8"))


@pytest.mark.parametrize("end", [b"\r\n", b"\r"])
@pytest.mark.parametrize("name", ["labels", "coco", "voc", "voc list"])
def test_ends_of_lines(name: str, end: bytes, root: Path) -> None:
    read, good = READERS[name]
    assert survives(read, root, good.replace(b"\n", end))


def special_files(folder: Path) -> Iterator[tuple[str, Path]]:
    for kind in ("missing", "folder", "pipe", "loop", "dangling"):
        yield kind, folder / kind
    yield "device", Path("/dev/zero")
    yield "nul", folder / "a\0b"
    yield "long", folder / ("a" * 300)


@pytest.mark.parametrize(
    "read",
    [
        lambda path: list(read_records(path)),
        read_labels,
        lambda path: read_coco(annotations=path, image_root=path.parent),
        image_size,
    ],
    ids=["records", "labels", "coco", "size"],
)
def test_what_is_no_regular_file_is_named_at_once(tmp_path: Path, read: Callable[[Path], object]) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    for kind, path in special_files(tmp_path):
        with pytest.raises(DataError) as info:
            read(path)
        assert str(info.value.where) == str(path), kind


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_special_files_among_annotations(tmp_path: Path, kind: str) -> None:
    (tmp_path / "Annotations").mkdir()
    path = tmp_path / "Annotations" / "a.xml"
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "loop": lambda: path.symlink_to(path)}[kind]()
    with pytest.raises(DataError, match=re.escape(str(path))):
        read_voc(annotations=tmp_path / "Annotations", image_root=tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"")
    path.chmod(0)
    for read in (read_labels, image_size, lambda path: list(read_records(path))):
        with pytest.raises(DataError, match="Permission denied"):
            read(path)


@pytest.mark.parametrize("length", [tfrecord.MAX_RECORD, 10 << 30, (10 << 30) - 16, 1 << 63, (1 << 64) - 1])
def test_a_lying_length_takes_less_than_64_mib(tmp_path: Path, length: int) -> None:
    """In a sparse file of 10 GiB, so that a length below that fits what is left of the file."""
    head = struct.pack("<Q", length)
    with open(tmp_path / "r", "wb") as file:
        file.write(head + masked(head))
        file.truncate(10 << 30)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"r, record at byte 0: "):
            list(read_records(tmp_path / "r"))
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "read",
    [
        read_labels,
        lambda path: read_voc(annotations=path.parent, image_root=path.parent),
        lambda path: read_coco(annotations=path, image_root=path.parent),
    ],
    ids=["labels", "voc", "coco"],
)
def test_huge_text_files_are_refused_by_their_size(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with open(tmp_path / "a.xml", "wb") as file:
        file.truncate(10 << 30)
    with pytest.raises(DataError, match=r"a\.xml: the .* is too large\n  found: 10737418240 bytes"):
        read(tmp_path / "a.xml")


HOSTILE = """
import re, struct, sys
from tiny_data import chunk, example, frame, record
from frcnn.data.readers import tfrecord
from frcnn.errors import DataError

size = 4 << 20
no_names = frame("a", [], size=(4, 4))
del no_names["target/object_class"]
many_names = chunk(1, chunk(1, chunk(1, b"target/object_class") + chunk(2, chunk(1, bytes([10, 0]) * (size // 2)))))
payload = {
    "empty entries": lambda: chunk(1, bytes([10, 0]) * (size // 2)),
    "different keys": lambda: chunk(
        1, b"".join(chunk(1, chunk(1, struct.pack(">I", i).hex().encode())) for i in range(size // 12))
    ),
    "empty names": lambda: example(no_names) + many_names,
    "packed numbers": lambda: chunk(
        1, chunk(1, chunk(1, b"target/occlusion") + chunk(2, chunk(3, chunk(1, bytes([1]) * size))))
    ),
    "unknown fields": lambda: bytes([40, 1]) * (size // 2),
    "open groups": lambda: bytes([43]) * size,
}[sys.argv[1]]()
def peak():  # ru_maxrss starts at what the parent process had
    return int(re.search("VmHWM:[^0-9]*([0-9]+)", open("/proc/self/status").read())[1]) * 1024


before = peak()
builder = tfrecord.IndexBuilder(tfrecord.ImageFolder("/", "png"))
try:
    tfrecord._add_record(builder, payload)
except DataError:
    sys.stdout.write(str((peak() - before) / size))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
@pytest.mark.parametrize(
    "case",
    ["empty entries", "different keys", "empty names", "packed numbers", "unknown fields", "open groups"],
)
def test_a_hostile_record_takes_a_multiple_of_its_size(case: str) -> None:
    """With right checksums, so that the parser sees all of it."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    command = [sys.executable, "-c", HOSTILE, case]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 40  # 25 for names; the rest is room for other allocators
