"""TAO's `augmentation_config` block: from an image file to a network input."""

from dataclasses import dataclass

from frcnn.spec.fields import Message, above, at_least, setting, within


@dataclass
class Preprocessing(Message):
    """Crop, scale and output size."""

    output_image_width: int = setting(1, "width; 0 means the model's", default=0)
    output_image_height: int = setting(2, "height; 0 means the model's", default=0)
    crop_left: int = setting(4, "left edge of the crop, pixels", default=0)
    crop_top: int = setting(5, "top edge of the crop, pixels", default=0)
    crop_right: int = setting(6, "right edge of the crop, pixels", default=0)
    crop_bottom: int = setting(7, "bottom edge of the crop, pixels", default=0)
    min_bbox_width: float = setting(
        8, "narrower boxes are dropped, input pixels", default=1.0, rule=at_least(0)
    )
    min_bbox_height: float = setting(
        9, "lower boxes are dropped, input pixels", default=1.0, rule=at_least(0)
    )
    scale_width: float = setting(10, "factor on the width; 0 means none", default=0.0, rule=at_least(0))
    scale_height: float = setting(11, "factor on the height; 0 means none", default=0.0, rule=at_least(0))
    output_image_channel: int = setting(13, "channels, 3 or 1; 0 means as image_type says", default=0)
    output_image_min: int = setting(14, "smaller side of inputs of varying size, pixels", default=0)
    output_image_max: int = setting(15, "longest larger side of inputs of varying size, pixels", default=0)
    enable_auto_resize: bool = setting(16, "resize images instead of padding or cropping them", default=False)


@dataclass
class SpatialAugmentation(Message):
    """Random geometry."""

    hflip_probability: float = setting(1, "chance of a left-right flip", default=0.0, rule=within(0, 1))
    vflip_probability: float = setting(2, "chance of an upside-down flip", default=0.0, rule=within(0, 1))
    zoom_min: float = setting(3, "smallest zoom; above 1 zooms out", default=1.0, rule=above(0))
    zoom_max: float = setting(4, "largest zoom", default=1.0, rule=above(0))
    translate_max_x: float = setting(5, "largest shift sideways, pixels", default=0.0, rule=at_least(0))
    translate_max_y: float = setting(6, "largest shift up or down, pixels", default=0.0, rule=at_least(0))
    rotate_rad_max: float = setting(7, "largest rotation, radians", default=0.0, rule=at_least(0))
    rotate_probability: float = setting(8, "chance of a rotation", default=1.0, rule=within(0, 1))


@dataclass
class ColorAugmentation(Message):
    """Random colour, three-channel images only."""

    color_shift_stddev: float = setting(
        1, "spread of the brightness, share of full scale", default=0.0, rule=at_least(0)
    )
    hue_rotation_max: float = setting(2, "largest hue rotation, degrees", default=0.0, rule=within(0, 360))
    saturation_shift_max: float = setting(3, "largest saturation change", default=0.0, rule=within(0, 1))
    contrast_scale_max: float = setting(5, "largest contrast change", default=0.0, rule=at_least(0))
    contrast_center: float = setting(8, "value that contrast leaves alone, share of full scale", default=0.0)


@dataclass
class AugmentationConfig(Message):
    """What happens to an image before the network sees it."""

    preprocessing: Preprocessing = setting(1, "crop, scale and size", factory=Preprocessing)
    spatial_augmentation: SpatialAugmentation = setting(2, "random geometry", factory=SpatialAugmentation)
    color_augmentation: ColorAugmentation = setting(3, "random colour", factory=ColorAugmentation)
