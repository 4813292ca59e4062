"""COCO annotation files as the TAO converter reads them."""

import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from frcnn.data.convert.kitti import missing_files
from frcnn.data.convert.pipeline import Converted, Plan, Skipped
from frcnn.data.convert.records import Frame, record
from frcnn.data.readers.fields import FLOAT32_MAX
from frcnn.data.readers.files import read_text
from frcnn.data.readers.kitti import Label
from frcnn.errors import DataError
from frcnn.spec.values import plain_name

_NOWHERE = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class CocoImage:
    """An image with its entries in the annotation file."""

    id: str  # frame id: folder and file name without its suffix
    height: int
    width: int
    annotations: Sequence[Mapping[str, Any]]
    source: Path  # the annotation file


@dataclass(frozen=True)
class CocoReader:
    """Makes the record of an image; `categories` are names by id."""

    categories: Mapping[object, str]

    def __call__(self, image: CocoImage) -> Converted:
        """The image's record; crowds are objects like any other.

        Raises:
            DataError: an annotation has no box of four numbers, or its category is unknown.
        """
        kept, skipped = [], []
        for entry in image.annotations:
            where = f"{image.source}, annotation {entry['id']}"
            if entry.get("category_id") not in self.categories:
                known = ", ".join(map(str, self.categories))
                found = entry.get("category_id")
                raise DataError("unknown category", where=where, found=found, allowed=f"ids {known[:200]}")
            x, y, width, height = _box(entry.get("bbox"), where)
            box, name = (x, y, width + x, height + y), self.categories[entry["category_id"]]
            label = Label(name, 0.0, 0, 0.0, box, _NOWHERE, _NOWHERE, 0.0)
            if label.degenerate:
                x1, y1, x2, y2 = map(int, box)
                skipped.append(Skipped(str(entry["id"]), name, (x1, y1, x2, y2)))
            else:
                kept.append(label)
        frame = Frame(image.id, image.height, image.width, kept)
        return Converted(record(frame), tuple(label.name for label in kept), tuple(skipped))


def plan_coco(
    *, root: Path, folders: Sequence[str], files: Sequence[str], partitions: int, shards: Sequence[int]
) -> Plan:
    """A partition per annotation file, its images in the order of the file.

    Args:
        root: the folder that the others are relative to.
        folders: image folder of each partition; part of the frame ids.
        files: annotation file of each partition.
        partitions: how many there are.
        shards: record files of each partition.

    Raises:
        DataError: a file is missing or no COCO annotation file, or the files' categories differ.
    """
    plan = Plan([], folds=partitions, shards=list(shards), read=CocoReader({}), parallel=False)
    categories: dict[object, str] = {}
    for folder, file in zip(folders, files, strict=True):
        path = root / file
        data = _load(path)
        names = _categories(data["categories"], path)
        if categories and names != categories:
            differing = [str(key) for key in {*names, *categories} if names.get(key) != categories.get(key)]
            raise DataError(
                "the categories of the annotation files differ",
                where=path,
                found=f"ids {', '.join(sorted(differing)[:10])} are not as in {files[0]}",
            )
        categories = names
        images, orphans = _images(data, path, folder)
        plan.partitions.append(images)
        if orphans:
            plan.warnings.append(f"{path}: {orphans} annotations belong to no image and are left out")
        plan.warnings += _file_warnings(data["images"], root / folder, path)
    plan.read = CocoReader(categories)
    return plan


