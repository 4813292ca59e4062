"""ResNet: stages 1 to 3 as the trunk, stage 4 on every region."""

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.model.backbones.blocks import Blocks, Body, Trunk, same_channels
from frcnn.model.batch_norm import BatchNorm2d
from frcnn.ops.devices import carry

# Facts in tao/model-and-training.md 2.2. Unlike torchvision's v1.5 the stride sits on a unit's first
# convolution, and the first unit of every stage has a projection shortcut.
_UNITS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class _Stage(NamedTuple):
    number: int
    units: int
    stride: int
    bottleneck: bool
    all_projections: bool
    bias: bool
    strided: int  # the convolution of the first unit that has the stride, from 1


class _Unit(NamedTuple):
    convs: list[str]
    shortcut: str | None


def resnet(
    *,
    depth: int,
    in_channels: int,
    use_bias: bool,
    use_pooling: bool,
    all_projections: bool,
    pool_size_2x: bool,
    stride_on_3x3: bool,
    channels: Mapping[str, int],
    legacy: bool = False,
    **_: object,
) -> tuple[Trunk, Body]:
    """Build a ResNet; arguments as in `build_backbone`.

    `legacy` is TAO's network `resnet101`, with the layer names of the stock Keras ResNet: it always pools,
    its units always have biases, its batch norm another epsilon.
    """
    strides = (1 if use_pooling or legacy else 2, 2, 2, 2 if pool_size_2x else 1)
    bottleneck, projections, bias = depth >= 50, all_projections and not legacy, use_bias or legacy
    strided = 2 if bottleneck and stride_on_3x3 else 1
    stages = [
        _Stage(number, units, stride, bottleneck, projections, bias, strided)
        for number, (units, stride) in enumerate(zip(_UNITS[depth], strides, strict=True), start=1)
    ]
    trunk_class, body_class = (LegacyTrunk, LegacyBody) if legacy else (ResNetTrunk, ResNetBody)
    trunk = trunk_class(
        in_channels=in_channels,
        use_bias=use_bias,
        use_pooling=use_pooling or legacy,
        stages=stages[:3],
        channels=channels,
    )
    body = body_class(in_channels=trunk.out_channels, stage=stages[3], channels=channels)
    return trunk, body


class _ResNet(Blocks):
    """Stages of residual units, each stage a block."""

    stem = ("conv1", "bn_conv1")

    def __init__(self, *, channels: Mapping[str, int]) -> None:
        super().__init__(channels=channels)
        self.units: dict[int, list[_Unit]] = {}

    def layers(self, stage: int, unit: int, i: int) -> tuple[str, str]:
        """Names of a unit's convolution i, from 1, and its batch norm; 0 is the shortcut."""
        letter, last = chr(ord("a") + unit), i or "shortcut"
        return f"block_{stage}{letter}_conv_{last}", f"block_{stage}{letter}_bn_{last}"

    def add_stage(self, stage: _Stage, width: int) -> int:
        """Add the units of a stage behind `width` channels; returns the channels of the last."""
        filters = 32 << stage.number
        shapes = [(1, filters), (3, filters), (1, 4 * filters)] if stage.bottleneck else [(3, filters)] * 2
        self.units[stage.number] = []
        for index in range(stage.units):
            entry, convs, shortcut = width, [], None
            stride = stage.stride if index == 0 else 1
            for i, (kernel, out) in enumerate(shapes, start=1):
                conv, bn = self.layers(stage.number, index, i)
                step = stride if i == stage.strided else 1
                width = self.add_conv(
                    stage.number, conv, width, out, bn=bn, kernel=kernel, stride=step, bias=stage.bias
                )
                convs.append(conv)
            if index == 0 or stage.all_projections:
                shortcut, bn = self.layers(stage.number, index, 0)
                out = shapes[-1][1]
                entry = self.add_conv(
                    stage.number, shortcut, entry, out, bn=bn, kernel=1, stride=stride, bias=stage.bias
                )
            same_channels(convs[-1], width, shortcut or "the unit before", entry)
            self.entries[convs[-1]] = nn.Identity()
            self.units[stage.number].append(_Unit(convs, shortcut))
        return width

    def run_block(self, block: int, x: Tensor, valid: Tensor | None) -> Tensor:
        """A stage."""
        for convs, shortcut in self.units[block]:
            y = x
            for conv in convs[:-1]:
                y = self.active(conv, y, valid)
            y = self.linear(convs[-1], y, valid)
            entry = x if shortcut is None else self.linear(shortcut, x, valid)
            last = y if shortcut is None else entry  # of the two layers
            entry = self.entries[convs[-1]](entry)
            x = self.activation(carry(y, to=last).add_(carry(entry, to=last)))
        return x


class ResNetTrunk(_ResNet, Trunk):
    """Block 0 is the stem, block k stage k."""

    def __init__(
        self,
        *,
        in_channels: int,
        use_bias: bool,
        use_pooling: bool,
        stages: list[_Stage],
        channels: Mapping[str, int],
    ) -> None:
        super().__init__(channels=channels)
        self.use_pooling = use_pooling
        self.freezable = range(4)
        conv, bn = self.stem
        width = self.add_conv(0, conv, in_channels, 64, bn=bn, kernel=7, stride=2, bias=use_bias)
        for stage in stages:
            width = self.add_stage(stage, width)
        self.out_channels = width

    def run_block(self, block: int, x: Tensor, valid: Tensor | None) -> Tensor:
        """Stem or stage."""
        if block > 0:
            return super().run_block(block, x, valid)
        x = self.active(self.stem[0], x, valid)
        # TAO pads with zeros before the maximum: the same after a ReLU.
        return F.max_pool2d(x, 3, 2, padding=1) if self.use_pooling else x


class ResNetBody(_ResNet, Body):
    """Stage 4. It cannot be frozen."""

    def __init__(self, *, in_channels: int, stage: _Stage, channels: Mapping[str, int]) -> None:
        super().__init__(channels=channels)
        self.out_features = self.add_stage(stage, in_channels)


class _Legacy(_ResNet):
    """The names and the epsilon of the stock Keras ResNet."""

    stem = ("conv1_conv", "conv1_bn")

    def batch_norm(self, channels: int) -> BatchNorm2d:
        return BatchNorm2d(channels, eps=1.001e-5)

    def layers(self, stage: int, unit: int, i: int) -> tuple[str, str]:
        name = f"conv{stage + 1}_block{unit + 1}_{i}"
        return f"{name}_conv", f"{name}_bn"


class LegacyTrunk(_Legacy, ResNetTrunk):
    """Blocks as in `ResNetTrunk`."""


class LegacyBody(_Legacy, ResNetBody):
    """Stage conv5."""


BUILDERS = {f"resnet:{depth}": partial(resnet, depth=depth) for depth in _UNITS} | {
    "resnet101": partial(resnet, depth=101, legacy=True)
}
