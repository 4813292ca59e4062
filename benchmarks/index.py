"""Opening data sets: how long 100,000 records take until they can be trained on, and what the index takes.

    python benchmarks/index.py [--records N] [--images N] [--folder DIR]

Records are like the TAO converter's, with all its features and about five objects, in ten shards that are
dropped from the page cache before reading. The peer is what one would write with protobuf alone: parse each
record and take all its values. Image headers are compared with Pillow, opening and decoding.
"""

import argparse
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from frcnn.data.geometry import fixed
from frcnn.data.prepare import prepare
from frcnn.data.readers.headers import image_size
from frcnn.data.readers.kitti import read_kitti
from frcnn.data.readers.shards import find_records
from frcnn.data.readers.tfrecord import example_class, masked_crc, read_records, read_tfrecords
from frcnn.data.toy import kitti_line
from frcnn.data.toy_scene import draw_scene

SHARDS = 10
CLASSES = ("car", "van", "pedestrian", "cyclist", "dontcare")
MAPPING = {"car": "car", "van": "car", "pedestrian": "person", "cyclist": "cyclist"}
WORLD = ("h", "w", "l", "x", "y", "z", "rot_y")
GEOMETRY = partial(fixed, size=(384, 1248), auto_resize=True)


def write_records(folder: Path, count: int) -> None:
    """`folder/image_2/*.png`, empty, and `folder/train-shard-*`."""
    chance = random.Random(0)
    (folder / "image_2").mkdir(parents=True)
    for shard in range(SHARDS):
        with open(folder / f"train-shard-{shard:05d}-of-{SHARDS:05d}", "wb") as file:
            for number in range(shard * count // SHARDS, (shard + 1) * count // SHARDS):
                (folder / "image_2" / f"{number:06d}.png").touch()
                file.write(framed(payload(f"image_2/{number:06d}", chance)))
            os.fsync(file.fileno())


def payload(frame: str, chance: random.Random) -> bytes:
    """An example with the 18 features that the converter always writes."""
    example = example_class()()
    features = example.features.feature
    objects = [chance.choice(CLASSES) for _ in range(chance.randint(3, 7))]
    x, y = ([chance.uniform(0, side) for _ in objects] for side in (1000, 300))
    zeros = [0.0] * len(objects)
    features["frame/id"].bytes_list.value.append(frame.encode())
    features["frame/height"].int64_list.value.append(375)
    features["frame/width"].int64_list.value.append(1242)
    features["target/object_class"].bytes_list.value.extend(name.encode() for name in objects)
    features["target/occlusion"].int64_list.value.extend(chance.randint(0, 2) for _ in objects)
    floats = {
        "coordinates_x1": x,
        "coordinates_y1": y,
        "coordinates_x2": [value + 50 for value in x],
        "coordinates_y2": [value + 40 for value in y],
        "truncation": zeros,
        "observation_angle": zeros,
        **{f"world_bbox_{name}": zeros for name in WORLD},
    }
    for name, values in floats.items():
        features[f"target/{name}"].float_list.value.extend(values)
    return bytes(example.SerializeToString())


def framed(data: bytes) -> bytes:
    """A record around a payload."""
    length = struct.pack("<Q", len(data))
    return b"".join(
        [length, struct.pack("<I", masked_crc(length)), data, struct.pack("<I", masked_crc(data))]
    )


def open_records(folder: Path) -> dict[str, float]:
    """Seconds of each step from a glob to what training takes, and of the peer."""
    for file in folder.glob("train-*"):
        with open(file, "rb") as shard:
            os.posix_fadvise(shard.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    start, processor = time.perf_counter(), time.process_time()
    files = find_records(str(folder / "train-*"))
    source = read_tfrecords(files=files, image_root=folder)
    read = time.perf_counter()
    prepare([source], class_mapping=MAPPING, geometry=GEOMETRY, max_objects=100)
    done, processor = time.perf_counter(), time.process_time() - processor
    for file in files:
        for _, data in read_records(file):
            take_all(data)
    peer = time.perf_counter() - done
    return {
        "read": read - start,
        "prepare": done - read,
        "in all": done - start,
        "processor": processor,
        "peer": peer,
    }


def take_all(data: bytes) -> dict[str, list[object]]:
    """All values of an example, the plain way."""
    features = example_class().FromString(data).features.feature
    return {key: list(getattr(value, value.WhichOneof("kind")).value) for key, value in features.items()}


def write_kitti(folder: Path, count: int, suffix: str) -> None:
    """KITTI folders whose images are links to one 1248x384 picture."""
    for name in ("image_2", "label_2"):
        (folder / name).mkdir(parents=True)
    picture, objects = draw_scene(np.random.default_rng(0), width=1248, height=384)
    first = folder / f"first.{suffix}"
    picture.save(first)
    lines = "".join(map(kitti_line, objects))
    for number in range(count):
        os.link(first, folder / "image_2" / f"{number:06d}.{suffix}")
        (folder / "label_2" / f"{number:06d}.txt").write_text(lines)


def decode(path: Path) -> None:
    """What finding a size by opening the image and decoding it takes."""
    with Image.open(path) as image:
        image.load()


def seconds_each(call: Callable[[Path], object], paths: Sequence[Path]) -> float:
    """Mean time of a call."""
    start = time.perf_counter()
    for path in paths:
        call(path)
    return (time.perf_counter() - start) / len(paths)


def main() -> None:
    """Print a line per measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=int, default=100_000, help="records to open")
    parser.add_argument("--images", type=int, default=5000, help="images in a KITTI folder")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        write_records(folder / "records", options.records)
        times = open_records(folder / "records")
        print(
            f"{options.records} records: {times['in all']:.2f} s to open ({times['read']:.2f} to read, "
            f"{times['prepare']:.2f} to prepare; {times['processor']:.2f} of a processor); protobuf alone, "
            f"all values: {times['peer']:.2f} s, {times['peer'] / times['in all']:.2f} times ours"
        )
        for suffix in ("jpg", "png"):
            root = folder / suffix
            write_kitti(root, options.images, suffix)
            start = time.perf_counter()
            read_kitti(image_root=root, labels=root / "label_2", image_extension=suffix)
            rate = options.images / (time.perf_counter() - start)
            paths = sorted((root / "image_2").iterdir())[:1000]
            header, whole = seconds_each(image_size, paths), seconds_each(decode, paths[:100])
            print(
                f"KITTI folder, {suffix}: {rate:,.0f} images/s; a size takes {header * 1e6:.0f} us, "
                f"decoding {whole * 1e6:.0f} us, {whole / header:.0f} times as long"
            )
    command = [sys.executable, str(Path(__file__).with_name("index_memory.py"))]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
