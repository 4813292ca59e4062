"""Quantisation to int8 as TensorRT does it: fake-quantised layers, where they stand, and their ranges."""

from frcnn.quantize.calibrate import calibrate, layer_errors
from frcnn.quantize.network import (
    TENSORS,
    activation_quantizers,
    activation_scales,
    copy_ranges,
    fold_batch_norm,
    is_quantized,
    quantize,
    quantized_layers,
    quantizers,
    set_ranges,
    trait,
)

__all__ = [
    "TENSORS",
    "activation_quantizers",
    "activation_scales",
    "calibrate",
    "copy_ranges",
    "fold_batch_norm",
    "is_quantized",
    "layer_errors",
    "quantize",
    "quantized_layers",
    "quantizers",
    "set_ranges",
    "trait",
]