def _load(path: Path) -> dict[str, Any]:
    """The file's three lists, none of them empty."""
    try:
        data = json.loads(read_text(path, what="annotation file", limit=None))
    except (ValueError, RecursionError) as error:
        raise DataError("the annotation file is no JSON", where=path, found=error) from None
    for name in ("images", "annotations", "categories"):
        entries = data.get(name) if isinstance(data, dict) else None
        if not isinstance(entries, list) or not entries:
            raise DataError(
                f"the annotation file has no {name}",
                where=path,
                found=", ".join(list(data)[:10]) if isinstance(data, dict) else type(data).__name__,
                allowed="images, annotations and categories",
            )
        seen: set[object] = set()
        for i, entry in enumerate(entries):
            key = entry.get("id") if isinstance(entry, dict) else None
            if not isinstance(key, int | str) or key in seen:
                problem = "has no id" if not isinstance(key, int | str) else f"repeats id {key}"
                raise DataError(
                    f"an entry of {name} {problem}", where=f"{path}: {name}[{i}]", found=str(entry)[:80]
                )
            seen.add(key)
    return data  # type: ignore[no-any-return]


def _categories(entries: Sequence[Mapping[str, Any]], path: Path) -> dict[object, str]:
    names: dict[object, str] = {}
    for entry in entries:
        name = plain_name(str(entry.get("name", "")))  # TAO: traffic light is trafficlight in the records
        if not name:
            raise DataError("a category has no name", where=f"{path}, category {entry['id']}")
        names[entry["id"]] = name
    return names


def _images(data: Mapping[str, Any], path: Path, folder: str) -> tuple[list[CocoImage], int]:
    """The images with their annotations, and how many annotations belong to none."""
    annotations: dict[object, list[Mapping[str, Any]]] = defaultdict(list)
    for entry in data["annotations"]:
        annotations[entry.get("image_id")].append(entry)
    images: dict[str, CocoImage] = {}
    for entry in data["images"]:
        where = f"{path}, image {entry['id']}"
        name = entry.get("file_name")
        height, width = (_whole(entry.get(side)) for side in ("height", "width"))
        if not isinstance(name, str) or os.path.isabs(name) or ".." in name.split("/"):  # noqa: PTH117
            raise DataError("file_name is no path below the image folder", where=where, found=name)
        if not all(isinstance(side, int) and 0 < side < 2**31 for side in (height, width)):
            found = f"height {height}, width {width}"
            raise DataError("the image has no size", where=where, found=found, allowed="two whole numbers")
        stem = name.rpartition(".")[0] or name
        frame = os.path.join(folder, stem)  # noqa: PTH118 -- TAO: as the folder is spelled
        if frame in images:
            raise DataError("two images have the same name, suffix aside", where=where, found=name)
        images[frame] = CocoImage(frame, height, width, annotations.pop(entry["id"], []), path)
    return list(images.values()), sum(map(len, annotations.values()))


def _whole(value: Any) -> Any:
    """A whole number that JSON spells 32.0 as what it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _file_warnings(entries: Sequence[Mapping[str, Any]], folder: Path, path: Path) -> list[str]:
    """What will go wrong when the images are read in training."""
    warnings = []
    names = [entry["file_name"] for entry in entries]
    suffixes = Counter(os.path.splitext(name)[1] for name in names)  # noqa: PTH122
    if len(suffixes) > 1:
        found = ", ".join(f"{count} {suffix or 'without'}" for suffix, count in suffixes.most_common())
        warnings.append(
            f"{path}: images have several suffixes ({found}), but records are read with one image_extension"
        )
    missing = missing_files(folder, names)
    if len(missing) == len(names):
        raise DataError(
            "none of the images is there",
            where=folder,
            found=f"no {missing[0]}",
            hint="img_dir_names are relative to root_directory_path",
        )
    if missing:
        warnings.append(f"{folder}: {len(missing)} of {len(names)} images are not there, {missing[0]} first")
    return warnings


def _box(value: object, where: str) -> tuple[float, float, float, float]:
    numbers = value if isinstance(value, list) else []
    finite = [
        number
        for number in numbers
        if isinstance(number, int | float) and not isinstance(number, bool) and abs(number) < FLOAT32_MAX / 2
    ]
    if len(numbers) != 4 or len(finite) != 4:
        raise DataError("bbox is no box", where=where, found=str(value)[:80], allowed="[x, y, width, height]")
    x, y, width, height = finite
    return x, y, width, height
