"""A detector that computes with eight bits, in float: made of another, folded for an export, described."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from frcnn.errors import SpecError
from frcnn.model.backbones import Blocks
from frcnn.model.batch_norm import BatchNorm2d, fold
from frcnn.model.detector import FasterRCNN, channel_plan
from frcnn.quantize.layers import (
    SMALLEST,
    ActivationQuantizer,
    QuantConv2d,
    Quantizer,
    QuantLayer,
    QuantLinear,
)
from frcnn.quantize.placement import ENTRY, trace
from frcnn.weights.load import SEEN, weighted_layers

OUTPUTS = ("dense_class", "dense_regress")
"""Layers that stay in float, as TAO's do: they are small, and boxes and scores come of them."""

TENSORS = ("scale", "seen", "log_scale")
"""What a quantiser adds to a state dict."""


def quantize(detector: FasterRCNN, *, skip: Iterable[str] = (), learned: bool = False) -> FasterRCNN:
    """Let layers round their inputs and weights, and residual units what they add; in place.

    Parameters, and their names, stay. Tensors of one name share a quantiser; it has no range yet.

    Args:
        detector: in float.
        skip: layers that stay in float, besides `OUTPUTS`; NAME_entry is what a unit adds.
        learned: whether the optimizer sets the ranges of activations.

    Raises:
        SpecError: a layer to skip that the network does not have.
    """
    places = trace(detector)
    left_out = {*_known([name.removesuffix("_td") for name in skip], places), *OUTPUTS}
    device = next(detector.parameters()).device
    quantizers: dict[str, ActivationQuantizer] = {}
    layers = {
        path.rpartition(".")[2]: (module, path)
        for path, module in detector.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    for place, tensor in places.items():
        if place in left_out:
            continue
        if tensor not in quantizers:
            quantizers[tensor] = ActivationQuantizer(tensor, learned=learned).to(device)
            quantizers[tensor].train(detector.training)
        layer, path = layers[place.removesuffix(ENTRY)]
        quantizers[tensor].trains(layer.weight.requires_grad)
        parent: Any = detector.get_submodule(path.rpartition(".")[0])
        if place.endswith(ENTRY):
            parent.entries[place.removesuffix(ENTRY)] = quantizers[tensor]
        elif isinstance(layer, nn.Conv2d):
            setattr(parent, place, QuantConv2d(layer, quantizers[tensor]))
        else:
            setattr(parent, place, QuantLinear(layer, quantizers[tensor]))
    return detector


def is_quantized(detector: nn.Module) -> bool:
    """Whether any layer of a network rounds."""
    return any(isinstance(module, Quantizer) for module in detector.modules())


def trait(detector: FasterRCNN) -> dict[str, Any]:
    """What `quantize` needs to make the same network again: its arguments, for a checkpoint."""
    rounded = quantized_layers(detector)
    skipped = [name for name in channel_plan(detector) if name not in rounded and name not in OUTPUTS]
    for part in (detector.trunk, detector.head.body):
        skipped += [unit + ENTRY for unit, x in part.entries.items() if not isinstance(x, Quantizer)]
    learned = any(quantizer.log_scale is not None for quantizer in activation_quantizers(detector))
    return {"skip": skipped, "learned": learned}


def quantized_layers(detector: nn.Module) -> dict[str, QuantLayer]:
    """The layers that round, by name, in the order of their creation."""
    layers = weighted_layers(detector).items()
    return {name: layer for name, layer in layers if isinstance(layer, QuantConv2d | QuantLinear)}


def quantizers(detector: nn.Module) -> list[Quantizer]:
    """All quantisers, of weights and activations, each once."""
    return [module for module in detector.modules() if isinstance(module, Quantizer)]


def activation_quantizers(detector: nn.Module) -> list[ActivationQuantizer]:
    """The quantisers of activations, each once."""
    return [module for module in detector.modules() if isinstance(module, ActivationQuantizer)]


def activation_scales(detector: nn.Module) -> dict[str, float]:
    """Tensor, named as in `frcnn.quantize.placement`, -> its scale: 1/127 of the largest absolute value."""
    return {quantizer.name: float(quantizer.scale) for quantizer in activation_quantizers(detector)}


@torch.no_grad()
def set_ranges(detector: FasterRCNN, ranges: Mapping[str, float]) -> list[str]:
    """Give tensors ranges from elsewhere, such as those of TAO's quantised files.

    Args:
        detector: quantised.
        ranges: tensor -> its largest absolute value; a layer's output may be called after its batch norm.

    Returns:
        The tensors that have one now.
    """
    norms = {
        conv: norm for part in (detector.trunk, detector.head.body) for conv, norm in part.batch_norms.items()
    }
    found = []
    for quantizer in activation_quantizers(detector):
        for name in (quantizer.name, norms.get(quantizer.name, "")):
            if name in ranges:
                quantizer.fit(torch.tensor(ranges[name]))
                quantizer.seen.fill_(SEEN)
                found.append(quantizer.name)
                break
    return found


@torch.no_grad()
def copy_ranges(source: FasterRCNN, target: FasterRCNN) -> None:
    """Give the activations of a network the ranges that they have in another one of the same layers."""
    known = {quantizer.name: quantizer for quantizer in activation_quantizers(source)}
    for quantizer in activation_quantizers(target):
        quantizer.load_state_dict(known[quantizer.name].state_dict())


@torch.no_grad()
def fold_batch_norm(detector: FasterRCNN) -> FasterRCNN:
    """Make one layer of each convolution and its batch norm; in place, to evaluate or export only.

    Weights are multiplied by the norm's factor, and so are their scales: as each channel has its own, what a
    weight is rounded to stays the same integer (with the factor's sign). That is why training need not do it.
    """
    for part in (detector.trunk, detector.head.body):
        for conv, norm in part.batch_norms.items():
            _fold(part, conv, norm)
        part.batch_norms = {}
    return detector


def _fold(part: Blocks, conv: str, norm: str) -> None:
    layer, bn = part.get_submodule(conv), part.get_submodule(norm)
    if not isinstance(layer, nn.Conv2d) or not isinstance(bn, BatchNorm2d):
        raise TypeError(f"{conv} and {norm} are no convolution and its batch norm")
    weight, bias = fold(layer, bn)
    if isinstance(layer, QuantConv2d):
        factor = (torch.rsqrt(bn.running_var + bn.eps) * bn.weight).abs()
        scale = layer.weight_quantizer.scale
        scale.mul_(factor).clamp_(min=SMALLEST)
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    delattr(part, norm)
    for names in part.block_layers.values():
        if norm in names:
            names.remove(norm)


def _known(names: Iterable[str], places: Mapping[str, str]) -> list[str]:
    for name in names:
        if name not in places:
            near = difflib.get_close_matches(name, places, n=3)
            raise SpecError(
                "no layer of this network that could be quantised",
                where="quantize.skip",
                found=name,
                hint=f"did you mean {' or '.join(near)}?" if near else None,
            )
    return list(names)
