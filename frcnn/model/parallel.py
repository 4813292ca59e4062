"""Model parallelism: the layers of one network on several devices."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

import torch
from torch import nn
from torch.optim import Optimizer

from frcnn.model.detector import FasterRCNN


def graph_layers(detector: FasterRCNN) -> dict[str, nn.Module]:
    """The layers in the order in which they run: trunk, RPN, region head; TAO's names.

    What has no weights (activations, pools, sums) runs where its input is. Proposals, targets and losses
    run on the device of the images, crops on that of the feature map: as in the original, none of them has
    a place of its own.
    """
    trunk, body = detector.trunk, detector.head.body
    layers = [(name, trunk.get_submodule(name)) for names in trunk.block_layers.values() for name in names]
    layers += list(detector.rpn.named_children())
    layers += [(name, body.get_submodule(name)) for names in body.block_layers.values() for name in names]
    layers += [("dense_class", detector.head.dense_class), ("dense_regress", detector.head.dense_regress)]
    return dict(layers)


def boundaries(count: int, fractions: Sequence[float]) -> list[int]:
    """Where each part of `count` layers ends: `round(cumulative * count)`, fractions divided by their sum.

    Facts in tao/model-and-training.md section 8.
    """
    total = sum(fractions)
    return [round(part / total * count) for part in accumulate(fractions)]


def split(detector: FasterRCNN, fractions: Sequence[float]) -> list[dict[str, nn.Module]]:
    """The layers of each part; a part whose fraction is small may be empty."""
    layers = list(graph_layers(detector).items())
    ends = boundaries(len(layers), fractions)
    return [dict(layers[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def place(
    detector: FasterRCNN,
    root: torch.device,
    *,
    fractions: Sequence[float],
    groups: Iterable[Sequence[torch.device]],
) -> None:
    """Put each part of a network on its device.

    Args:
        detector: whatever is no layer (anchors, scales) stays where it is, which should be `root`.
        root: the first device of this process.
        fractions: share of the layers on each device of a process.
        groups: the devices of each process; that which begins with `root` counts.
    """
    group = next(group for group in groups if group[0] == root)
    for device, layers in zip(group, split(detector, fractions), strict=True):
        for layer in layers.values():
            layer.to(device)


def follow(optimizer: Optimizer) -> None:
    """Bring an optimizer's slots to the devices of their parameters, from where a checkpoint put them."""
    for parameter, slots in optimizer.state.items():
        for name, value in slots.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape and name != "step":
                slots[name] = value.to(parameter.device)
