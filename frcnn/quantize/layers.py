"""Layers that round their weights and inputs to int8 and compute in float, as TensorRT's would."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.model.batch_norm import convolve
from frcnn.quantize.ranges import LARGEST, Histogram

SMALLEST = 1e-8
"""Scale of what is nothing but zeros; one of 0 would make numbers that are none."""

_RECENT = 10  # as in batch norm's running statistics: the share of the steps so far that an average is of
_KEPT = 0.999  # TAO: of an average in a step


class Quantizer(nn.Module):
    """Rounds to multiples of a scale, from -128 to 127 of them; gradients pass within these.

    Attributes:
        scale: () or (channels of dimension 0,) float32; 0 while there is no range yet.
        enabled: without it nothing is rounded.
        frozen: training does not change the scale.
    """

    scale: Tensor
    zero: Tensor

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.zeros(shape))
        self.register_buffer("zero", torch.zeros(shape, dtype=torch.int32), persistent=False)
        self.enabled, self.frozen = True, False

    @property
    def learns(self) -> bool:
        """Whether the next call may change the scale."""
        return self.training and not self.frozen

    def fit(self, largest: Tensor) -> None:
        """Set the scale so that the largest absolute values just fit."""
        self.set_scale(scale_for(largest))

    @torch.no_grad()
    def set_scale(self, scale: Tensor) -> None:
        """Set the scale."""
        self.scale.copy_(scale)

    def round(self, x: Tensor) -> Tensor:
        """What is left of a tensor."""
        if torch.compiler.is_exporting():
            return _as_onnx(x, self.scale)
        if self.scale.dim():
            return torch.fake_quantize_per_channel_affine(x, self.scale, self.zero, 0, -LARGEST - 1, LARGEST)
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero, -LARGEST - 1, LARGEST)


class WeightQuantizer(Quantizer):
    """One scale per output channel, by its largest weight as it is in each step."""

    def forward(self, weight: Tensor) -> Tensor:
        """(n, ...) -> the same, rounded."""
        if not self.enabled:
            return weight
        if self.learns:
            self.fit(channel_ranges(weight))
        return self.round(weight)


class ActivationQuantizer(Quantizer):
    """One scale for a tensor, shared by all that take it in.

    In training it is averaged over the steps like batch norm's statistics, by the largest absolute value of
    each; or its logarithm, so that it stays positive, is learned with the gradient of Esser et al. 2020,
    "Learned Step Size Quantization", equations 1 to 3.

    Args:
        name: of the tensor, see `frcnn.quantize.placement`.
        learned: whether the optimizer sets the scale.

    Attributes:
        seen: () int64, how many tensors the average is of.
        histogram: takes what comes in, while ranges are calibrated.
    """

    seen: Tensor

    def __init__(self, name: str, *, learned: bool = False) -> None:
        super().__init__()
        self.name = name
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.log_scale = nn.Parameter(torch.zeros(()), requires_grad=False) if learned else None
        self.histogram: Histogram | None = None

    def trains(self, wanted: bool) -> None:
        """Let the scale be learned where a layer that takes the tensor in is: gradients come from there."""
        if self.log_scale is not None and wanted:
            self.log_scale.requires_grad_(True)

    @torch.no_grad()
    def set_scale(self, scale: Tensor) -> None:
        """See `Quantizer`."""
        super().set_scale(scale)
        if self.log_scale is not None:
            self.log_scale.copy_(self.scale.log())

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same, rounded."""
        if self.histogram is not None:
            self.histogram.add(x)
        if not self.enabled:
            return x
        if self.learns and self.log_scale is None:
            self._average(x.detach())
        if self.training and self.log_scale is not None:
            return self._learned(x, self.log_scale)
        return self.round(x)

    @torch.no_grad()
    def _average(self, x: Tensor) -> None:
        low, high = x.aminmax()
        found = scale_for(torch.maximum(-low, high))
        self.seen.add_(1)
        weight = (_RECENT / (self.seen.float() + _RECENT - 1)).clamp(min=1 - _KEPT, max=1)
        self.scale.copy_(torch.where(self.scale > 0, self.scale.lerp(found, weight), found))

    def _learned(self, x: Tensor, log_scale: nn.Parameter) -> Tensor:
        if self.frozen:
            # Data parallel training waits for a gradient of every parameter.
            return self.round(x) + 0 * log_scale
        share = 1 / (x.numel() * LARGEST) ** 0.5  # of its gradient, without which it would outrun the weights
        scale = (log_scale * share + (log_scale * (1 - share)).detach()).exp()
        self.scale.copy_(scale.detach())
        steps = (x.float() / scale).clamp(-LARGEST - 1, LARGEST)
        rounded = steps + (steps.round() - steps).detach()
        y: Tensor = (rounded * scale).to(x.dtype)
        return y


