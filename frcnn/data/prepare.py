"""From what the readers found to what the network is shown, with an account of every object."""

import difflib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from frcnn.data.index import Index, Source, concatenate
from frcnn.data.table import Counts, DataTable, SourceTable
from frcnn.data.transforms import box_factors, box_sizes, clip_boxes
from frcnn.errors import DataError

_log = logging.getLogger(__name__)
_USABLE, _DEGENERATE, _OUTSIDE, _SMALL = range(4)
_BLOCK = 1 << 16


def prepare(
    sources: Sequence[Source],
    *,
    class_mapping: Mapping[str, str],
    size: tuple[int, int],
    auto_resize: bool,
    max_objects: int,
    min_size: tuple[float, float] = (1.0, 1.0),
    split: str = "training",
) -> tuple[Index, DataTable]:
    """Map classes, drop what the network cannot learn, and count both.

    Args:
        sources: one or more, as read.
        class_mapping: name in the data (whatever its case) to class of the network. Class ids follow
            the sorted classes, by code point.
        size: (height, width) of the network input.
        auto_resize: images are stretched to `size`; otherwise padded or cropped.
        max_objects: the ground truth slots of an image.
        min_size: (width, height) in the network input below which an object is dropped.
        split: what to call the data set in messages.

    Raises:
        DataError: no object is left, or an image holds more than `max_objects`.
    """
    class_names = sorted(set(class_mapping.values()))
    class_ids = {key.lower(): class_names.index(name) for key, name in class_mapping.items()}
    indexes, tables = [], []
    for source in sources:
        if not auto_resize:
            _warn_other_sizes(source, size)
        fates = _fates(source.index, size=size, auto_resize=auto_resize, min_size=min_size)
        kept, account = _prepare_source(source, class_ids, class_names, fates)
        indexes.append(kept)
        tables.append(account)
    index, table = concatenate(indexes), DataTable(tuple(tables))
    _check_objects(sources, table, class_mapping, split)
    _check_slots(index, max_objects)
    return index, table


def _prepare_source(
    source: Source, class_ids: Mapping[str, int], class_names: Sequence[str], fates: NDArray[np.uint8]
) -> tuple[Index, SourceTable]:
    """Map the classes of a source, keep its usable objects and count all; fates (n,) as from `_fates`."""
    raw = source.index
    lookup = np.array([class_ids.get(name.lower(), -1) for name in raw.class_names], np.int16)
    mapped = lookup[raw.class_ids]
    keep = (mapped >= 0) & (fates == _USABLE)
    index = raw.select(keep, class_ids=mapped, class_names=class_names)

    def per_class(selected: NDArray[np.bool_]) -> NDArray[np.intp]:
        return np.bincount(mapped[selected & (mapped >= 0)], minlength=len(class_names))

    difficult = np.bincount(index.class_ids[index.difficult], minlength=len(class_names))
    kept, degenerate, outside, small = (per_class(fates == fate) for fate in range(4))
    unmapped: Counter[str] = Counter()
    for name, count in _names(raw).items():
        if name.lower() not in class_ids:
            unmapped[name] = count
    for name, count in source.degenerate.items():
        if name.lower() in class_ids:
            degenerate[class_ids[name.lower()]] += count
        else:
            unmapped[name] += count
    columns = zip(kept, difficult, degenerate, outside, small, strict=True)
    return index, SourceTable(
        name=source.name,
        images=len(index),
        images_without_objects=int((np.diff(index.offsets) == 0).sum()),
        unused_labels=source.unused_labels,
        classes={name: Counts(*map(int, counts)) for name, counts in zip(class_names, columns, strict=True)},
        unmapped=dict(unmapped.most_common()),
    )


def _fates(
    index: Index, *, size: tuple[int, int], auto_resize: bool, min_size: tuple[float, float]
) -> NDArray[np.uint8]:
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
        if auto_resize:
            boxes = boxes * box_factors(index.sizes[images[rows]], size=size)
        width, height = box_sizes(clip_boxes(boxes, size=size))
        fates[rows][((width < min_size[0]) | (height < min_size[1])).numpy()] = _SMALL
        fates[rows][((width <= 0) | (height <= 0)).numpy()] = _OUTSIDE
        fates[rows][degenerate.numpy()] = _DEGENERATE
    return fates


def _names(index: Index) -> dict[str, int]:
    """How often each class name occurs."""
    counts = np.bincount(index.class_ids, minlength=len(index.class_names))
    return {name: int(count) for name, count in zip(index.class_names, counts, strict=True)}


def _warn_other_sizes(source: Source, size: tuple[int, int]) -> None:
    """Say once that images are not of the network's size and will be padded or cropped."""
    sizes = source.index.sizes
    others = (sizes != size).any(axis=1)
    if others.any():
        height, width = sizes[int(others.argmax())]
        _log.warning(
            "%s: %d of %d images are not %dx%d (one is %dx%d); they are padded with black or cropped at "
            "the right and bottom. enable_auto_resize stretches them instead",
            *(source.name, int(others.sum()), len(sizes), size[1], size[0], width, height),
        )


def _check_objects(
    sources: Sequence[Source], table: DataTable, class_mapping: Mapping[str, str], split: str
) -> None:
    """Raise if no object is left; warn of classes that got none."""
    without = [name for name, kept in table.kept.items() if not kept]
    if not without:
        return
    found: Counter[str] = Counter()
    for source in sources:
        found.update(_names(source.index))
    keys = [key.lower() for key, name in class_mapping.items() if name in without]
    near = [
        f"map {name!r}, which is close to {match[0]!r}"
        for name in found
        if name.lower() not in keys and (match := difflib.get_close_matches(name.lower(), keys, n=1))
    ]
    if len(without) < len(table.kept):
        _log.warning("%s data: no objects of %s. %s", split, ", ".join(without), "; ".join(near))
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
    raise DataError(
        f"the {split} data holds no objects of the mapped classes",
        where=", ".join(source.name for source in sources),
        found=", ".join(f"{name} ({count})" for name, count in found.most_common(20)) or "no objects at all",
        allowed=f"names in the mapping, whatever their case: {', '.join(class_mapping)}",
        hint="; ".join(near) or (f"mapped objects were dropped: {dropped}" if dropped else None),
    )


def _check_slots(index: Index, max_objects: int) -> None:
    counts = np.diff(index.offsets)
    if (worst := int(counts.max())) > max_objects:
        raise DataError(
            "an image holds more objects than there is room for",
            where=index.path(int(counts.argmax())),
            found=f"{worst} objects; {int((counts > max_objects).sum())} images hold too many",
            allowed=f"up to {max_objects}",
            hint=f"raise max_objects_num_per_image to {worst}",
        )
