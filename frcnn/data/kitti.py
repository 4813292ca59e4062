"""KITTI folders: a label file of the same stem beside every image."""

import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from frcnn.data.images import image_size
from frcnn.data.index import ImageFolder, IndexBuilder, Source
from frcnn.errors import DataError

_COLUMNS = "class truncated occluded alpha x1 y1 x2 y2 height width length x y z rotation_y"
_FLOAT32_MAX = 3.4028234e38


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
        """Whether no whole pixel remains. TAO: the converter skips these, truncating toward 0."""
        x1, y1, x2, y2 = map(int, self.box)
        return x1 >= x2 or y1 >= y2


def parse_label(line: str, *, where: str, allow_scores: bool = False) -> Label:
    """Read one line of a label file; the class name is lower-cased, as the TAO converter does.

    Args:
        line: 15 columns separated by white space.
        where: file and line number, for the error.
        allow_scores: accept detector output, which carries a score in column 16.

    Raises:
        DataError: another number of columns, or one of the 14 or 15 numbers is none or not finite.
    """
    name, *columns = line.split()
    if len(columns) != 14 and not (allow_scores and len(columns) == 15):
        raise DataError(
            "not a KITTI label",
            where=where,
            found=f"{len(columns) + 1} columns: {line.strip()[:120]}",
            allowed=f"15 columns: {_COLUMNS}" + (", and a score" if allow_scores else ""),
            hint="column 16 of detector output is a score: remove it" if len(columns) == 15 else None,
        )
    values = [_number(text) for text in columns]
    # Not being at most the largest float32 also catches NaN, and what would become inf in the index.
    for position, value in enumerate(values):
        if not abs(value) <= _FLOAT32_MAX:
            column = [*_COLUMNS.split(), "score"][position + 1]
            raise DataError(
                f"column {position + 2} ({column}) is no finite number",
                where=where,
                found=columns[position],
                allowed="a number",
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


def read_labels(path: Path, *, allow_scores: bool = False) -> list[Label]:
    """All objects of a label file. Blank lines, CRLF and a byte order mark are fine.

    Raises:
        DataError: the file cannot be read, is not UTF-8, or a line is no label.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DataError(
            "not UTF-8 text", where=f"{path}:{line}", found=f"byte 0x{error.object[error.start]:02x}"
        ) from error
    except OSError as error:
        raise DataError("the label file cannot be read", where=path, found=error.strerror) from error
    return [
        parse_label(line, where=f"{path}:{number}", allow_scores=allow_scores)
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip()
    ]


def read_kitti(
    *, image_root: Path, labels: Path, image_extension: str = "png", allow_scores: bool = False
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

    Raises:
        DataError: no images, images without a label file, an unreadable label or image header.
    """
    extension = image_extension.removeprefix(".")
    folder, stems = _find_images(image_root, labels, extension)
    if not labels.is_dir():
        raise DataError("the label folder does not exist", where=labels)
    label_stems = {path.stem for path in labels.iterdir() if path.suffix == ".txt"}
    if missing := [stem for stem in stems if stem not in label_stems]:
        raise DataError(
            f"{len(missing)} of {len(stems)} images have no label file",
            where=labels,
            found=f"no {', '.join(f'{stem}.txt' for stem in missing[:5])}" + (", ..." * (len(missing) > 5)),
            allowed="a label file for every image; an empty one for an image without objects",
        )

    prefix = "" if folder == image_root else f"{folder.name}/"
    builder = IndexBuilder(ImageFolder(str(image_root), extension))
    degenerate: Counter[str] = Counter()
    for stem in stems:
        objects = read_labels(labels / f"{stem}.txt", allow_scores=allow_scores)
        degenerate.update(label.name for label in objects if label.degenerate)
        kept = [label for label in objects if not label.degenerate]
        builder.add(
            prefix + stem,
            image_size(folder / f"{stem}.{extension}"),
            names=[label.name for label in kept],
            boxes=[coordinate for label in kept for coordinate in label.box],
            difficult=[label.occlusion >= 1 for label in kept],
        )
    return Source(str(labels), builder.build(), degenerate, unused_labels=len(label_stems) - len(stems))


def _find_images(image_root: Path, labels: Path, extension: str) -> tuple[Path, list[str]]:
    """The image folder and the sorted stems of its images."""
    names = dict.fromkeys([labels.name.replace("label", "image", 1), "image_2", ""])
    candidates = [image_root / name for name in names]
    for folder in candidates:
        if folder.is_dir():
            suffix = f".{extension}"
            stems = sorted(
                path.name.removesuffix(suffix) for path in folder.iterdir() if path.name.endswith(suffix)
            )
            if stems:
                return folder, stems
    suffixes = Counter(
        path.suffix or "no extension"
        for c in candidates
        if c.is_dir()
        for path in c.iterdir()
        if path.is_file()
    )
    raise DataError(
        f"no .{extension} images",
        where=", ".join(map(str, candidates)),
        found=", ".join(f"{count} files {suffix}" for suffix, count in suffixes.items()) or "no files",
        hint="image_extension is matched as written, in upper and lower case",
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
