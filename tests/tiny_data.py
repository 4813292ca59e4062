"""Writes tiny data sets: KITTI folders, and record files by an encoder of its own, byte by byte."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

Value = bytes | float | int

LINE = "{name} 0.00 {occlusion} 0.00 {x1} {y1} {x2} {y2} 0 0 0 0 0 0 0"


def label(name: str, x1: float, y1: float, x2: float, y2: float, occlusion: int = 0) -> str:
    return LINE.format(name=name, occlusion=occlusion, x1=x1, y1=y1, x2=x2, y2=y2)


def write_image(path: Path, *, width: int = 32, height: int = 16, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_kitti(
    root: Path, labels: Mapping[str, Sequence[str]], *, width: int = 32, height: int = 16
) -> Path:
    """`root/image_2/<stem>.png` and `root/label_2/<stem>.txt` for every stem."""
    (root / "label_2").mkdir(parents=True, exist_ok=True)
    for seed, (stem, lines) in enumerate(labels.items()):
        write_image(root / "image_2" / f"{stem}.png", width=width, height=height, seed=seed)
        (root / "label_2" / f"{stem}.txt").write_text("".join(f"{line}\n" for line in lines))
    return root


def crc32c(data: bytes) -> int:
    """Bit by bit, from the definition: reflected polynomial 0x82F63B78."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(payload: bytes) -> bytes:
    length = struct.pack("<Q", len(payload))
    return length + masked(length) + payload + masked(payload)


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def chunk(number: int, data: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(kind: str, values: Sequence[Value]) -> bytes:
    if kind == "bytes":
        return chunk(1, b"".join(chunk(1, value) for value in values if isinstance(value, bytes)))
    if kind == "float":
        return chunk(2, chunk(1, struct.pack(f"<{len(values)}f", *values)))
    return chunk(3, chunk(1, b"".join(varint(int(value)) for value in values)))


def example(features: Mapping[str, tuple[str, Sequence[Value]]]) -> bytes:
    entries = [
        chunk(1, chunk(1, key.encode()) + chunk(2, feature(*value))) for key, value in features.items()
    ]
    return chunk(1, b"".join(entries))


def frame(
    frame_id: str, objects: Sequence[tuple[str, int, float, float, float, float]], *, size: tuple[int, int]
) -> dict[str, tuple[str, Sequence[Value]]]:
    """The features of a frame of size (height, width); objects are (name, occlusion, x1, y1, x2, y2)."""
    names, occlusions, *corners = zip(*objects, strict=True) if objects else [()] * 6
    return {
        "frame/id": ("bytes", [frame_id.encode()]),
        "frame/height": ("int", [size[0]]),
        "frame/width": ("int", [size[1]]),
        "target/object_class": ("bytes", [str(name).encode() for name in names]),
        "target/occlusion": ("int", occlusions),
        "target/truncation": ("float", [0.0] * len(names)),
        **{
            f"target/coordinates_{key}": ("float", values)
            for key, values in zip(("x1", "y1", "x2", "y2"), corners, strict=True)
        },
    }
