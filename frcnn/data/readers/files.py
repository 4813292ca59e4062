"""Files of a data set, opened without trusting what they claim to be."""

import errno
import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np

from frcnn.data.index import ImageFolder, Index
from frcnn.errors import DataError

MAX_TEXT = 16 << 20  # bytes of a label file, an annotation or a list; the largest real ones hold some 100 KB
_NO_FILE = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}


Problem: TypeAlias = Callable[[DataError], None]
"""What a reader tells of something wrong. It leaves that thing out if this returns."""


def refuse(error: DataError) -> None:
    """Stop at the first problem."""
    raise error


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading in binary mode.

    Raises:
        OSError: as `open` does, and for what is no regular file: reading a pipe waits for a writer, and
            a device may never end.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = next((name for test, name in _NO_FILE.items() if test(mode)), "a device")
            raise OSError(errno.EINVAL, f"{kind}, not a regular file")
        return open(path, "rb")
    except ValueError as error:  # a NUL byte in the name
        raise OSError(errno.EINVAL, str(error)) from error


def read_bytes(path: Path, *, what: str, limit: int | None = MAX_TEXT, count: int = -1) -> bytes:
    """The first `count` bytes of a file, or all of it.

    Args:
        path: the file.
        what: what it is, such as `label file`, for the error.
        limit: bytes that it may hold; None for any number.
        count: bytes to read; all by default.

    Raises:
        DataError: the file cannot be read or is larger.
    """
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            if limit is not None and size > limit:
                raise DataError(
                    f"the {what} is too large",
                    where=path,
                    found=f"{size} bytes",
                    allowed=f"up to {limit} bytes",
                )
            return file.read(count)
    except OSError as error:
        raise DataError(f"the {what} cannot be read", where=path, found=error.strerror) from error


def read_text(path: Path, *, what: str, limit: int | None = MAX_TEXT) -> str:
    """The text of a UTF-8 file, without its byte order mark; the arguments are those of `read_bytes`.

    Raises:
        DataError: as `read_bytes`, or the file is not UTF-8 or holds a NUL.
    """
    data = read_bytes(path, what=what, limit=limit)
    try:
        text = data.decode("utf-8-sig")
        place = data.find(b"\0")
    except UnicodeDecodeError as error:
        # The codec counts from behind the mark.
        text, place = "", error.start + len(data) - len(error.object)
    if place >= 0:
        line = data.count(b"\n", 0, place) + 1
        found = f"byte 0x{data[place]:02x} at offset {place}"
        raise DataError("not UTF-8 text", where=f"{path}:{line}", found=found, hint="save it as UTF-8")
    return text


def stems_in(folder: Path, suffix: str) -> list[str]:
    """The sorted names in a folder that end in `suffix`, without it.

    Raises:
        DataError: there is no such folder, it cannot be listed, or such a name is not UTF-8.
    """
    try:
        names = os.listdir(folder)  # noqa: PTH208 -- without a Path for each
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError("the folder cannot be listed", where=folder, found=reason) from error
    stems = sorted(name.removesuffix(suffix) for name in names if name.endswith(suffix))
    try:
        "".join(stems).encode()
    except UnicodeEncodeError as error:
        broken = next(stem for stem in stems if stem.encode(errors="ignore").decode() != stem)
        raise DataError(
            "a file name is not UTF-8", where=folder, found=ascii(broken + suffix), hint="rename the file"
        ) from error
    return stems


def is_folder(path: Path) -> bool:
    """Whether a folder is there. No, where one may not look or no file can be: `Path.is_dir` would raise."""
    return os.path.isdir(path)  # noqa: PTH112


def names_in(folder: str) -> set[str]:
    """The names in a folder; none where there is no such folder."""
    try:
        return set(os.listdir(folder))  # noqa: PTH208
    except (OSError, ValueError):  # no such folder, or no name that a folder can have
        return set()


def with_suffixes(index: Index, suffixes: Iterable[str], *, root: Path) -> Index:
    """The index with its frames below `root`, and a suffix (without its dot) for each of them."""
    numbers: dict[str, int] = {}
    ids = [numbers.setdefault(suffix, len(numbers)) for suffix in suffixes]
    folders = tuple(ImageFolder(str(root), suffix) for suffix in numbers)
    return replace(index, folder_ids=np.array(ids, np.int16), folders=folders)


def check_images(index: Index, *, what: str, problem: Problem = refuse) -> None:
    """See that every frame has its image file. Lists folders instead of asking for each file.

    Works on strings: with pathlib it would take a third of the time that reading the records takes.

    Args:
        index: as built by a reader.
        what: what asks for the images, for the error: `records`.
        problem: is told of frames without a file, in one error that names the first.

    Raises:
        DataError: frames without a file; the first is named.
    """
    present: dict[str, set[str]] = {}
    missing: list[int] = []
    for i in range(len(index)):
        place = index.folders[index.folder_ids[i]]
        inner, name = os.path.split(f"{index.frames[i]}.{place.extension}")
        folder = os.path.join(place.root, inner) if inner else place.root  # noqa: PTH118
        if folder not in present:
            present[folder] = names_in(folder)
        if name not in present[folder]:
            missing.append(i)
    if missing:
        folders = [f"{folder} holds {len(names)} files" for folder, names in present.items()]
        error = DataError(
            f"{len(missing)} of {len(index)} {what} have no image file",
            where=index.path(missing[0]),
            found="; ".join(folders[:4]) + "; ..." * (len(folders) > 4),
            hint="check the image folder and the extension",
        )
        problem(error)
