"""Where the input channels of each layer come from, and which layers have to keep the same ones."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from frcnn.model.batch_norm import BatchNorm2d
from frcnn.model.detector import FasterRCNN
from frcnn.weights.load import weighted_layers

# What layers call themselves; their hooks know more.
_OF_LAYERS = (F.conv2d, F.linear, F.batch_norm)
_SIDE = 64  # of the image that runs: four cells of stride 16


class Source(NamedTuple):
    """Channels of a layer, in order, each `repeat` features long: 1, or the area that was flattened."""

    layer: str
    repeat: int = 1


@dataclass(frozen=True)
class ChannelFlow:
    """The channels of a network.

    Attributes:
        widths: convolution or dense layer -> its output channels, in the order in which they run.
        inputs: every layer with weights -> what its input is a concatenation of; empty for the image.
        groups: all of `widths`, each in the group of layers whose channels are added, multiplied or, by a
            depthwise convolution, passed on one by one.
    """

    widths: Mapping[str, int]
    inputs: Mapping[str, tuple[Source, ...]]
    groups: tuple[tuple[str, ...], ...]


def trace(detector: FasterRCNN) -> ChannelFlow:
    """Follow the channels of a small image through trunk, RPN and head.

    Nothing is known of any backbone here: layers are seen by hooks, and what happens between them is seen
    function by function.

    Args:
        detector: on the meta device, where a run costs nothing.

    Raises:
        NotImplementedError: the network does something to channels that cannot be pruned through.
    """
    layers = weighted_layers(detector)
    tracker = _Tracker()
    handles = [layer.register_forward_hook(tracker.hook(name)) for name, layer in layers.items()]
    in_channels = next(layer.in_channels for layer in layers.values() if isinstance(layer, nn.Conv2d))
    try:
        detector.eval()
        with torch.no_grad(), tracker:
            features = detector.trunk(torch.empty(1, in_channels, _SIDE, _SIDE, device="meta"))
            detector.rpn(features)
            side = detector.crop_size
            crops = torch.empty(1, features.shape[1], side, side, device="meta")
            detector.head(tracker.mark(crops, tracker.sources(features)))
    finally:
        for handle in handles:
            handle.remove()
    return ChannelFlow(tracker.widths, tracker.inputs, _connected(tracker.widths, tracker.links))


class _Tracker(TorchFunctionMode):
    """Marks every tensor that comes of a layer with the layers whose channels it has."""

    def __init__(self) -> None:
        super().__init__()
        self.widths: dict[str, int] = {}
        self.inputs: dict[str, tuple[Source, ...]] = {}
        self.links: list[tuple[str, str]] = []
        self._marks: dict[
            int, tuple[Tensor, tuple[Source, ...]]
        ] = {}  # holds tensors, so that ids stay theirs

    def mark(self, x: Tensor, sources: tuple[Source, ...]) -> Tensor:
        """Say what the channels of a tensor are."""
        self._marks[id(x)] = x, sources
        return x

    def sources(self, x: Tensor) -> tuple[Source, ...]:
        """What they are; nothing for the image."""
        return self._marks[id(x)][1] if id(x) in self._marks else ()

    def hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        """What sees a layer at work."""

        def see(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            self.inputs[name] = sources = self.sources(args[0])
            if isinstance(layer, BatchNorm2d):
                self.mark(output, sources)
                return
            self.widths[name] = output.shape[1]
            self.mark(output, (Source(name),))
            if is_depthwise(layer):
                self._link(sources, (Source(name),))

        return see

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function; its result has the channels of its arguments."""
        result = func(*args, **(kwargs or {}))
        marked = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and self.sources(x)]
        if marked and func not in _OF_LAYERS and isinstance(result, Tensor):
            self.mark(result, self._result(func, marked, result))
        return result

    def _result(self, func: Any, marked: list[Tensor], result: Tensor) -> tuple[Source, ...]:
        sources, width = self.sources(marked[0]), marked[0].shape[1]
        if func is torch.cat and result.shape[1] == sum(x.shape[1] for x in marked):
            return tuple(source for x in marked for source in self.sources(x))
        if func is Tensor.flatten:
            area = result.shape[1] // width
            return tuple(Source(source.layer, source.repeat * area) for source in sources)
        if result.shape[1] != width or any(x.shape[1] != width for x in marked):
            raise NotImplementedError(f"pruning through {func} of {', '.join(s.layer for s in sources)}")
        for x in marked[1:]:
            self._link(sources, self.sources(x))
        return sources

    def _link(self, a: tuple[Source, ...], b: tuple[Source, ...]) -> None:
        if len(a) == len(b) == 1 and a[0].repeat == b[0].repeat:
            self.links.append((a[0].layer, b[0].layer))
        elif a != b:  # TAO: no concatenation between an addition and the layers before it
            names = " and ".join("+".join(source.layer for source in side) for side in (a, b))
            raise NotImplementedError(f"pruning through an element-wise operation on {names}")


def is_depthwise(layer: nn.Module) -> bool:
    """Whether a layer has a filter of its own for each channel."""
    return isinstance(layer, nn.Conv2d) and layer.groups > 1


def _connected(names: Iterable[str], links: Iterable[tuple[str, str]]) -> tuple[tuple[str, ...], ...]:
    """Names, each with all that links lead to, in order."""
    groups = {name: [name] for name in names}
    for a, b in links:
        if groups[a] is not groups[b]:
            groups[a] += groups[b]
            groups |= dict.fromkeys(groups[b], groups[a])
    rank = {name: i for i, name in enumerate(groups)}
    unique = {id(group): tuple(sorted(group, key=rank.__getitem__)) for group in groups.values()}
    return tuple(unique.values())
