"""Which kind of data a path leads to, told by what is there."""

import glob
import os
from collections import Counter
from enum import StrEnum
from pathlib import Path

from frcnn.data.readers.files import is_folder, names_in
from frcnn.data.readers.shards import WARNING_SUFFIX
from frcnn.errors import DataError

ALLOWED = (
    "a glob of TFRecords, a folder of KITTI labels (.txt), a COCO .json file, "
    "a VOC Annotations folder (.xml) or a VOC list such as ImageSets/Main/train.txt"
)


class Layout(StrEnum):
    """How labels are stored."""

    RECORDS = "TFRecords"
    KITTI = "a KITTI label folder"
    COCO = "a COCO file"
    VOC = "VOC annotations"


def layout_of(path: str) -> tuple[Layout, Path]:
    """What `tfrecords_path` holds, and where: the one file that a pattern matches, or else `path` itself.

    Only names are looked at. The converter's `*_warning.json` do not count.

    Raises:
        DataError: different things at once, or labels where another form is needed.
    """
    place = Path(path)
    if is_folder(place):
        return _of_folder(place), place
    # A name with brackets is a file before it is a pattern.
    names = [path] if os.path.isfile(place) else glob.glob(path)  # noqa: PTH113, PTH207 -- pathlib raises
    files = [name for name in names if not name.endswith(WARNING_SUFFIX) and not is_folder(Path(name))]
    suffixes = Counter(Path(name).suffix.lower() for name in files)
    labels = {".json": Layout.COCO, ".txt": Layout.VOC, ".xml": Layout.VOC}
    found = {labels.get(suffix, Layout.RECORDS) for suffix in suffixes} or {Layout.RECORDS}
    if found == {Layout.RECORDS}:
        return Layout.RECORDS, place
    if len(files) == 1 and ".xml" not in suffixes:
        return found.pop(), Path(files[0])
    raise DataError(
        "these files cannot be read together" if len(files) > 1 else "an annotation is no list of images",
        where=path,
        found=_counted(suffixes),
        allowed=ALLOWED,
        hint="KITTI labels and VOC annotations are given as their folder"
        if {".txt", ".xml"} & {*suffixes}
        else "give each .json file as a data source of its own",
    )


def _of_folder(folder: Path) -> Layout:
    suffixes = Counter(Path(name).suffix for name in names_in(str(folder)))
    if suffixes[".xml"] and suffixes[".txt"]:
        raise DataError(
            "the folder holds labels of two kinds", where=folder, found=_counted(suffixes), allowed=ALLOWED
        )
    if suffixes[".xml"]:
        return Layout.VOC
    if suffixes and not suffixes[".txt"]:
        inner = folder / "Annotations"
        raise DataError(
            "the folder holds no labels",
            where=folder,
            found=_counted(suffixes),
            allowed=ALLOWED,
            hint=f"give {inner}" if is_folder(inner) else f"for TFRecords give a glob: {folder}/*",
        )
    return Layout.KITTI


def _counted(suffixes: Counter[str]) -> str:
    return ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in suffixes.most_common(6))
