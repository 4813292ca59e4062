"""A KITTI data set as the TAO converter reads it."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from frcnn.data.convert.partition import SEED, random_partitions, sequence_partitions, shuffle
from frcnn.data.convert.pipeline import Converted, Plan, Skipped
from frcnn.data.convert.records import Calibration, Frame, record
from frcnn.data.readers.files import names_in, read_text, stems_in
from frcnn.data.readers.headers import image_size
from frcnn.data.readers.kitti import read_labels
from frcnn.errors import DataError

_MATRICES = {"P2": (3, 4), "R0_rect": (3, 3), "Tr_velo_to_cam": (3, 4)}
_OTHER_NAMES = {"R_rect": "R0_rect", "Tr_velo_cam": "Tr_velo_to_cam"}  # of KITTI's tracking set


@dataclass(frozen=True)
class KittiReader:
    """Makes the record of an image.

    Attributes:
        root: the folder that the others are relative to.
        images: folder of the images; part of the frame's id.
        labels: folder of the label files.
        extension: suffix of the images, with its dot.
        point_clouds: folder to name in the records; empty for none.
        calibrations: folder of calibration files; empty for none.
        allow_missing: an image without a label file has no objects.
        allow_scores: labels may have a 16th column.
    """

    root: Path
    images: str
    labels: str
    extension: str
    point_clouds: str = ""
    calibrations: str = ""
    allow_missing: bool = False
    allow_scores: bool = False

    def __call__(self, stem: str) -> Converted:
        """The image's record.

        Raises:
            DataError: the image's header, its labels or its calibration cannot be read.
        """
        height, width = image_size(self._image_folder / f"{stem}{self.extension}")
        path = self._label_folder / f"{stem}.txt"
        missing = self.allow_missing and not path.exists()
        labels = [] if missing else read_labels(path, allow_scores=self.allow_scores)
        kept, skipped = [], []
        for i, label in enumerate(labels):
            if label.degenerate:
                x1, y1, x2, y2 = map(int, label.box)
                skipped.append(Skipped(f"{path}_{i}", label.name, (x1, y1, x2, y2)))
            else:
                kept.append(label)
        frame = Frame(
            id=os.path.join(self.images, stem),  # noqa: PTH118 -- TAO: as the folder is spelled
            height=height,
            width=width,
            objects=kept,
            point_cloud=os.path.join(self.point_clouds, stem) if self.point_clouds else None,  # noqa: PTH118
            calibration=read_calibration(self.root / self.calibrations / f"{stem}.txt")
            if self.calibrations
            else None,
        )
        return Converted(record(frame), tuple([label.name for label in kept]), tuple(skipped))

    @cached_property
    def _image_folder(self) -> Path:
        return self.root / self.images

    @cached_property
    def _label_folder(self) -> Path:
        return self.root / self.labels


def plan_random(reader: KittiReader, *, val_split: float, shards: int) -> Plan:
    """TAO's random mode: the first `val_split` percent of the images are fold 0, the others fold 1.

    Raises:
        DataError: there are no images, or label files are missing.
    """
    stems = _images(reader)
    generator = Random(SEED)
    partitions = random_partitions(stems, val_split=val_split, generator=generator)
    shuffle(partitions, generator)
    plan = Plan(partitions, folds=2, shards=[shards, shards], read=reader)
    if not partitions[0]:
        plan.warnings.append(
            f"val_split {val_split:g} of {len(stems)} images leaves none to validate on, and fold 000 holds "
            "the training images, as the original numbers them. Train with validation_data_source or without "
            "validation; validation_fold: 0 would take every record"
        )
    return _with_labels(plan, reader)


def plan_sequences(reader: KittiReader, *, file: str, partitions: int, shards: int) -> Plan:
    """TAO's sequence mode: whole sequences, listed in a JSON file below the root, share out the folds.

    Raises:
        DataError: the file is no list of frames by sequence, or images or label files are missing.
    """
    sequences = _sequences(reader.root / file)
    divided = sequence_partitions(sequences, count=partitions)
    shuffle(divided, Random(SEED))
    plan = Plan(divided, folds=partitions, shards=[shards] * len(divided), read=reader)
    frames = [frame for part in divided for frame in part]
    folder = reader.root / reader.images
    if missing := missing_files(folder, [f"{frame}{reader.extension}" for frame in frames]):
        raise DataError(
            f"{len(missing)} of {len(frames)} frames have no image",
            where=folder,
            found=f"no {_first(missing)}",
            hint=f"{file} lists frames without {reader.extension}, relative to {reader.images}",
        )
    shared = [frame for frame, count in Counter(f for part in divided for f in {*part}).items() if count > 1]
    if shared:
        plan.warnings.append(f"{len(shared)} frames are in several folds, {_first(shared)} among them")
    if empty := sum(not part for part in divided):
        plan.warnings.append(
            f"{len(sequences)} sequences do not fill {partitions} partitions: {empty} are empty, and the "
            f"others are fold 000 to {partitions - empty - 1:03d}"
        )
    return _with_labels(plan, reader)


def missing_files(folder: Path, names: Sequence[str]) -> list[str]:
    """Those of the names, relative to a folder, that no file has. Lists folders, asks for no file alone."""
    present: dict[str, set[str]] = {}
    missing = []
    for name in names:
        inner, base = os.path.split(name)
        if inner not in present:
            present[inner] = names_in(str(folder / inner))
        if base not in present[inner]:
            missing.append(name)
    return missing


def read_calibration(path: Path) -> Calibration:
    """Lidar matrices of a KITTI calibration file.

    T_lidar_to_camera = R0_rect · Tr_velo_to_cam and P_lidar_to_image = P2 · T_lidar_to_camera, from float32
    numbers as in the original, which takes lines 3, 5 and 6 whatever their names are.

    Raises:
        DataError: the file is missing, or lacks one of the three matrices.
    """
    lines: dict[str, list[str]] = defaultdict(list)
    for line in read_text(path, what="calibration file").splitlines():
        name, *numbers = line.replace(":", " ", 1).split() or [""]
        lines[_OTHER_NAMES.get(name, name)] = numbers
    camera, rectify, lidar = (
        _matrix(lines[name], shape, where=f"{path}: {name}") for name, shape in _MATRICES.items()
    )
    transform = _square(rectify) @ _square(lidar)
    return Calibration(transform.ravel().tolist(), (camera @ transform).ravel().tolist())


def _matrix(numbers: Sequence[str], shape: tuple[int, int], *, where: str) -> NDArray[np.float32]:
    try:
        matrix = np.array([float(number) for number in numbers], np.float32).reshape(shape)
    except ValueError:
        matrix = np.full(shape, np.nan, np.float32)
    if not np.isfinite(matrix).all():
        found = " ".join(numbers)[:120] or "no such line"
        raise DataError(
            "no calibration matrix", where=where, found=found, allowed=f"{shape[0] * shape[1]} numbers"
        )
    return matrix


def _square(matrix: NDArray[np.float32]) -> NDArray[np.float64]:
    """4x4: the matrix in the upper left of the identity."""
    square = np.eye(4)
    square[: matrix.shape[0], : matrix.shape[1]] = matrix
    return square


def _images(reader: KittiReader) -> list[str]:
    """Stems of the images, in the order of the file names."""
    folder = reader.root / reader.images
    stems = stems_in(folder, reader.extension)
    if not stems:
        others = sorted({Path(name).suffix or "none" for name in os.listdir(folder)})  # noqa: PTH208
        raise DataError(
            f"no {reader.extension} images",
            where=folder,
            found=f"files with suffix {', '.join(others[:8])}" if others else "an empty folder",
            hint="image_extension is matched as written, in upper and lower case",
        )
    return sorted(stems, key=lambda stem: stem + reader.extension)


def _sequences(path: Path) -> Mapping[str, Sequence[str]]:
    try:
        sequences = json.loads(read_text(path, what="list of sequences", limit=None))
    except (ValueError, RecursionError) as error:
        raise DataError("the list of sequences is no JSON", where=path, found=error) from None
    shape = '{"sequence": ["frame", ...], ...}'
    if not isinstance(sequences, dict) or not any(sequences.values()):
        raise DataError("no frames by sequence", where=path, found=type(sequences).__name__, allowed=shape)
    for name, frames in sequences.items():
        if not isinstance(frames, list) or not all(isinstance(frame, str) for frame in frames):
            raise DataError(
                "no list of frames", where=f"{path}: {name}", found=repr(frames)[:80], allowed=shape
            )
        for frame in frames:
            if os.path.isabs(frame) or ".." in frame.split("/"):  # noqa: PTH117
                raise DataError("a frame outside the image folder", where=f"{path}: {name}", found=frame)
    return sequences


def _with_labels(plan: Plan, reader: KittiReader) -> Plan:
    """The plan, after a look for label files that are missing."""
    folder = reader.root / reader.labels
    if not folder.is_dir():
        raise DataError("the label folder does not exist", where=folder)
    stems = [stem for part in plan.partitions for stem in part]
    plan.missing_labels = sorted(missing_files(folder, [f"{stem}.txt" for stem in stems]))
    if plan.missing_labels and not reader.allow_missing:
        raise DataError(
            f"{len(plan.missing_labels)} of {len(stems)} images have no label file",
            where=folder,
            found=f"no {_first(plan.missing_labels)}",
            allowed="a label file for every image; an empty one for an image without objects",
            hint="--allow-missing-labels takes these for images without objects",
        )
    return plan


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + ", ..." * (len(names) > 5)
