"""Keras' layout of HDF5, read by a process of its own: the HDF5 library may crash on a broken file.

The process only checks, reads and hands on numbers: nothing in a file is executed, and nothing outside of it
is opened. `python -m frcnn.weights.hdf5 FILE` writes a line of JSON and the tensors as float32.
"""

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import h5py
import numpy as np

from frcnn.errors import WeightsError
from frcnn.paths import refuse_missing

SIGNATURE = b"\x89HDF\r\n\x1a\n"
TIMEOUT = 900
"""Seconds: a broken file may also keep the library busy for ever."""

MAX_BYTES = 4 << 30
"""More than any network of TAO's holds."""

MAX_RATIO = 100
"""How much smaller than its numbers much may be stored; trained weights hardly compress."""

FILTERS = {1, 2, 3}
"""gzip, shuffle and checksum, which HDF5 brings along; it would load others as plugins."""


class Content(NamedTuple):
    """What a file holds."""

    tensors: dict[tuple[str, str], np.ndarray]  # by layer and last part of the name, in Keras' axes
    model_config: str | None


def read(path: Path) -> Content:
    """Read a Keras model or weight file.

    Groups lie at the root of a weight file and under `model_weights` in a model's. A tensor is known by its
    group and the last part of its name: what stands between may carry a `_1`, as quantised, retrained and
    resumed models do (tao/model-and-training.md 2.1).

    Raises:
        WeightsError: no such file, no HDF5, encrypted, cut off, not of Keras' layout, tensors of absurd size
            or type, or members that lie outside of the file.
    """
    refuse_missing(path, what="weight file")
    refuse_other_formats(path)
    # No plugins: what is packed by one is refused.
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HDF5_PLUGIN_PRELOAD": "::"}
    command = [sys.executable, "-P", "-m", __name__, str(path)]
    try:
        done = subprocess.run(
            command, capture_output=True, env={**os.environ, **paths}, timeout=TIMEOUT, check=False
        )
        start = done.stdout.find(b"\n") + 1
        header = json.loads(done.stdout[:start])
    except (subprocess.TimeoutExpired, ValueError):
        raise _broken(path, "the HDF5 library cannot cope with it") from None
    if "error" in header:
        raise WeightsError(**header["error"])
    expected = start + 4 * sum(math.prod(shape) for *_, shape in header["tensors"])
    if done.returncode != 0 or len(done.stdout) != expected:
        raise _broken(path, "the HDF5 library cannot cope with it")
    tensors = {}
    for layer, name, shape in header["tensors"]:
        size = math.prod(shape)
        tensors[layer, name] = np.frombuffer(done.stdout, np.float32, size, start).reshape(shape)
        start += 4 * size
    return Content(tensors, header["model_config"])


def refuse_other_formats(path: Path) -> None:
    """Stop at a file that is no HDF5.

    HDF5 begins with its signature, or with a block for the user of 512 bytes, 1024 bytes and so on.

    Raises:
        WeightsError: it is none; of a .tlt it says how to decode it.
    """
    with path.open("rb") as file:
        begin = file.read(1 << 16)
    if any(begin[offset:].startswith(SIGNATURE) for offset in (0, *(512 << i for i in range(7)))):
        return
    if path.suffix == ".tlt":
        raise WeightsError(
            "is encrypted, and only the toolkit that wrote it can decode it",
            where=path,
            allowed="the same model as .hdf5",
            hint="decode it to .hdf5 with its owner's key in the original container, then give that file",
        )
    raise WeightsError("is no HDF5 file", where=path, found=f"it begins with {begin[:16]!r}")


def _broken(path: Path, why: object) -> WeightsError:
    found = f"{path.stat().st_size} bytes, {why}"
    return WeightsError("cannot be read: broken or cut off", where=path, found=found)


# The process


def main(path: Path, out: BinaryIO) -> None:
    """Write what a file holds, or why it is refused."""
    tensors: dict[tuple[str, str], np.ndarray] = {}
    try:
        with h5py.File(path, "r", locking=False) as file:
            found = _find(file, path)
            config = file.attrs.get("model_config")
            config = config.decode() if isinstance(config, bytes) else config
            # All of it before a word is written: an error must not end up among the numbers.
            tensors = {key: np.asarray(data[()], dtype=np.float32) for key, data in found.items()}
        listed = [(*key, values.shape) for key, values in tensors.items()]
        header = json.dumps({"tensors": listed, "model_config": config})
    except WeightsError as error:
        parts = {name: getattr(error, name) for name in ("where", "found", "allowed", "hint")}
        texts = {name: None if part is None else str(part) for name, part in parts.items()}
        header = json.dumps({"error": {"message": error.message, **texts}})
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, AttributeError, MemoryError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        refused = _broken(path, why)
        parts = {"message": refused.message, "where": str(path), "found": str(refused.found)}
        header = json.dumps({"error": parts})
    out.write(header.encode() + b"\n")
    for values in tensors.values():
        out.write(values.tobytes())


