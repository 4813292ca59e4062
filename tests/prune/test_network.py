"""A pruned network computes what the whole one does with the removed channels at zero."""

from itertools import pairwise

import pytest
import torch
from keras_files import make
from torch import nn

from frcnn.model.backbones import BACKBONES, Blocks
from frcnn.model.batch_norm import BatchNorm2d
from frcnn.model.detector import channel_plan
from frcnn.prune.flow import trace
from frcnn.prune.keep import CRITERIA, NORMALIZERS, choose, norms
from frcnn.prune.network import copy_kept
from frcnn.report.summary import summary_rows
from frcnn.weights.load import weighted_layers

LARGE = ("vgg", "resnet:101", "resnet101", *(f"efficientnet:b{i}" for i in range(1, 8)))
BOXES = torch.tensor([[[4.0, 6.0, 50.0, 60.0], [20.0, 0.0, 63.0, 30.0]]])
OUTPUTS = ("rpn_out_class", "rpn_out_regress", "dense_class", "dense_regress")


def uneven(arch, **options):
    """A network whose filters differ in strength, with statistics of the images it will see.

    In float64: deep random networks make visible numbers of float32's rounding.
    """
    torch.manual_seed(0)
    detector = make(arch, **options).double()
    for layer in weighted_layers(detector).values():
        if isinstance(layer, BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.7, 1.3)
            nn.init.normal_(layer.bias, std=0.3)
        else:
            with torch.no_grad():
                layer.weight *= torch.rand(len(layer.weight)).view(-1, *[1] * (layer.weight.dim() - 1))
            if layer.bias is not None:
                nn.init.normal_(layer.bias, std=0.3)
    with torch.no_grad():
        outputs(detector.train(), images())
    return detector.eval()


def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def outputs(detector, batch):
    features = detector.feature_map(batch)
    crops = detector.crop(features, BOXES.expand(2, -1, -1), input_size=(64, 64))
    return *detector.rpn(features), *detector.head(crops)


def decide(detector, flow, threshold, *, criterion="union"):
    layers, kept = weighted_layers(detector), {}
    for group in flow.groups:
        table = torch.stack([NORMALIZERS["max"](norms(layers[name].weight)) for name in group])
        limit = -1.0 if set(group) & set(OUTPUTS) else threshold
        choice = choose(CRITERIA[criterion](table), threshold=limit, granularity=4, min_filters=4)
        kept |= dict.fromkeys(group, choice.filters)
    return kept


def mask(detector, kept):
    """Set channels to zero, as the layers' own names say, not as the trace does."""
    norms_of = {}
    for part in detector.modules():
        norms_of |= part.batch_norms if isinstance(part, Blocks) else {}
    layers = weighted_layers(detector)
    with torch.no_grad():
        for name, filters in kept.items():
            gone = torch.ones(len(layers[name].weight), dtype=torch.bool).index_fill(0, filters, False)
            for layer in (layers[name], layers.get(norms_of.get(name))):
                for value in () if layer is None else layer.parameters():
                    value[gone] = 0


def operations(arch, **options):
    with torch.device("meta"):
        detector = make(arch, **options)
    return summary_rows(detector, size=(64, 64), channels=3, regions=2)[-1]["GFLOPs"]


def check(arch, thresholds, *, criterion="union", **options):
    detector = uneven(arch, **options)
    with torch.device("meta"):
        flow = trace(make(arch, **options))
    sizes = [(sum(p.numel() for p in detector.parameters()), operations(arch, **options))]
    for threshold in thresholds:  # rising: what goes once is gone for good
        kept = decide(detector, flow, threshold, criterion=criterion)
        plan = {name: len(filters) for name, filters in kept.items()}
        pruned = make(arch, channels=plan, **options).double().eval()
        copy_kept(detector, pruned, flow, kept)
        assert channel_plan(pruned) == plan
        masked = uneven(arch, **options)
        mask(masked, kept)
        with torch.no_grad():
            for smaller, whole in zip(outputs(pruned, images()), outputs(masked, images()), strict=True):
                assert whole.std() > 1e-3  # else nothing would be compared
                assert (smaller - whole).abs().max() < 1e-4
        sizes.append(
            (sum(p.numel() for p in pruned.parameters()), operations(arch, channels=plan, **options))
        )
    for amounts in zip(*sizes, strict=True):
        assert all(after < before for before, after in pairwise(amounts))


@pytest.mark.parametrize(
    "arch", [pytest.param(a, marks=pytest.mark.slow) if a.startswith(LARGE) else a for a in BACKBONES]
)
def test_pruned_equals_masked(arch):
    check(arch, (0.3, 0.6) if arch.startswith(LARGE) else (0.4, 0.8))


@pytest.mark.parametrize("criterion", ["intersection", "arithmetic_mean", "geometric_mean"])
def test_pruned_equals_masked_with_every_criterion(criterion):
    check("resnet:18", (0.5,), criterion=criterion)


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("resnet:18", {"all_projections": True, "use_bias": True, "use_pooling": True}),
        ("mobilenet_v2", {"all_projections": True, "pool_size_2x": True}),
        ("efficientnet:b0", {"activation": "relu", "pool_size_2x": True}),
        ("googlenet", {"pool_size_2x": True}),
    ],
)
def test_pruned_equals_masked_with_options(arch, options):
    check(arch, (0.5,), **options)


def test_a_pruned_network_can_be_pruned_again():
    with torch.device("meta"):
        plan = {name: max(width // 2, 9) for name, width in channel_plan(make("resnet:10")).items()}
    plan = {name: width for name, width in plan.items() if name not in OUTPUTS}
    detector = make("resnet:10", channels=plan).eval()
    with torch.device("meta"):
        flow = trace(make("resnet:10", channels=plan))
    kept = decide(detector, flow, 0.97)
    smaller = make("resnet:10", channels={name: len(filters) for name, filters in kept.items()})
    copy_kept(detector, smaller, flow, kept)
    conv = kept["block_1a_conv_1"]
    there, here = (weighted_layers(d)["block_1a_conv_1"].weight for d in (detector, smaller))
    assert torch.equal(here, there[conv][:, kept["conv1"]])
