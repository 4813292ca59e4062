"""The only translator: TAO's settings in, constructed parts out."""

from frcnn.build.data import Data, build_data, data_set, locate_data, read_sources
from frcnn.build.images import (
    augmentation,
    channels,
    geometry,
    is_bgr,
    largest_size,
    means,
    transforms,
    usual_size,
)
from frcnn.build.network import build_detector, detection_settings, imagenet_target, pixels
from frcnn.build.training import optimizer, penalty, schedule

__all__ = [
    "Data",
    "augmentation",
    "build_data",
    "build_detector",
    "channels",
    "data_set",
    "detection_settings",
    "geometry",
    "imagenet_target",
    "is_bgr",
    "largest_size",
    "locate_data",
    "means",
    "optimizer",
    "penalty",
    "pixels",
    "read_sources",
    "schedule",
    "transforms",
    "usual_size",
]
