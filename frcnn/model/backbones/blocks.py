"""What every backbone is built from: layers under their TAO names, run and frozen block by block."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.errors import SpecError
from frcnn.model.batch_norm import BatchNorm2d, conv_bn
from frcnn.ops.devices import carry

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class Blocks(nn.Module, ABC):
    """A chain of blocks; each layer is an attribute with its TAO name.

    Families override `batch_norm`, `activation` and `initialise` where TAO's do not have the usual.

    Attributes:
        block_layers: block id -> names of its layers, in the order in which blocks run.
        batch_norms: convolution -> the batch norm that follows it, where one does.
        freezable: the ids that may be frozen; TAO's ids of `freeze_blocks`.
        channels: the channel plan, layer name -> output channels, for layers that differ from the default.
        ceiling: where ReLUs end; TAO: at 6 in networks that were trained for quantisation.
        entries: last convolution of a residual unit -> what its other summand goes through: nothing, or a
            quantiser.
    """

    def __init__(self, *, channels: Mapping[str, int]) -> None:
        super().__init__()
        self.block_layers: dict[int, list[str]] = {}
        self.batch_norms: dict[str, str] = {}
        self.freezable: Collection[int] = ()
        self.frozen_blocks: frozenset[int] = frozenset()
        self.channels = channels
        self.ceiling: float | None = None
        self.entries = nn.ModuleDict()

    def batch_norm(self, channels: int) -> BatchNorm2d:
        """A batch norm layer."""
        return BatchNorm2d(channels)

    def activation(self, x: Tensor) -> Tensor:
        """What follows convolutions; may overwrite its input."""
        return relu(x, self.ceiling)

    def initialise(self, layer: nn.Conv2d) -> nn.Conv2d:
        """Give a convolution its start."""
        return glorot(layer)

    @abstractmethod
    def run_block(self, block: int, x: Tensor, valid: Tensor | None) -> Tensor:
        """Run one block; valid: (N,) bool rows that enter batch statistics, None for all."""

    # Building

    def add(self, block: int, name: str, layer: nn.Module) -> None:
        """Make a layer part of a block."""
        self.add_module(name, layer)
        self.block_layers.setdefault(block, []).append(name)

    def add_conv(
        self,
        block: int,
        name: str,
        in_channels: int,
        out_channels: int | None,
        *,
        bn: str | None,
        kernel: int,
        stride: int = 1,
        bias: bool = False,
        padded: bool = True,
    ) -> int:
        """Add a convolution of odd kernel.

        Args:
            block: its id.
            name: the layer's.
            in_channels: of its input.
            out_channels: the architecture's own; None for a depthwise one, which keeps its input's.
            bn: name of the batch norm that follows; None where none does.
            kernel: side.
            stride: in both directions.
            bias: whether it has one.
            padded: by k // 2 zeros on every side (TAO's `same`); otherwise not at all.

        Returns:
            The output channels that the plan gives it.

        Raises:
            SpecError: the plan changes the channels of a depthwise convolution.
        """
        out = self.channels.get(name, in_channels if out_channels is None else out_channels)
        if out_channels is None:
            same_channels(name, out, "its input", in_channels, "linked one by one")
        layer = nn.Conv2d(
            in_channels,
            out,
            kernel,
            stride,
            padding=kernel // 2 if padded else 0,
            groups=in_channels if out_channels is None else 1,
            bias=bias,
        )
        self.add(block, name, self.initialise(layer))
        if bn is not None:
            self.add(block, bn, self.batch_norm(out))
            self.batch_norms[name] = bn
        return out

    def freeze(self, blocks: Collection[int]) -> None:
        """Freeze the parameters and statistics of those of the given blocks that live here."""
        self.frozen_blocks = frozenset(blocks) & frozenset(self.freezable)
        for block in self.frozen_blocks:
            for layer in map(self.get_submodule, self.block_layers[block]):
                layer.requires_grad_(False)
                if isinstance(layer, BatchNorm2d):
                    layer.frozen = True

    # Running

    def linear(self, conv: str, x: Tensor, valid: Tensor | None) -> Tensor:
        """A convolution and the batch norm that follows it, where one does."""
        layer: Any = self.get_submodule(conv)
        bn = self.batch_norms.get(conv)
        x = carry(x, to=layer.weight)
        if bn is None:
            y: Tensor = layer(x)
            return y
        return conv_bn(layer, self.get_submodule(bn), x, valid)

    def active(self, conv: str, x: Tensor, valid: Tensor | None) -> Tensor:
        """`linear`, then the activation."""
        return self.activation(self.linear(conv, x, valid))

    def chain(self, block: int, x: Tensor, valid: Tensor | None) -> Tensor:
        """All convolutions of a block, one after the other, each activated."""
        norms = set(self.batch_norms.values())
        for name in self.block_layers[block]:
            if name not in norms:
                x = self.active(name, x, valid)
        return x


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
        return self.vectors(x)

    def vectors(self, x: Tensor) -> Tensor:
        """What the blocks leave -> (M, out_features): TAO's average pool, whose window is the whole patch."""
        return average(x)


class Backbone(NamedTuple):
    """A network cut in two at stride 16."""

    trunk: Trunk
    body: Body
    crop_size: int  # P, the side of the patches that the body takes


def average(x: Tensor) -> Tensor:
    """(N, C, H, W) -> its means (N, C)."""
    if x.dtype == torch.float16:  # which ends at 65504
        return x.mean((2, 3))
    # Not mean(): the gradient of a sum is a view, that of a mean a tensor as large as the activations.
    return x.sum((2, 3)) / (x.shape[2] * x.shape[3])


def dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    """Keras' dropout: rates of 0 and 1 both mean none."""
    return F.dropout(x, rate, training) if rate < 1 else x


def relu(x: Tensor, ceiling: float | None) -> Tensor:
    """ReLU in place, up to a ceiling if there is one."""
    return F.relu_(x) if ceiling is None else F.hardtanh_(x, 0.0, ceiling)


def glorot(layer: Layer) -> Layer:
    """Keras' default start: Glorot-uniform kernel, zero bias."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def same_channels(name: str, channels: int, other: str, other_channels: int, how: str = "added") -> int:
    """The channels of two outputs that meet; a plan that prunes them apart is a SpecError."""
    if channels != other_channels:
        raise SpecError(
            f"the outputs of {name} and {other} are {how} and need the same number of channels",
            where="channel plan",
            found=f"{channels} and {other_channels}",
        )
    return channels
