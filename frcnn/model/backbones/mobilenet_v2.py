"""MobileNet V2: inverted residuals 0 to 12 as the trunk, 13 to 16 and a last convolution on every region."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor, nn

from frcnn.model.backbones.blocks import Blocks, Body, Trunk, same_channels
from frcnn.model.batch_norm import BatchNorm2d
from frcnn.ops.devices import carry

# Facts in tao/model-and-training.md 2.6. ReLU, not ReLU6; the projections of `all_projections` are bare
# convolutions. The stride of unit 13 is 1, or 2 where crops are twice as large.
_FILTERS = (16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320)
_STRIDED = {1, 3, 6}
_FIRST_OF_BODY = 13


class _Unit(NamedTuple):
    number: int
    in_filters: int  # of the unpruned network, six times which is the inner width
    filters: int
    stride: int
    bias: bool
    all_projections: bool

    @property
    def prefix(self) -> str:
        return f"block_{self.number}_" if self.number else "expanded_conv_"

    @property
    def residual(self) -> bool:
        return self.stride == 1 and self.in_filters == self.filters


def mobilenet_v2(
    *,
    in_channels: int,
    use_bias: bool,
    all_projections: bool,
    pool_size_2x: bool,
    channels: Mapping[str, int],
    **_: object,
) -> tuple[Trunk, Body]:
    """Build MobileNet V2; arguments as in `build_backbone`."""
    strided = _STRIDED | ({_FIRST_OF_BODY} if pool_size_2x else set())
    units = [
        _Unit(number, *filters, 2 if number in strided else 1, use_bias, all_projections)
        for number, filters in enumerate(zip((32, *_FILTERS), _FILTERS, strict=False))
    ]
    trunk = MobileNetV2Trunk(
        in_channels=in_channels, use_bias=use_bias, units=units[:_FIRST_OF_BODY], channels=channels
    )
    body = MobileNetV2Body(
        in_channels=trunk.out_channels, use_bias=use_bias, units=units[_FIRST_OF_BODY:], channels=channels
    )
    return trunk, body


class _MobileNetV2(Blocks):
    """Inverted residuals, each a block with the id of its number plus one."""

    def __init__(self, *, channels: Mapping[str, int]) -> None:
        super().__init__(channels=channels)
        self.units: dict[int, _Unit] = {}

    def batch_norm(self, channels: int) -> BatchNorm2d:
        """TAO's momentum is 0.999 here."""
        return BatchNorm2d(channels, momentum=0.001)

    def add_unit(self, unit: _Unit, width: int) -> int:
        """Add a unit behind `width` channels; returns its own."""
        block, entry, inner = unit.number + 1, width, 6 * unit.in_filters
        self.units[block] = unit

        def add(name: str, width: int, out: int | None, kernel: int = 1, stride: int = 1) -> int:
            conv = f"{unit.prefix}{name}"
            bn = None if name == "projected_inputs" else f"{conv}_bn"
            return self.add_conv(block, conv, width, out, bn=bn, kernel=kernel, stride=stride, bias=unit.bias)

        if unit.number:
            width = add("expand", width, inner)
        width = add("project", add("depthwise", width, None, 3, unit.stride), unit.filters)
        if unit.residual:
            other = "the unit before"
            if unit.all_projections:
                other, entry = f"{unit.prefix}projected_inputs", add("projected_inputs", entry, unit.filters)
            same_channels(f"{unit.prefix}project", width, other, entry)
            self.entries[f"{unit.prefix}project"] = nn.Identity()
        return width

    def run_block(self, block: int, x: Tensor, valid: Tensor | None) -> Tensor:
        """A unit; stem and last convolution are chains."""
        unit = self.units.get(block)
        if unit is None:
            return self.chain(block, x, valid)
        y = self.active(f"{unit.prefix}expand", x, valid) if unit.number else x
        y = self.active(f"{unit.prefix}depthwise", y, valid)
        y = self.linear(f"{unit.prefix}project", y, valid)
        if not unit.residual:
            return y
        entry = self.linear(f"{unit.prefix}projected_inputs", x, valid) if unit.all_projections else x
        last = entry if unit.all_projections else y  # of the two layers
        entry = self.entries[f"{unit.prefix}project"](entry)
        return carry(y, to=last).add_(carry(entry, to=last))


class MobileNetV2Trunk(_MobileNetV2, Trunk):
    """Block 0 is the stem, 1 the unit that does not expand, k the unit `block_{k - 1}`."""

    def __init__(
        self, *, in_channels: int, use_bias: bool, units: list[_Unit], channels: Mapping[str, int]
    ) -> None:
        super().__init__(channels=channels)
        self.freezable = range(14)
        width = self.add_conv(0, "conv1", in_channels, 32, bn="bn_conv1", kernel=3, stride=2, bias=use_bias)
        for unit in units:
            width = self.add_unit(unit, width)
        self.out_channels = width


class MobileNetV2Body(_MobileNetV2, Body):
    """The last units and `conv_1`. They cannot be frozen."""

    def __init__(
        self, *, in_channels: int, use_bias: bool, units: list[_Unit], channels: Mapping[str, int]
    ) -> None:
        super().__init__(channels=channels)
        width = in_channels
        for unit in units:
            width = self.add_unit(unit, width)
        last = len(_FILTERS) + 1
        self.out_features = self.add_conv(
            last, "conv_1", width, 1280, bn="conv_1_bn", kernel=1, bias=use_bias
        )


BUILDERS = {"mobilenet_v2": mobilenet_v2}
