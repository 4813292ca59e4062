"""Weights for normalised RGB images made into weights for a spec's pixels, at the same outputs.

The source normalises a pixel p in 0..255 of colour c to u = (p / 255 - m_c) / s_c, a spec to
x = (p - mean_c) / scale, so u = a_c x + d_c with a_c = scale / (255 s_c), d_c = (mean_c / 255 - m_c) / s_c.
The first kernel takes the factors a_c, and its batch norm the constant sum of d_c times the kernel. That is
exact but where the kernel reaches over the image's edge: zeros there mean m_c to the source and mean_c to the
spec. A spec with the source's own means, 255 m_c, has d_c = 0 and no such edge.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frcnn.errors import WeightsError
from frcnn.model.backbones import Blocks
from frcnn.model.batch_norm import BatchNorm2d
from frcnn.model.detector import FasterRCNN
from frcnn.weights.imagenet.names import CLASSIFIER, FORMATS, Format
from frcnn.weights.load import Layers, weighted_layers

log = logging.getLogger(__name__)

State: TypeAlias = Mapping[str, Tensor]
Kernel: TypeAlias = nn.Conv2d | nn.Linear

STATISTICS = {"weight", "bias", "running_mean", "running_var"}


class Target(NamedTuple):
    """What the weights are for."""

    arch: str  # TAO's name
    means: tuple[float, ...]  # subtracted from pixels in 0..255: red, green, blue, or gray alone
    scale: float  # divides afterwards
    bgr: bool  # the network takes blue first


class Converted(NamedTuple):
    """Weights under TAO's names."""

    layers: Layers
    notes: Mapping[str, str]  # layer -> what was done to it
    other_images: bool = False  # they were trained on, so statistics of batches soon replace theirs


def formats_of(arch: str) -> tuple[Format, ...]:
    """The forms in which there are weights of an architecture.

    Raises:
        WeightsError: there are none.
    """
    try:
        return FORMATS[arch]
    except KeyError:
        raise WeightsError(
            "torchvision and timm have no weights of this architecture",
            where="training_config.pretrained_weights",
            found=arch,
            allowed=", ".join(FORMATS),
        ) from None


def choose_format(detector: FasterRCNN, names: State, arch: str, *, source: str) -> Format:
    """The form that a state dict has, by its names; of several the one with the most.

    Raises:
        WeightsError: it is another network's, or not all of it.
    """
    formats, modules = formats_of(arch), _modules(names)
    matches, problems = [], []
    for form in formats:
        sources = dict(_sources(detector, form))
        identities = _identities(detector, sources, modules)
        needed = {own: src for own, src in sources.items() if own not in identities and src}
        absent = [own for own, src in needed.items() if src not in modules]
        missing = [needed[own] for own in absent if own not in ("fc1", "fc2")]
        left = [name for name in modules if name not in needed.values() and not CLASSIFIER.fullmatch(name)]
        if missing or left:
            problems.append((len(missing) + len(left), missing, left))
        else:
            matches.append((len(absent), form))
    if matches:
        return min(matches, key=lambda match: match[0])[1]
    _, missing, left = min(problems)
    found = [f"{word} {_first(some)}" for word, some in (("without", missing), ("with", left)) if some]
    raise WeightsError(
        f"is not the whole of a network that {arch} can start from",
        where=source,
        found="; ".join(found),
        allowed=" or ".join(dict.fromkeys(f"{form.origin}'s {form.model}" for form in formats)),
    )


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


