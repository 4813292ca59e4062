"""Whole detectors of TAO's: what a file shows of its network, and our network with its weights."""

import logging
import math
from collections.abc import Callable, Collection, Mapping
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import nn

from frcnn.errors import WeightsError
from frcnn.model.backbones import BACKBONES, Backbone, build_backbone
from frcnn.model.batch_norm import BatchNorm2d
from frcnn.model.detector import FasterRCNN, channel_plan
from frcnn.weights.checkpoint import apply_traits
from frcnn.weights.keras_hdf5 import KerasFile, name_head
from frcnn.weights.load import channel_plan_of, load_layers, weighted_layers
from frcnn.weights.report import LoadReport

log = logging.getLogger(__name__)

HEADS = ("rpn_conv1", "rpn_out_class", "rpn_out_regress", "dense_class", "dense_regress")
SWITCHES = ("use_bias", "all_projections", "use_pooling", "pool_size_2x")
"""Options of `build_backbone` that show in which layers there are, in their biases and strides."""


class Imported(NamedTuple):
    """A detector with a file's weights."""

    detector: FasterRCNN
    report: LoadReport
    pruned: bool
    traits: dict[str, Any]  # what else belongs to the network; it computes by them


def import_detector(
    file: KerasFile,
    make: Callable[[Mapping[str, int]], FasterRCNN],
    *,
    arch: str,
    expected: Mapping[str, object],
) -> Imported:
    """A detector with the weights and the channel plan of a file.

    Args:
        file: of `read_hdf5`.
        make: channel plan -> detector.
        arch: key of `BACKBONES`.
        expected: what the network is to be like; what the file shows of it (see `look`) has to agree.

    Raises:
        WeightsError: a network of another kind or other options, no detector, layers that are missing, left
            over or do not fit.
        SpecError: an unknown arch, or a channel plan that does not fit together.
    """
    file, found = look(file, arch)
    if differing := [name for name in expected if name in found and found[name] != expected[name]]:
        raise WeightsError(
            "the file and the settings disagree",
            where=file.path,
            found=", ".join(f"{name} {found[name]}" for name in differing) + " in the file",
            allowed=", ".join(f"{name} {expected[name]}" for name in differing) + " in the settings",
            hint="change the settings, or take the file that belongs to them",
        )
    plan = channel_plan_of(file.layers)
    detector = make(plan)
    report = load_layers(detector, file.layers, source=str(file.path))
    wrong = [f"{row.name}: {row.note or 'not in the file'}" for row in report.rows if row.status != "Yes"]
    wrong += [f"{name}: not in the network" for name in report.unused]
    if wrong:
        message = f"is not the weights of this {arch}"
        raise WeightsError(message, where=file.path, found=_words(wrong, separator="; "))
    _compare_eps(file, detector)
    trunk, body, _ = _on_paper(arch)
    own = {**channel_plan(trunk), **channel_plan(body), "rpn_conv1": 512}
    pruned = any(plan[name] != width for name, width in own.items())
    traits = {"relu6": file.relu6, "activation_scales": dict(file.activation_scales)}
    apply_traits(detector, traits)
    return Imported(detector, report, pruned, traits)


def look(file: KerasFile, arch: str) -> tuple[KerasFile, dict[str, Any]]:
    """What a detector's file says of its network: the arguments of `build_backbone` that it shows.

    Beside them num_classes, num_anchors and input_size. Only EfficientNet has a choice of activation. Anchor
    ratios are not among them: a saved file has their square roots, or roots of these.

    Returns:
        The file with the layers of the head under their names, and what it shows.

    Raises:
        WeightsError: it holds no detector, or one of another arch.
    """
    plan = channel_plan_of(file.layers)
    if missing := [name for name in HEADS if name not in plan]:
        raise WeightsError(
            "holds no detector",
            where=file.path,
            found=f"{len(file.layers)} layers: {_words(file.layers)}; no {_words(missing)}",
            hint=f"training_config.pretrained_weights={file.path} starts a training with what it holds",
        )
    options = [dict(zip(SWITCHES, v, strict=True)) for v in product((False, True), repeat=len(SWITCHES))]
    fitting = [option for option in options if _fits(file, arch, option)]
    if not fitting:
        raise _other_network(file, arch)
    trunk, body, _ = _on_paper(arch, **fitting[0])
    file = name_head(file, body)
    found: dict[str, Any] = {}
    for name in SWITCHES:
        if len(values := {option[name] for option in fitting}) == 1:
            found[name] = values.pop()
    found["in_channels"] = file.layers[next(iter(weighted_layers(trunk)))]["weight"].shape[1]
    found["num_classes"] = file.layers["dense_class"]["weight"].shape[0] - 1
    found["num_anchors"] = file.layers["rpn_out_class"]["weight"].shape[0]
    return file, found | _pool_sizes(file) | _activation(file, arch) | _input_size(file)


