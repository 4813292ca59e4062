"""Pascal VOC's labels: an XML file for each image."""

import io
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from xml.parsers import expat

from frcnn.data.index import ImageFolder, IndexBuilder, Source
from frcnn.data.readers.fields import IMAGE_SUFFIXES, MAX_SIDE, is_degenerate, number
from frcnn.data.readers.files import (
    Problem,
    is_folder,
    names_in,
    read_bytes,
    read_text,
    refuse,
    stems_in,
    with_suffixes,
)
from frcnn.data.readers.headers import image_sizes
from frcnn.errors import DataError

_CORNERS = ("bndbox/xmin", "bndbox/ymin", "bndbox/xmax", "bndbox/ymax")
_READ = ("filename", "size/width", "size/height", "name", "difficult", *_CORNERS)
_PATHS = {tuple(path.split("/")): path for path in _READ}
_DEEPEST = 4  # annotation/object/bndbox/xmin
_CLASS_LIST = "lists such as car_train.txt are for classification: use train.txt"

Fields = Mapping[str, tuple[str, int]]  # path of an element to its text and line


def read_voc(
    *, annotations: Path, image_root: Path, image_extension: str = "jpg", problem: Problem = refuse
) -> Source:
    """Index the images of a VOC tree.

    Images lie in `image_root`, its `JPEGImages`, or the `JPEGImages` beside `Annotations`: the first of these
    that holds the first image found. An image's name is the XML's with `image_extension`, or else the XML's
    `<filename>`. Class names and coordinates stay as they are written (VOC counts pixels from 1, and no 1 is
    subtracted); a box counts as without area by the rule of a KITTI label. Sizes are those of the XML, or of
    the image's header where it gives none.

    Args:
        annotations: the folder `Annotations`, or a list of image ids such as `ImageSets/Main/train.txt` with
            `Annotations` two folders up.
        image_root: see above.
        image_extension: with or without its dot; case matters.
        problem: is told of single files that are missing or make no sense.

    Raises:
        DataError: no annotations, an XML file that makes no sense, or images are missing.
    """
    folder, stems = _annotation_files(annotations)
    places = {
        place: names_in(os.path.join(*place))  # noqa: PTH118
        for place in [(image_root, ""), (image_root, "JPEGImages/"), (folder.parent, "JPEGImages/")]
    }
    chosen: tuple[Path, str] | None = None
    builder = IndexBuilder(ImageFolder("", ""))
    degenerate: Counter[str] = Counter()
    missing: list[Path] = []
    unsized: list[int] = []
    suffixes: list[str] = []
    for stem in stems:
        file = folder / f"{stem}.xml"
        try:
            fields, *objects = _parse(file)
            size, found = _size(fields, file), [_object(item, file) for item in objects]
        except DataError as error:
            problem(error)
            continue
        names = _image_names(stem, fields, image_extension)
        chosen = chosen or next(
            (place for place, there in places.items() if not there.isdisjoint(names)), None
        )
        image = next((name for name in names if chosen and name in places[chosen]), None)
        if chosen is None or image is None:
            missing.append(file)
            continue
        frame, _, suffix = image.rpartition(".")
        if not size:
            unsized.append(len(suffixes))
        suffixes.append(suffix)
        degenerate.update(name for name, box, _ in found if is_degenerate(box))
        kept = [item for item in found if not is_degenerate(item[1])]
        builder.add(
            chosen[1] + frame,
            size or (0, 0),
            names=[name for name, _, _ in kept],
            boxes=[coordinate for _, box, _ in kept for coordinate in box],
            difficult=[difficult for _, _, difficult in kept],
        )
    if missing:
        problem_or_end = problem if chosen else refuse
        looked = [chosen] if chosen else places
        names = _image_names(missing[0].stem, _parse(missing[0])[0], image_extension)
        lacking = DataError(
            f"{len(missing)} of {len(stems)} annotations have no image",
            where=missing[0],
            found=f"no {' or '.join(names)} in {', '.join(str(root / inner) for root, inner in looked)}",
            hint="check image_directory_path and image_extension",
        )
        problem_or_end(lacking)
    if chosen is None:
        raise DataError("no annotation could be read", where=folder)
    index = with_suffixes(builder.build(), suffixes, root=chosen[0])
    if unsized:
        index.sizes[unsized] = image_sizes([index.path(i) for i in unsized], problem=problem)
    return Source(str(annotations), index, degenerate)


def _annotation_files(path: Path) -> tuple[Path, list[str]]:
    """The folder of XML files and the stems of those to read."""
    if is_folder(path):
        if stems := stems_in(path, ".xml"):
            return path, stems
        raise DataError("the folder holds no .xml files", where=path)
    folder = path.absolute().parent.parent.parent / "Annotations"
    known = set(stems_in(folder, ".xml"))
    lines: dict[str, int] = {}
    for line, text in enumerate(io.StringIO(read_text(path, what="image list"), newline=None), 1):
        stem = text.strip()
        if not stem:
            continue
        where = f"{path}:{line}"
        if stem not in known:
            flagged = stem.split()[-1] in ("-1", "0", "1") and " " in stem
            raise DataError(
                "no such annotation",
                where=where,
                found=stem[:80],
                allowed=f"an image id: {folder}/<id>.xml",
                hint=_CLASS_LIST if flagged else None,
            )
        if stem in lines:
            raise DataError(
                "the image is listed twice", where=where, found=f"{stem[:80]}, also in line {lines[stem]}"
            )
        lines[stem] = line
    if not lines:
        raise DataError("the list is empty", where=path, allowed="one image id a line")
    return folder, [*lines]


