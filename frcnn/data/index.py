"""A data set as columns: a few arrays for a million objects, cheap to pickle and to share with workers."""

import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frcnn.errors import DataError

_MOST_NAMES = np.iinfo(np.int16).max


@dataclass(frozen=True, eq=False)
class Texts:
    """Immutable strings in one buffer: text i is bytes `ends[i - 1]` to `ends[i]` of `data`."""

    data: NDArray[np.uint8]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> str:
        start = self.ends[i - 1] if i else 0
        return self.data[start : self.ends[i]].tobytes().decode()


@dataclass(frozen=True)
class ImageFolder:
    """Where the images of a source lie: frame id `f` is the file `<root>/<f>.<extension>`."""

    root: str
    extension: str

    def path(self, frame: str) -> Path:
        """The file of a frame."""
        return Path(self.root, f"{frame}.{self.extension}")


@dataclass(frozen=True, eq=False)
class Index:
    """m images with n objects: 20 bytes an object, about 50 an image.

    The objects of image i are rows `offsets[i]:offsets[i + 1]`. Coordinates are pixels of the image
    file as its label gives them: neither clipped nor rounded.
    """

    boxes: NDArray[np.float32]  # (n, 4) xyxy
    class_ids: NDArray[np.int16]  # (n,) into class_names; -1: an area of no class
    difficult: NDArray[np.bool_]  # (n,) occlusion >= 1
    ignored: NDArray[np.bool_]  # (n,) an area to ignore rather than an object
    offsets: NDArray[np.int64]  # (m + 1,)
    sizes: NDArray[np.int32]  # (m, 2) height, width
    folder_ids: NDArray[np.int16]  # (m,) into folders
    frames: Texts  # m frame ids
    class_names: tuple[str, ...]
    folders: tuple[ImageFolder, ...]

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def max_ignored(self) -> int:
        """The largest number of ignore areas in an image."""
        return int(np.bincount(self.image_of_object()[self.ignored]).max(initial=0))

    @property
    def nbytes(self) -> int:
        """Bytes held by the columns."""
        objects = (self.boxes, self.class_ids, self.difficult, self.ignored)
        images = (self.offsets, self.sizes, self.folder_ids, self.frames.data, self.frames.ends)
        return sum(column.nbytes for column in (*objects, *images))

    def path(self, i: int) -> Path:
        """The file of image i."""
        return self.folders[int(self.folder_ids[i])].path(self.frames[i])

    def objects(self, i: int) -> slice:
        """The rows of image i in the object columns."""
        return slice(int(self.offsets[i]), int(self.offsets[i + 1]))

    def image_of_object(self) -> NDArray[np.int32]:
        """(n,) the image that each object belongs to."""
        return np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.offsets))

    def select(
        self, keep: NDArray[np.bool_], *, class_ids: NDArray[np.int16], class_names: Sequence[str]
    ) -> "Index":
        """The same images with only the objects of `keep` (n,), and new classes for all n of them."""
        rows = np.flatnonzero(keep)
        return replace(
            self,
            boxes=self.boxes[rows],
            class_ids=class_ids[rows],
            difficult=self.difficult[rows],
            ignored=self.ignored[rows],
            offsets=np.searchsorted(rows, self.offsets),
            class_names=tuple(class_names),
        )


@dataclass(frozen=True)
class Source:
    """What a reader made of one source, with the class names as they stand in the data."""

    name: str
    index: Index
    degenerate: Mapping[str, int] = field(default_factory=dict)  # objects without area, by class name
    unused_labels: int = 0  # label files without an image
    weight: float = 1.0  # how often an image is drawn, relative to one of another source


