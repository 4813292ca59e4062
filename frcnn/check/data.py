"""What a data set is like: its classes, its boxes, its images."""

import difflib
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from frcnn import build
from frcnn.check.findings import Findings, share, some
from frcnn.data.dataset import DetectionDataset
from frcnn.data.images import read_image
from frcnn.data.index import Index, Source, Texts, overlap
from frcnn.data.readers.headers import image_sizes
from frcnn.data.transforms import clip_boxes, place_boxes
from frcnn.errors import DataError
from frcnn.spec.run import App
from frcnn.spec.values import plain_name

THREADS = 8
RARE = 0.01
"""A class with less than this share of the objects is called rare."""
SLACK = 1.0
"""Pixels that a box may reach beyond its image: labels count from 0 or 1, to the last pixel or behind it."""


@dataclass(frozen=True)
class Split:
    """Training or validation data that could be read.

    Attributes:
        dataset: what the network would be shown.
        boxes: (n, 4) usable boxes, xyxy pixels of the network input.
        sizes: (n, 2) height and width of the input of each.
        class_ids: (n,).
    """

    dataset: DetectionDataset
    boxes: NDArray[np.float64]
    sizes: NDArray[np.float64]
    class_ids: NDArray[np.int16]


def look_at(app: App, findings: Findings, content: dict[str, Any], *, validation: bool) -> Split | None:
    """Read the labels and the headers of the images of one split; None where nothing of it can be used."""
    sources = build.read_sources(app, app.run, validation=validation, problem=findings.error)
    sources = [_readable(app, source, findings) for source in sources]
    sources = [source for source in sources if len(source.index)]
    if not sources:
        content["summary"] = "nothing that could be read"
        if not findings.broken("validation data" if validation else "training data"):
            findings.error(DataError("there are no images", where="dataset_config"))
        return None
    dataset, table = build.data_set(app, app.run, sources, validation=validation, problem=findings.error)
    index = dataset.index
    total = sum((source.total for source in table.sources[1:]), table.sources[0].total)
    empty = sum(source.images_without_objects for source in table.sources)
    counts = np.bincount(index.image_of_object()[~index.ignored], minlength=len(index))
    limit = app.model_config.input_image_config.max_objects_num_per_image
    odd, usual = _odd_boxes(sources), _sizes(index)
    kinds = "all" if len(usual) == 1 else f"{len(usual):,} sizes, most"
    kinds += f" {usual[0]['width']}x{usual[0]['height']}"
    content["summary"] = (
        f"{len(index):,} images ({kinds}; {empty:,} without objects), "
        f"{total.kept:,} objects, {counts.max()} at most in one (room for {limit})"
    )
    content["facts"] |= {
        "images": len(index),
        "objects": total.kept,
        "images_without_objects": empty,
        "objects_per_image": {"mean": float(counts.mean()), "most": int(counts.max()), "limit": limit},
        "dropped": {"no_area": total.degenerate, "outside": total.outside, "too_small": total.too_small},
        "boxes_beyond_their_image": odd[0],
        "duplicate_boxes": odd[1],
        "image_sizes": usual,
    }
    for count, what in (
        (total.degenerate, "boxes have no area and are dropped"),
        (total.outside, "boxes lie outside of the network input and are dropped"),
        (total.too_small, "boxes are smaller than min_bbox_width or min_bbox_height and are dropped"),
        (odd[0], "boxes reach beyond their image and are clipped"),
        (odd[1], "boxes are there twice, with the same class, and count twice"),
    ):
        if count:
            findings.warn(what, found=f"{count:,}")
    content["rows"]["classes"] = _classes(app, sources, table.kept, findings)
    placed = build.geometry(app)(index.sizes[index.image_of_object()])
    boxes = place_boxes(torch.from_numpy(index.boxes), index.sizes[index.image_of_object()], placed)
    boxes = clip_boxes(boxes, size=placed.output)
    usable = ~index.ignored
    return Split(
        dataset=dataset,
        boxes=boxes.numpy().astype(np.float64)[usable],
        sizes=np.asarray(placed.output, np.float64)[usable],
        class_ids=index.class_ids[usable],
    )


def _readable(app: App, source: Source, findings: Findings) -> Source:
    """A source without the images that cannot be used; says which, and which are not as labels say."""
    index = source.index
    paths = [index.path(i) for i in range(len(index))]
    there = np.array([path.is_file() for path in paths], bool) & (index.sizes > 0).all(axis=1)
    keep = there.copy()
    found = image_sizes([path for path, ok in zip(paths, there, strict=True) if ok], problem=findings.error)
    sizes = np.zeros_like(index.sizes)
    sizes[there] = np.array(found, np.int32).reshape(-1, 2)
    keep &= (sizes > 0).all(axis=1)
    for i in np.flatnonzero(keep & (sizes != index.sizes).any(axis=1)):
        (height, width), (said_height, said_width) = sizes[i], index.sizes[i]
        findings.warn(
            "the image is not of the size that its label says",
            where=paths[i],
            found=f"{width}x{height}",
            allowed=f"{said_width}x{said_height}",
        )
    if app.run.check_decode:
        rows = np.flatnonzero(keep)
        with ThreadPoolExecutor(THREADS) as pool:
            for i, error in zip(rows, pool.map(_decode, [paths[i] for i in rows]), strict=True):
                if error is not None:
                    findings.error(error)
                    keep[i] = False
    return source if keep.all() else replace(source, index=_images(index, keep))


def _decode(path: Path) -> DataError | None:
    try:
        read_image(path, channels=3)
    except DataError as error:
        return error
    return None