def _image_names(stem: str, fields: Fields, extension: str) -> list[str]:
    """What the image of an XML file may be called, best first."""
    extension = extension.removeprefix(".")
    written = fields.get("filename", ("", 0))[0].replace("\\", "/").rpartition("/")[2]
    names = [f"{stem}.{extension}", f"{written}.{extension}"]
    if written.lower().endswith(IMAGE_SUFFIXES):
        names[1:] = [written]
    return list(dict.fromkeys(names)) if written else names[:1]


def _size(fields: Fields, file: Path) -> tuple[int, int] | None:
    """(height, width) in the XML; None where it gives none, or zeros as some tools do."""
    sides = [fields.get(f"size/{side}", ("0", 1)) for side in ("height", "width")]
    values = [number(text) for text, _ in sides]
    if values == [0, 0]:
        return None
    for value, (text, line) in zip(values, sides, strict=True):
        if not (1 <= value <= MAX_SIDE and value.is_integer()):
            raise DataError(
                "the image has no size",
                where=f"{file}:{line}",
                found=text[:80],
                allowed=f"a whole number from 1 to {MAX_SIDE}",
                hint="leave <size> out, and the image file's own size is taken",
            )
    return int(values[0]), int(values[1])


def _object(fields: Fields, file: Path) -> tuple[str, tuple[float, float, float, float], bool]:
    """Class name, box (xyxy) and whether it is difficult."""
    start = fields[""][1]
    name, line = fields.get("name", ("", start))
    if not name:
        raise DataError("the object has no name", where=f"{file}:{line}", allowed="<name>class</name>")
    box = []
    for corner in _CORNERS:
        text, line = fields.get(corner, ("nothing", start))
        box.append(number(text))
        if math.isnan(box[-1]):
            tag = corner.rpartition("/")[2]
            raise DataError(
                f"the {name[:80]} has no {tag}",
                where=f"{file}:{line}",
                found=text[:80],
                allowed=f"<{tag}>number</{tag}>",
            )
    text, line = fields.get("difficult", ("0", start))
    if text not in ("0", "1", ""):
        raise DataError("difficult is unclear", where=f"{file}:{line}", found=text[:80], allowed="0 or 1")
    x1, y1, x2, y2 = box
    return name, (x1, y1, x2, y2), text == "1"


def _parse(file: Path) -> list[dict[str, tuple[str, int]]]:
    """The fields of `<annotation>`, followed by those of each `<object>`.

    Raises:
        DataError: no well-formed XML, another root, or a document type declaration. Entities can only be
            declared there, and with them a small file can grow to gigabytes or read other files.
    """
    data = read_bytes(file, what="annotation")
    reader = _Reader(file)
    try:
        reader.parser.Parse(data, True)
    except expat.ExpatError as error:
        where = f"{file}:{error.lineno}:{error.offset + 1}"
        raise DataError("not XML", where=where, found=expat.ErrorString(error.code)) from error
    except (ValueError, LookupError) as error:
        raise DataError(
            "the XML has an unknown encoding", where=f"{file}:1", found=error, hint="save it as UTF-8"
        ) from error
    return reader.groups


class _Reader:
    """Collects the elements of `_READ` while expat reads; the first of each counts."""

    def __init__(self, file: Path) -> None:
        self.groups: list[dict[str, tuple[str, int]]] = [{}]
        self._file, self._stack, self._text, self._line = file, list[str](), list[str](), 0
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text.append
        self.parser.StartDoctypeDeclHandler = self._doctype

    def _start(self, tag: str, _: Mapping[str, str]) -> None:
        line = self.parser.CurrentLineNumber
        if not self._stack and tag != "annotation":
            raise DataError(
                "not a VOC annotation",
                where=f"{self._file}:{line}",
                found=f"<{tag[:80]}>",
                allowed="<annotation>",
            )
        if len(self._stack) == 1 and tag == "object":
            self.groups.append({"": ("", line)})
        self._stack.append(tag)
        self._text.clear()
        self._line = line

    def _end(self, _: str) -> None:
        if self._line and len(self._stack) <= _DEEPEST:  # a leaf: no other element has ended since it began
            inside = self._stack[1:2] == ["object"]
            if path := _PATHS.get(tuple(self._stack[2 if inside else 1 :])):
                text = "".join(self._text).strip()
                self.groups[-1 if inside else 0].setdefault(path, (text, self._line))
        self._stack.pop()
        self._line = 0

    def _doctype(self, *_: object) -> None:
        raise DataError(
            "the XML declares a document type",
            where=f"{self._file}:{self.parser.CurrentLineNumber}",
            hint="remove <!DOCTYPE ...>: annotations need none",
        )
