"""What torchvision and timm call the layers that TAO has other names for."""

import re
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from typing import NamedTuple, TypeAlias

Rule: TypeAlias = Callable[[str], str]
"""TAO's name of a layer -> the module of the source that holds its weights."""

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation that inputs in 0..1 were normalised with, by colour: red, green, blue."""

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Format(NamedTuple):
    """A form in which weights of an architecture come."""

    origin: str  # torchvision or timm
    model: str  # its name there
    name: Rule
    eps: float = 1e-5  # of its batch norms
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] = IMAGENET
    relu6: bool = False  # its activations end at 6


CLASSIFIER = re.compile(r"(fc|classifier|head|pre_logits|aux[12])(\..*)?")
"""Modules that a detector has no use for."""

_UNITS = {
    "mobilenet_v1": (1, 2, 2, 6, 2),
    "mobilenet_v2": (1, 2, 3, 4, 3, 3, 1),
}  # of timm's stages


def resnet(name: str) -> str:
    """`block_2a_conv_1`, or the legacy network's `conv3_block1_1_conv` -> `layer2.0.conv1`."""
    stem = {"conv1": "conv1", "bn_conv1": "bn1", "conv1_conv": "conv1", "conv1_bn": "bn1"}
    if name in stem:
        return stem[name]
    if old := re.fullmatch(r"conv(\d)_block(\d+)_(\d)_(conv|bn)", name):
        stage, unit, i, kind = int(old[1]) - 1, int(old[2]) - 1, old[3], old[4]
    else:
        _, place, kind, i = name.split("_")
        stage, unit = int(place[0]), ord(place[1]) - ord("a")
    part = f"downsample.{int(kind == 'bn')}" if i in ("0", "shortcut") else f"{kind}{i}"
    return f"layer{stage}.{unit}.{part}"


def vgg(name: str, *, units: tuple[int, ...], batch_norm: bool, dense: tuple[str, str]) -> str:
    """`block_1a_conv_1`, or the legacy network's `block1_conv1` -> `features.0`."""
    if name in ("fc1", "fc2"):
        return dense[name == "fc2"]
    if old := re.fullmatch(r"block(\d)_conv(\d)", name):
        block, unit, is_bn = int(old[1]) - 1, int(old[2]) - 1, False
    else:
        _, place, kind, _ = name.split("_")
        block, unit, is_bn = int(place[0]) - 1, ord(place[1]) - ord("a"), kind == "bn"
    if is_bn and not batch_norm:
        return ""
    # Convolution, batch norm and ReLU are numbered, and the pool behind each block.
    step = 3 if batch_norm else 2
    return f"features.{step * (sum(units[:block]) + unit) + block + is_bn}"


def googlenet(name: str) -> str:
    """`inception_3a_3x3_reduce_bn` -> `inception3a.branch2.0.bn`."""
    stem = {"conv1": "conv1", "conv2_reduce": "conv2", "conv2": "conv3"}
    conv, kind = (name.removeprefix("bn_"), "bn") if name.startswith("bn_") else (name, "conv")
    if conv in stem:
        return f"{stem[conv]}.{kind}"
    if conv.endswith("_bn"):
        conv, kind = conv.removesuffix("_bn"), "bn"
    _, module, part = conv.split("_", 2)
    branches = {
        "1x1": "branch1",
        "3x3_reduce": "branch2.0",
        "3x3": "branch2.1",
        "5x5_reduce": "branch3.0",
        "5x5": "branch3.1",
        "pool_proj": "branch4.1",
    }
    return f"inception{module}.{branches[part]}.{kind}"


def mobilenet_v1_timm(name: str) -> str:
    """`conv_dw_2_bn` -> `blocks.1.0.bn1`."""
    stem = {"conv1": "conv_stem", "conv1_bn": "bn1"}
    if name in stem:
        return stem[name]
    _, kind, number, *bn = name.split("_")
    layer = ("bn1" if kind == "dw" else "bn2") if bn else f"conv_{kind}"
    return f"blocks.{_place(int(number) - 1, _UNITS['mobilenet_v1'])}.{layer}"


def mobilenet_v2_torchvision(name: str) -> str:
    """`block_1_depthwise` -> `features.2.conv.1.0`."""
    stem = {
        "conv1": "features.0.0",
        "bn_conv1": "features.0.1",
        "conv_1": "features.18.0",
        "conv_1_bn": "features.18.1",
    }
    if name in stem:
        return stem[name]
    unit, part = _inverted_residual(name)
    parts = ["expand", "expand_bn", "depthwise", "depthwise_bn", "project", "project_bn"]
    places = ["0.0", "0.1", "1.0", "1.1", "2", "3"]
    if unit == 0:
        places = ["", "", "0.0", "0.1", "1", "2"]
    return f"features.{unit + 1}.conv.{dict(zip(parts, places, strict=True)).get(part, part)}"


def mobilenet_v2_timm(name: str) -> str:
    """`block_1_depthwise` -> `blocks.1.0.conv_dw`."""
    stem = {"conv1": "conv_stem", "bn_conv1": "bn1", "conv_1": "conv_head", "conv_1_bn": "bn2"}
    if name in stem:
        return stem[name]
    unit, part = _inverted_residual(name)
    part = _TIMM_PARTS[unit > 0].get(part, part)
    return f"blocks.{_place(unit, _UNITS['mobilenet_v2'])}.{part}"


