"""Conversion of a KITTI data set: ours against Pillow for image sizes and against TensorFlow for the whole.

The peers are what the original does (Pillow's `Image.open(path).size`, which reads a header, one image after
the other, and TensorFlow's writer) and the same with decoding, as many converters do it. TensorFlow is
left out where it cannot be imported. Files are in the page cache, for all contenders alike.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from frcnn.data.convert.kitti import KittiReader, plan_random
from frcnn.data.convert.pipeline import write_set
from frcnn.data.convert.sample_modifier import SampleModifier
from frcnn.data.readers.headers import image_size, image_sizes
from frcnn.data.readers.kitti import Label

LABEL = "Car 0.00 1 -1.57 {x1:.2f} 173.33 {x2:.2f} 223.12 1.60 1.57 3.23 -2.70 1.74 3.68 -1.29\n"
DISTINCT = 20  # drawn; the others are links to these
OBJECTS = 7  # per image, as in KITTI
OURS, DECODING = "ours", "Pillow, decoding"


def draw(root: Path, *, images: int, suffix: str) -> None:
    """A KITTI folder with textured images of 1248x384."""
    generator = np.random.default_rng(0)
    for name in ("image_2", "label_2"):
        (root / name).mkdir(parents=True)
    for i in range(images):
        target = root / "image_2" / f"{i:06d}.{suffix}"
        if i < DISTINCT:
            coarse = generator.integers(0, 256, (24, 78, 3), np.uint8)
            smooth = np.asarray(
                Image.fromarray(coarse).resize((1248, 384), Image.Resampling.BICUBIC), np.int16
            )
            noisy = smooth + generator.integers(-6, 7, smooth.shape, np.int16)
            Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(target, quality=90)
        else:
            os.link(root / "image_2" / f"{i % DISTINCT:06d}.{suffix}", target)
        lines = [LABEL.format(x1=x, x2=x + 50) for x in generator.uniform(0, 1190, OBJECTS)]
        (root / "label_2" / f"{i:06d}.txt").write_text("".join(lines))


def pillow_size(path: Path, *, decode: bool) -> tuple[int, int]:
    """(height, width) by Pillow."""
    with Image.open(path) as image:
        if decode:
            image.load()
        return image.height, image.width


def size_contenders(root: Path) -> dict[str, Callable[[], object]]:
    """Ways to get the size of every image."""
    paths = sorted((root / "image_2").iterdir())
    return {
        OURS: lambda: image_sizes(paths),
        "ours, one after the other": lambda: [image_size(path) for path in paths],
        "Pillow, header": lambda: [pillow_size(path, decode=False) for path in paths],
        DECODING: lambda: [pillow_size(path, decode=True) for path in paths],
    }


def set_contenders(root: Path, suffix: str, processes: int) -> dict[str, Callable[[], object]]:
    """Ways to convert the folder."""

    def ours(count: int) -> None:
        reader = KittiReader(root, "image_2", "label_2", f".{suffix}")
        plan = plan_random(reader, val_split=14, shards=10)
        write_set(plan, root / "out" / "t", modifier=SampleModifier(class_mapping={}), processes=count)

    contenders: dict[str, Callable[[], object]] = {
        OURS: lambda: ours(processes),
        "ours, one process": lambda: ours(1),
    }
    try:
        import tensorflow as tf
    except ImportError:
        print("TensorFlow cannot be imported: no comparison of the whole conversion")
        return contenders

    def theirs(decode: bool) -> None:
        paths = sorted((root / "image_2").iterdir())
        for shard in range(10):
            with tf.io.TFRecordWriter(str(root / f"theirs-{shard}")) as writer:
                for path in paths[shard::10]:
                    height, width = pillow_size(path, decode=decode)
                    labels = plain_labels(root / "label_2" / f"{path.stem}.txt")
                    writer.write(_example(tf, path.stem, height, width, labels).SerializeToString())

    return contenders | {
        "TensorFlow and Pillow, header": lambda: theirs(False),
        f"TensorFlow and {DECODING}": lambda: theirs(True),
    }


def _example(tf: object, stem: str, height: int, width: int, labels: list) -> object:  # type: ignore[type-arg]
    train = tf.train  # type: ignore[attr-defined]

    def integers(*values: int) -> object:
        return train.Feature(int64_list=train.Int64List(value=values))

    def texts(*values: bytes) -> object:
        return train.Feature(bytes_list=train.BytesList(value=values))

    columns = {
        "truncation": [label.truncation for label in labels],
        "observation_angle": [label.alpha for label in labels],
        **{
            f"coordinates_{key}": [label.box[i] for label in labels]
            for i, key in enumerate(("x1", "y1", "x2", "y2"))
        },
        **{f"world_bbox_{key}": [label.dimensions[i] for label in labels] for i, key in enumerate("hwl")},
        **{f"world_bbox_{key}": [label.location[i] for label in labels] for i, key in enumerate("xyz")},
        "world_bbox_rot_y": [label.rotation_y for label in labels],
    }
    feature = {
        "frame/id": texts(f"image_2/{stem}".encode()),
        "frame/height": integers(height),
        "frame/width": integers(width),
        "target/object_class": texts(*(label.name.encode() for label in labels)),
        "target/occlusion": integers(*(label.occlusion for label in labels)),
    }
    for key, values in columns.items():
        feature[f"target/{key}"] = train.Feature(float_list=train.FloatList(value=values))
    return train.Example(features=train.Features(feature=feature))


def plain_labels(path: Path) -> list[Label]:
    """A label file as the original reads it, without our checks."""
    labels = []
    for line in path.read_text().splitlines():
        name, *columns = line.split()
        v = [float(column) for column in columns]
        if int(v[3]) < int(v[5]) and int(v[4]) < int(v[6]):
            box, dimensions, location = (v[3], v[4], v[5], v[6]), (v[7], v[8], v[9]), (v[10], v[11], v[12])
            labels.append(Label(name.lower(), v[0], int(v[1]), v[2], box, dimensions, location, v[13]))
    return labels


def compare(
    title: str, contenders: dict[str, Callable[[], object]], *, rounds: int, images: int
) -> dict[str, float]:
    """Time the contenders in turn; returns by how many times each is slower than ours."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if number:  # the first round fills caches
                taken[name].append(time.perf_counter() - start)
    ratios = {}
    print(f"\n{title}\n{'':36}{'s':>9}{'images/s':>11}{'x ours':>9}")
    for name, seconds in taken.items():
        # Rounds are paired: what disturbs the machine disturbs all contenders of a round.
        ratios[name] = statistics.median(s / o for s, o in zip(seconds, taken[OURS], strict=True))
        median = statistics.median(seconds)
        print(f"{name:36}{median:9.4f}{images / median:11.0f}{ratios[name]:9.2f}")
    return ratios


def main() -> None:
    """Command line, data, measurement, table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--headers-only", action="store_true", help="leave out the peers that decode")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--suffix", nargs="+", default=["jpg", "png"])
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    args = parser.parse_args()
    found = {}
    for suffix in args.suffix:
        with tempfile.TemporaryDirectory() as folder:
            root, what = Path(folder), f"of {args.images} images, 1248x384, {suffix}"
            draw(root, images=args.images, suffix=suffix)
            tables = {
                f"sizes {what}": size_contenders(root),
                f"conversion {what}, {OBJECTS} objects each": set_contenders(root, suffix, args.processes),
            }
            for title, contenders in tables.items():
                if args.headers_only:
                    contenders = {name: run for name, run in contenders.items() if DECODING not in name}
                found[title] = compare(title, contenders, rounds=args.rounds, images=args.images)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
