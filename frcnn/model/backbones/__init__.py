"""Backbones by their TAO name."""

from collections.abc import Callable, Mapping

from frcnn.errors import SpecError
from frcnn.model.backbones import (
    darknet,
    efficientnet,
    googlenet,
    mobilenet_v1,
    mobilenet_v2,
    resnet,
    vgg,
)
from frcnn.model.backbones.blocks import Backbone, Blocks, Body, Trunk

__all__ = ["BACKBONES", "Backbone", "Blocks", "Body", "Trunk", "build_backbone"]

# A builder takes every option of `build_backbone` by keyword; those that its family does not know it ignores.
BACKBONES: Mapping[str, Callable[..., tuple[Trunk, Body]]] = {
    **resnet.BUILDERS,
    **vgg.BUILDERS,
    **googlenet.BUILDERS,
    **mobilenet_v1.BUILDERS,
    **mobilenet_v2.BUILDERS,
    **darknet.BUILDERS,
    **efficientnet.BUILDERS,
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
    stride_on_3x3: bool = False,
    dropout_rate: float = 0.0,
    drop_connect_rate: float = 0.0,
    activation: str = "",
    dynamic_size: bool = False,
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
        stride_on_3x3: bottlenecks of ResNets stride as torchvision's do, not on the first 1x1 as TAO's.
        dropout_rate: of the VGG and EfficientNet heads.
        drop_connect_rate: of EfficientNet's residual branches.
        activation: EfficientNet's, swish or relu; empty is swish.
        dynamic_size: images differ in size; TAO's EfficientNet then pads odd sides as if they were even.
        channels: the channel plan, layer name -> output channels, where they differ from the arch's own.

    Raises:
        SpecError: the arch or the activation is unknown, or the plan does not fit together.
    """
    try:
        builder = BACKBONES[arch]
    except KeyError:
        raise SpecError("unknown architecture", found=arch, allowed=", ".join(BACKBONES)) from None
    trunk, body = builder(
        in_channels=in_channels,
        use_bias=use_bias,
        use_pooling=use_pooling,
        all_projections=all_projections,
        pool_size=pool_size,
        pool_size_2x=pool_size_2x,
        stride_on_3x3=stride_on_3x3,
        dropout_rate=dropout_rate,
        drop_connect_rate=drop_connect_rate,
        activation=activation,
        dynamic_size=dynamic_size,
        channels=channels or {},
    )
    return Backbone(trunk, body, pool_size * 2 if pool_size_2x else pool_size)
