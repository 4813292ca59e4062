"""EfficientNet B0 to B7: stages 1 to 5 as the trunk, 6, 7 and a last convolution on every region."""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.errors import SpecError
from frcnn.model.backbones.blocks import (
    Blocks,
    Body,
    Trunk,
    average,
    dropout,
    relu,
    same_channels,
)
from frcnn.ops.devices import carry

# Kernel, units, filters and stride of the stages of B0; facts in tao/model-and-training.md 2.8. Stage 6 has
# stride 2 in the classifier; here 1, or 2 where crops are twice as large.
_STAGES = (
    (3, 1, 16, 1),
    (3, 2, 24, 2),
    (5, 2, 40, 2),
    (3, 3, 80, 2),
    (5, 3, 112, 1),
    (5, 4, 192, 1),
    (3, 1, 320, 1),
)
_SCALES = {
    "b0": (1.0, 1.0),
    "b1": (1.0, 1.1),
    "b2": (1.1, 1.2),
    "b3": (1.2, 1.4),
    "b4": (1.4, 1.8),
    "b5": (1.6, 2.2),
    "b6": (1.8, 2.6),
    "b7": (2.0, 3.1),
}  # width, depth
_UNITS_OF_B0 = 16  # TAO: divides the drop rate of every member of the family
_ACTIVATIONS = ("", "swish", "relu")  # empty is swish


class _Unit(NamedTuple):
    stage: int
    prefix: str
    kernel: int
    stride: int
    in_filters: int  # of the unpruned network
    filters: int
    drop_rate: float

    @property
    def residual(self) -> bool:
        return self.stride == 1 and self.in_filters == self.filters


def efficientnet(
    *,
    scale: str,
    in_channels: int,
    use_bias: bool,
    pool_size_2x: bool,
    dropout_rate: float,
    drop_connect_rate: float,
    activation: str,
    dynamic_size: bool,
    channels: Mapping[str, int],
    **_: object,
) -> tuple[Trunk, Body]:
    """Build an EfficientNet; arguments as in `build_backbone`."""
    if activation not in _ACTIVATIONS:
        allowed = ", ".join(name for name in _ACTIVATIONS if name)
        raise SpecError(
            "no activation of an EfficientNet",
            where="model_config.activation.activation_type",
            found=activation,
            allowed=allowed,
        )
    width, depth = _SCALES[scale]
    units = list(_units(width, depth, stride_6=2 if pool_size_2x else 1, drop_connect_rate=drop_connect_rate))
    trunk = EfficientNetTrunk(
        in_channels=in_channels,
        use_bias=use_bias,
        stem_filters=_filters(32, width),
        units=[unit for unit in units if unit.stage < 6],
        activation=activation,
        dynamic_size=dynamic_size,
        channels=channels,
    )
    body = EfficientNetBody(
        in_channels=trunk.out_channels,
        use_bias=use_bias,
        units=[unit for unit in units if unit.stage >= 6],
        top_filters=_filters(1280, width),
        activation=activation,
        dropout_rate=dropout_rate,
        channels=channels,
    )
    return trunk, body


