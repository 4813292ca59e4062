"""Small detectors and the Keras files that TAO would have made of them."""

import json

import h5py
import numpy as np
import torch
from torch import nn

from frcnn.model.backbones import build_backbone
from frcnn.model.detector import FasterRCNN, channel_plan
from frcnn.weights.load import weighted_layers

OUTER = {"dense_class": "dense_class_td", "dense_regress": "dense_regress_td"}
SIZE = 2  # of the average pool


def make(arch="resnet:10", *, channels=None, num_classes=2, ratios=(1.0, 0.5, 2.0), **options):
    """A detector with three scales."""
    options = {"pool_size": SIZE, **options}
    return FasterRCNN(
        backbone=build_backbone(arch, channels=channels, **options),
        num_classes=num_classes,
        anchor_scales=[16, 32, 64],
        anchor_ratios=ratios,
        channels=channels,
    )


def narrow_plan(arch="resnet:10", *, width=8, **options):
    """A channel plan of equal widths; depthwise and squeezing layers follow their inputs."""
    with torch.device("meta"):
        backbone = build_backbone(arch, **options)
    names = [name for part in backbone[:2] for name in channel_plan(part)]
    return dict.fromkeys([*names, "rpn_conv1"], width)


def randomise(detector, *, seed=0):
    """Numbers everywhere, statistics included; variances are positive."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in detector.state_dict().items():
        if tensor.is_floating_point():
            values = torch.randn(tensor.shape, generator=generator)
            tensor.copy_(values.abs() + 0.5 if name.endswith("running_var") else values)
    return detector


def keras_weights(layer):
    """A layer's tensors under Keras' names, in Keras' axes."""
    arrays = {name: value.detach().numpy() for name, value in layer.state_dict().items()}
    if isinstance(layer, nn.BatchNorm2d):
        names = {
            "gamma": "weight",
            "beta": "bias",
            "moving_mean": "running_mean",
            "moving_variance": "running_var",
        }
        return {name: arrays[ours] for name, ours in names.items()}
    kernel, bias = arrays["weight"], {"bias": arrays["bias"]} if "bias" in arrays else {}
    if isinstance(layer, nn.Linear):
        return {"kernel": kernel.T, **bias}
    if layer.groups > 1:
        return {"depthwise_kernel": kernel.transpose(2, 3, 0, 1), **bias}
    return {"kernel": kernel.transpose(2, 3, 1, 0), **bias}


def groups(detector):
    """Group name -> (inner name, Keras weights), numbered as TAO numbers the head."""
    # tao/model-and-training.md 2.9: the legacy resnet101 makes the shortcut of a block first.
    body = sorted(
        weighted_layers(detector.head.body),
        key=lambda name: name.rpartition("_")[0] if name.startswith("conv5_block") else "",
    )
    outer = {name: f"time_distributed_{number}" for number, name in enumerate(body, start=1)} | OUTER
    return {outer.get(n, n): (n, keras_weights(layer)) for n, layer in weighted_layers(detector).items()}


def model_config(detector, *, relu6=False):
    """What TAO writes into `model_config`, as far as it is read."""
    layers = [
        _layer("input_image", "InputLayer", batch_input_shape=[None, 3, 128, 192]),
        _layer("re_lu_1", "ReLU", max_value=6.0 if relu6 else None),
        _layer("crop_and_resize_1", "CropAndResize", pool_size=detector.crop_size),
        _wrapped("time_distributed_99", _layer("avg_pool", "AveragePooling2D", pool_size=[SIZE, SIZE])),
    ]
    inner = {name: outer for outer, (name, _) in groups(detector).items() if outer != name}
    for name, layer in weighted_layers(detector).items():
        kinds = {nn.BatchNorm2d: "BatchNormalization", nn.Linear: "Dense", nn.Conv2d: "Conv2D"}
        kind = next(keras for ours, keras in kinds.items() if isinstance(layer, ours))
        config = {"strides": list(layer.stride)} if kind == "Conv2D" else {}
        config |= {"epsilon": layer.eps} if kind == "BatchNormalization" else {}
        entry = _layer(name, kind, **config)
        layers.append(_wrapped(inner[name], entry) if name in inner else entry)
    return {"class_name": "Model", "config": {"name": "model_1", "layers": layers}}


def _layer(name, kind, **config):
    return {"name": name, "class_name": kind, "config": {"name": name, **config}}


def _wrapped(name, inner):
    return _layer(
        name, "TimeDistributed", layer={"class_name": inner["class_name"], "config": inner["config"]}
    )


def write(path, layers, *, config=None, middle="", scales=None):
    """A Keras file.

    Args:
        path: .h5 or .hdf5.
        layers: group -> Keras weights.
        config: model_config; without it the groups lie at the root.
        middle: what follows the group's name inside weight names, such as "_1".
        scales: group -> scaling factor.
    """
    with h5py.File(path, "w") as file:
        top = file
        if config is not None:
            file.attrs["model_config"] = json.dumps(config)
            top = file.create_group("model_weights")
        tensors = {name: {f"{k}:0": v for k, v in values.items()} for name, values in layers.items()}
        tensors |= {name: {"scaling_factor:0": np.float32(value)} for name, value in (scales or {}).items()}
        tensors["re_lu_1"] = {}
        top.attrs["layer_names"] = [name.encode() for name in tensors]
        for name, values in tensors.items():
            group = top.create_group(name)
            group.attrs["weight_names"] = [f"{name}{middle}/{tensor}".encode() for tensor in values]
            for tensor, value in values.items():
                group.create_dataset(f"{name}{middle}/{tensor}", data=value)
    return path


def write_detector(path, detector, *, config=True, relu6=False, **rest):
    """A detector's file: a whole model, or without `config` the weights alone."""
    layers = {name: weights for name, (_, weights) in groups(detector).items()}
    return write(path, layers, config=model_config(detector, relu6=relu6) if config else None, **rest)
