"""From what the readers found to what the network is shown, with an account of every object."""

import difflib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from frcnn.data.geometry import Geometry
from frcnn.data.index import Index, Source, concatenate
from frcnn.data.readers.files import Problem, refuse
from frcnn.data.table import Counts, DataTable, SourceTable
from frcnn.data.transforms import box_sizes, clip_boxes, place_boxes
from frcnn.errors import DataError
from frcnn.spec.values import plain_name

_log = logging.getLogger(__name__)
_USABLE, _DEGENERATE, _OUTSIDE, _SMALL = range(4)
_BLOCK = 1 << 16


def prepare(
    sources: Sequence[Source],
    *,
    class_mapping: Mapping[str, str],
    geometry: Geometry,
    max_objects: int,
    min_size: tuple[float, float] = (1.0, 1.0),
    ignore_classes: Sequence[str] = (),
    split: str = "training",
    problem: Problem = refuse,
) -> tuple[Index, DataTable]:
    """Map classes, drop what the network cannot learn, and count both.

    Args:
        sources: one or more, as read.
        class_mapping: name in the data (whatever its case and spaces) to class of the network. Class ids
            follow the sorted classes, by code point.
        geometry: where the files' pixels lie in the network input.
        max_objects: the ground truth slots of an image.
        min_size: (width, height) in the network input below which an object is dropped; an area to ignore
            stays as long as anything of it does.
        ignore_classes: names in the data (likewise, none of them mapped) whose boxes become areas
            to ignore. So do boxes that the reader marked, if their class is mapped.
        split: what to call the data set in messages.
        problem: is told what would keep this data from being used.

    Raises:
        DataError: no object is left, or an image holds more than `max_objects`.
    """
    class_names = sorted(set(class_mapping.values()))
    class_ids = {plain_name(key): class_names.index(name) for key, name in class_mapping.items()}
    indexes, tables = [], []
    for source in sources:
        _warn_other_sizes(source, geometry)
        fates = _fates(source.index, geometry=geometry, min_size=min_size)
        kept, account = _prepare_source(source, class_ids, class_names, ignore_classes, fates)
        indexes.append(kept)
        tables.append(account)
    index, table = concatenate(indexes), DataTable(tuple(tables))
    _check_objects(sources, table, class_mapping, split, problem)
    _warn_no_areas(table, ignore_classes, split)
    _check_slots(index, max_objects, problem)
    return index, table


def _prepare_source(
    source: Source,
    class_ids: Mapping[str, int],
    class_names: Sequence[str],
    ignore_classes: Sequence[str],
    fates: NDArray[np.uint8],
) -> tuple[Index, SourceTable]:
    """Map the classes of a source, keep usable objects and areas, count all; fates (n,) as from `_fates`."""
    raw = source.index
    # Names of areas are counted like classes, after them; in the index they are of no class.
    rows = [*class_names, *ignore_classes]
    row_of = {**class_ids, **{plain_name(name): i for i, name in enumerate(ignore_classes, len(class_names))}}
    lookup = np.array([row_of.get(plain_name(name), -1) for name in raw.class_names], np.int16)
    mapped = lookup[raw.class_ids]
    is_area = raw.ignored | (mapped >= len(class_names))
    fates = np.where(is_area & (fates == _SMALL), _USABLE, fates)
    keep = (mapped >= 0) & (fates == _USABLE)
    area = keep & is_area
    index = replace(raw, ignored=is_area).select(
        keep,
        class_ids=np.where(mapped < len(class_names), mapped, -1).astype(np.int16),
        class_names=class_names,
    )

    def per_row(selected: NDArray[np.bool_]) -> NDArray[np.intp]:
        return np.bincount(mapped[selected & (mapped >= 0)], minlength=len(rows))

    kept, difficult = per_row(keep & ~is_area), per_row(keep & ~is_area & raw.difficult)
    degenerate, outside, small = (per_row(fates == fate) for fate in (_DEGENERATE, _OUTSIDE, _SMALL))
    unmapped: Counter[str] = Counter()
    for name, count in _names(raw).items():
        if plain_name(name) not in row_of:
            unmapped[name] = count
    for name, count in source.degenerate.items():
        if plain_name(name) in row_of:
            degenerate[row_of[plain_name(name)]] += count
        else:
            unmapped[name] += count
    columns = zip(kept, difficult, degenerate, outside, small, per_row(area), strict=True)
    counts = [Counts(*map(int, values)) for values in columns]
    images_with_objects = len(np.unique(raw.image_of_object()[keep & ~is_area]))
    return index, SourceTable(
        name=source.name,
        images=len(index),
        images_without_objects=len(index) - images_with_objects,
        unused_labels=source.unused_labels,
        classes=dict(zip(class_names, counts, strict=False)),
        areas=dict(zip(ignore_classes, counts[len(class_names) :], strict=True)),
        unmapped=dict(unmapped.most_common()),
    )


