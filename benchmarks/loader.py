"""Loading and augmenting 1248x384 images against torchvision's v2 transforms for the same augmentation.

Both decode with the same function, which is timed apart: the ratio is of what comes after. Rounds alternate
the contenders in one process; `--workers` times whole loaders instead, where decoding counts.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from frcnn.data.augment import move, recolour
from frcnn.data.dataset import DetectionDataset
from frcnn.data.geometry import fixed
from frcnn.data.images import read_image
from frcnn.data.index import Index
from frcnn.data.prepare import prepare
from frcnn.data.readers.kitti import read_kitti
from frcnn.data.sample import collate
from frcnn.data.toy import kitti_line
from frcnn.data.toy_scene import draw_scene
from frcnn.data.transforms import Transform, chain

SIZE = (384, 1248)
MEAN = (123.68, 116.779, 103.939)


def ours(index: Index) -> DetectionDataset:
    """Flip, shift, zoom, turn, contrast, hue, saturation and brightness."""
    steps: Sequence[Transform] = (
        partial(
            move,
            hflip_probability=0.5,
            translate=(62.0, 19.0),
            zoom=(0.8, 1.25),
            rotate_max=np.deg2rad(3.0),
        ),
        partial(
            recolour,
            brightness_std=0.05,
            hue_max=18.0,
            saturation_max=0.2,
            contrast_max=0.2,
        ),
    )
    geometry = partial(fixed, size=SIZE, auto_resize=True)
    return DetectionDataset(
        index, transforms=chain(geometry=geometry, mean=MEAN, scale=1.0, bgr=True, augmentation=steps)
    )


class Peer(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """The same with torchvision's transforms, on uint8 tensors as its documentation recommends, or on PIL."""

    def __init__(self, index: Index, *, pil: bool = False) -> None:
        self.index = index
        self.transforms = v2.Compose(
            [
                *([v2.ToPILImage()] if pil else []),
                v2.Resize(SIZE, antialias=True),
                v2.RandomHorizontalFlip(0.5),
                v2.RandomAffine(
                    degrees=3.0,
                    translate=(0.05, 0.05),
                    scale=(0.8, 1.25),
                    interpolation=v2.InterpolationMode.BILINEAR,
                    fill=127,
                ),
                v2.ColorJitter(brightness=0.1, contrast=0.2, saturation=0.2, hue=0.05),
                v2.ClampBoundingBoxes(),
                v2.SanitizeBoundingBoxes(),
                *([v2.PILToTensor()] if pil else []),
                v2.ToDtype(torch.float32, scale=False),
                v2.Normalize(mean=list(MEAN), std=[1.0, 1.0, 1.0]),
            ]
        )

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        image = read_image(self.index.path(number), channels=3)
        rows = self.index.objects(number)
        boxes = tv_tensors.BoundingBoxes(  # type: ignore[call-overload]
            torch.from_numpy(self.index.boxes[rows]), format="XYXY", canvas_size=image.shape[-2:]
        )
        target = {"boxes": boxes, "labels": torch.from_numpy(self.index.class_ids[rows])}
        picture, found = self.transforms(tv_tensors.Image(image), target)
        return picture.flip(0), found["boxes"], found["labels"]


def scenes(folder: Path, count: int, extension: str, size: tuple[int, int]) -> Index:
    """Drawn street scenes as KITTI folders, indexed."""
    for name in ("image_2", "label_2"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        image, objects = draw_scene(np.random.default_rng(i), width=size[1], height=size[0])
        image.save(folder / "image_2" / f"{i:04d}.{extension}", quality=92)
        (folder / "label_2" / f"{i:04d}.txt").write_text("\n".join(map(kitti_line, objects)))
    source = read_kitti(image_root=folder, labels=folder / "label_2", image_extension=extension)
    mapping = {name: name for name in source.index.class_names}
    geometry = partial(fixed, size=SIZE, auto_resize=True)
    return prepare([source], class_mapping=mapping, geometry=geometry, max_objects=100)[0]


def seconds(work: Callable[[int], Any], count: int) -> float:
    """Per image."""
    start = time.perf_counter()
    for i in range(count):
        work(i)
    return (time.perf_counter() - start) / count


def images_per_second(dataset: Dataset[Any], workers: int, collate_fn: Callable[[Any], Any]) -> float:
    """One pass of a loader, processes started before the clock."""
    loader = DataLoader(
        dataset, batch_size=4, num_workers=workers, persistent_workers=True, collate_fn=collate_fn
    )
    list(loader)
    start = time.perf_counter()
    count = sum(4 for _ in loader)
    return count / (time.perf_counter() - start)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=0, help="time loaders with so many processes")
    parser.add_argument("--height", type=int, default=384, help="of the files")
    parser.add_argument("--width", type=int, default=1248)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # as in a worker
    size = (arguments.height, arguments.width)
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, files {size[1]}x{size[0]}")
    with tempfile.TemporaryDirectory() as temporary:
        for extension in ("jpg", "png"):
            index = scenes(Path(temporary, extension), arguments.images, extension, size)
            mine, peer, pil = ours(index), Peer(index), Peer(index, pil=True)
            if arguments.workers:
                rates = [
                    (
                        images_per_second(mine, arguments.workers, partial(collate, max_objects=100)),
                        images_per_second(peer, arguments.workers, list),
                    )
                    for _ in range(arguments.rounds)
                ]
                a, b = (median(column) for column in zip(*rates, strict=True))
                ratio = median(x / y for x, y in rates)
                print(f"{extension}: {a:.1f} images/s, torchvision {b:.1f}: {ratio:.2f}x, decoding included")
                continue
            contenders: list[Callable[[int], Any]] = [
                lambda i, index=index: read_image(index.path(i), channels=3),  # type: ignore[misc]
                lambda i, mine=mine: mine.sample(i),  # type: ignore[misc]
                lambda i, peer=peer: peer[i],  # type: ignore[misc]
                lambda i, peer=pil: peer[i],  # type: ignore[misc]
            ]
            rounds = [[seconds(work, len(index)) for work in contenders] for _ in range(arguments.rounds + 1)]
            decode, a, b, c = (1e3 * median(column) for column in zip(*rounds[1:], strict=True))
            ratio = median((min(peers) - read) / (own - read) for read, own, *peers in rounds[1:])
            print(
                f"{extension}: decoding {decode:.2f} ms; after it ours {a - decode:.2f} ms, torchvision "
                f"{b - decode:.2f} ms on tensors, {c - decode:.2f} ms on PIL images: {ratio:.2f}x the better"
            )


if __name__ == "__main__":
    main()
