"""What a spec makes of an image file before the network sees it."""

import math
from collections.abc import Sequence
from functools import partial

from frcnn.data import augment
from frcnn.data.geometry import Geometry, fixed, shortest_side
from frcnn.data.transforms import Transform, chain
from frcnn.spec.experiment import Experiment
from frcnn.spec.model import ImageType


def channels(spec: Experiment) -> int:
    """Channels of the network input."""
    return 1 if spec.model_config.input_image_config.image_type == ImageType.GRAY_SCALE else 3


def usual_size(spec: Experiment) -> tuple[int, int]:
    """Height and width of the network input; the smallest square if images differ in size."""
    image = spec.model_config.input_image_config
    shortest = image.size_min.min if image.size_min else 0
    size = image.size_height_width
    return (size.height, size.width) if size else (shortest, shortest)


def geometry(spec: Experiment) -> Geometry:
    """Where the pixels of an image file lie in the network input, in training and everywhere else."""
    pre, size = spec.augmentation_config.preprocessing, spec.model_config.input_image_config.size_height_width
    if size is None:
        return partial(shortest_side, shortest=pre.output_image_min, longest=pre.output_image_max)
    return partial(
        fixed,
        size=(size.height, size.width),
        auto_resize=pre.enable_auto_resize,
        scale=(pre.scale_height, pre.scale_width),
        crop=(pre.crop_left, pre.crop_top),
    )


def largest_size(spec: Experiment) -> tuple[int, int]:
    """Height and width of the largest input that there can be."""
    if size := spec.model_config.input_image_config.size_height_width:
        return size.height, size.width
    sides = spec.augmentation_config.preprocessing
    return sides.output_image_min, sides.output_image_max


def augmentation(spec: Experiment, *, tao_quirks: bool = False) -> tuple[Transform, ...]:
    """The steps with chance that `enable_augmentation` switches on; colour is for images that have some."""
    config = spec.augmentation_config
    spatial, colour = config.spatial_augmentation, config.color_augmentation
    angle = spatial.rotate_rad_max
    move = partial(
        augment.move,
        hflip_probability=spatial.hflip_probability,
        vflip_probability=spatial.vflip_probability,
        translate=(spatial.translate_max_x, spatial.translate_max_y),
        zoom=(spatial.zoom_min, spatial.zoom_max),
        rotate_max=math.radians(angle) if tao_quirks else angle,
        rotate_probability=spatial.rotate_probability,
    )
    recolour = partial(
        augment.recolour,
        brightness_std=colour.color_shift_stddev,
        hue_max=colour.hue_rotation_max,
        saturation_max=colour.saturation_shift_max,
        contrast_max=colour.contrast_scale_max,
        contrast_center=colour.contrast_center,
    )
    return (move, recolour) if channels(spec) == 3 else (move,)


def transforms(spec: Experiment, *, augmentation: Sequence[Transform] = ()) -> tuple[Transform, ...]:
    """The chain from a decoded image to network input, with steps of chance or without."""
    return chain(
        geometry=geometry(spec),
        mean=means(spec),
        scale=spec.model_config.input_image_config.image_scaling_factor,
        bgr=is_bgr(spec),
        augmentation=augmentation,
    )


def is_bgr(spec: Experiment) -> bool:
    """Whether the network takes blue first."""
    return spec.model_config.input_image_config.image_channel_order == "bgr" and channels(spec) == 3


def means(spec: Experiment) -> list[float]:
    """Channel means in the order r, g, b or l."""
    image = spec.model_config.input_image_config
    keys = ("l",) if channels(spec) == 1 else ("r", "g", "b")
    return [image.image_channel_mean[key] for key in keys]
