"""KITTI folders: a label file of the same stem beside every image."""

import io
import logging
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from frcnn.data.index import ImageFolder, IndexBuilder, Source
from frcnn.data.readers.fields import is_degenerate, number
from frcnn.data.readers.files import Problem, is_folder, names_in, read_text, refuse, stems_in
from frcnn.data.readers.headers import image_sizes
from frcnn.errors import DataError

_log = logging.getLogger(__name__)
_COLUMNS = "class truncated occluded alpha x1 y1 x2 y2 height width length x y z rotation_y"


class Label(NamedTuple):
    """One object of a label file; the box is xyxy in pixels of the image."""

    name: str
    truncation: float
    occlusion: int
    alpha: float  # observation angle, radians
    box: tuple[float, float, float, float]
    dimensions: tuple[float, float, float]  # height, width, length in metres
    location: tuple[float, float, float]  # x, y, z in metres, camera coordinates
    rotation_y: float  # radians

    @property
    def degenerate(self) -> bool:
        """Whether no whole pixel of the box remains."""
        return is_degenerate(self.box)


def parse_label(line: str, *, where: str, allow_scores: bool = False) -> Label:
    """Read one line of a label file; the class name is lower-cased, as the TAO converter does.

    Args:
        line: 15 columns separated by white space, Unicode's included: a no-break space or a line separator
            within a name makes it two columns.
        where: file and line number, for the error.
        allow_scores: accept detector output, which carries a score in column 16.

    Raises:
        DataError: another number of columns, or one of the 14 or 15 numbers is none or not finite.
    """
    name, *columns = line.split() or [""]
    if len(columns) != 14 and not (allow_scores and len(columns) == 15):
        raise DataError(
            "not a KITTI label",
            where=where,
            found=f"{len(columns) + 1} columns: {line.strip()[:120]}",
            allowed=f"15 columns: {_COLUMNS}" + (", and a score" if allow_scores else ""),
            hint="column 16 of detector output is a score: remove it, or set run.allow_label_scores=true"
            if len(columns) == 15
            else None,
        )
    values = [*map(number, columns)]
    if any(map(math.isnan, values)):
        for position, text in enumerate(columns):
            if math.isnan(values[position]):
                column = [*_COLUMNS.split(), "score"][position + 1]
                raise DataError(
                    f"column {position + 2} ({column}) is no finite number",
                    where=where,
                    found=text[:80],
                    allowed="a number such as 12, -1.5 or 3e2",
                )
    truncation, occlusion, alpha, x1, y1, x2, y2, height, width, length, x, y, z, rotation_y = values[:14]
    return Label(
        name=name.lower(),
        truncation=truncation,
        occlusion=int(occlusion),
        alpha=alpha,
        box=(x1, y1, x2, y2),
        dimensions=(height, width, length),
        location=(x, y, z),
        rotation_y=rotation_y,
    )


def read_labels(path: Path, *, allow_scores: bool = False, problem: Problem = refuse) -> list[Label]:
    """All objects of a label file. Blank lines and a byte order mark are fine; lines end with LF, CRLF or CR.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or a line is no label.
    """
    labels: list[Label] = []
    try:
        text = read_text(path, what="label file")
    except DataError as error:
        problem(error)
        return labels
    for count, line in enumerate(io.StringIO(text, newline=None), 1):
        if not line.isspace():
            try:
                labels.append(parse_label(line, where=f"{path}:{count}", allow_scores=allow_scores))
            except DataError as error:
                problem(error)
    return labels


def read_kitti(
    *,
    image_root: Path,
    labels: Path,
    image_extension: str = "png",
    allow_scores: bool = False,
    allow_missing: bool = False,
    problem: Problem = refuse,
) -> Source:
    """Index the images that lie beside a label folder.

    Images are looked for in `<image_root>/image_2` (for labels in `label_2`; likewise `image_3`,
    `image`), then in `image_root` itself. Frame ids are relative to `image_root`, without extension,
    as in the records that TAO makes of such folders.

    Args:
        image_root: the folder that holds the image folder, or the image folder.
        labels: the folder of `<stem>.txt`.
        image_extension: with or without its dot; case matters.
        allow_scores: accept a 16th column.
        allow_missing: take an image without a label file for one without objects, and say how many.
        problem: is told of single images, labels and lines that are missing or wrong.

    Raises:
        DataError: no images, images without a label file, an unreadable label or image header.
    """
    extension = image_extension.removeprefix(".")
    folder, stems = _find_images(image_root, labels, extension)
    if not is_folder(labels):
        raise DataError("the label folder does not exist", where=labels)
    label_stems = set(stems_in(labels, ".txt"))
    if missing := [stem for stem in stems if stem not in label_stems]:
        _report_missing(missing, len(stems), labels, allow=allow_missing, problem=problem)

    prefix = "" if folder == image_root else f"{folder.name}/"
    builder = IndexBuilder(ImageFolder(str(image_root), extension))
    degenerate: Counter[str] = Counter()
    sizes = image_sizes([folder / f"{stem}.{extension}" for stem in stems], problem=problem)
    for stem, size in zip(stems, sizes, strict=True):
        path = labels / f"{stem}.txt"
        found = read_labels(path, allow_scores=allow_scores, problem=problem) if stem in label_stems else []
        degenerate.update(label.name for label in found if label.degenerate)
        kept = [label for label in found if not label.degenerate]
        builder.add(
            prefix + stem,
            size,
            names=[label.name for label in kept],
            boxes=[coordinate for label in kept for coordinate in label.box],
            difficult=[label.occlusion >= 1 for label in kept],
        )
    unused = len(label_stems.difference(stems))
    return Source(str(labels), builder.build(), degenerate, unused_labels=unused)


def _report_missing(
    missing: Sequence[str], images: int, labels: Path, *, allow: bool, problem: Problem
) -> None:
    """Warn of images without a label file, or make them a problem."""
    names = ", ".join(f"{stem}.txt" for stem in missing[:5]) + ", ..." * (len(missing) > 5)
    if allow:
        _log.warning(
            "%s: %d of %d images have no label file and so no objects: no %s",
            *(labels, len(missing), images, names),
        )
        return
    error = DataError(
        f"{len(missing)} of {images} images have no label file",
        where=labels,
        found=f"no {names}",
        allowed="a label file for every image; an empty one for an image without objects",
        hint="run.allow_missing_labels=true takes these for images without objects",
    )
    problem(error)


def _find_images(image_root: Path, labels: Path, extension: str) -> tuple[Path, list[str]]:
    """The image folder and the sorted stems of its images."""
    names = dict.fromkeys([labels.name.replace("label", "image", 1), "image_2", ""])
    candidates = [image_root / name for name in names]
    for folder in candidates:
        if is_folder(folder) and (stems := stems_in(folder, f".{extension}")):
            return folder, stems
    suffixes = Counter(
        Path(name).suffix or "no extension"
        for folder in candidates
        for name in names_in(str(folder))
        if not is_folder(folder / name)
    )
    raise DataError(
        f"no .{extension} images",
        where=", ".join(map(str, candidates)),
        found=", ".join(f"{count} files {suffix}" for suffix, count in suffixes.items()) or "no files",
        hint="image_extension is matched as written, in upper and lower case",
    )