def guess(file: KerasFile) -> list[str]:
    """The architectures that have a detector file's layers, those of the same widths first."""
    plan = channel_plan_of(file.layers)

    def differing(arch: str) -> int:
        return sum(plan.get(name) != width for name, width in channel_plan(_on_paper(arch).trunk).items())

    both = ({"all_projections": False}, {"all_projections": True})
    near = [arch for arch in BACKBONES if weighted_layers(_on_paper(arch).trunk).keys() <= file.layers.keys()]
    fitting = [arch for arch in near if any(_fits(file, arch, options) for options in both)]
    return sorted(fitting, key=differing)


def _fits(file: KerasFile, arch: str, options: Mapping[str, bool]) -> bool:
    """Whether a network has the layers of a file; with all of `SWITCHES`, their biases and strides too."""
    trunk, body, _ = _on_paper(arch, **options)
    own, file = {**weighted_layers(trunk), **weighted_layers(body)}, name_head(file, body)
    if own.keys() != file.layers.keys() - set(HEADS):
        return False
    whole = len(options) == len(SWITCHES)
    return not whole or all(_same_layer(file, name, layer) for name, layer in own.items())


def _same_layer(file: KerasFile, name: str, layer: nn.Module) -> bool:
    own, weights = layer.state_dict(), file.layers[name]
    if "weight" not in weights or weights["weight"].ndim != own["weight"].ndim:
        return False
    strides = _said(file, name, "strides", list)
    same_stride = not strides or strides == list(getattr(layer, "stride", strides))
    return same_stride and ("bias" in weights) == ("bias" in own)


def _other_network(file: KerasFile, arch: str) -> WeightsError:
    other = [name for name in guess(file) if name != arch]
    found = " or ".join(other)
    if not other:
        trunk, body, _ = _on_paper(arch, all_projections=True)
        own = weighted_layers(trunk).keys() | weighted_layers(body).keys()
        names = name_head(file, body).layers.keys() - set(HEADS)
        missing, more = _words(sorted(own - names)), _words(sorted(names - own))
        found = f"layers missing: {missing}; layers too many: {more}"
        if own == names:
            found = f"{arch} with biases or strides that none of its options gives"
    hint = f"model_config.arch={other[0]}" if other else None
    message = "is another network than the settings'"
    return WeightsError(message, where=file.path, found=found, allowed=arch, hint=hint)


def _pool_sizes(file: KerasFile) -> dict[str, object]:
    """`pool_size` by the head's average pool or its first dense layer; crops of twice that size are 2x.

    Crops of that size say nothing of 2x: a layer may have been saved with its size before doubling.
    """
    crops = [
        _said(file, name, "pool_size", int) for name, c in file.configs.items() if c.kind == "CropAndResize"
    ]
    pools = [
        _said(file, name, "pool_size", list)
        for name, config in file.configs.items()
        if config.kind == "AveragePooling2D" and config.per_region
    ]
    size = pools[-1][0] if pools and pools[-1] and isinstance(pools[-1][0], int) else None
    if "fc1" in file.layers:
        area = file.layers["fc1"]["weight"].shape[1] / file.layers["rpn_conv1"]["weight"].shape[1]
        size = math.isqrt(int(area)) if math.isqrt(int(area)) ** 2 == area else None
    if size is None:
        return {}
    found: dict[str, object] = {"pool_size": size}
    return {**found, "pool_size_2x": True} if 2 * size in crops else found


def _activation(file: KerasFile, arch: str) -> dict[str, object]:
    names = {
        _said(file, name, "activation", str) for name, c in file.configs.items() if c.kind == "Activation"
    }
    found = names & {"relu", "swish"}
    return {"activation": found.pop()} if len(found) == 1 and arch.startswith("efficientnet") else {}


def _input_size(file: KerasFile) -> dict[str, object]:
    shape = _said(file, "input_image", "batch_input_shape", list)
    return {"input_size": tuple(shape[2:])} if shape and len(shape) == 4 and None not in shape[2:] else {}


def _said(file: KerasFile, layer: str, key: str, kind: type) -> Any:
    """A value of a layer's configuration, or None where there is none of that kind."""
    value = file.configs[layer].values.get(key) if layer in file.configs else None
    return value if isinstance(value, kind) else None


def _on_paper(arch: str, **options: Any) -> Backbone:
    """A network without numbers, which costs neither time nor memory."""
    with torch.device("meta"):
        return build_backbone(arch, **options)


def _compare_eps(file: KerasFile, detector: FasterRCNN) -> None:
    for name, layer in weighted_layers(detector).items():
        eps = _said(file, name, "epsilon", float)
        if isinstance(layer, BatchNorm2d) and eps and abs(eps - layer.eps) > 1e-3 * layer.eps:
            log.warning("%s: epsilon of %s is %g, and %g here", file.path, name, eps, layer.eps)
            return


def _words(items: Collection[str], *, separator: str = ", ") -> str:
    more = f" and {len(items) - 4} more" if len(items) > 4 else ""
    return separator.join(list(items)[:4]) + more or "none"
