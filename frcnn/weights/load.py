"""Weights from elsewhere, put into a network by the names of its layers."""

import logging
from collections.abc import Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn

from frcnn.errors import WeightsError
from frcnn.weights.report import LayerStatus, LoadReport, Status

log = logging.getLogger(__name__)

Layers: TypeAlias = Mapping[str, Mapping[str, Tensor]]
"""Layer -> tensors, under TAO's names and as our modules call and shape them: what every reader returns."""

SEEN = 10**6
"""Batches that loaded statistics count for, so that bias correction does not overwrite them."""


def weighted_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Modules with weights of their own by TAO name, in the order of their creation."""
    return {
        name.rpartition(".")[2]: layer
        for name, layer in model.named_modules()
        if isinstance(getattr(layer, "weight", None), Tensor)
    }


def channel_plan_of(layers: Layers) -> dict[str, int]:
    """Output channels of every convolution and dense layer, by the shapes of its weights."""
    return {
        name: int(tensors["weight"].shape[0])
        for name, tensors in layers.items()
        if "weight" in tensors and tensors["weight"].ndim in (2, 4)
    }


def load_layers(model: nn.Module, layers: Layers, *, source: str) -> LoadReport:
    """Put in what fits by name and shape; the rest stays as it is.

    TAO stops at a shape that differs, against its manual; a layer is loaded whole or not at all.

    Args:
        model: a detector or a part of one.
        layers: the weights.
        source: what to call them in messages.

    Raises:
        WeightsError: not a single layer fits.
    """
    own = weighted_layers(model)
    rows = [
        LayerStatus(name, type(layer).__name__, *_load(layer, layers.get(name)))
        for name, layer in own.items()
    ]
    unused = tuple(name for name in layers if name not in own)
    report = LoadReport(source, tuple(rows), unused)
    if not report.loaded:
        refused = [f"{row.name}: {row.note}" for row in rows if row.status == "No"]
        found = "; ".join(refused[:3]) or f"layers {_first(layers)}"
        raise WeightsError("holds no layer of this network", where=source, found=found, allowed=_first(own))
    if bad := [name for name in report.loaded if any(not t.isfinite().all() for t in layers[name].values())]:
        log.warning("%s: weights that are no finite numbers in %s", source, _first(dict.fromkeys(bad)))
    return report


@torch.no_grad()
def _load(layer: nn.Module, tensors: Mapping[str, Tensor] | None) -> tuple[Status, str]:
    """Fill one layer; what became of it and why."""
    if tensors is None:
        return "None", ""
    own = layer.state_dict()
    seen = own.pop("num_batches_tracked", None)
    tensors = {name: value for name, value in tensors.items() if name != "num_batches_tracked"}
    if tensors.keys() != own.keys():
        return "No", f"{' + '.join(sorted(tensors))} in the file, {' + '.join(sorted(own))} here"
    for name, value in tensors.items():
        if value.shape != own[name].shape:
            return "No", f"{name} {tuple(value.shape)} in the file, {tuple(own[name].shape)} here"
    for name, value in tensors.items():
        own[name].copy_(value)
    if seen is not None:
        seen.fill_(SEEN)
    return "Yes", ""


def _first(names: Mapping[str, object]) -> str:
    shown = list(names)[:5]
    return ", ".join(shown) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"
