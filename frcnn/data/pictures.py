"""Pictures without labels: the files of a folder, a list or a glob, or the frames of a video."""

import glob
import importlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from frcnn.data.readers.files import open_regular, read_text
from frcnn.data.readers.headers import image_size
from frcnn.errors import DataError, SpecError

log = logging.getLogger(__name__)

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


@dataclass(frozen=True)
class Picture:
    """One picture to look at.

    Attributes:
        name: file name, with the folders below the one that all inputs share; results are named after it.
        path: the file that it is in.
        area: gives the number of its pixels; 0 if that cannot be told.
        read: opens it; raises what Pillow does.
    """

    name: str
    path: Path
    area: Callable[[], int]
    read: Callable[[], Image.Image]


@dataclass(frozen=True)
class Pictures:
    """What an input holds.

    Attributes:
        items: the pictures, in the order of their names, or as listed.
        count: how many; 0 if a video does not say.
        names: of all pictures; empty for a video.
        skipped: how many other things there were.
    """

    items: Iterable[Picture]
    count: int
    names: Sequence[str]
    skipped: int = 0


def find_pictures(path: Path) -> Pictures:
    """The pictures that a path means.

    A folder means the image files directly in it. A .txt file names one file a line, relative to itself.
    In a pattern, `**` stands for any folders. A file with the suffix of a video means its frames.

    Raises:
        DataError: nothing there that is named like an image, or a list or video that cannot be read.
        SpecError: a video, and no decoder is installed.
    """
    if path.is_file() and path.suffix.lower() in VIDEOS:
        return _video(path)
    if path.is_dir():
        files = sorted(path.iterdir())
    elif path.is_file() and path.suffix.lower() == ".txt":
        lines = [line.strip() for line in read_text(path, what="list of images").splitlines()]
        files = [path.parent / line for line in lines if line and not line.startswith("#")]
    elif path.is_file():
        files = [path]
    else:
        files = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
    given = [Path(os.path.abspath(file)) for file in files if _named_like_image(file)]  # noqa: PTH100
    images = list(dict.fromkeys(given))
    if not images:
        raise DataError(
            "there are no images",
            where=path,
            found=f"{len(files)} files and folders, none of them an image" if files else "nothing",
            allowed=f"files that end in {', '.join(IMAGES)}, or one of a video",
            hint=f"'{path}/**/*.jpg' looks into folders" if path.is_dir() else None,
        )
    shared = os.path.commonpath([image.parent for image in images])
    names = [image.relative_to(shared).as_posix() for image in images]
    items = [
        Picture(name, image, partial(_area, image), partial(_open, image))
        for name, image in zip(names, images, strict=True)
    ]
    return Pictures(items, len(items), names, skipped=len(files) - len(given))


def _named_like_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGES and not file.is_dir()


def _area(path: Path) -> int:
    try:
        height, width = image_size(path)
    except DataError:  # it will be read, and told, in its turn
        return 0
    return height * width


def _open(path: Path) -> Image.Image:
    with open_regular(path) as file, Image.open(file) as image:
        image.load()
        return image


def _video(path: Path) -> Pictures:
    try:
        av = importlib.import_module("av")
    except ImportError:
        message, hint = "needs a video decoder, and none is installed", "pip install 'frcnn[video]'"
        raise SpecError(message, where=path, found="no av", hint=hint) from None
    try:
        container = av.open(str(path))
        count = container.streams.video[0].frames
    except (av.FFmpegError, IndexError) as error:
        raise DataError("the video cannot be read", where=path, found=error) from error
    return Pictures(_frames(path, container, av.FFmpegError), count, [])


def _frames(path: Path, container: Any, broken: type[Exception]) -> Iterator[Picture]:
    number = 0
    with container:
        try:
            for number, frame in enumerate(container.decode(video=0), start=1):
                area, name = frame.width * frame.height, f"{path.stem}_{number:06d}.jpg"
                yield Picture(name, path, partial(int, area), frame.to_image)
        except broken as error:
            log.warning("%s breaks off after frame %d: %s", path, number, error)
