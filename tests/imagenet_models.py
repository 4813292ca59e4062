"""Networks of torchvision and timm with random weights, cut at stride 16 as ours are."""

from typing import NamedTuple

import torch
import torchvision
from torch import nn

from frcnn.weights.imagenet.names import IMAGENET


class Source(NamedTuple):
    trunk: nn.Module  # normalised image -> features at stride 16
    body: nn.Module | None  # those -> one vector per image
    state: dict  # of the whole network


def empty(build):
    """What `build` returns without the work of initialising it; its numbers are arbitrary."""
    with torch.device("meta"):
        model = build()
    return model.to_empty(device="cpu")


def torchvision_model(name):
    if name.startswith("vgg"):  # without its dense layers, which are half a gigabyte
        batch_norm = name.endswith("_bn")
        shape = torchvision.models.vgg.cfgs["E" if "19" in name else "D"]
        features = torchvision.models.vgg.make_layers(shape, batch_norm=batch_norm)
        return nn.ModuleDict({"features": features})
    options = {"init_weights": False, "transform_input": True} if name == "googlenet" else {}
    return torchvision.models.get_model(name, weights=None, **options)


def timm_model(name):
    import timm

    return timm.create_model(name)


def cut(model, name):
    """The parts of a model; a change of its modules after that shows in them."""
    vector = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    m, children = model, dict(model.named_children())
    if name.startswith("resnet"):
        pool = [m.maxpool, m.layer1, m.layer2, m.layer3]
        parts = [m.conv1, m.bn1, nn.ReLU(), *pool], [m.layer4, *vector]
    elif name.startswith("vgg"):
        parts = list(m["features"])[:-1], None
    elif name == "googlenet":
        names = list(children)
        trunk = [children[n] for n in names[: names.index("inception4e") + 1]]
        parts = trunk, [m.maxpool4, m.inception5a, m.inception5b, *vector]
    elif name == "mobilenet_v2":
        parts = list(m.features)[:14], [*list(m.features)[14:], *vector]
    elif name.startswith("efficientnet") and "features" in children:
        parts = list(m.features)[:6], [*list(m.features)[6:], *vector]
    elif name == "darknet53":
        parts = [m.stem, *m.stages[:4]], [m.stages[4], *vector]
    else:  # timm's EfficientNet code
        cut_at = 4 if name == "mobilenetv1_100" else 5
        last = [m.conv_head, m.bn2] if "conv_head" in m._parameters | m._modules else []
        parts = [m.conv_stem, m.bn1, *m.blocks[:cut_at]], [*m.blocks[cut_at:], *last, *vector]
    trunk, body = parts
    return Source(nn.Sequential(*trunk), body and nn.Sequential(*body), model.state_dict())


@torch.no_grad()
def settle(model, source, *, size=64, seed=0):
    """Random gammas, betas and statistics that suit the activations, as training leaves them."""
    torch.manual_seed(seed)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.3)
        norm.momentum = 1.0
        norm.reset_running_stats()
    for conv in (m for m in model.modules() if isinstance(m, nn.Conv2d)):
        conv.weight.normal_(std=(2 / conv.weight[0].numel()) ** 0.5)
        if conv.bias is not None:
            nn.init.normal_(conv.bias, 0, 0.1)
    for _ in range(1 if norms else 0):
        features = source.trunk.train()(torch.randn(2, 3, size, size))
        if source.body is not None:
            source.body.train()(features)
    for norm in norms:
        norm.running_mean += 0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean)
        norm.running_var *= torch.empty_like(norm.running_var).uniform_(0.8, 1.25)
    model.eval()


def normalise(pixels, normalisation=IMAGENET):
    """(N, 3, H, W) RGB in 0..255, as torchvision and timm do."""
    mean, std = (torch.tensor(values)[:, None, None] for values in normalisation)
    return (pixels / 255 - mean) / std


def replace_modules(model, kind, make):
    """Other modules in the place of all of a kind."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kind):
                setattr(parent, name, make(child))
