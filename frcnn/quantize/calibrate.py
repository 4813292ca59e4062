"""Ranges of activations by what a network sees, and what rounding costs each of its layers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from frcnn.model.detector import FasterRCNN
from frcnn.quantize.layers import QuantLayer, channel_ranges
from frcnn.quantize.network import activation_quantizers, quantized_layers, quantizers
from frcnn.quantize.ranges import LARGEST, Histogram


@contextmanager
def in_float(detector: nn.Module) -> Iterator[None]:
    """A stretch in which a quantised network rounds nothing."""
    every = quantizers(detector)
    for quantizer in every:
        quantizer.enabled = False
    try:
        yield
    finally:
        for quantizer in every:
            quantizer.enabled = True


@torch.no_grad()
def calibrate(detector: FasterRCNN, run: Callable[[], object], rule: Callable[[Histogram], float]) -> None:
    """Set the scales of weights, and of activations that have none, by what these are in float.

    Args:
        detector: quantised.
        run: shows it the images.
        rule: of `frcnn.quantize.ranges.METHODS`. Weights are never cut off, as with TensorRT.
    """
    for layer in quantized_layers(detector).values():
        layer.weight_quantizer.fit(channel_ranges(layer.weight))
    waiting = [quantizer for quantizer in activation_quantizers(detector) if not quantizer.scale > 0]
    for quantizer in waiting:
        quantizer.histogram = Histogram()
    try:
        with in_float(detector):
            run()
        for quantizer in waiting:
            if histogram := quantizer.histogram:
                quantizer.fit(torch.tensor(rule(histogram)))
                quantizer.seen.fill_(histogram.tensors)
    finally:
        for quantizer in waiting:
            quantizer.histogram = None


@dataclass
class _Errors:
    """Squared sums of one place."""

    output: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)  # of the differences

    def add(self, exact: Tensor, **rounded: Tensor) -> None:
        self.output += _squares(exact)
        for name, value in rounded.items():
            self.sums[name] = self.sums.get(name, 0.0) + _squares(value - exact)

    def shares(self) -> dict[str, float]:
        """The differences' share of the output, by their roots of mean squares."""
        return {
            name: (value / self.output) ** 0.5 if self.output else 0.0 for name, value in self.sums.items()
        }


@torch.no_grad()
def layer_errors(detector: FasterRCNN, run: Callable[[], object]) -> list[dict[str, Any]]:
    """What rounding changes in the output of each layer that gets its inputs in float.

    Args:
        detector: quantised and calibrated.
        run: shows it some images.

    Returns:
        A row per layer, the worst first: `layer`, the `tensor` that it takes in and its `range` (largest
        absolute value that is held), and the root of the mean squared error as a share of the output's: of
        all rounding (`error`), of the inputs' alone (`by_input`) and of the weights' (`by_weights`).
    """
    layers = quantized_layers(detector)
    found = {name: _Errors() for name in layers}
    handles = [layer.register_forward_hook(_measure(found[name])) for name, layer in layers.items()]
    try:
        with in_float(detector):
            run()
    finally:
        for handle in handles:
            handle.remove()
    rows = [
        {
            "layer": name,
            "tensor": layer.input_quantizer.name,
            "range": LARGEST * float(layer.input_quantizer.scale),
            **found[name].shares(),
        }
        for name, layer in layers.items()
    ]
    return sorted(rows, key=lambda row: -float(row["error"]))


def _measure(errors: _Errors) -> Callable[[QuantLayer, tuple[Tensor, ...], Tensor], None]:
    def see(layer: QuantLayer, args: tuple[Tensor, ...], output: Tensor) -> None:
        x, weight = args[0], layer.weight
        rounded_x, rounded_weight = layer.input_quantizer.round(x), layer.weight_quantizer.round(weight)
        bias = 0 if layer.bias is None else layer.bias.view(-1, *(1,) * (output.dim() - 2))
        errors.add(
            output - bias,
            error=layer.compute(rounded_x, rounded_weight) - bias,
            by_input=layer.compute(rounded_x, weight) - bias,
            by_weights=layer.compute(x, rounded_weight) - bias,
        )

    return see


def _squares(x: Tensor) -> float:
    return float(x.double().square().sum())
