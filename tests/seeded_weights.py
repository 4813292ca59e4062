"""Weights and inputs that follow from names alone, for networks of PyTorch and of Keras alike.

The rule of the reference cases of the original: every array has a generator of its own, seeded with its name.
"""

import zlib

import numpy as np

# Keras' name of an array -> PyTorch's name and the order of its axes there.
TENSORS = {
    "kernel": ("weight", {4: (3, 2, 0, 1), 2: (1, 0)}),
    "depthwise_kernel": ("weight", {4: (2, 3, 0, 1)}),
    "bias": ("bias", {1: (0,)}),
    "gamma": ("weight", {1: (0,)}),
    "beta": ("bias", {1: (0,)}),
    "moving_mean": ("running_mean", {1: (0,)}),
    "moving_variance": ("running_var", {1: (0,)}),
}


def array(layer, kind, shape):
    """The values of one array, in Keras' order of axes."""
    random = np.random.RandomState(zlib.crc32(f"{layer}|{kind}".encode()) & 0x7FFFFFFF)
    if kind in ("gamma", "moving_variance"):
        values = 0.5 + random.rand(*shape)
    elif kind in ("beta", "moving_mean", "bias"):
        values = 0.2 * random.randn(*shape)
    else:
        fan = shape[0] * shape[1] if kind == "depthwise_kernel" else np.prod(shape[:-1])
        values = 0.8 * random.randn(*shape) * np.sqrt(2 / fan)
    return values.astype(np.float32)


def images(*shape):
    """(N, C, H, W) of about unit scale."""
    return np.random.RandomState(1).randn(*shape).astype(np.float32)


def crops(*shape):
    """(M, Cf, P, P) of about unit scale; not negative, as feature maps are behind a ReLU."""
    return np.abs(images(*shape))


def fill_torch(module):
    """Give every layer of a network its weights; batch norm is known by its statistics."""
    import torch

    for name, layer in module.named_modules():
        norm, depthwise = hasattr(layer, "running_mean"), getattr(layer, "groups", 1) > 1
        usual = ("gamma", "beta", "moving_mean", "moving_variance") if norm else ("kernel", "bias")
        for kind in ("depthwise_kernel", "bias") if depthwise else usual:
            attribute, orders = TENSORS[kind]
            tensor = getattr(layer, attribute, None)
            if isinstance(tensor, torch.Tensor):
                order = orders[tensor.dim()]
                shape = [tensor.shape[order.index(axis)] for axis in range(tensor.dim())]
                values = array(name.rpartition(".")[2], kind, shape)
                tensor.data.copy_(torch.from_numpy(values.transpose(order).copy()))
    return module
