"""A network block by block: what it holds, what it costs, what of it is frozen."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from frcnn.model.backbones import Blocks
from frcnn.model.detector import FasterRCNN
from frcnn.model.parallel import split


def summary_rows(
    detector: FasterRCNN, *, size: tuple[int, int], channels: int, regions: int
) -> list[dict[str, Any]]:
    """A row per block of trunk, RPN and head, and one of totals.

    Runs the network on the meta device, where it costs neither time nor memory; hand it a detector that was
    built there. Multiplications and additions of convolutions and dense layers count as two operations.

    Args:
        detector: on the meta device.
        size: (height, width) of the input.
        channels: of the input.
        regions: of an image that pass through the head.
    """
    layers: list[nn.Module] = [
        layer for layer in detector.modules() if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    outputs = _outputs(detector, layers, size=size, channels=channels, regions=regions)
    cost = {layer: _operations(layer, outputs[layer]) for layer in layers}
    shapes = {key: tuple(output.shape[1:]) for key, output in outputs.items()}
    rows = [_row(part, block, modules, cost, shapes, size) for part, block, modules in _blocks(detector)]
    total = {key: sum(row[key] for row in rows) for key in ("layers", "parameters", "trained", "GFLOPs")}
    return [*rows, {"part": "total", "block": None, **total, "output": None, "stride": None}]


def split_rows(
    detector: FasterRCNN,
    *,
    fractions: Sequence[float],
    devices: Sequence[torch.device],
    size: tuple[int, int],
    channels: int,
    regions: int,
    images: int,
    value_bytes: int = 4,
) -> list[dict[str, Any]]:
    """A row per part of a split network: its layers, and the memory that they take.

    Memory is what weights and the outputs of layers take, which a step keeps for its gradients; gradients
    and an optimizer's slots are one to three times the weights beside that.

    Args:
        detector: on the meta device.
        fractions: share of the layers in each part.
        devices: of each part.
        size: (height, width) of the input.
        channels: of the input.
        regions: of an image that pass through the head in training.
        images: of a batch.
        value_bytes: of a number in an output.
    """
    parts = split(detector, fractions)
    layers = [layer for part in parts for layer in part.values()]
    outputs = _outputs(detector, layers, size=size, channels=channels, regions=images * regions)
    in_head = set(detector.head.modules())

    def values(layer: nn.Module) -> int:
        return outputs[layer].numel() * (1 if layer in in_head else images)

    return [
        {
            "part": number,
            "device": str(device),
            "layers": len(part),
            "first": next(iter(part), None),
            "last": next(reversed(part), None),
            "parameters MB": sum(4 * p.numel() for layer in part.values() for p in layer.parameters()) / 1e6,
            "activations MB": sum(map(values, part.values())) * value_bytes / 1e6,
        }
        for number, (part, device) in enumerate(zip(parts, devices, strict=True), start=1)
    ]


def _outputs(
    detector: FasterRCNN, layers: Iterable[nn.Module], *, size: tuple[int, int], channels: int, regions: int
) -> dict[object, Tensor]:
    """What layers, and blocks as (part, block), put out on the meta device: one image, so many regions."""
    found: dict[object, Tensor] = {}

    def keep(layer: nn.Module, _: Any, output: Tensor) -> None:
        found[layer] = output

    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        with torch.no_grad():
            detector.eval()
            features = _run("trunk", detector.trunk, torch.empty(1, channels, *size, device="meta"), found)
            detector.rpn(features)
            crops = torch.empty(regions, features.shape[1], *2 * (detector.crop_size,), device="meta")
            body = detector.head.body
            vectors = body.vectors(_run("head", body, crops, found))
            detector.head.dense_class(vectors)
            detector.head.dense_regress(vectors)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _operations(layer: nn.Module, output: Tensor) -> float:
    parameters = [p.numel() for name, p in layer.named_parameters(recurse=False) if name == "weight"]
    places = output[0, 0].numel() if output.dim() == 4 else 1
    return 2.0 * sum(parameters) * places * len(output)


def _run(part: str, chain: Blocks, x: Tensor, found: dict[object, Tensor]) -> Tensor:
    """Run a chain and note what each block returns, which may be of several of its layers."""
    for block in chain.block_layers:
        x = chain.run_block(block, x, None)
        found[part, block] = x
    return x


def _blocks(detector: FasterRCNN) -> Iterator[tuple[str, int | None, list[nn.Module]]]:
    for part, chain in (("trunk", detector.trunk), ("head", detector.head.body)):
        if part == "head":
            yield "RPN", None, list(detector.rpn.modules())
        yield from ((part, block, _layers(chain, names)) for block, names in chain.block_layers.items())
    yield "outputs", None, [detector.head.dense_class, detector.head.dense_regress]


def _layers(chain: Blocks, names: list[str]) -> list[nn.Module]:
    return [chain.get_submodule(name) for name in names]


def _row(
    part: str,
    block: int | None,
    modules: list[nn.Module],
    cost: dict[nn.Module, float],
    shapes: dict[object, tuple[int, ...]],
    size: tuple[int, int],
) -> dict[str, Any]:
    run = [module for module in modules if module in shapes]
    parameters = [p for module in modules for p in module.parameters(recurse=False)]
    shape = shapes.get((part, block)) or (shapes[run[-1]] if run else ())
    is_map = part in ("trunk", "RPN") and len(shape) == 3
    return {
        "part": part,
        "block": block,
        "layers": len(run),
        "parameters": sum(p.numel() for p in parameters),
        "trained": sum(p.numel() for p in parameters if p.requires_grad),
        "GFLOPs": sum(cost[module] for module in run) / 1e9,
        "output": "x".join(map(str, shape)) or None,
        "stride": round(size[0] / shape[1]) if is_map else None,
    }
