"""Faster R-CNN experiments on PyTorch Lightning and Hydra that speak NVIDIA TAO."""

__version__ = "0.1.0"