def _images(index: Index, keep: NDArray[np.bool_]) -> Index:
    """The index with only the images of `keep` (m,)."""
    rows, objects = np.flatnonzero(keep), keep[index.image_of_object()]
    frames = [index.frames[int(i)].encode() for i in rows]
    return replace(
        index,
        boxes=index.boxes[objects],
        class_ids=index.class_ids[objects],
        difficult=index.difficult[objects],
        ignored=index.ignored[objects],
        offsets=np.concatenate([[0], np.cumsum(np.diff(index.offsets)[rows])]),
        sizes=index.sizes[rows],
        folder_ids=index.folder_ids[rows],
        frames=Texts(
            np.frombuffer(b"".join(frames), np.uint8), np.cumsum([len(frame) for frame in frames], dtype=int)
        ),
    )


def _odd_boxes(sources: Sequence[Source]) -> tuple[int, int]:
    """How many boxes reach beyond their image, and how many repeat another one of it."""
    beyond = twice = 0
    for index in (source.index for source in sources):
        images = index.image_of_object()
        limits = index.sizes[images][:, ::-1] + SLACK
        beyond += int(((index.boxes[:, :2] < -SLACK) | (index.boxes[:, 2:] > limits)).any(axis=1).sum())
        rows = np.column_stack([images, index.class_ids, index.boxes])
        twice += len(rows) - len(np.unique(rows, axis=0))
    return beyond, twice


def _sizes(index: Index) -> list[dict[str, int]]:
    """Sizes of image files, the most frequent first."""
    found, counts = np.unique(index.sizes, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return [{"width": int(found[i][1]), "height": int(found[i][0]), "images": int(counts[i])} for i in order]


def _classes(
    app: App, sources: Sequence[Source], kept: Mapping[str, int], findings: Findings
) -> list[dict[str, Any]]:
    """Names in the data against the mapping, most frequent first; warns of what looks like a slip."""
    names: Counter[str] = Counter()
    for source in sources:
        counts = np.bincount(source.index.class_ids, minlength=len(source.index.class_names))
        names.update({name: int(n) for name, n in zip(source.index.class_names, counts, strict=True) if n})
        names.update(source.degenerate)
    mapping = {plain_name(key): name for key, name in app.dataset_config.target_class_mapping.items()}
    ignored = {plain_name(name) for name in app.run.ignore_classes}
    plain = {plain_name(name) for name in names}
    # A class that none of its names is there for is warned of where the data is prepared.
    unused = [key for key, name in mapping.items() if key not in plain and kept[name]]
    rows, total = [], sum(kept.values())
    for name, count in names.most_common():
        target = mapping.get(plain_name(name))
        near = difflib.get_close_matches(plain_name(name), mapping, n=1, cutoff=0.75)
        becomes = target or "not mapped: dropped"
        if plain_name(name) in ignored:
            becomes = "area to ignore"
        elif target is None and near:
            becomes += f" (close to {near[0]})"
            key = "dataset_config.target_class_mapping"
            findings.warn(
                f"{name!r} is not mapped, and close to {near[0]!r}, which is",
                found=f"{count:,} objects that are dropped",
                hint=f"+{key}.{name}={mapping[near[0]]}",
            )
        rows.append(
            {
                "name in the data": name,
                "objects": count,
                "share": f"{count / names.total():.1%}",
                "class": becomes,
            }
        )
    if unused:
        findings.warn("names of target_class_mapping are not in the data", found=some(unused))
    for name, count in kept.items():
        part = share(count, total)
        if 0 < part < RARE:
            hint = "a source of its own with source_weight shows its images more often"
            findings.warn("a class is rare", found=f"{name}: {count:,} objects, {part:.2%}", hint=hint)
    return rows


def look_at_overlap(
    training: DetectionDataset,
    validation: DetectionDataset | None,
    findings: Findings,
    content: dict[str, Any],
) -> None:
    """Images that are there twice by path or by content, within the training data or in both splits."""
    paths = [training.index.path(i) for i in range(len(training))]
    held_out = [] if validation is None else [validation.index.path(i) for i in range(len(validation))]
    marks = _contents([*paths, *held_out])
    of_training = [marks[path] for path in paths if path in marks]
    twice = len(of_training) - len(set(of_training))
    both = [path for path in held_out if marks.get(path, path) in {*of_training}]
    content["facts"] |= {"repeated_training_images": twice, "validation_images_in_training": len(both)}
    if twice:
        findings.warn("training images have the content of another one", found=f"{twice:,}")
    if validation is not None:
        by_path = overlap(validation.index, training.index)
        content["facts"]["same_files"] = by_path
        if both or by_path:
            findings.warn(
                "validation images are training images, too: their figures say little",
                where=both[0] if both else None,
                found=f"{max(len(both), round(by_path * len(held_out))):,} of {len(held_out):,}",
            )
    content["summary"] = "no image of the validation is in the training" if held_out else "no validation"
    if both:
        content["summary"] = f"{len(both):,} of {len(held_out):,} validation images are training images"


def _contents(paths: Iterable[Path]) -> dict[Path, bytes]:
    """Hashes of files that may equal another one: those whose size in bytes another one has, too."""
    by_size: defaultdict[int, list[Path]] = defaultdict(list)
    for path in paths:
        by_size[path.stat().st_size].append(path)
    candidates = list(dict.fromkeys(path for group in by_size.values() if len(group) > 1 for path in group))
    with ThreadPoolExecutor(THREADS) as pool:
        return dict(zip(candidates, pool.map(_digest, candidates), strict=True))


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()
