"""Keras' .h5 and .hdf5 files in our words: layers under TAO's names, tensors in our axes."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from frcnn.errors import WeightsError
from frcnn.weights import hdf5
from frcnn.weights.load import Layers, weighted_layers

SUFFIXES = (".hdf5", ".h5", ".tlt")
"""Of Keras' files; what is in a .tlt is encrypted, and its error says the way."""

TENSORS = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""Keras' names and ours (tao/model-and-training.md 2.1)."""

AXES = {("kernel", 4): (3, 2, 0, 1), ("kernel", 2): (1, 0), ("depthwise_kernel", 4): (2, 3, 0, 1)}
"""Keras' axes in our order: convolutions (h, w, in, out), dense layers (in, out)."""

FIXED = {"dense_class_td": "dense_class", "dense_regress_td": "dense_regress"}
NUMBERED = re.compile(r"time_distributed_(\d+)")


class LayerConfig(NamedTuple):
    """What `model_config` says about a layer."""

    kind: str  # Keras' class; of the inner layer where a TimeDistributed wraps it
    values: Mapping[str, Any]
    per_region: bool  # whether a TimeDistributed wraps it


@dataclass(frozen=True)
class KerasFile:
    """The weights in a file by layer, under TAO's names.

    Attributes:
        path: the file.
        layers: layer -> tensors, both named and laid out as in our modules; layers without are left out.
            Layers of the head keep Keras' `time_distributed_N` where the file has no `model_config`: see
            `name_head`.
        configs: layer -> what `model_config` says; empty without it.
        activation_scales: of a quantised network, layer -> the largest absolute value of its output;
            `NAME_act` is the output of NAME's own activation.
    """

    path: Path
    layers: Layers
    configs: Mapping[str, LayerConfig]
    activation_scales: Mapping[str, float]

    @property
    def relu6(self) -> bool:
        """Whether activations end at 6, as quantisation-aware training has them."""
        relus = [c.values.get("max_value") for c in self.configs.values() if c.kind in ("ReLU", "ReLU6")]
        return bool(self.activation_scales) or 6 in relus

    def renamed(self, names: Mapping[str, str]) -> "KerasFile":
        """The same with other names for some layers."""
        scales = {}
        for name, scale in self.activation_scales.items():
            base = name if name in names else name.removesuffix("_act")
            scales[names.get(base, base) + name[len(base) :]] = scale
        layers = {names.get(name, name): tensors for name, tensors in self.layers.items()}
        return replace(self, layers=layers, activation_scales=scales)


def read_hdf5(path: str | Path) -> KerasFile:
    """Read a Keras model or weight file, TAO's or another; errors as in `frcnn.weights.hdf5.read`."""
    path = Path(path)
    tensors, text = hdf5.read(path)
    layers: dict[str, dict[str, Tensor]] = {}
    scales: dict[str, float] = {}
    for (layer, name), values in tensors.items():
        if name == "scaling_factor":
            scales[layer.removesuffix("_qdq")] = _scale(values, f"{path}: {layer}")
        else:
            layers.setdefault(layer, {})[TENSORS.get(name, name)] = _tensor(name, values)
    try:
        configs, inner = _configs(text)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        found = f"{type(error).__name__}: {error}"
        raise WeightsError("model_config is broken", where=path, found=found) from error
    return KerasFile(path, layers, configs, scales).renamed({**FIXED, **inner})


def name_head(file: KerasFile, body: nn.Module) -> KerasFile:
    """Give the head's layers their names in a file that only numbers them.

    Keras numbers TimeDistributed layers in the order of their creation (tao/model-and-training.md 2.9), which
    is the order of the body's layers; those without weights consume numbers and are left out on both sides.
    The file is returned as it is where the kinds of layers do not agree one by one.
    """
    numbered = sorted((name for name in file.layers if NUMBERED.fullmatch(name)), key=_number)
    own = weighted_layers(body)
    # TAO: the legacy resnet101 makes the shortcut of a block first.
    names = sorted(own, key=lambda name: name.rpartition("_")[0] if name.startswith("conv5_block") else "")
    if [_kind(file.layers[name]) for name in numbered] != [_kind(own[name].state_dict()) for name in names]:
        return file
    return file.renamed(dict(zip(numbered, names, strict=True)))


def _kind(tensors: Mapping[str, Tensor]) -> tuple[bool, int]:
    """Whether it is batch norm, and the rank of its weight."""
    weight = tensors.get("weight")
    return "running_mean" in tensors, -1 if weight is None else weight.ndim


def _number(name: str) -> int:
    return int(name.rpartition("_")[2])


def _tensor(name: str, values: np.ndarray) -> Tensor:
    axes = AXES.get((name, values.ndim), range(values.ndim))
    return torch.from_numpy(values.transpose(tuple(axes)).copy(order="C"))


def _scale(values: np.ndarray, where: str) -> float:
    if values.size != 1 or not 0 < values.item() < math.inf:
        found = f"{values.ravel()[:3]}, shape {values.shape}"
        raise WeightsError("is no scale of an activation", where=where, found=found, allowed="one number > 0")
    return float(values.item())


def _configs(text: str | None) -> tuple[dict[str, LayerConfig], dict[str, str]]:
    """Layers of `model_config`, and the inner names of TimeDistributed ones."""
    configs: dict[str, LayerConfig] = {}
    inner: dict[str, str] = {}
    if text is None:
        return configs, inner
    top = json.loads(text)["config"]
    for layer in top["layers"] if isinstance(top, dict) else top:  # a Sequential is a list in Keras 2.2
        name, kind, values = layer["config"].get("name"), layer["class_name"], layer["config"]
        per_region = kind == "TimeDistributed"
        if per_region:
            outer, kind, values = name, values["layer"]["class_name"], values["layer"]["config"]
            name = inner[str(outer)] = str(values["name"])
        configs[str(name)] = LayerConfig(str(kind), dict(values), per_region)
    return configs, inner
