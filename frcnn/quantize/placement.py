"""Where TensorRT wants tensors rounded: the inputs of layers, and what is added to a layer's output."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from frcnn.model.batch_norm import BatchNorm2d
from frcnn.model.detector import FasterRCNN
from frcnn.weights.load import weighted_layers

ENTRY = "_entry"
"""Behind the name of a unit's last convolution: what is added to its output."""

# What layers call themselves; their hooks know more.
_OF_LAYERS = (F.conv2d, F.linear, F.batch_norm)
_SIDE = 64  # of the image that runs: four cells of stride 16
# Functions that move values about, or pick some: eight bits hold the result as they hold the argument.
_SAME = ("max_pool2d", "flatten", "pad", "dropout", "contiguous", "to", "view", "div", "truediv")
_ACTIVATIONS = ("relu", "hardtanh", "leaky_relu", "silu", "sigmoid")


def trace(detector: FasterRCNN) -> dict[str, str]:
    """The places where a network takes tensors in, and the names of these tensors, in the order of a run.

    Nothing is known of any backbone here: layers are seen by hooks, and what happens between them is seen
    function by function.

    Returns:
        Convolution or dense layer, or a unit's last convolution with `ENTRY`, -> tensor: `input_image`,
        `crops`, or as TAO calls them LAYER for the output of a layer (and its batch norm), LAYER_act for that
        of its activation; LAYER_add for a sum, and so on.
    """
    tracker, was = _Tracker(), detector.training
    parameter = next(detector.parameters())
    handles = [
        layer.register_forward_hook(tracker.layer(name)) for name, layer in weighted_layers(detector).items()
    ]
    for part in (detector.trunk, detector.head.body):
        handles += [
            module.register_forward_hook(tracker.entry(name)) for name, module in part.entries.items()
        ]
    try:
        detector.eval()
        with torch.no_grad(), tracker:
            channels = next(m.in_channels for m in detector.trunk.modules() if isinstance(m, nn.Conv2d))
            image = torch.zeros(1, channels, _SIDE, _SIDE, device=parameter.device)
            features = detector.trunk(tracker.mark(image, "input_image"))
            detector.rpn(features)
            side = detector.crop_size
            crops = torch.zeros(1, features.shape[1], side, side, device=parameter.device)
            detector.head(tracker.mark(crops, "crops"))
    finally:
        detector.train(was)
        for handle in handles:
            handle.remove()
    return tracker.places


class _Tracker(TorchFunctionMode):
    """Gives every tensor that comes of a named one a name of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, str] = {}
        self._names: dict[int, tuple[Tensor, str]] = {}  # holds tensors, so that ids stay theirs
        self._unit = ""

    def mark(self, x: Tensor, name: str) -> Tensor:
        """Name a tensor."""
        self._names[id(x)] = x, name
        return x

    def layer(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        """What sees a layer at work."""

        def see(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            source = self._names[id(args[0])][1]
            if isinstance(layer, BatchNorm2d):
                self.mark(output, source)
                return
            self.places[name] = source
            self.mark(output, name)

        return see

    def entry(self, unit: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        """What sees a tensor that is to be added to a unit's output."""

        def see(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            self._unit = unit
            self.places[unit + ENTRY] = self._names[id(args[0])][1]

        return see

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function; its result is named after its arguments."""
        result = func(*args, **(kwargs or {}))
        found = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and id(x) in self._names]
        if found and func not in _OF_LAYERS and isinstance(result, Tensor):
            self.mark(result, self._name(func.__name__, [self._names[id(x)][1] for x in found]))
        return result

    def _name(self, func: str, names: list[str]) -> str:
        func = func.strip("_")
        if func == "add":
            return f"{self._unit}_add"
        if func == "cat":
            return f"{names[-1]}_cat"
        if func in _SAME:
            return names[0]
        suffixes: Mapping[str, str] = {"sum": "mean"} | dict.fromkeys(_ACTIVATIONS, "act")
        return f"{names[0]}_{suffixes.get(func, func)}"
