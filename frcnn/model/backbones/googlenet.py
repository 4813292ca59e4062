"""GoogLeNet: the stem and inception modules 3a to 4e as the trunk, 5a and 5b on every region."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from frcnn.model.backbones.blocks import Blocks, Body, Trunk
from frcnn.ops.devices import carry

# Filters; facts in tao/model-and-training.md 2.4. Unlike the paper all pools that downsample are 2x2.
_PARTS = ("1x1", "3x3_reduce", "3x3", "5x5_reduce", "5x5", "pool_proj")
_TRUNK = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
}
_BODY = {"5a": (256, 160, 320, 32, 128, 128), "5b": (384, 192, 384, 48, 128, 128)}
_STEM = {"conv1": (7, 64), "conv2_reduce": (1, 64), "conv2": (3, 192)}


def googlenet(
    *,
    in_channels: int,
    use_bias: bool,
    pool_size_2x: bool,
    channels: Mapping[str, int],
    **_: object,
) -> tuple[Trunk, Body]:
    """Build GoogLeNet; arguments as in `build_backbone`."""
    trunk = GoogLeNetTrunk(in_channels=in_channels, use_bias=use_bias, channels=channels)
    body = GoogLeNetBody(
        in_channels=trunk.out_channels, use_bias=use_bias, pools=pool_size_2x, channels=channels
    )
    return trunk, body


class _GoogLeNet(Blocks):
    """Inception modules, each a block."""

    def __init__(self, *, channels: Mapping[str, int]) -> None:
        super().__init__(channels=channels)
        self.names: dict[int, str] = {}

    def add_module_of(
        self, block: int, name: str, filters: tuple[int, ...], in_channels: int, bias: bool
    ) -> int:
        """Add the convolutions of a module; returns the channels of its output."""
        self.names[block] = name
        width = dict.fromkeys(_PARTS, 0)
        for part, out in zip(_PARTS, filters, strict=True):
            conv, kernel = f"inception_{name}_{part}", int(part[0]) if part in ("3x3", "5x5") else 1
            entry = width[f"{part}_reduce"] if kernel > 1 else in_channels
            width[part] = self.add_conv(block, conv, entry, out, bn=f"{conv}_bn", kernel=kernel, bias=bias)
        return sum(width[part] for part in _PARTS if not part.endswith("_reduce"))

    def run_block(self, block: int, x: Tensor, valid: Tensor | None) -> Tensor:
        """The four branches of a module, side by side."""

        def run(part: str, x: Tensor) -> Tensor:
            return self.active(f"inception_{self.names[block]}_{part}", x, valid)

        branches = [
            run("1x1", x),
            run("3x3", run("3x3_reduce", x)),
            run("5x5", run("5x5_reduce", x)),
            # TAO pads with zeros before the maximum: the same after a ReLU.
            run("pool_proj", F.max_pool2d(x, 3, 1, padding=1)),
        ]
        return torch.cat([carry(branch, to=branches[-1]) for branch in branches], dim=1)


class GoogLeNetTrunk(_GoogLeNet, Trunk):
    """Block 0 is the stem, 1 and 2 are 3a and 3b, 3 to 7 are 4a to 4e."""

    def __init__(self, *, in_channels: int, use_bias: bool, channels: Mapping[str, int]) -> None:
        super().__init__(channels=channels)
        self.freezable = range(8)
        width = in_channels
        for conv, (kernel, filters) in _STEM.items():
            stride = 2 if conv == "conv1" else 1
            width = self.add_conv(
                0, conv, width, filters, bn=f"bn_{conv}", kernel=kernel, stride=stride, bias=use_bias
            )
        for block, (name, parts) in enumerate(_TRUNK.items(), start=1):
            width = self.add_module_of(block, name, parts, width, use_bias)
        self.out_channels = width

    def run_block(self, block: int, x: Tensor, valid: Tensor | None) -> Tensor:
        """Stem, or module; 4a behind the third pool."""
        if block > 0:
            return super().run_block(block, F.max_pool2d(x, 2) if self.names[block] == "4a" else x, valid)
        x = F.max_pool2d(self.active("conv1", x, valid), 2)
        x = self.active("conv2", self.active("conv2_reduce", x, valid), valid)
        return F.max_pool2d(x, 2)


class GoogLeNetBody(_GoogLeNet, Body):
    """Modules 5a and 5b. They cannot be frozen."""

    def __init__(self, *, in_channels: int, use_bias: bool, pools: bool, channels: Mapping[str, int]) -> None:
        super().__init__(channels=channels)
        self.pools = pools
        width = in_channels
        for block, (name, parts) in enumerate(_BODY.items(), start=8):
            width = self.add_module_of(block, name, parts, width, use_bias)
        self.out_features = width

    def run_block(self, block: int, x: Tensor, valid: Tensor | None) -> Tensor:
        """A module; 5a behind TAO's `pool4` where crops are twice as large."""
        pools = self.pools and self.names[block] == "5a"
        return super().run_block(block, F.max_pool2d(x, 2) if pools else x, valid)


BUILDERS = {"googlenet": googlenet}
