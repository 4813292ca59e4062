"""ResNet 10, 18, 34, 50 and 101: stages 1 to 3 as the trunk, stage 4 on every region."""

from collections.abc import Mapping
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from frcnn.model.backbones.blocks import Backbone, Blocks, Body, Trunk, same_channels
from frcnn.model.batch_norm import conv_bn

# TAO: `block_1a_conv_1` and so on; facts in tao/model-and-training.md 2.2. Unlike torchvision's v1.5 the
# stride sits on a unit's first convolution, and unit a of every stage has a projection shortcut.
_UNITS = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class _Stage(NamedTuple):
    units: int
    filters: int
    stride: int
    bottleneck: bool
    all_projections: bool
    use_bias: bool


def resnet(
    *,
    depth: int,
    in_channels: int,
    use_bias: bool,
    use_pooling: bool,
    all_projections: bool,
    pool_size: int,
    pool_size_2x: bool,
    channels: Mapping[str, int],
    **_: object,
) -> Backbone:
    """Build a ResNet; arguments as in `build_backbone`."""
    strides = (1 if use_pooling else 2, 2, 2, 2 if pool_size_2x else 1)
    stages = [
        _Stage(units, 64 << index, stride, depth >= 50, all_projections, use_bias)
        for index, (units, stride) in enumerate(zip(_UNITS[depth], strides, strict=True))
    ]
    trunk = ResNetTrunk(
        in_channels=in_channels, use_pooling=use_pooling, stages=stages[:3], channels=channels
    )
    body = ResNetBody(in_channels=trunk.out_channels, stage=stages[3], channels=channels)
    return Backbone(trunk, body, pool_size * 2 if pool_size_2x else pool_size)


class ResNetTrunk(Trunk):
    """Block 0 is the stem, block k stage k."""

    def __init__(
        self, *, in_channels: int, use_pooling: bool, stages: list[_Stage], channels: Mapping[str, int]
    ) -> None:
        super().__init__(channels=channels)
        self.use_pooling = use_pooling
        self.freezable = range(4)
        bias = stages[0].use_bias
        width = self.add_conv_bn(0, "conv1", "bn_conv1", in_channels, 64, kernel=7, stride=2, bias=bias)
        for number, stage in enumerate(stages, start=1):
            width = _add_stage(self, number, stage, width)
        self.out_channels = width

    def run_block(self, block: int, x: Tensor, valid: Tensor | None) -> Tensor:
        """Stem or stage."""
        if block > 0:
            return _run_stage(self, block, x, valid)
        x = F.relu_(conv_bn(self.get_submodule("conv1"), self.get_submodule("bn_conv1"), x, valid))
        # TAO pads with zeros before the maximum: the same after a ReLU.
        return F.max_pool2d(x, 3, 2, padding=1) if self.use_pooling else x


class ResNetBody(Body):
    """Stage 4, then the mean over the patch. No block of it can be frozen."""

    def __init__(self, *, in_channels: int, stage: _Stage, channels: Mapping[str, int]) -> None:
        super().__init__(channels=channels)
        self.out_features = _add_stage(self, 4, stage, in_channels)

    def run_block(self, block: int, x: Tensor, valid: Tensor | None) -> Tensor:
        """The stage and TAO's average pool, whose window is the whole patch."""
        x = _run_stage(self, block, x, valid)
        # Not mean(): the gradient of a sum is a view, that of a mean a tensor as large as the activations.
        return x.sum((2, 3)) / (x.shape[2] * x.shape[3])


def _add_stage(blocks: Blocks, number: int, stage: _Stage, width: int) -> int:
    """Add the units `block_{number}{letter}`; returns the channels of the last."""
    filters = stage.filters
    shapes = [(1, filters), (3, filters), (1, 4 * filters)] if stage.bottleneck else [(3, filters)] * 2
    for index in range(stage.units):
        unit = f"block_{number}{chr(ord('a') + index)}"
        stride, entry = stage.stride if index == 0 else 1, width
        for i, (kernel, out) in enumerate(shapes, start=1):
            conv, bn = f"{unit}_conv_{i}", f"{unit}_bn_{i}"
            step = stride if i == 1 else 1
            width = blocks.add_conv_bn(
                number, conv, bn, width, out, kernel=kernel, stride=step, bias=stage.use_bias
            )
        other, other_width = "the unit before", entry
        if index == 0 or stage.all_projections:
            other, bn = f"{unit}_conv_shortcut", f"{unit}_bn_shortcut"
            other_width = blocks.add_conv_bn(
                number, other, bn, entry, shapes[-1][1], kernel=1, stride=stride, bias=stage.use_bias
            )
        same_channels(conv, width, other, other_width)
    return width


def _run_stage(blocks: Blocks, number: int, x: Tensor, valid: Tensor | None) -> Tensor:
    layers = blocks.get_submodule
    names = blocks.block_layers[number]
    for first in (name for name in names if name.endswith("_conv_1")):
        unit, shortcut = first.removesuffix("_conv_1"), x
        last = 3 if f"{unit}_conv_3" in names else 2
        for i in range(1, last + 1):
            x = conv_bn(layers(f"{unit}_conv_{i}"), layers(f"{unit}_bn_{i}"), x, valid)
            x = F.relu_(x) if i < last else x
        if f"{unit}_conv_shortcut" in names:
            shortcut = conv_bn(
                layers(f"{unit}_conv_shortcut"), layers(f"{unit}_bn_shortcut"), shortcut, valid
            )
        x = x.add_(shortcut).relu_()
    return x
