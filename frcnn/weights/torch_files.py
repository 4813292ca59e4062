"""State dicts of torch and safetensors, read without executing anything in them.

torch.load runs with `weights_only=True`, which knows tensors and plain containers only. What it would still
do at a file's word, reserve memory or unpack, is checked here.
"""

import json
import math
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from frcnn.errors import WeightsError

SUFFIXES = (".pth", ".pt", ".safetensors")

MAX_HEADER = 100 << 20
"""Bytes; safetensors' own limit."""

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys under which training scripts keep the weights; averaged ones come first, as in timm."""

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
}

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


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name.

    Args:
        path: a file of `torch.save`, the state dict itself or under one of `WRAPPERS`, or of safetensors.

    Raises:
        WeightsError: no such file, broken, cut off, compressed, with objects or code in it, or no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError("there is no such weight file", where=path)
    content = _safetensors(path) if path.suffix.lower() == ".safetensors" else _torch(path)
    for key in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(inner := content.get(key), Mapping) and inner:
            content = inner
            break
    if not isinstance(content, Mapping) or not content:
        raise _no_state(path, type(content).__name__)
    state = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise _no_state(path, f"{name!r}: {type(value).__name__}"[:200])
        state[name.removeprefix("module.")] = _checked(value, f"{path}: {name}")
    return state


def _no_state(path: Path, found: str) -> WeightsError:
    allowed = "a state dict: a dict of tensors by name"
    hint = "torch.save(model.state_dict(), FILE) makes one"
    return WeightsError("is no state dict", where=path, found=found, allowed=allowed, hint=hint)


def _checked(value: Tensor, where: str) -> Tensor:
    """A tensor that is as large as what is stored of it: a stride of 0 makes terabytes of one number."""
    plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_quantized
    if not plain or value.is_complex():
        found = f"{value.layout}, {value.dtype}, {value.device}"
        raise WeightsError("is no plain tensor", where=where, found=found)
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        found = f"shape {tuple(value.shape)} on {value.untyped_storage().nbytes()} bytes"
        raise WeightsError("is a tensor of absurd size", where=where, found=found)
    return value.detach()


def _torch(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            _refuse_packed(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except _BROKEN as error:
        # torch's own words would advise to load it unsafely.
        if unknown := re.search(r"GLOBAL (\S+) was not an allowed global", str(error)):
            raise WeightsError(
                "holds objects or code, which are not loaded",
                where=path,
                found=unknown[1],
                allowed="a state dict: tensors and nothing else",
                hint="where you trust it, torch.save(model.state_dict(), FILE) makes one",
            ) from None
        raise _unreadable(path, type(error).__name__) from error


def _refuse_packed(path: Path) -> None:
    """An archive that unpacks to more than itself is none of torch's, which stores records as they are."""
    with zipfile.ZipFile(path) as archive:
        size = sum(record.file_size for record in archive.infolist())
    if size > path.stat().st_size:
        found = f"{path.stat().st_size:,} bytes that unpack to {size:,}"
        raise WeightsError("is compressed, as torch never does", where=path, found=found)


def _safetensors(path: Path) -> dict[str, Tensor]:
    """The format: length of the header in 8 bytes, the header in JSON, the numbers."""
    data = path.read_bytes()
    try:
        (length,) = struct.unpack_from("<Q", data)
        if length > min(len(data) - 8, MAX_HEADER):
            raise _unreadable(path, f"a header of {length:,} bytes")
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        body = bytearray(data[8 + length :])
        return {name: _slice(body, entry, f"{path}: {name}") for name, entry in header.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise _unreadable(path, f"{type(error).__name__}: {error}"[:200]) from error


def _slice(body: bytearray, entry: Mapping[str, Any], where: str) -> Tensor:
    dtype, shape, (start, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 1 or not 0 <= start <= end <= len(body) or end - start != size:
        found = f"shape {shape}, bytes {start} to {end} of {len(body)}"
        raise WeightsError("is broken or cut off", where=where, found=found)
    return torch.frombuffer(body, dtype=dtype, count=math.prod(shape), offset=start).reshape(shape)


def _unreadable(path: Path, why: str) -> WeightsError:
    found = f"{path.stat().st_size} bytes, {why}"
    return WeightsError("cannot be read: broken, cut off, or no weight file", where=path, found=found)
