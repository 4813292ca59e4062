"""Faster R-CNN experiments on PyTorch Lightning and Hydra that speak NVIDIA TAO."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from frcnn.predictor import load as load

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`frcnn.load`, with what it needs, once somebody asks for it."""
    if name == "load":
        from frcnn.predictor import load

        return load
    raise AttributeError(f"module 'frcnn' has no attribute {name!r}")
