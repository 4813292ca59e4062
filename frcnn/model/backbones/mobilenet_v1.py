"""MobileNet V1: depthwise blocks 1 to 11 as the trunk, 12 and 13 on every region."""

from collections.abc import Mapping

from torch import Tensor

from frcnn.model.backbones.blocks import Blocks, Body, Trunk

# Facts in tao/model-and-training.md 2.5. ReLU, not ReLU6.
_FILTERS = {1: 64, 2: 128, 3: 128, 4: 256, 5: 256, 6: 512, **dict.fromkeys(range(7, 12), 512)}
_HEAD = {12: 1024, 13: 1024}
_STRIDED = {2, 4, 6}


def mobilenet_v1(
    *,
    in_channels: int,
    use_bias: bool,
    pool_size_2x: bool,
    channels: Mapping[str, int],
    **_: object,
) -> tuple[Trunk, Body]:
    """Build MobileNet V1; arguments as in `build_backbone`."""
    trunk = MobileNetV1Trunk(in_channels=in_channels, use_bias=use_bias, channels=channels)
    stride = 2 if pool_size_2x else 1
    body = MobileNetV1Body(
        in_channels=trunk.out_channels, use_bias=use_bias, stride=stride, channels=channels
    )
    return trunk, body


class _MobileNetV1(Blocks):
    """Pairs of a depthwise and a pointwise convolution."""

    def add_pair(self, block: int, width: int, filters: int, stride: int, bias: bool) -> int:
        """Add a block behind `width` channels; returns its own."""
        for kind, kernel, step, out in (("dw", 3, stride, None), ("pw", 1, 1, filters)):
            conv = f"conv_{kind}_{block}"
            width = self.add_conv(
                block, conv, width, out, bn=f"{conv}_bn", kernel=kernel, stride=step, bias=bias
            )
        return width

    def run_block(self, block: int, x: Tensor, valid: Tensor | None) -> Tensor:
        """All convolutions of the block."""
        return self.chain(block, x, valid)


class MobileNetV1Trunk(_MobileNetV1, Trunk):
    """Block 0 is the stem, block k the pair k."""

    def __init__(self, *, in_channels: int, use_bias: bool, channels: Mapping[str, int]) -> None:
        super().__init__(channels=channels)
        self.freezable = range(12)
        width = self.add_conv(0, "conv1", in_channels, 32, bn="conv1_bn", kernel=3, stride=2, bias=use_bias)
        for block, filters in _FILTERS.items():
            width = self.add_pair(block, width, filters, 2 if block in _STRIDED else 1, use_bias)
        self.out_channels = width


class MobileNetV1Body(_MobileNetV1, Body):
    """Pairs 12 and 13. They cannot be frozen."""

    def __init__(self, *, in_channels: int, use_bias: bool, stride: int, channels: Mapping[str, int]) -> None:
        super().__init__(channels=channels)
        width = in_channels
        for block, filters in _HEAD.items():
            width = self.add_pair(block, width, filters, stride if block == 12 else 1, use_bias)
        self.out_features = width


BUILDERS = {"mobilenet_v1": mobilenet_v1}
