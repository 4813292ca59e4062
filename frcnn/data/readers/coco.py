"""COCO's detection labels: one JSON file with the images, the categories and the boxes of a data set."""

import json
import logging
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from frcnn.data.index import ImageFolder, IndexBuilder, Source
from frcnn.data.readers.fields import FLOAT32_MAX, IMAGE_SUFFIXES, MAX_SIDE, is_degenerate
from frcnn.data.readers.files import Problem, check_images, read_bytes, read_text, refuse, with_suffixes
from frcnn.data.readers.headers import image_sizes
from frcnn.errors import DataError
from frcnn.spec.values import plain_name

_log = logging.getLogger(__name__)
_LISTS = ("images", "categories", "annotations")
_MAX_FILE = 8 << 30  # bytes; COCO's largest is 0.45 GB
_ID = "a whole number or a text"

Entry = dict[str, Any]


def read_coco(*, annotations: Path, image_root: Path, problem: Problem = refuse) -> Source:
    """Index the images of a COCO detection file such as `instances_val2017.json`.

    The image of an entry is `<image_root>/<file_name>`; file names may have folders and any mixture of
    suffixes. Sizes are those of the JSON, or of the image's header where it gives none. A box is xyxy `x, y,
    x + width, y + height`, unclipped; it counts as without area by the rule of a KITTI label. `iscrowd` makes
    it an area to ignore. Category names lose their spaces and capitals, as in the records that TAO makes of
    such files: `traffic light` is `trafficlight`. An image without annotations has no objects.

    Args:
        annotations: the JSON file.
        image_root: the folder that file names are relative to.
        problem: is told of single images and annotations that are missing or make no sense.

    Raises:
        DataError: the file is no COCO detection file, an entry makes no sense (the error names its id), or
            images are missing.
    """
    data = _load(annotations)
    categories = {
        key: _category(entry, f"{annotations}, category {_short(key)}")
        for key, entry in _by_id(data["categories"], "category", annotations).items()
    }
    images = _by_id(data["images"], "image", annotations)
    if not images:
        raise DataError("the file lists no images", where=annotations)
    objects = _by_image(data.pop("annotations"), images, annotations)
    builder = IndexBuilder(ImageFolder("", ""))
    degenerate: Counter[str] = Counter()
    suffixes: list[str] = []
    unsized: list[int] = []
    for key, image in images.items():
        where = f"{annotations}, image {_short(key)}"
        try:
            frame, suffix = _frame(image, where)
            size = _size(image, where)
        except DataError as error:
            problem(error)
            continue
        if not size:
            unsized.append(len(suffixes))
        suffixes.append(suffix)
        names: list[str] = []
        boxes: list[float] = []
        crowds: list[bool] = []
        for entry in objects.pop(key, ()):
            try:
                name, box, crowd = _object(entry, categories, annotations)
            except DataError as error:
                problem(error)
                continue
            if is_degenerate(box):
                degenerate[name] += 1
                continue
            names.append(name)
            boxes += box
            crowds.append(crowd)
        builder.add(
            frame,
            size or (0, 0),
            names=names,
            boxes=boxes,
            difficult=[False] * len(names),
            ignored=crowds,
        )
    index = with_suffixes(builder.build(), suffixes, root=image_root)
    check_images(index, what="images of the JSON", problem=problem)
    if unsized:
        index.sizes[unsized] = image_sizes([index.path(i) for i in unsized], problem=problem)
    return Source(str(annotations), index, degenerate)


def _load(path: Path) -> dict[str, list[Any]]:
    """The three lists of the file. Outlines go while it is parsed: they are most of COCO."""
    _check_start(path)
    text = read_text(path, what="annotation file", limit=_MAX_FILE)
    try:
        data = json.loads(text, object_hook=_without_outline)
    except json.JSONDecodeError as error:
        found = text[error.pos : error.pos + 40].partition("\n")[0] or "the end of the line"
        where = f"{path}:{error.lineno}:{error.colno}"
        raise DataError(f"not JSON: {error.msg}", where=where, found=found) from error
    except (RecursionError, ValueError) as error:  # thousands of brackets, or of digits in a number
        raise DataError("not a COCO detection file", where=path, found=error) from error
    for name in _LISTS:
        if not isinstance(data.get(name), list):
            raise DataError(
                f"the file lacks the list {name}",
                where=path,
                found=f"keys {_short([*data])}",
                allowed=", ".join(_LISTS),
                hint="image_info files of test sets hold no labels" if name == "annotations" else None,
            )
    return {name: data[name] for name in _LISTS}


def _check_start(path: Path) -> None:
    """Refuse a file by its first bytes, before gigabytes of it are read."""
    head = read_bytes(path, what="annotation file", limit=_MAX_FILE, count=4096)
    start = head.removeprefix(BOM_UTF8).lstrip()[:60]
    if not start.startswith(b"{") or b"\0" in start:
        raise DataError(
            "not a COCO detection file",
            where=path,
            found=ascii(start.decode(errors="replace"))[1:-1] or "nothing",
            allowed="a JSON object with images, categories and annotations, as UTF-8 text",
            hint="a list of detections is a result, not a label" if start.startswith(b"[") else None,
        )


def _without_outline(entry: Entry) -> Entry:
    entry.pop("segmentation", None)
    return entry


