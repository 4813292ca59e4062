"""TAO's `model_config` block: input, backbone, anchors and heads."""

from dataclasses import dataclass
from enum import IntEnum

from frcnn.spec.fields import Message, above, at_least, inside, one_of, setting, within

ARCHITECTURES = (
    *("resnet:10", "resnet:18", "resnet:34", "resnet:50", "resnet:101"),
    *("vgg16", "vgg:16", "vgg:19", "googlenet", "mobilenet_v1", "mobilenet_v2"),
    *("darknet:19", "darknet:53", "resnet101"),
    *(f"efficientnet:b{i}" for i in range(8)),
)
"""Every name that `model_config.arch` may hold (spec-and-data 2.3)."""

FREEZABLE_BLOCKS = {
    "resnet": range(4),
    "resnet101": range(4),
    "vgg": range(1, 6),
    "vgg16": range(1, 6),
    "googlenet": range(8),
    "mobilenet_v1": range(12),
    "mobilenet_v2": range(14),
    "darknet": range(6),
    "efficientnet": range(9),
}
"""Block ids that `freeze_blocks` may name, by family (the part of `arch` before the colon)."""


OPTIONS_OF = {
    "use_bias": ("resnet", "vgg:", "googlenet", "mobilenet", "darknet", "efficientnet"),
    "all_projections": ("resnet:", "mobilenet_v2"),
    "use_pooling": ("resnet:", "vgg:"),
    "dropout_rate": ("vgg", "efficientnet"),
    "drop_connect_rate": ("efficientnet",),
    "activation": ("efficientnet",),
}
"""Options that do not apply everywhere, and how the names of the networks that have them begin."""


class ImageType(IntEnum):
    """Channels of the network input."""

    RGB = 0
    GRAY_SCALE = 1


@dataclass
class ImageSizeConfigMin(Message):
    """Images keep their aspect ratio; their smaller side gets this length."""

    min: int = setting(1, "smaller side of the network input, pixels", rule=at_least(128))


@dataclass
class ImageSizeConfigHeightWidth(Message):
    """Every image gets this size."""

    height: int = setting(1, "height of the network input, pixels", rule=at_least(128))
    width: int = setting(2, "width of the network input, pixels", rule=at_least(128))


@dataclass
class InputImageConfig(Message):
    """Size, channels and normalisation of the network input."""

    size_min: ImageSizeConfigMin | None = setting(
        1, "input of varying size, by its smaller side", default=None, oneof="image_size_config"
    )
    size_height_width: ImageSizeConfigHeightWidth | None = setting(
        2, "input of one fixed size", default=None, oneof="image_size_config"
    )
    image_channel_mean: dict[str, float] = setting(
        3, "mean to subtract, by colour: r, g, b or l", factory=dict, needed=True, rule=inside(0, 255)
    )
    image_scaling_factor: float = setting(4, "divisor after subtracting the mean", rule=above(0))
    image_channel_order: str = setting(5, "order of the channels", rule=one_of("bgr", "rgb", "l"))
    image_type: ImageType = setting(
        6, "three channels or one", default=ImageType.RGB, rule=one_of(*ImageType)
    )
    max_objects_num_per_image: int = setting(7, "objects that an image may hold", rule=above(0))


@dataclass
class AnchorBoxConfig(Message):
    """Anchors of each feature map cell: every scale with every ratio."""

    scale: list[float] = setting(
        1, "side of the square anchor, pixels", factory=list, needed=True, rule=above(0)
    )
    ratio: list[float] = setting(2, "width / height of the anchor", factory=list, needed=True, rule=above(0))


@dataclass
class RoiPoolingConfig(Message):
    """Size of the crop that the head sees of each region."""

    pool_size: int = setting(1, "side of the crop, feature cells", rule=above(0))
    pool_size_2x: bool = setting(2, "crop twice that side and halve it in the head", default=False)


@dataclass
class Activation(Message):
    """Activation function of the EfficientNet family."""

    activation_type: str = setting(1, "relu or swish; empty means swish", default="")
    activation_parameters: dict[str, float] = setting(
        2, "parameters of the activation", factory=dict, inert="no activation here takes parameters"
    )


@dataclass
class ModelConfig(Message):
    """The network."""

    input_image_config: InputImageConfig = setting(1, "network input", factory=InputImageConfig)
    arch: str = setting(2, "backbone", rule=one_of(*ARCHITECTURES))
    anchor_box_config: AnchorBoxConfig = setting(3, "anchors", factory=AnchorBoxConfig)
    roi_mini_batch: int = setting(4, "regions per image that train the head", rule=above(0))
    rpn_stride: int = setting(5, "stride of the feature map", default=16, rule=one_of(16))
    freeze_bn: bool = setting(
        6, "run batch normalisation in inference mode; gamma and beta still train", default=False
    )
    rpn_cls_activation_type: str = setting(
        7, "activation of the RPN score", default="", inert="the RPN score is always a sigmoid"
    )
    freeze_blocks: list[int] = setting(9, "backbone blocks that do not train", factory=list, wire="float")
    use_bias: bool = setting(10, "give a bias to convolutions before batch normalisation", default=False)
    roi_pooling_config: RoiPoolingConfig = setting(11, "region crops", factory=RoiPoolingConfig)
    rfcn_mode: bool = setting(12, "R-FCN heads", default=False, inert="TAO never had R-FCN heads")
    tf_proposal_layer: bool = setting(
        13, "TensorFlow's own proposal layer", default=False, inert="there is one proposal layer"
    )
    all_projections: bool = setting(14, "a convolution on every shortcut", default=False)
    use_pooling: bool = setting(15, "pool instead of striding (ResNet, VGG)", default=False)
    dropout_rate: float = setting(
        17, "dropout in the head (VGG, EfficientNet)", default=0.0, rule=within(0, 1)
    )
    drop_connect_rate: float = setting(18, "drop connect (EfficientNet)", default=0.0, rule=within(0, 1))
    activation: Activation | None = setting(19, "activation (EfficientNet)", default=None)
