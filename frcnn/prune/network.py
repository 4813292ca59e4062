"""A smaller network out of a larger one: the weights of the channels that stay."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from frcnn.model.batch_norm import BatchNorm2d
from frcnn.prune.flow import ChannelFlow, Source, is_depthwise
from frcnn.weights.load import weighted_layers


@torch.no_grad()
def copy_kept(source: nn.Module, target: nn.Module, flow: ChannelFlow, kept: Mapping[str, Tensor]) -> None:
    """Fill a pruned network with what stays of the weights and statistics of the whole one.

    Args:
        source: the whole network.
        target: the same, built with the widths of `kept`.
        flow: the channels of `source`.
        kept: convolution or dense layer -> indices of its filters that stay, ascending.
    """
    pruned = weighted_layers(target)
    for name, layer in weighted_layers(source).items():
        inputs = _features(flow.inputs[name], flow, kept)
        own = pruned[name].state_dict()
        for key, value in layer.state_dict().items():
            own[key].copy_(_slice(layer, value, kept.get(name), inputs))


def _slice(layer: nn.Module, value: Tensor, outputs: Tensor | None, inputs: Tensor | None) -> Tensor:
    if value.dim() == 0:  # how many batches the statistics have seen
        return value
    if isinstance(layer, BatchNorm2d):
        return value if inputs is None else value[inputs]
    value = value if outputs is None else value[outputs]
    sliced = value.dim() > 1 and inputs is not None and not is_depthwise(layer)
    return value[:, inputs] if sliced else value


def _features(sources: Iterable[Source], flow: ChannelFlow, kept: Mapping[str, Tensor]) -> Tensor | None:
    """Indices of the input features that stay: None for all of them, as the image's."""
    found, start = [], 0
    for layer, repeat in sources:
        places = kept[layer][:, None] * repeat + torch.arange(repeat, device=kept[layer].device)
        found.append(places.flatten() + start)
        start += flow.widths[layer] * repeat
    return torch.cat(found) if found else None