class _Rounding:
    """What rounding layers have besides their parameters."""

    input_quantizer: ActivationQuantizer
    weight_quantizer: WeightQuantizer


class QuantConv2d(_Rounding, nn.Conv2d):
    """A convolution of rounded inputs with rounded weights; its bias is added in float.

    Args:
        layer: the convolution; its parameters are this one's from now on.
        inputs: quantiser of its input.
    """

    def __init__(self, layer: nn.Conv2d, inputs: ActivationQuantizer) -> None:
        with torch.device("meta"):
            super().__init__(
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size,  # type: ignore[arg-type]
                layer.stride,  # type: ignore[arg-type]
                layer.padding,  # type: ignore[arg-type]
                groups=layer.groups,
                bias=layer.bias is not None,
            )
        _take_over(self, layer, inputs)

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Conv2d`."""
        return self.compute(self.input_quantizer(x), self.weight_quantizer(self.weight))

    def compute(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer with an input and weights as they are."""
        if torch.compiler.is_exporting():
            y: Tensor = self._conv_forward(x, weight, self.bias)
            return y
        return convolve(self, x, weight, self.bias)


class QuantLinear(_Rounding, nn.Linear):
    """A dense layer likewise; arguments as in `QuantConv2d`."""

    def __init__(self, layer: nn.Linear, inputs: ActivationQuantizer) -> None:
        with torch.device("meta"):
            super().__init__(layer.in_features, layer.out_features, bias=layer.bias is not None)
        _take_over(self, layer, inputs)

    def forward(self, x: Tensor) -> Tensor:
        """As `nn.Linear`."""
        return self.compute(self.input_quantizer(x), self.weight_quantizer(self.weight))

    def compute(self, x: Tensor, weight: Tensor) -> Tensor:
        """The layer with an input and weights as they are."""
        return F.linear(x, weight, self.bias)


QuantLayer = QuantConv2d | QuantLinear


def scale_for(largest: Tensor) -> Tensor:
    """The scale with which the largest absolute values just fit, float32."""
    return (largest.float() / LARGEST).clamp(min=SMALLEST)


def channel_ranges(weight: Tensor) -> Tensor:
    """(n, ...) -> largest absolute weight of each channel (n,)."""
    found: Tensor = weight.detach().flatten(1).abs().amax(1)
    return found


def _take_over(new: Any, layer: nn.Conv2d | nn.Linear, inputs: ActivationQuantizer) -> None:
    new.weight, new.bias = layer.weight, layer.bias
    new.input_quantizer = inputs
    new.weight_quantizer = WeightQuantizer(len(layer.weight)).to(layer.weight.device)
    new.weight_quantizer.fit(channel_ranges(layer.weight))
    new.train(layer.training)


def _as_onnx(x: Tensor, scale: Tensor) -> Tensor:
    """QuantizeLinear and DequantizeLinear: torch's own operators have no form that can be exported."""
    zero = torch.zeros(scale.shape, dtype=torch.int8, device=x.device)
    axis: dict[str, Any] = {"axis": 0} if scale.dim() else {}
    symbolic = torch.onnx.ops.symbolic
    inside = symbolic("QuantizeLinear", (x, scale, zero), axis, dtype=torch.int8, shape=x.shape)
    outside: Tensor = symbolic("DequantizeLinear", (inside, scale, zero), axis, dtype=x.dtype, shape=x.shape)
    return outside
