"""Files of torch.save, read without executing anything in them.

torch.load runs with `weights_only=True`, which knows tensors and plain containers only. What it would still
do at a file's word, reserve memory or unpack, is checked here.
"""

import io
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from frcnn.encryption import SUFFIX, is_sealed, unsealed
from frcnn.errors import WeightsError
from frcnn.paths import refuse_missing

# All that torch's unpickler and archive reader are known to raise on broken files.
_BROKEN = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    ImportError,
    OverflowError,
    MemoryError,
    struct.error,
    zipfile.BadZipFile,
)


def safe_load(path: Path, *, what: str, key: str = "") -> Any:
    """What a file of torch.save holds, on the CPU; a sealed one is opened in memory.

    Args:
        path: the file.
        what: what it should be, for messages.
        key: of a sealed file; that of the environment if empty.

    Raises:
        WeightsError: no such file, broken, cut off, compressed, with objects or code in it, or with tensors
            that are none.
        SpecError: it is sealed, and the key is missing or wrong.
    """
    refuse_missing(path, what=what)
    try:
        sealed = path.suffix == SUFFIX or is_sealed(path)
        file: BinaryIO = io.BytesIO(unsealed(path, key)) if sealed else path.open("rb")
    except OSError as error:
        raise unreadable(path, error.strerror, what=what) from error
    with file:
        return _load(file, path, what=what)


def _load(file: BinaryIO, path: Path, *, what: str) -> Any:
    try:
        if zipfile.is_zipfile(file):
            _refuse_packed(file, path)
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, about files that are refused in a moment
            content = torch.load(file, map_location="cpu", weights_only=True)
    except _BROKEN as error:
        # torch's own words would advise to load it unsafely.
        if objects := _objects(file, error):
            raise WeightsError(
                "holds objects or code, which are not loaded",
                where=path,
                found=objects,
                allowed="tensors, numbers and texts in dicts and lists",
                hint="where you trust it, torch.save(model.state_dict(), FILE) makes a state dict of it",
            ) from None
        raise unreadable(path, type(error).__name__, what=what) from error
    for name, tensor in _tensors(content):
        _check(tensor, f"{path}: {name}" if name else str(path))
    return content


def unreadable(path: Path, why: object, *, what: str) -> WeightsError:
    """The error for a file that ends early or holds nonsense."""
    found = f"{path.stat().st_size} bytes, {why}"
    return WeightsError(f"cannot be read: broken, cut off, or no {what}", where=path, found=found)


def _objects(file: BinaryIO, error: Exception) -> str | None:
    """What torch stopped at, if it was no tensor or plain container; it names the first."""
    if named := re.search(r"GLOBAL (\S+)", str(error)):
        return named[1]
    file.seek(0)
    begin = file.read(2)
    # torch.save writes protocol 2, whatever Python's own is.
    newer = begin[:1] == pickle.PROTO and begin[1:] > b"\x02"
    return f"a pickle of protocol {begin[1]}" if newer else None


def _refuse_packed(file: BinaryIO, path: Path) -> None:
    """An archive that unpacks to more than itself is none of torch's, which stores records as they are."""
    with zipfile.ZipFile(file) as archive:
        size = sum(record.file_size for record in archive.infolist())
    if size > (packed := file.seek(0, io.SEEK_END)):
        found = f"{packed:,} bytes that unpack to {size:,}"
        raise WeightsError("is compressed, as torch never does", where=path, found=found)


def _tensors(content: object) -> Iterator[tuple[str, Tensor]]:
    """Every tensor below `content`, with the nearest name."""
    # By identity, not recursively: a pickle may hold a list in itself, or the same one a million times.
    below, seen = [("", content)], set()
    while below:
        name, item = below.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if isinstance(item, Tensor):
            yield name, item
        elif isinstance(item, Mapping):
            below += [(key if isinstance(key, str) else name, value) for key, value in item.items()]
        elif isinstance(item, list | tuple | set | frozenset):
            below += [(name, value) for value in item]


def _check(value: Tensor, where: str) -> None:
    """A tensor must be as large as what is stored of it: a stride of 0 makes terabytes of one number."""
    plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    if not plain or value.is_complex():
        found = f"{value.layout}, {value.dtype}, {value.device}"
        raise WeightsError("is no plain tensor", where=where, found=found)
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        found = f"shape {tuple(value.shape)} on {value.untyped_storage().nbytes()} bytes"
        raise WeightsError("is a tensor of absurd size", where=where, found=found)