def _find(file: h5py.File, path: Path) -> dict[tuple[str, str], h5py.Dataset]:
    """The tensors that the file lists, checked but not read."""
    group = _member(file, "model_weights", path) if file.id.links.exists(b"model_weights") else file
    if not any(name.startswith("layer_names") for name in group.attrs):
        allowed = "Keras 2's attribute layer_names at the root or in model_weights"
        found = ", ".join(list(file)[:5]) or "no groups"
        raise WeightsError("is no Keras model or weight file", where=path, found=found, allowed=allowed)
    tensors: dict[tuple[str, str], h5py.Dataset] = {}
    for layer in _names(group, "layer_names", path):
        member = _member(group, layer, path)
        for name in _names(member, "weight_names", path):
            key = (layer, name.rpartition("/")[2].partition(":")[0])
            if key in tensors:
                raise WeightsError("has two tensors of one name", where=f"{path}: {layer}", found=name)
            tensors[key] = _checked(_member(member, name, path), f"{path}: {layer}: {name}")
    size = sum(map(_bytes, tensors.values()))
    # One object may be listed under many names.
    stored = sum({h5py.h5o.get_info(d.id).addr: _stored(d) for d in tensors.values()}.values())
    if size > (most := _most(stored)):
        found = f"{size:,} bytes in {stored:,} bytes of the file"
        raise WeightsError("holds too much", where=path, found=found, allowed=f"{most:,} bytes")
    return tensors


def _names(group: h5py.Group, attribute: str, path: Path) -> Iterator[str]:
    """A list of names; Keras cuts lists of more than 64 kB into `attribute0`, `attribute1`, ..."""
    parts = [attribute] if attribute in group.attrs else [f"{attribute}{i}" for i in range(len(group.attrs))]
    for part in (part for part in parts if part in group.attrs):
        names = group.attrs[part]
        if getattr(names, "ndim", 0) != 1:
            found = f"{part} is {type(names).__name__}"
            raise WeightsError("is no Keras model or weight file", where=path, found=found, allowed="a list")
        for name in names:
            yield name.decode() if isinstance(name, bytes) else str(name)


def _member(group: h5py.Group, name: str, path: Path) -> Any:
    """A group or tensor below another, reached by hard links only: others may lead to other files."""
    where = f"{path}: {group.name.rstrip('/')}/{name}"
    for part in filter(None, name.split("/")):
        if not isinstance(group, h5py.Group) or not group.id.links.exists(part.encode()):
            raise WeightsError("is listed and not there", where=where)
        if group.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
            raise WeightsError("is a link, and links are not followed", where=where)
        group = group[part]
    return group


def _checked(data: Any, where: str) -> h5py.Dataset:
    """A tensor that may be read, by what the file declares."""
    if not isinstance(data, h5py.Dataset) or data.shape is None or data.dtype.kind != "f":
        found = getattr(data, "dtype", type(data).__name__)
        raise WeightsError("is no tensor of floating-point numbers", where=where, found=found)
    if data.external or data.is_virtual:
        raise WeightsError("keeps its numbers in another file, which is not opened", where=where)
    properties = data.id.get_create_plist()
    filters = {properties.get_filter(i)[0] for i in range(properties.get_nfilters())}
    if not filters <= FILTERS:
        raise WeightsError("is packed in a way that is not unpacked", where=where, found=filters - FILTERS)
    size, stored = _bytes(data), _stored(data)
    if data.ndim > 5 or not 0 < size <= _most(stored):
        found = f"shape {data.shape}, {size:,} bytes in {stored:,} bytes of the file"
        raise WeightsError("is a tensor of absurd size", where=where, found=found)
    return data


def _bytes(data: h5py.Dataset) -> int:
    size: int = math.prod(data.shape) * data.dtype.itemsize
    return size


def _stored(data: h5py.Dataset) -> int:
    size: int = data.id.get_storage_size()
    return size


def _most(stored: int) -> int:
    """Bytes of memory that numbers may take which take `stored` bytes of a file."""
    return min(MAX_BYTES, max(1 << 20, MAX_RATIO * stored))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.stdout.buffer)
