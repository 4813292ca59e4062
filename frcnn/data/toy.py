"""The toy data set: drawn street scenes in KITTI folders, made once and kept."""

import json
import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from frcnn.data.toy_scene import SceneObject, draw_scene
from frcnn.errors import DataError

_log = logging.getLogger(__name__)
_VERSION = 1  # raise it whenever the drawings change
_SMALLEST = (96, 64)


def ensure_toy(
    root: Path, *, train: int = 400, val: int = 200, width: int = 192, height: int = 128, seed: int = 0
) -> Path:
    """Draw the data set into a folder of its own below `root`, unless it is there already.

    Args:
        root: cache folder; made if need be.
        train: number of training images, in `training/image_2` and `training/label_2`.
        val: number of validation images, likewise in `validation`.
        width: pixels.
        height: pixels.
        seed: image i of a split depends on the seed, the split and i only.

    Returns:
        The folder that holds `training`, `validation` and `manifest.json`.

    Raises:
        DataError: the folder exists and holds something else, or the images would be too small.
    """
    if width < _SMALLEST[0] or height < _SMALLEST[1]:
        raise DataError(
            "too small to draw a street in",
            found=f"{width}x{height}",
            allowed=f"at least {_SMALLEST[0]}x{_SMALLEST[1]}",
        )
    manifest = {
        "version": _VERSION,
        "train": train,
        "val": val,
        "width": width,
        "height": height,
        "seed": seed,
    }
    folder = root / f"toy-v{_VERSION}-{width}x{height}-{train}-{val}-seed{seed}"
    if folder.exists():
        return _checked(folder, manifest)
    _log.info("drawing %d toy images into %s", train + val, folder)
    root.mkdir(parents=True, exist_ok=True)
    # A folder appears whole, by renaming, or not at all; of two that draw at once the first one stays.
    with tempfile.TemporaryDirectory(prefix=".toy-", dir=root, ignore_cleanup_errors=True) as temporary:
        draft = Path(temporary, "draft")
        for number, (split, count) in enumerate([("training", train), ("validation", val)]):
            _draw_split(draft / split, count, width=width, height=height, seed=(seed, number))
        (draft / "manifest.json").write_text(json.dumps(manifest) + "\n")
        try:
            draft.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    return _checked(folder, manifest)


def kitti_line(item: SceneObject) -> str:
    """A KITTI label; the columns of the third dimension hold KITTI's own "unknown"."""
    occluded = 0 if item.hidden < 0.3 else 1 if item.hidden < 0.6 else 2
    box = " ".join(f"{value:.2f}" for value in item.box)
    return f"{item.name} {item.truncated:.2f} {occluded} -10 {box} -1 -1 -1 -1000 -1000 -1000 -10\n"


def _draw_split(folder: Path, count: int, *, width: int, height: int, seed: tuple[int, int]) -> None:
    images, labels = folder / "image_2", folder / "label_2"
    images.mkdir(parents=True)
    labels.mkdir()
    for i in range(count):
        image, objects = draw_scene(np.random.default_rng((*seed, i)), width=width, height=height)
        image.save(images / f"{i:06d}.png", compress_level=1)
        (labels / f"{i:06d}.txt").write_text("".join(map(kitti_line, objects)))


def _checked(folder: Path, manifest: dict[str, Any]) -> Path:
    """The folder, if its manifest says that it is what was asked for."""
    try:
        found = json.loads((folder / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise DataError("not a toy data set", where=folder, found=error, hint="delete the folder") from error
    if found != manifest:
        raise DataError("another toy data set", where=folder, found=found, allowed=manifest)
    return folder
