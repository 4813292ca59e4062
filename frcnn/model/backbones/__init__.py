"""Backbones by their TAO name."""

from collections.abc import Callable, Mapping
from functools import partial

from frcnn.errors import SpecError
from frcnn.model.backbones.blocks import Backbone, Blocks, Body, Trunk
from frcnn.model.backbones.resnet import resnet

__all__ = ["BACKBONES", "Backbone", "Blocks", "Body", "Trunk", "build_backbone"]

# A builder takes every option of `build_backbone` by keyword; those that its family does not know it ignores.
BACKBONES: Mapping[str, Callable[..., Backbone]] = {
    f"resnet:{depth}": partial(resnet, depth=depth) for depth in (10, 18, 34, 50, 101)
}


def build_backbone(
    arch: str,
    *,
    in_channels: int = 3,
    use_bias: bool = False,
    use_pooling: bool = False,
    all_projections: bool = False,
    pool_size: int = 7,
    pool_size_2x: bool = False,
    dropout_rate: float = 0.0,
    drop_connect_rate: float = 0.0,
    activation: str = "",
    channels: Mapping[str, int] | None = None,
) -> Backbone:
    """Build a network from its name and options (tao/model-and-training.md 1.5, 1.6).

    Args:
        arch: a key of `BACKBONES`.
        in_channels: 3, or 1 for grayscale.
        use_bias: biases in convolutions that batch norm follows.
        use_pooling: downsample by pools instead of strides (ResNet, VGG).
        all_projections: 1x1 convolutions on all shortcuts (ResNet, MobileNet V2).
        pool_size: side of a patch where the head averages or flattens it.
        pool_size_2x: crop twice that size and let the body halve it.
        dropout_rate: of the VGG and EfficientNet heads.
        drop_connect_rate: of EfficientNet's residual branches.
        activation: EfficientNet's; empty is swish.
        channels: the channel plan, layer name -> output channels, where they differ from the arch's own.

    Raises:
        SpecError: the arch is unknown, or the plan does not fit together.
    """
    try:
        builder = BACKBONES[arch]
    except KeyError:
        raise SpecError("unknown architecture", found=arch, allowed=", ".join(BACKBONES)) from None
    return builder(
        in_channels=in_channels,
        use_bias=use_bias,
        use_pooling=use_pooling,
        all_projections=all_projections,
        pool_size=pool_size,
        pool_size_2x=pool_size_2x,
        dropout_rate=dropout_rate,
        drop_connect_rate=drop_connect_rate,
        activation=activation,
        channels=channels or {},
    )