class IndexBuilder:
    """Collects images one by one into growing columns; `build` wraps them without a copy."""

    def __init__(self, folder: ImageFolder) -> None:
        self._folder = folder
        self._class_ids: dict[str, int] = {}
        self._boxes, self._classes = array("f"), array("h")
        self._difficult, self._ignored = array("b"), array("b")
        self._offsets, self._sizes = array("q", [0]), array("i")
        self._frames, self._ends = bytearray(), array("q")

    def add(
        self,
        frame: str,
        size: tuple[int, int],
        *,
        names: Iterable[str],
        boxes: Iterable[float],
        difficult: Iterable[bool],
        ignored: Iterable[bool] | None = None,
    ) -> None:
        """Add an image of size (height, width); `boxes` is flat: x1, y1, x2, y2, x1, ...

        `ignored` marks areas that are no objects; None: there are none.
        """
        ids = self._class_ids
        numbers = [ids.setdefault(name, len(ids)) for name in names]
        if len(ids) > _MOST_NAMES:
            raise DataError(f"the data holds more than {_MOST_NAMES} class names", where=frame)
        self._classes.extend(numbers)
        self._boxes.extend(boxes)
        self._difficult.extend(difficult)
        self._ignored.extend(bytes(len(self._classes) - len(self._ignored)) if ignored is None else ignored)
        self._offsets.append(len(self._classes))
        self._sizes.extend(size)
        self._frames += frame.encode()
        self._ends.append(len(self._frames))

    def build(self) -> Index:
        """The index of everything added. The builder must not be used afterwards."""
        return Index(
            boxes=np.frombuffer(self._boxes, np.float32).reshape(-1, 4),
            class_ids=np.frombuffer(self._classes, np.int16),
            difficult=np.frombuffer(self._difficult, np.bool_),
            ignored=np.frombuffer(self._ignored, np.bool_),
            offsets=np.frombuffer(self._offsets, np.int64),
            sizes=np.frombuffer(self._sizes, np.int32).reshape(-1, 2),
            folder_ids=np.zeros(len(self._ends), np.int16),
            frames=Texts(np.frombuffer(self._frames, np.uint8), np.frombuffer(self._ends, np.int64)),
            class_names=tuple(self._class_ids),
            folders=(self._folder,),
        )


def concatenate(indexes: Sequence[Index]) -> Index:
    """One index of several that share their class names."""

    def joined(columns: Iterable[NDArray[Any]], counts: Iterable[int]) -> NDArray[Any]:
        """Join columns of numbers that count from 0 in each index, `counts` things in each."""
        starts = accumulate(counts, initial=0)
        return np.concatenate([c + c.dtype.type(start) for c, start in zip(columns, starts, strict=False)])

    ends = joined((index.offsets[1:] for index in indexes), (len(index.boxes) for index in indexes))
    frames = [index.frames for index in indexes]
    return Index(
        boxes=np.concatenate([index.boxes for index in indexes]),
        class_ids=np.concatenate([index.class_ids for index in indexes]),
        difficult=np.concatenate([index.difficult for index in indexes]),
        ignored=np.concatenate([index.ignored for index in indexes]),
        offsets=np.concatenate([[0], ends]),
        sizes=np.concatenate([index.sizes for index in indexes]),
        folder_ids=joined((index.folder_ids for index in indexes), (len(index.folders) for index in indexes)),
        frames=Texts(
            np.concatenate([texts.data for texts in frames]),
            joined((texts.ends for texts in frames), (len(texts.data) for texts in frames)),
        ),
        class_names=indexes[0].class_names,
        folders=tuple(folder for index in indexes for folder in index.folders),
    )


def overlap(validation: Index, training: Index) -> float:
    """The share of validation images whose file, links in its folder resolved, is also a training image."""
    return float(np.isin(_path_hashes(validation), _path_hashes(training)).mean()) if len(validation) else 0.0


def _path_hashes(index: Index) -> NDArray[np.int64]:
    """(m,) 64-bit hashes of the file names: eight bytes an image instead of a set of strings."""
    roots = [os.path.realpath(folder.root) for folder in index.folders]
    names = (
        os.path.normpath(f"{roots[folder]}/{index.frames[i]}.{index.folders[folder].extension}")
        for i, folder in enumerate(index.folder_ids)
    )
    return np.fromiter((hash(name) for name in names), np.int64, len(index))