def _filters(filters: int, width: float) -> int:
    """Scaled and rounded to a multiple of 8, at most a tenth down."""
    rounded = max(8, int(filters * width + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * filters * width else rounded


def _units(width: float, depth: float, *, stride_6: int, drop_connect_rate: float) -> Iterator[_Unit]:
    index, last = 0, _filters(32, width)
    for stage, (kernel, count, filters, stride) in enumerate(_STAGES, start=1):
        out = _filters(filters, width)
        for i in range(math.ceil(depth * count)):
            step = (stride_6 if stage == 6 else stride) if i == 0 else 1
            rate = drop_connect_rate * index / _UNITS_OF_B0
            yield _Unit(stage, f"block{stage}{chr(ord('a') + i)}_", kernel, step, last, out, rate)
            index, last = index + 1, out


class _EfficientNet(Blocks):
    """Stages of inverted residuals with squeeze and excitation, each stage a block."""

    def __init__(
        self, *, use_bias: bool, activation: str, dynamic_size: bool, channels: Mapping[str, int]
    ) -> None:
        super().__init__(channels=channels)
        self.use_bias = use_bias
        self.activation_name = activation
        self.dynamic_size = dynamic_size
        self.units: dict[int, list[_Unit]] = {}

    def activation(self, x: Tensor) -> Tensor:
        """Swish or ReLU."""
        if self.activation_name == "relu":
            return relu(x, self.ceiling)
        return F.silu(x, inplace=True)

    def initialise(self, layer: nn.Conv2d) -> nn.Conv2d:
        """Keras' VarianceScaling(2, fan_out, normal): cut at two deviations, the rest as wide as asked."""
        fan_out = layer.weight[0, 0].numel() * layer.out_channels // layer.groups
        std = math.sqrt(2 / fan_out) / 0.87962566
        nn.init.trunc_normal_(layer.weight, std=std, a=-2 * std, b=2 * std)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        return layer

    def add_unit(self, unit: _Unit, width: int) -> int:
        """Add a unit behind `width` channels; returns its own."""
        self.units.setdefault(unit.stage, []).append(unit)
        add, prefix, entry = partial(self.add_conv, unit.stage), unit.prefix, width
        if unit.stage > 1:
            inner = 6 * unit.in_filters
            bn = f"{prefix}expand_bn"
            width = add(f"{prefix}expand_conv", width, inner, bn=bn, kernel=1, bias=self.use_bias)
        add(
            f"{prefix}dwconv",
            width,
            None,
            bn=f"{prefix}bn",
            kernel=unit.kernel,
            stride=unit.stride,
            bias=self.use_bias,
            padded=unit.stride == 1,
        )
        reduced = max(1, unit.in_filters // 4)
        reduced = add(f"{prefix}se_reduce", width, reduced, bn=None, kernel=1, bias=True)
        gates = add(f"{prefix}se_expand", reduced, width, bn=None, kernel=1, bias=True)
        same_channels(f"{prefix}se_expand", gates, f"{prefix}dwconv", width, "multiplied")
        width = add(f"{prefix}project_conv", width, unit.filters, bn=f"{prefix}project_bn", kernel=1)
        if unit.residual:
            same_channels(f"{prefix}project_conv", width, "the unit before", entry)
            self.entries[f"{prefix}project_conv"] = nn.Identity()
        return width

    def run_block(self, block: int, x: Tensor, valid: Tensor | None) -> Tensor:
        """A stage; what comes before and after them is a chain."""
        if block not in self.units:
            return self.chain(block, x, valid)
        for unit in self.units[block]:
            x = self._run_unit(unit, x, valid)
        return x

    def pad(self, x: Tensor, kernel: int) -> Tensor:
        """TensorFlow's zeros for stride 2: before the first pixel of an even side one less than behind."""
        odd_y, odd_x = (0 if self.dynamic_size else side % 2 for side in x.shape[2:])
        after, before = kernel // 2, kernel // 2 - 1
        return F.pad(x, (before + odd_x, after, before + odd_y, after))

    def _run_unit(self, unit: _Unit, x: Tensor, valid: Tensor | None) -> Tensor:
        prefix = unit.prefix
        y = self.active(f"{prefix}expand_conv", x, valid) if unit.stage > 1 else x
        y = y if unit.stride == 1 else self.pad(y, unit.kernel)
        y = self.active(f"{prefix}dwconv", y, valid)
        gates = self.active(f"{prefix}se_reduce", y.mean((2, 3), keepdim=True), valid)
        y = y * carry(self.linear(f"{prefix}se_expand", gates, valid).sigmoid_(), to=y)
        y = self.linear(f"{prefix}project_conv", y, valid)
        if not unit.residual:
            return y
        if self.training and unit.drop_rate > 0:  # drop connect: all of a row or nothing
            y = y * dropout(y.new_ones(len(y), 1, 1, 1), unit.drop_rate, self.training)
        return y.add_(carry(self.entries[f"{prefix}project_conv"](x), to=y))


class EfficientNetTrunk(_EfficientNet, Trunk):
    """Block 0 is the stem, block k stage k."""

    def __init__(
        self,
        *,
        in_channels: int,
        use_bias: bool,
        stem_filters: int,
        units: list[_Unit],
        activation: str,
        dynamic_size: bool,
        channels: Mapping[str, int],
    ) -> None:
        super().__init__(
            use_bias=use_bias, activation=activation, dynamic_size=dynamic_size, channels=channels
        )
        self.freezable = range(6)
        width = self.add_conv(
            0,
            "stem_conv",
            in_channels,
            stem_filters,
            bn="stem_bn",
            kernel=3,
            stride=2,
            bias=use_bias,
            padded=False,
        )
        for unit in units:
            width = self.add_unit(unit, width)
        self.out_channels = width

    def run_block(self, block: int, x: Tensor, valid: Tensor | None) -> Tensor:
        """Stem or stage."""
        return super().run_block(block, self.pad(x, 3) if block == 0 else x, valid)


class EfficientNetBody(_EfficientNet, Body):
    """Stages 6 and 7; block 8 is the last convolution."""

    def __init__(
        self,
        *,
        in_channels: int,
        use_bias: bool,
        units: list[_Unit],
        top_filters: int,
        activation: str,
        dropout_rate: float,
        channels: Mapping[str, int],
    ) -> None:
        super().__init__(use_bias=use_bias, activation=activation, dynamic_size=False, channels=channels)
        self.freezable = range(6, 9)
        self.dropout_rate = dropout_rate
        width = in_channels
        for unit in units:
            width = self.add_unit(unit, width)
        self.out_features = self.add_conv(
            8, "top_conv", width, top_filters, bn="top_bn", kernel=1, bias=use_bias
        )

    def vectors(self, x: Tensor) -> Tensor:
        """The average, then dropout."""
        return dropout(average(x), self.dropout_rate, self.training)


BUILDERS = {f"efficientnet:{scale}": partial(efficientnet, scale=scale) for scale in _SCALES}
