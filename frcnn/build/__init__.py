"""The only translator: TAO's settings in, constructed parts out."""

from frcnn.build.data import Data, build_data, locate_data, read_sources
from frcnn.build.images import augmentation, channels, geometry, is_bgr, means, transforms, usual_size
from frcnn.build.network import build_detector, detection_settings, imagenet_target
from frcnn.build.training import optimizer, penalty, schedule

__all__ = [
    "Data",
    "augmentation",
    "build_data",
    "build_detector",
    "channels",
    "detection_settings",
    "geometry",
    "imagenet_target",
    "is_bgr",
    "locate_data",
    "means",
    "optimizer",
    "penalty",
    "read_sources",
    "schedule",
    "transforms",
    "usual_size",
]