def _fates(index: Index, *, geometry: Geometry, min_size: tuple[float, float]) -> NDArray[np.uint8]:
    """What becomes of each object (n,) in an image that is not augmented.

    The arithmetic is that of the transform chain, so such an image keeps just the usable ones. Goes
    through the objects in blocks to stay small in memory.
    """
    fates = np.full(len(index.boxes), _USABLE, np.uint8)
    images = index.image_of_object()
    for start in range(0, len(fates), _BLOCK):
        rows = slice(start, start + _BLOCK)
        boxes = torch.from_numpy(index.boxes[rows])
        width, height = box_sizes(boxes)
        degenerate = (width <= 0) | (height <= 0)
        sizes = index.sizes[images[rows]]
        placement = geometry(sizes)
        boxes = place_boxes(boxes, sizes, placement)
        width, height = box_sizes(clip_boxes(boxes, size=placement.output))
        fates[rows][((width < min_size[0]) | (height < min_size[1])).numpy()] = _SMALL
        fates[rows][((width <= 0) | (height <= 0)).numpy()] = _OUTSIDE
        fates[rows][degenerate.numpy()] = _DEGENERATE
    return fates


def _names(index: Index) -> dict[str, int]:
    """How often each class name occurs."""
    counts = np.bincount(index.class_ids, minlength=len(index.class_names))
    return {name: int(count) for name, count in zip(index.class_names, counts, strict=True)}


def _warn_other_sizes(source: Source, geometry: Geometry) -> None:
    """Say once that images are not of the network's size and will be padded or cropped."""
    content, corner, output = geometry(source.index.sizes)
    if corner != (0, 0):
        beyond = (output + corner[::-1] > content).any(axis=1)
        if beyond.any():
            height, width = content[int(beyond.argmax())]
            _log.warning(
                "%s: the crop reaches beyond %d of %d images (one is %dx%d by then); it is black there",
                *(source.name, int(beyond.sum()), len(content), width, height),
            )
        return
    others = (content != output).any(axis=1)
    if others.any():
        one = int(others.argmax())
        (height, width), (found_height, found_width) = output[one], content[one]
        _log.warning(
            "%s: %d of %d images are not %dx%d (one is %dx%d); they are padded with black or cropped at "
            "the right and bottom. enable_auto_resize stretches them instead",
            *(source.name, int(others.sum()), len(content), width, height, found_width, found_height),
        )


def _check_objects(
    sources: Sequence[Source],
    table: DataTable,
    class_mapping: Mapping[str, str],
    split: str,
    problem: Problem,
) -> None:
    """Report if no object is left; warn of classes that got none."""
    without = [name for name, kept in table.kept.items() if not kept]
    if not without:
        return
    found: Counter[str] = Counter()
    for source in sources:
        found.update(_names(source.index))
    keys = [plain_name(key) for key, name in class_mapping.items() if name in without]
    near = [
        f"map {name!r}, which is close to {match[0]!r}"
        for name in found
        if plain_name(name) not in keys and (match := difflib.get_close_matches(plain_name(name), keys, n=1))
    ]
    if len(without) < len(table.kept):
        _log.warning(
            "%s data: no objects of %s%s", split, ", ".join(without), "".join(f"; {n}" for n in near)
        )
        return
    total = sum((source.total for source in table.sources), Counts())
    dropped = ", ".join(
        f"{count} {reason}"
        for reason, count in (
            ("without area", total.degenerate),
            ("outside the network input", total.outside),
            ("too small", total.too_small),
        )
        if count
    )
    error = DataError(
        f"the {split} data holds no objects of the mapped classes",
        where=", ".join(source.name for source in sources),
        found=", ".join(f"{name} ({count})" for name, count in found.most_common(20)) or "no objects at all",
        allowed=f"names in the mapping, whatever their case: {', '.join(class_mapping)}",
        hint="; ".join(near) or (f"mapped objects were dropped: {dropped}" if dropped else None),
    )
    problem(error)


def _warn_no_areas(table: DataTable, ignore_classes: Sequence[str], split: str) -> None:
    """Say which of the names to ignore the data does not hold."""
    for name in ignore_classes:
        if all(source.areas[name] == Counts() for source in table.sources):
            _log.warning("%s data: no %r, which ignore_classes names", split, name)


def _check_slots(index: Index, max_objects: int, problem: Problem) -> None:
    counts = np.bincount(index.image_of_object()[~index.ignored], minlength=len(index))
    if (worst := int(counts.max(initial=0))) > max_objects:
        error = DataError(
            "an image holds more objects than there is room for",
            where=index.path(int(counts.argmax())),
            found=f"{worst} objects; {int((counts > max_objects).sum())} images hold too many",
            allowed=f"up to {max_objects}",
            hint=f"raise max_objects_num_per_image to {worst}",
        )
        problem(error)