def efficientnet_torchvision(name: str) -> str:
    """`block2a_se_reduce` -> `features.2.0.block.2.fc1`."""
    stem = {
        "stem_conv": "features.0.0",
        "stem_bn": "features.0.1",
        "top_conv": "features.8.0",
        "top_bn": "features.8.1",
    }
    if name in stem:
        return stem[name]
    stage, unit, part = _mbconv(name)
    parts = ["expand_conv", "expand_bn", "dwconv", "bn", "se_reduce", "se_expand"]
    parts += ["project_conv", "project_bn"]
    step, layer = divmod(parts.index(part), 2)
    last = ("fc1", "fc2")[layer] if part.startswith("se_") else str(layer)
    return f"features.{stage}.{unit}.block.{step - (stage == 1)}.{last}"


def efficientnet_timm(name: str) -> str:
    """`block2a_se_reduce` -> `blocks.1.0.se.conv_reduce`."""
    stem = {"stem_conv": "conv_stem", "stem_bn": "bn1", "top_conv": "conv_head", "top_bn": "bn2"}
    if name in stem:
        return stem[name]
    stage, unit, part = _mbconv(name)
    return f"blocks.{stage - 1}.{unit}.{_TIMM_PARTS[stage > 1][part]}"


def darknet53_timm(name: str) -> str:
    """`conv3` -> `stages.1.conv_down.conv`, `b2_conv1_2_bn` -> `stages.1.blocks.0.conv2.bn`."""
    conv, kind = (name.removesuffix("_bn"), "bn") if name.endswith("_bn") else (name, "conv")
    if conv == "conv1":
        return f"stem.conv1.{kind}"
    if conv.startswith("conv"):
        return f"stages.{int(conv[4:]) - 2}.conv_down.{kind}"
    stage, pair, i = re.findall(r"\d+", conv)
    return f"stages.{int(stage) - 1}.blocks.{int(pair) - 1}.conv{i}.{kind}"


_TIMM_PARTS: tuple[Mapping[str, str], Mapping[str, str]] = (
    {
        **{"depthwise": "conv_dw", "depthwise_bn": "bn1", "project": "conv_pw", "project_bn": "bn2"},
        **{"dwconv": "conv_dw", "bn": "bn1", "project_conv": "conv_pw"},
        **{"se_reduce": "se.conv_reduce", "se_expand": "se.conv_expand"},
    },
    {
        **{"expand": "conv_pw", "depthwise": "conv_dw", "depthwise_bn": "bn2", "project": "conv_pwl"},
        **{"expand_conv": "conv_pw", "expand_bn": "bn1", "dwconv": "conv_dw", "bn": "bn2"},
        **{"project_conv": "conv_pwl", "project_bn": "bn3"},
        **{"se_reduce": "se.conv_reduce", "se_expand": "se.conv_expand"},
    },
)
"""timm's names in units that do not expand, and in those that do; of MobileNet V2 and EfficientNet."""


def _place(number: int, units: tuple[int, ...]) -> str:
    """Stage and number within it of a unit that is counted over all stages."""
    for stage, count in enumerate(units):
        if number < count:
            return f"{stage}.{number}"
        number -= count
    return ""


def _inverted_residual(name: str) -> tuple[int, str]:
    if name.startswith("expanded_conv_"):
        return 0, name.removeprefix("expanded_conv_")
    _, number, part = name.split("_", 2)
    return int(number), part


def _mbconv(name: str) -> tuple[int, int, str]:
    place, part = name.split("_", 1)
    return int(place[5]), ord(place[6]) - ord("a"), part


_VGG = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_DENSE = {
    "torchvision": ("classifier.0", "classifier.3"),
    "timm": ("pre_logits.fc1", "pre_logits.fc2"),
}


def _vgg(depth: int, *, batch_norms: tuple[bool, ...]) -> tuple[Format, ...]:
    return tuple(
        Format(
            origin,
            f"vgg{depth}_bn" if batch_norm else f"vgg{depth}",
            partial(vgg, units=_VGG[depth], batch_norm=batch_norm, dense=dense),
        )
        for (origin, dense), batch_norm in product(_DENSE.items(), batch_norms)
    )


def _efficientnet(scale: str) -> tuple[Format, ...]:
    model = f"efficientnet_{scale}"
    eps = 1e-3 if scale in ("b5", "b6", "b7") else 1e-5
    return (
        Format("torchvision", model, efficientnet_torchvision, eps),
        Format("timm", model, efficientnet_timm),
        Format("timm", f"tf_{model}", efficientnet_timm, 1e-3),
    )


FORMATS: Mapping[str, tuple[Format, ...]] = {
    **{
        f"resnet:{depth}": (
            Format("torchvision", f"resnet{depth}", resnet),
            Format("timm", f"resnet{depth}", resnet),
        )
        for depth in (18, 34, 50, 101)
    },
    "resnet101": (Format("torchvision", "resnet101", resnet), Format("timm", "resnet101", resnet)),
    "vgg:16": _vgg(16, batch_norms=(True, False)),
    "vgg:19": _vgg(19, batch_norms=(True, False)),
    "vgg16": _vgg(16, batch_norms=(False,)),
    # torchvision's model has the weights of another library, and undoes its own normalisation first.
    "googlenet": (Format("torchvision", "googlenet", googlenet, 1e-3, HALF),),
    "mobilenet_v1": (Format("timm", "mobilenetv1_100", mobilenet_v1_timm, 1e-5, HALF, relu6=True),),
    "mobilenet_v2": (
        Format("torchvision", "mobilenet_v2", mobilenet_v2_torchvision, relu6=True),
        Format("timm", "mobilenetv2_100", mobilenet_v2_timm, relu6=True),
    ),
    "darknet:53": (Format("timm", "darknet53", darknet53_timm),),
    **{f"efficientnet:b{i}": _efficientnet(f"b{i}") for i in range(8)},
}
"""By TAO's architecture. resnet:10 and darknet:19 have none: timm's resnet10t has another stem."""
