"""VGG: the convolutions as the trunk, the two dense layers on every region."""

from collections.abc import Mapping
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.model.backbones.blocks import Body, Trunk, dropout, glorot

# Facts in tao/model-and-training.md 2.3. Convolutions have batch norm, except in TAO's legacy `vgg16`.
_UNITS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_FILTERS = (64, 128, 256, 512, 512)


def vgg(
    *,
    depth: int,
    in_channels: int,
    use_bias: bool,
    use_pooling: bool,
    pool_size: int,
    pool_size_2x: bool,
    dropout_rate: float,
    channels: Mapping[str, int],
    legacy: bool = False,
    **_: object,
) -> tuple[Trunk, Body]:
    """Build a VGG; arguments as in `build_backbone`.

    `legacy` is TAO's network `vgg16`, with the layer names of the stock Keras VGG: it always pools and has
    biases in place of batch norm.
    """
    trunk = VggTrunk(
        units=_UNITS[depth],
        in_channels=in_channels,
        use_bias=use_bias or legacy,
        use_pooling=use_pooling or legacy,
        legacy=legacy,
        channels=channels,
    )
    body = VggBody(
        in_features=trunk.out_channels * pool_size**2,
        pools=pool_size_2x,
        dropout_rate=dropout_rate,
        channels=channels,
    )
    return trunk, body


class VggTrunk(Trunk):
    """Blocks 1 to 5, each a chain of convolutions."""

    def __init__(
        self,
        *,
        units: tuple[int, ...],
        in_channels: int,
        use_bias: bool,
        use_pooling: bool,
        legacy: bool,
        channels: Mapping[str, int],
    ) -> None:
        super().__init__(channels=channels)
        self.use_pooling = use_pooling
        self.freezable = range(1, 6)
        width = in_channels
        for block, (count, filters) in enumerate(zip(units, _FILTERS, strict=True), start=1):
            for index in range(count):
                unit = f"block_{block}{chr(ord('a') + index)}"
                conv, bn = f"{unit}_conv_1", f"{unit}_bn_1"
                name, norm = (f"block{block}_conv{index + 1}", None) if legacy else (conv, bn)
                stride = 2 if index == 0 and block > 1 and not use_pooling else 1
                width = self.add_conv(
                    block, name, width, filters, bn=norm, kernel=3, stride=stride, bias=use_bias
                )
        self.out_channels = width

    def run_block(self, block: int, x: Tensor, valid: Tensor | None) -> Tensor:
        """TAO's pool of the block before, then the convolutions."""
        x = F.max_pool2d(x, 2) if self.use_pooling and block > 1 else x
        return self.chain(block, x, valid)


class VggBody(Body):
    """Two dense layers. They cannot be frozen."""

    def __init__(
        self, *, in_features: int, pools: bool, dropout_rate: float, channels: Mapping[str, int]
    ) -> None:
        super().__init__(channels=channels)
        self.pools = pools
        self.dropout_rate = dropout_rate
        for name in ("fc1", "fc2"):
            width = channels.get(name, 4096)
            self.add(6, name, glorot(nn.Linear(in_features, width)))
            in_features = width
        self.out_features = in_features

    def run_block(self, block: int, x: Tensor, valid: Tensor | None) -> Tensor:
        """Flatten, in TAO's order of channel, row and column, and both layers."""
        x = (F.max_pool2d(x, 2) if self.pools else x).flatten(1)
        for name in self.block_layers[block]:
            x = dropout(self.active(name, x, valid), self.dropout_rate, self.training)
        return x

    def vectors(self, x: Tensor) -> Tensor:
        """They are vectors already."""
        return x


BUILDERS = {f"vgg:{depth}": partial(vgg, depth=depth) for depth in _UNITS} | {
    "vgg16": partial(vgg, depth=16, legacy=True)
}
