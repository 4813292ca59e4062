"""Faster R-CNN experiments on PyTorch Lightning and Hydra that speak NVIDIA TAO."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frcnn import spec as spec
    from frcnn.api import TrainingRun as TrainingRun
    from frcnn.api import train as train
    from frcnn.predictor import load as load

__version__ = "0.1.0"
__all__ = ["TrainingRun", "load", "spec", "train"]

_HOMES = {"TrainingRun": "frcnn.api", "load": "frcnn.predictor", "train": "frcnn.api"}


def __getattr__(name: str) -> Any:
    """`frcnn.load` and the like, with what they need, once somebody asks for them."""
    if name == "spec":
        return import_module("frcnn.spec")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'frcnn' has no attribute {name!r}")
