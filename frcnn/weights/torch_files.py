"""State dicts of torch and safetensors, read without executing anything in them."""

import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from frcnn.errors import WeightsError
from frcnn.paths import refuse_missing
from frcnn.safe_load import safe_load, unreadable

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

WHAT = "weight file"


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a state dict by name.

    Args:
        path: a file of `torch.save`, the state dict itself or under one of `WRAPPERS`, or of safetensors.

    Raises:
        WeightsError: no such file, broken, cut off, compressed, with objects or code in it, or no state dict.
    """
    path = Path(path)
    is_safetensors = path.suffix.lower() == ".safetensors"
    content = _safetensors(path) if is_safetensors else safe_load(path, what=WHAT)
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
        state[name.removeprefix("module.")] = value.detach()
    return state


def _no_state(path: Path, found: str) -> WeightsError:
    allowed = "a state dict: a dict of tensors by name"
    hint = "torch.save(model.state_dict(), FILE) makes one"
    return WeightsError("is no state dict", where=path, found=found, allowed=allowed, hint=hint)


def _safetensors(path: Path) -> dict[str, Tensor]:
    """The format: length of the header in 8 bytes, the header in JSON, the numbers."""
    refuse_missing(path, what=WHAT)
    data = path.read_bytes()
    try:
        (length,) = struct.unpack_from("<Q", data)
        if length > min(len(data) - 8, MAX_HEADER):
            raise unreadable(path, f"a header of {length:,} bytes", what=WHAT)
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        body = bytearray(data[8 + length :])
        return {name: _slice(body, entry, f"{path}: {name}") for name, entry in header.items()}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise unreadable(path, f"{type(error).__name__}: {error}"[:200], what=WHAT) from error


def _slice(body: bytearray, entry: Mapping[str, Any], where: str) -> Tensor:
    dtype, shape, (start, end) = _DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=1) < 1 or not 0 <= start <= end <= len(body) or end - start != size:
        found = f"shape {shape}, bytes {start} to {end} of {len(body)}"
        raise WeightsError("is broken or cut off", where=where, found=found)
    return torch.frombuffer(body, dtype=dtype, count=math.prod(shape), offset=start).reshape(shape)
