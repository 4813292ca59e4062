"""INT8 for TensorRT up to 10: a graph without its Q/DQ nodes, and images to calibrate with in TAO's format."""

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import torch
from torch import Tensor

from frcnn.deploy.calibration_cache import LARGEST
from frcnn.errors import DataError

_ARRAY = "_tensorfile_array_key_"


def without_rounding(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, float]]:
    """A graph whose tensors are no longer rounded.

    Args:
        model: with QuantizeLinear and DequantizeLinear nodes.

    Returns:
        The same graph without them, in which all other tensors keep their names; and of the tensors that were
        rounded, weights left out, name -> largest absolute value that eight bits held.
    """
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in plain.graph.initializer}
    sources, others, scales = dict[str, str](), [], dict[str, float]()
    for node in plain.graph.node:
        if node.op_type == "QuantizeLinear":
            source = sources[node.output[0]] = node.input[0]
            if source not in constants:
                scale = onnx.numpy_helper.to_array(constants[node.input[1]])
                scales[source] = float(scale.reshape(())) * LARGEST
        elif node.op_type == "DequantizeLinear":
            sources[node.output[0]] = sources[node.input[0]]
        else:
            others.append(node)
    for node in others:
        for i, name in enumerate(node.input):
            node.input[i] = sources.get(name, name)
    _replace(plain.graph.node, others)
    used = {name for node in plain.graph.node for name in node.input}
    weights = [tensor for tensor in plain.graph.initializer if tensor.name in used]
    _replace(plain.graph.initializer, weights)
    _replace(plain.graph.value_info, [value for value in plain.graph.value_info if value.name not in sources])
    onnx.checker.check_model(plain, full_check=True)
    return plain, scales


def write_tensorfile(path: Path, batches: Iterable[Tensor]) -> None:
    """Normalised images (B, C, H, W) in TAO's format; batches all have the size of the first."""
    with h5py.File(path, "w") as file:
        count, shape = 0, None
        for batch in batches:
            shape = shape or tuple(batch.shape)
            if tuple(batch.shape) != shape:
                break
            group = file.create_group(f"{_ARRAY}_{count}")
            group.create_dataset(_ARRAY, data=batch.double().numpy(), compression="gzip")
            count += 1
        file.attrs["count"], file.attrs["shape"] = count, shape or ()


def read_tensorfile(path: Path) -> Iterator[Tensor]:
    """Batches of normalised images (B, C, H, W) float32.

    Raises:
        DataError: it is no tensorfile.
    """
    try:
        with h5py.File(path, "r") as file:
            for number in range(int(file.attrs["count"])):
                yield torch.from_numpy(np.asarray(file[f"{_ARRAY}_{number}"][_ARRAY], np.float32))
    except (OSError, KeyError) as error:
        raise DataError("is no tensorfile", where=path, found=str(error)[:100]) from error


def _replace(field: Any, values: Iterable[Any]) -> None:
    """Let a repeated field hold some of its messages; a copy, since they go with the field."""
    kept = [copy.deepcopy(value) for value in values]
    del field[:]
    field.extend(kept)