@torch.no_grad()
def convert(detector: FasterRCNN, state: State, form: Format, target: Target) -> Converted:
    """Rename the weights, and fold into them what differs.

    Args:
        detector: the network that they are for; it says which layers have biases, and their epsilons.
        state: all tensors of the source.
        form: what the source calls its layers, how it normalises, the epsilon of its batch norms.
        target: the network's input.

    Raises:
        WeightsError: the source does not take three colours.
    """
    sources, modules = dict(_sources(detector, form)), _modules(state)
    identities = _identities(detector, sources, modules)
    layers: dict[str, dict[str, Tensor]] = {}
    notes: dict[str, str] = {}
    first = next(iter(weighted_layers(detector.trunk)))
    for conv, module, bn, norm in _pairs(detector):
        if conv in identities:
            layers[conv] = _identity(module)
            layers.update({bn: _neutral(norm)} if norm is not None else {})
            notes |= dict.fromkeys((conv, bn), "identity")
            continue
        if sources[conv] not in modules:
            continue
        weights = _tensors(state, sources[conv])
        if isinstance(module, nn.Linear) and weights["weight"].ndim == 4:  # timm has convolutions there
            weights["weight"] = weights["weight"].flatten(1)
        shift = torch.zeros(len(module.weight))
        if conv == first:
            weights["weight"], shift = first_kernel(weights["weight"], form, target)
            notes[conv] = "for the spec's pixels"
        statistics = None
        if norm is not None and sources[bn] in modules:
            statistics, notes[bn] = _other_epsilon(_tensors(state, sources[bn]), norm, form.eps)
        elif norm is not None:
            statistics, notes[bn] = _neutral(norm), "bias only"
        layers[conv] = _same_kernel(weights, module)
        if statistics is not None:
            layers[bn] = statistics
        _shift(layers[conv], statistics, shift, bias=module.bias is not None)
    unused = {name: _tensors(state, name) for name in modules if name not in sources.values()}
    _tell_differences(detector, target, form)
    return Converted({**layers, **unused}, {name: note for name, note in notes.items() if note}, True)


def _parts(detector: FasterRCNN) -> tuple[Blocks, Blocks]:
    return detector.trunk, detector.head.body


def _sources(detector: FasterRCNN, form: Format) -> Iterator[tuple[str, str]]:
    for part in _parts(detector):
        for name in weighted_layers(part):
            yield name, form.name(name)


def _pairs(detector: FasterRCNN) -> Iterator[tuple[str, Kernel, str, BatchNorm2d | None]]:
    """Every convolution and dense layer of the backbone, and the batch norm behind it."""
    for part in _parts(detector):
        layers = weighted_layers(part)
        for name, layer in layers.items():
            if isinstance(layer, Kernel):
                bn = part.batch_norms.get(name, "")
                yield name, layer, bn, cast(BatchNorm2d | None, layers.get(bn))


def _identities(detector: FasterRCNN, sources: Mapping[str, str], modules: Mapping[str, None]) -> set[str]:
    """Projections, with their batch norms, on shortcuts that are bare in the source."""
    return {
        layer
        for conv, module, bn, _ in _pairs(detector)
        if ("shortcut" in conv or "projected_inputs" in conv)
        and sources[conv] not in modules
        and module.weight.shape[0] == module.weight.shape[1]
        for layer in (conv, bn)
    }


def _modules(state: State) -> dict[str, None]:
    return dict.fromkeys(name.removesuffix(".weight") for name in state if name.endswith(".weight"))


def _tensors(state: State, module: str) -> dict[str, Tensor]:
    start = f"{module}."
    return {
        name.removeprefix(start): value.float()
        for name, value in state.items()
        if name.startswith(start) and "." not in name[len(start) :] and not name.endswith("_tracked")
    }


def first_kernel(kernel: Tensor, form: Format, target: Target) -> tuple[Tensor, Tensor]:
    """The first kernel (O, 3, k, k) for a spec's pixels, and the constant (O,) that its output then lacks."""
    if kernel.ndim != 4 or kernel.shape[1] != 3:
        found = f"a first kernel of shape {tuple(kernel.shape)}"
        raise WeightsError(f"{form.model} is not for three colours", found=found, allowed="(O, 3, k, k)")
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in form.normalisation)
    factor = target.scale / (255 * std)
    difference = (torch.tensor(target.means, dtype=torch.float64) / 255 - mean) / std
    shift = kernel.double().sum((2, 3)) @ difference
    kernel = kernel.double() * factor[:, None, None]
    if len(target.means) == 1:  # a gray image is one of three equal colours
        kernel = kernel.sum(1, keepdim=True)
    return (kernel.flip(1) if target.bgr else kernel).float(), shift.float()


