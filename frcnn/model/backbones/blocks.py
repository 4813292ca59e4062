"""What every backbone is built from: layers under their TAO names, run and frozen block by block."""

from collections.abc import Collection, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from frcnn.errors import SpecError
from frcnn.model.batch_norm import BatchNorm2d

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class Blocks(nn.Module):
    """A chain of blocks; each layer is an attribute with its TAO name.

    Attributes:
        block_layers: block id -> names of its layers, in the order in which blocks run.
        freezable: the ids that may be frozen; TAO's ids of `freeze_blocks`.
        channels: the channel plan, layer name -> output channels, for layers that differ from the default.
    """

    def __init__(self, *, channels: Mapping[str, int]) -> None:
        super().__init__()
        self.block_layers: dict[int, list[str]] = {}
        self.freezable: Collection[int] = ()
        self.frozen_blocks: frozenset[int] = frozenset()
        self.channels = channels

    def run_block(self, block: int, x: Tensor, valid: Tensor | None) -> Tensor:
        """Run one block; valid: (N,) bool rows that enter batch statistics, None for all."""
        raise NotImplementedError

    def add(self, block: int, name: str, layer: nn.Module) -> None:
        """Make a layer part of a block."""
        self.add_module(name, layer)
        self.block_layers.setdefault(block, []).append(name)

    def add_conv_bn(
        self,
        block: int,
        conv: str,
        bn: str,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int = 1,
        bias: bool = False,
    ) -> int:
        """Add a convolution of odd kernel and its batch norm; returns the channels the plan gives it."""
        out_channels = self.channels.get(conv, out_channels)
        layer = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=bias)
        self.add(block, conv, glorot(layer))
        self.add(block, bn, BatchNorm2d(out_channels))
        return out_channels

    def freeze(self, blocks: Collection[int]) -> None:
        """Freeze the parameters and statistics of those of the given blocks that live here."""
        self.frozen_blocks = frozenset(blocks) & frozenset(self.freezable)
        for block in self.frozen_blocks:
            for layer in map(self.get_submodule, self.block_layers[block]):
                layer.requires_grad_(False)
                if isinstance(layer, BatchNorm2d):
                    layer.frozen = True


class Trunk(Blocks):
    """Image (B, C, H, W) -> feature map (B, out_channels, H / 16, W / 16)."""

    out_channels: int

    def forward(self, x: Tensor) -> Tensor:
        """Run all blocks, the leading frozen ones without building a graph."""
        frozen = True
        for block in self.block_layers:
            frozen = frozen and block in self.frozen_blocks
            with torch.set_grad_enabled(torch.is_grad_enabled() and not frozen):
                x = self.run_block(block, x, None)
        return x


class Body(Blocks):
    """Patches (M, Cf, P, P) of the feature map -> one vector each (M, out_features)."""

    out_features: int

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """valid: (M,) bool patches that enter batch statistics, None for all."""
        for block in self.block_layers:
            x = self.run_block(block, x, valid)
        return x


class Backbone(NamedTuple):
    """A network cut in two at stride 16."""

    trunk: Trunk
    body: Body
    crop_size: int  # P, the side of the patches that the body takes


def glorot(layer: Layer) -> Layer:
    """Keras' default start: Glorot-uniform kernel, zero bias."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def same_channels(name: str, channels: int, other: str, other_channels: int) -> int:
    """The channels of two layers whose outputs are added; a plan that prunes them apart is a SpecError."""
    if channels != other_channels:
        raise SpecError(
            f"the outputs of {name} and {other} are added and need the same number of channels",
            where="channel plan",
            found=f"{channels} and {other_channels}",
        )
    return channels
