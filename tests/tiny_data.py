"""Writes tiny data sets: KITTI, COCO and VOC, and record files by an encoder of its own, byte by byte."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

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


def coco(
    images: Sequence[str], annotations: Sequence[tuple[int, str, Sequence[float], int]]
) -> dict[str, Any]:
    """A COCO file's content: 32x16 images with ids from 10, and (image id, name, xywh, iscrowd) from id 100."""
    names = list(dict.fromkeys(name for _, name, _, _ in annotations))
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 10 + i, "file_name": name, "width": 32, "height": 16} for i, name in enumerate(images)
        ],
        "categories": [{"id": 1 + i, "name": name} for i, name in enumerate(names)],
        "annotations": [
            {
                "id": 100 + i,
                "image_id": image,
                "category_id": 1 + names.index(name),
                "bbox": list(box),
                "iscrowd": crowd,
                "segmentation": [[1.5, 2.5]],
            }
            for i, (image, name, box, crowd) in enumerate(annotations)
        ],
    }


def write_coco(root: Path, content: Mapping[str, Any]) -> Path:
    """`root/labels.json` and a picture for every entry of it."""
    for image in content["images"]:
        write_image(root / image["file_name"])
    path = root / "labels.json"
    path.write_text(json.dumps(content))
    return path


def voc(
    objects: Sequence[tuple[str, float, float, float, float]], *, filename: str = "", difficult: int = 0
) -> str:
    """A VOC annotation of a 32x16 image."""
    items = "".join(
        f"<object>\n<name>{name}</name>\n<difficult>{difficult}</difficult>\n<bndbox><xmin>{x1}</xmin>"
        f"<ymin>{y1}</ymin>\n<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>\n"
        for name, x1, y1, x2, y2 in objects
    )
    size = "<size><width>32</width><height>16</height><depth>3</depth></size>"
    return f"<annotation>\n<filename>{filename}</filename>\n{size}\n{items}</annotation>\n"


def write_voc(root: Path, annotations: Mapping[str, str]) -> Path:
    """`root/Annotations/<id>.xml`, `root/JPEGImages/<id>.jpg` and `root/ImageSets/Main/train.txt` with all ids."""
    for folder in ("Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in annotations.items():
        (root / "Annotations" / f"{name}.xml").write_text(text)
        write_image(root / "JPEGImages" / f"{name}.jpg")
    (root / "ImageSets" / "Main" / "train.txt").write_text("".join(f"{name}\n" for name in annotations))
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