def _same_kernel(weights: dict[str, Tensor], module: Kernel) -> dict[str, Tensor]:
    """A 3x3 kernel where ours is 5x5, in its middle: torchvision's GoogLeNet has those."""
    kernel = weights["weight"]
    if kernel.shape[2:] == (3, 3) and module.weight.shape[2:] == (5, 5):
        return weights | {"weight": F.pad(kernel, (1, 1, 1, 1))}
    return weights


def _other_epsilon(
    tensors: dict[str, Tensor], norm: BatchNorm2d, eps: float
) -> tuple[dict[str, Tensor], str]:
    """The same batch norm with our epsilon: gamma takes the quotient of the two deviations."""
    fits = tensors.keys() == STATISTICS and len({value.shape for value in tensors.values()}) == 1
    if not fits or norm.eps == eps:
        return tensors, ""
    variance = tensors["running_var"].double()
    factor = ((variance + norm.eps) / (variance + eps)).sqrt()
    return tensors | {"weight": (tensors["weight"] * factor).float()}, "eps folded"


def _shift(
    weights: dict[str, Tensor], statistics: dict[str, Tensor] | None, shift: Tensor, *, bias: bool
) -> None:
    """Move the bias of a convolution into the batch norm behind it, if one is, and add `shift` there.

    Args:
        weights: of the convolution; ends with a bias if `bias`, of zeros behind which a batch norm follows.
        statistics: of the batch norm.
        shift: (O,) constant to add to the convolution's output.
        bias: whether ours has one.
    """
    place, sign = (weights, 1) if statistics is None else (statistics, -1)
    name = "bias" if statistics is None else "running_mean"
    if statistics is not None:
        own = weights.pop("bias", torch.zeros_like(shift))
        weights |= {"bias": torch.zeros_like(own)} if bias else {}
        shift = shift + own if own.shape == shift.shape else shift
    if name in place and place[name].shape == shift.shape:
        place[name] = place[name] + sign * shift


def _identity(module: Kernel) -> dict[str, Tensor]:
    size = len(module.weight)
    weights = {"weight": torch.eye(size)[:, :, None, None]}
    return weights | ({} if module.bias is None else {"bias": torch.zeros(size)})


def _neutral(norm: BatchNorm2d) -> dict[str, Tensor]:
    """Statistics with which it returns its input."""
    zeros, ones = torch.zeros(norm.num_features), torch.ones(norm.num_features)
    return {"weight": ones, "bias": zeros, "running_mean": zeros.clone(), "running_var": ones - norm.eps}


def _tell_differences(detector: FasterRCNN, target: Target, form: Format) -> None:
    """Log what no weights can make up for and a setting can."""
    trunk = detector.trunk
    if not getattr(trunk, "use_pooling", True):
        log.warning("%s was trained with pools; model_config.use_pooling=true has them too", form.model)
    if form.relu6 and trunk.ceiling is None:
        log.warning("%s has activations that end at 6; with run.relu6=true they do here too", form.model)
    strided = [
        name
        for name, layer in weighted_layers(trunk).items()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.stride == (2, 2)
    ]
    if any("shortcut" not in name and "_0_conv" not in name for name in strided):
        log.warning(
            "%s strides on the 3x3 convolutions of its bottlenecks; run.stride_on_3x3=true does too",
            form.model,
        )
    if len(target.means) == 3:
        mean = [255 * value for value in form.normalisation[0]]
        if max(abs(a - b) for a, b in zip(mean, target.means, strict=True)) > 0.01:
            log.info(
                "features differ a little along the edges of images; "
                "they would not with image_channel_mean r %.3f, g %.3f, b %.3f",
                *mean,
            )