def _by_id(entries: Sequence[Any], what: str, path: Path) -> dict[int | str, Entry]:
    """Entries by their id, in their order."""
    found: dict[int | str, Entry] = {}
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict) or type(entry.get("id")) not in (int, str):
            where = f"{path}, {what} entry {position}"
            raise DataError(f"the {what} has no id", where=where, found=_short(entry), allowed=_ID)
        if entry["id"] in found:
            where = f"{path}, {what} {_short(entry['id'])}"
            raise DataError(f"two entries have this {what} id", where=where, found=f"entry {position} again")
        found[entry["id"]] = entry
    return found


def _by_image(
    entries: Sequence[Any], images: Mapping[int | str, Entry], path: Path
) -> dict[int | str, list[Entry]]:
    """Annotations by the id of their image; those of images that are not listed are left out, and said.

    A subset of a data set is often made by cutting its list of images only.
    """
    found: dict[int | str, list[Entry]] = {}
    orphans = 0
    for position, entry in enumerate(entries):
        if not isinstance(entry, dict):
            where = f"{path}, annotation entry {position}"
            raise DataError("the annotation is no object", where=where, found=_short(entry))
        key: Any = entry.get("image_id")
        if type(key) not in (int, str):
            where = f"{path}, annotation {_short(entry.get('id', f'entry {position}'))}"
            raise DataError("the annotation names no image", where=where, found=f"image_id {_short(key)}")
        if key in images:
            found.setdefault(key, []).append(entry)
        else:
            orphans += 1
    if orphans:
        _log.warning("%s: %d annotations belong to no image and are left out", path, orphans)
    return found


def _category(entry: Entry, where: str) -> str:
    """The name of a category as TAO's converter writes it."""
    name = plain_name(_text(entry, "name", where))
    if not name.strip():
        raise DataError("the category has no name", where=where, found="a blank name")
    return name


def _frame(image: Entry, where: str) -> tuple[str, str]:
    """An image's file name in two: without its suffix, and the suffix without its dot."""
    name = _text(image, "file_name", where)
    frame, _, suffix = name.rpartition(".")
    if not frame or not name.lower().endswith(IMAGE_SUFFIXES):
        raise DataError(
            "file_name names no image file",
            where=where,
            found=_short(name),
            allowed=f"a name that ends in {', '.join(IMAGE_SUFFIXES)}, in upper or lower case",
        )
    return frame, suffix


def _text(entry: Entry, key: str, where: str) -> str:
    """A text that can be stored as UTF-8: JSON has escapes for halves of a character."""
    value = entry.get(key)
    if not isinstance(value, str) or value.encode(errors="ignore").decode() != value:
        raise DataError(f"{key} is no text", where=where, found=_short(value), allowed="a text")
    return value


def _size(image: Entry, where: str) -> tuple[int, int] | None:
    """(height, width) of an image entry; None where it gives none."""
    sides = image.get("height"), image.get("width")
    if sides == (None, None):
        return None
    for value in sides:
        whole = type(value) is int or (isinstance(value, float) and value.is_integer())
        if not whole or not 0 < value <= MAX_SIDE:  # type: ignore[operator]
            raise DataError(
                "the image has no size",
                where=where,
                found=f"height {_short(sides[0])}, width {_short(sides[1])}",
                allowed=f"two whole numbers from 1 to {MAX_SIDE}",
                hint="leave both out, and the image file's own size is taken",
            )
    return int(sides[0]), int(sides[1])  # type: ignore[arg-type]


def _object(
    entry: Entry, categories: Mapping[int | str, str], path: Path
) -> tuple[str, tuple[float, float, float, float], bool]:
    """Class name, box (xyxy, pixels) and whether it is a crowd."""
    key, box, crowd = entry.get("category_id"), entry.get("bbox"), entry.get("iscrowd", 0)
    name = categories.get(key) if type(key) in (int, str) else None  # type: ignore[arg-type]
    if name is None:
        raise _bad(entry, path, "category_id", f"an id in categories: {_short([*categories])}")
    if not isinstance(box, list) or len(box) != 4 or not all(type(value) in (int, float) for value in box):
        raise _bad(entry, path, "bbox", "[x, y, width, height], four numbers")
    if not all(-FLOAT32_MAX <= value <= FLOAT32_MAX for value in box):
        raise _bad(entry, path, "bbox", "four finite numbers")
    x, y, width, height = map(float, box)
    if x + width > FLOAT32_MAX or y + height > FLOAT32_MAX:
        raise _bad(entry, path, "bbox", "a box that ends at a finite number")
    if crowd not in (0, 1):
        raise _bad(entry, path, "iscrowd", "0 or 1")
    return name, (x, y, x + width, y + height), bool(crowd)


def _bad(entry: Entry, path: Path, key: str, allowed: str) -> DataError:
    where = f"{path}, annotation {_short(entry.get('id'))} of image {_short(entry['image_id'])}"
    found = _short(entry[key]) if key in entry else f"keys {_short([*entry])}"
    return DataError(f"{key} makes no sense", where=where, found=found, allowed=allowed)


def _short(value: object) -> str:
    """JSON again, in ASCII, without what lies deeper, and at most 80 characters."""
    if isinstance(value, dict):
        value = [*value]
    items = value[:20] if isinstance(value, list) else [value]
    text = ", ".join("..." if isinstance(item, dict | list) else json.dumps(item) for item in items)
    text = text if len(text) <= 80 else f"{text[:77]}..."
    return f"[{text}]" if isinstance(value, list) else text
