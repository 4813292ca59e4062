"""DarkNet 19 and 53: stages 1 to 4 as the trunk, stage 5 on every region."""

from collections.abc import Mapping
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.model.backbones.blocks import Blocks, Body, Trunk, same_channels
from frcnn.ops.devices import carry

# Facts in tao/model-and-training.md 2.7. DarkNet 19 pools before a stage of so many convolutions, 3x3 and
# half as wide 1x1 in turn; DarkNet 53 strides into a stage of so many residual pairs, 1x1 and 3x3.
_STAGES = {19: (1, 3, 3, 5, 5), 53: (1, 2, 8, 8, 4)}
_SLOPE = 0.1


def darknet(
    *,
    depth: int,
    in_channels: int,
    use_bias: bool,
    pool_size_2x: bool,
    channels: Mapping[str, int],
    **_: object,
) -> tuple[Trunk, Body]:
    """Build a DarkNet; arguments as in `build_backbone`."""
    trunk = DarkNetTrunk(depth=depth, in_channels=in_channels, use_bias=use_bias, channels=channels)
    body = DarkNetBody(
        depth=depth,
        in_channels=trunk.out_channels,
        use_bias=use_bias,
        stride=2 if pool_size_2x else 1,
        channels=channels,
    )
    return trunk, body


class _DarkNet(Blocks):
    """Stages of units, each stage a block; a unit is one convolution, or a residual pair."""

    def __init__(self, *, depth: int, use_bias: bool, channels: Mapping[str, int]) -> None:
        super().__init__(channels=channels)
        self.depth = depth
        self.use_bias = use_bias
        self.units: dict[int, list[tuple[str, ...]]] = {}

    def activation(self, x: Tensor) -> Tensor:
        """LeakyReLU."""
        return F.leaky_relu_(x, _SLOPE)

    def add_unit(self, block: int, width: int, *layers: tuple[str, int, int], stride: int = 1) -> int:
        """Add layers of (name, kernel, filters) behind `width` channels; returns those of the last."""
        entry = width
        for name, kernel, filters in layers:
            width = self.add_conv(
                block,
                name,
                width,
                filters,
                bn=f"{name}_bn",
                kernel=kernel,
                stride=stride,
                bias=self.use_bias,
            )
        if len(layers) > 1:
            same_channels(layers[-1][0], width, "the unit before", entry)
            self.entries[layers[-1][0]] = nn.Identity()
        self.units.setdefault(block, []).append(tuple(name for name, *_ in layers))
        return width

    def add_stage(self, stage: int, width: int, stride: int) -> int:
        """Add the units of a stage behind `width` channels; returns those of the last."""
        count, filters = _STAGES[self.depth][stage - 1], 32 << stage
        if self.depth == 19:
            for i in range(1, count + 1):
                shape = (3, filters) if i % 2 else (1, filters // 2)
                step = stride if i == 1 else 1
                width = self.add_unit(stage, width, (f"b{stage}_conv{i}", *shape), stride=step)
            return width
        width = self.add_unit(stage, width, (f"conv{stage + 1}", 3, filters), stride=stride)
        for i in range(1, count + 1):
            name = f"b{stage}_conv{i}"
            width = self.add_unit(stage, width, (f"{name}_1", 1, filters // 2), (f"{name}_2", 3, filters))
        return width

    def run_block(self, block: int, x: Tensor, valid: Tensor | None) -> Tensor:
        """A stage; what a pair adds is activated, the sum is not."""
        for unit in self.units[block]:
            y = x
            for name in unit:
                y = self.active(name, y, valid)
            x = carry(self.entries[unit[-1]](x), to=y) + y if len(unit) > 1 else y
        return x


class DarkNetTrunk(_DarkNet, Trunk):
    """Block 0 is the stem, block k stage k."""

    def __init__(self, *, depth: int, in_channels: int, use_bias: bool, channels: Mapping[str, int]) -> None:
        super().__init__(depth=depth, use_bias=use_bias, channels=channels)
        self.freezable = range(5)
        width = self.add_unit(0, in_channels, ("conv1", 3, 32))
        for stage in range(1, 5):
            width = self.add_stage(stage, width, 1 if depth == 19 else 2)
        self.out_channels = width

    def run_block(self, block: int, x: Tensor, valid: Tensor | None) -> Tensor:
        """Stem or stage, behind a pool in DarkNet 19."""
        pools = self.depth == 19 and block > 0
        return super().run_block(block, F.max_pool2d(x, 2) if pools else x, valid)


class DarkNetBody(_DarkNet, Body):
    """Stage 5."""

    def __init__(
        self, *, depth: int, in_channels: int, use_bias: bool, stride: int, channels: Mapping[str, int]
    ) -> None:
        super().__init__(depth=depth, use_bias=use_bias, channels=channels)
        self.freezable = (5,)
        self.out_features = self.add_stage(5, in_channels, stride)


BUILDERS = {f"darknet:{depth}": partial(darknet, depth=depth) for depth in _STAGES}
