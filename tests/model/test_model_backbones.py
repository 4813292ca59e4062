"""What holds for all 22 architectures."""

import pytest
import torch
import yaml
from torch import nn

from frcnn.errors import SpecError
from frcnn.model.backbones import BACKBONES, build_backbone
from frcnn.model.batch_norm import BatchNorm2d
from frcnn.model.detector import FasterRCNN, ProposalSettings, channel_plan
from frcnn.paths import conf_dir
from frcnn.spec.model import ARCHITECTURES, FREEZABLE_BLOCKS, OPTIONS_OF

FAMILIES = ("resnet:10", "resnet101", "vgg:16", "vgg16", "googlenet", "mobilenet_v1", "mobilenet_v2")
FAMILIES += ("darknet:19", "darknet:53", "efficientnet:b0")
TAO = {"pool_size": 7, "all_projections": True}


def detector(arch, *, num_classes=3, freeze_blocks=(), freeze_bn=False, **options):
    return FasterRCNN(
        backbone=build_backbone(arch, **{"pool_size": 2} | options),
        num_classes=num_classes,
        anchor_scales=[16.0, 32.0, 64.0],
        anchor_ratios=[1.0, 0.5, 2.0],
        rpn_sample=32,
        roi_sample=6,
        proposals=ProposalSettings(pre_nms_top_n=100, post_nms_top_n=30),
        freeze_blocks=freeze_blocks,
        freeze_bn=freeze_bn,
        channels=options.get("channels"),
    )


def meta(arch, **options):
    with torch.device("meta"):
        return detector(arch, **options)


def loss(model, size=(64, 64)):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, *size, generator=generator)
    boxes = torch.zeros(2, 3, 4)
    boxes[0, :2] = torch.tensor([[8.0, 8, 40, 40], [30, 20, 60, 60]])
    labels = torch.tensor([[0, 1, -1], [-1, -1, -1]])
    return sum(model.losses(images, boxes, labels, generator=generator).values())


def test_every_name_builds():
    assert set(BACKBONES) == set(ARCHITECTURES)
    assert len(BACKBONES) == 22


def test_every_architecture_has_a_file():
    files = {
        file.stem: yaml.safe_load(file.read_text())["arch"] for file in (conf_dir() / "backbone").iterdir()
    }
    legacy = {"vgg16": "vgg16_legacy", "resnet101": "resnet101_legacy"}
    names = {arch: arch.replace("net:b", "net_b").replace(":", "") for arch in BACKBONES} | legacy
    assert files == {name: arch for arch, name in names.items()}


# tao/model-and-training.md 2.10: parameters and moving statistics, 9 anchors, 3 classes and background.
@pytest.mark.parametrize(
    ("arch", "options", "count"),
    [
        ("vgg:16", {}, 136_721_661),
        ("vgg:16", {"use_pooling": True, "dropout_rate": 0.5}, 136_721_661),
        ("vgg:19", {}, 142_035_197),
        ("vgg16", {}, 136_708_989),
        ("resnet101", {}, 47_433_085),
        ("googlenet", {}, 9_869_245),
        ("googlenet", {"use_bias": True}, 9_876_525),
        ("mobilenet_v1", {}, 5_628_157),
        ("mobilenet_v2", {}, 2_828_989),
        ("mobilenet_v2", {"all_projections": False}, 2_744_445),
        ("darknet:19", {}, 22_231_069),
        ("darknet:53", {}, 43_019_933),
        ("efficientnet:b0", {}, 4_609_753),
        ("efficientnet:b1", {"drop_connect_rate": 0.2}, 7_135_421),
        ("efficientnet:b2", {}, 8_367_663),
        ("efficientnet:b3", {}, 11_458_405),
        ("efficientnet:b4", {"pool_size_2x": True}, 18_463_381),
        ("efficientnet:b5", {}, 29_380_909),
        ("efficientnet:b6", {}, 41_942_213),
        ("efficientnet:b7", {}, 65_194_445),
    ],
)
def test_scalar_count_of_the_original(arch, options, count):
    state = meta(arch, **TAO | options).state_dict()
    assert sum(v.numel() for k, v in state.items() if not k.endswith("num_batches_tracked")) == count


@pytest.mark.parametrize("arch", ["vgg16", "resnet101"])
def test_legacy_networks_always_pool_and_ignore_bias_of_their_units(arch):
    free = [meta(arch, all_projections=p, use_pooling=p).state_dict() for p in (False, True)]
    assert free[0].keys() == free[1].keys()
    added = meta(arch, use_bias=True).state_dict().keys() - free[0].keys()
    assert added == (set() if arch == "vgg16" else {"trunk.conv1_conv.bias"})


@pytest.mark.parametrize("arch", BACKBONES)
def test_freezable_blocks_are_those_of_the_settings(arch):
    backbone = meta(arch)
    ids = {*backbone.trunk.freezable, *backbone.head.body.freezable}
    assert ids == set(FREEZABLE_BLOCKS[arch.partition(":")[0]])


# Halving 75 and 98 four times, rounding up (strides) or down (2x2 pools).
UP, DOWN = (5, 7), (4, 6)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_options_without_effect_are_those_of_the_settings(arch):
    """What the settings call an option of others changes no layer, stride or rate, and nothing else does."""

    def described(**options):
        parts = build_backbone(arch, pool_size=2, **options)[:2]
        layers = [
            (name, getattr(layer, "stride", None), getattr(layer, "bias", None) is not None)
            for part in parts
            for name, layer in part.named_modules()
        ]
        # Pools, rates and activations are no layers here.
        own = [
            vars(part).get(name)
            for part in parts
            for name in ("use_pooling", "dropout_rate", "activation_name")
        ]
        return layers, own, [vars(part).get("units") for part in parts]

    changed = {
        "use_bias": True,
        "all_projections": True,
        "use_pooling": True,
        "dropout_rate": 0.5,
        "drop_connect_rate": 0.2,
        "activation": "relu",
    }
    assert changed.keys() == OPTIONS_OF.keys()
    with torch.device("meta"):
        plain = described()
        has = {name for name, value in changed.items() if described(**{name: value}) != plain}
    # Every unit of a resnet:10 is the first of its stage, which has its projection anyway.
    same = {"all_projections"} if arch == "resnet:10" else set()
    assert has == {name for name, families in OPTIONS_OF.items() if arch.startswith(families)} - same


@pytest.mark.parametrize(
    ("arch", "options", "size"),
    [
        ("resnet101", {}, UP),
        ("vgg:16", {}, UP),
        ("vgg:16", {"use_pooling": True}, DOWN),
        ("vgg16", {}, DOWN),
        ("googlenet", {}, (4, 6)),
        ("mobilenet_v1", {}, UP),
        ("mobilenet_v2", {}, UP),
        ("darknet:19", {}, DOWN),
        ("darknet:53", {}, UP),
        ("efficientnet:b0", {}, UP),
        ("efficientnet:b0", {"dynamic_size": True}, DOWN),
    ],
)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_size_of_the_feature_map(arch, options, size, in_channels):
    trunk = meta(arch, in_channels=in_channels, **options).trunk.eval()
    with torch.no_grad():
        for side, expected in (((75, 98), size), ((64, 96), (4, 6))):
            found = trunk(torch.zeros(1, in_channels, *side, device="meta"))
            assert found.shape == (1, trunk.out_channels, *expected)


@pytest.mark.parametrize("arch", FAMILIES)
def test_double_crops_are_halved_in_the_body(arch):
    with torch.device("meta"):
        single, double = (build_backbone(arch, pool_size=3, pool_size_2x=x) for x in (False, True))
    assert (single.crop_size, double.crop_size) == (3, 6)
    for backbone in (single, double):
        body = backbone.body.eval()
        crops = torch.zeros(2, backbone.trunk.out_channels, *[backbone.crop_size] * 2, device="meta")
        seen = [crops]
        for block in body.block_layers:
            seen.append(body.run_block(block, seen[-1], None))
        assert seen[-1].shape[2:] in ((3, 3), ())
        assert body(crops).shape == (2, body.out_features)


@pytest.mark.parametrize(
    ("arch", "names"),
    [
        ("vgg:19", "block_1a_conv_1 block_1a_bn_1 block_5d_conv_1 fc1 fc2"),
        ("vgg16", "block1_conv1 block5_conv3 fc1 fc2"),
        ("resnet101", "conv1_conv conv1_bn conv2_block1_0_conv conv4_block23_3_bn conv5_block3_2_conv"),
        ("googlenet", "bn_conv2_reduce inception_3a_1x1 inception_4e_5x5_reduce_bn inception_5b_pool_proj"),
        ("mobilenet_v1", "conv1_bn conv_dw_1 conv_pw_11_bn conv_dw_13_bn"),
        ("mobilenet_v2", "bn_conv1 expanded_conv_depthwise block_12_project_bn block_16_expand conv_1_bn"),
        ("darknet:19", "conv1_bn b1_conv1 b4_conv5_bn b5_conv1"),
        ("darknet:53", "conv5 b4_conv8_2_bn conv6 b5_conv4_1"),
        (
            "efficientnet:b0",
            "stem_bn block1a_bn block5c_se_expand block6d_dwconv block7a_project_bn top_conv",
        ),
    ],
)
def test_layers_have_their_tao_names(arch, names):
    found = {name.rpartition(".")[2] for name, _ in meta(arch).named_modules()}
    assert set(names.split()) <= found


@pytest.mark.parametrize("arch", FAMILIES)
def test_use_bias_is_for_convolutions_before_batch_norm(arch):
    model = meta(arch, use_bias=True, all_projections=True)
    for part in (model.trunk, model.head.body):
        for name, layer in part.named_children():
            if isinstance(layer, nn.Conv2d):
                assert (layer.bias is None) is name.endswith("project_conv"), name
    plain = meta(arch)
    for part in (plain.trunk, plain.head.body):
        for name in part.batch_norms:
            always = arch == "resnet101" and name != "conv1_conv"
            assert (part.get_submodule(name).bias is not None) is always, name


@pytest.mark.parametrize("arch", BACKBONES)
def test_batch_norm_has_keras_constants(arch):
    eps = 1.001e-5 if arch == "resnet101" else 1e-3
    momentum = 0.001 if arch == "mobilenet_v2" else 0.01
    for layer in meta(arch).modules():
        if isinstance(layer, BatchNorm2d):
            assert (layer.eps, layer.momentum) == (eps, momentum)


@pytest.mark.parametrize("arch", FAMILIES)
def test_a_full_plan_builds_the_same_and_another_width_flows_through(arch):
    model = meta(arch, all_projections=True)
    plan = channel_plan(model)
    same = meta(arch, all_projections=True, channels=plan).state_dict()
    assert {k: v.shape for k, v in same.items()} == {k: v.shape for k, v in model.state_dict().items()}
    # Everything but what the number of anchors and classes gives is pruned to three quarters.
    fixed = {"rpn_out_class", "rpn_out_regress", "dense_class", "dense_regress"}
    pruned = {name: count if name in fixed else count * 3 // 4 for name, count in plan.items()}
    if arch.startswith("efficientnet"):
        # What meets: gates follow the width they multiply. Depthwise layers follow their input.
        pruned |= {n: pruned[n.replace("se_expand", "dwconv")] for n in plan if n.endswith("se_expand")}
    small = meta(arch, all_projections=True, channels=pruned)
    assert channel_plan(small) == pruned
    small = small.to_empty(device="cpu")
    for tensor in small.state_dict().values():
        tensor.zero_() if tensor.is_floating_point() else None
    features = small.eval().feature_map(torch.zeros(1, 3, 32, 32))
    crops = torch.zeros(2, features.shape[1], small.crop_size, small.crop_size)
    with torch.no_grad():
        assert small.head(crops).logits.shape == (2, 4)


@pytest.mark.parametrize(
    ("arch", "plan", "words"),
    [
        ("mobilenet_v2", {"block_2_project": 20}, "block_2_project and the unit before"),
        ("mobilenet_v1", {"conv_dw_3": 100}, "conv_dw_3 and its input"),
        ("darknet:53", {"b2_conv1_2": 100}, "b2_conv1_2 and the unit before"),
        ("efficientnet:b0", {"block2a_se_expand": 90}, "block2a_se_expand and block2a_dwconv"),
        ("efficientnet:b0", {"block2b_project_conv": 20}, "block2b_project_conv and the unit before"),
        ("resnet101", {"conv2_block1_0_conv": 9}, "conv2_block1_3_conv and conv2_block1_0_conv"),
    ],
)
def test_a_plan_that_does_not_fit_together_is_refused(arch, plan, words):
    with torch.device("meta"), pytest.raises(SpecError, match=words):
        build_backbone(arch, channels=plan)


@pytest.mark.parametrize("arch", FAMILIES)
def test_frozen_blocks_keep_weights_and_statistics(arch):
    """Head ids too; the first block is the prefix that builds no graph."""
    torch.manual_seed(0)
    ids = FREEZABLE_BLOCKS[arch.partition(":")[0]]
    frozen = {ids[0], ids[-1]}
    model = detector(arch, freeze_blocks=frozen)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    loss(model, (32, 48)).backward()
    named, layers = dict(model.named_parameters()), set()
    for path, part in (("trunk", model.trunk), ("head.body", model.head.body)):
        for block, names in part.block_layers.items():
            for name in names:
                still = block in frozen
                layers |= {f"{path}.{name}"} if still else set()
                for kind in ("weight", "bias"):
                    weight = named.get(f"{path}.{name}.{kind}")
                    if weight is not None:
                        assert weight.requires_grad is not still
                        assert (weight.grad is None) is still
                key = f"{path}.{name}.running_mean"
                if key in before:
                    assert torch.equal(model.state_dict()[key], before[key]) is still, name
    assert layers


@pytest.mark.parametrize("arch", FAMILIES)
def test_padded_regions_do_not_enter_statistics(arch):
    torch.manual_seed(0)
    body = build_backbone(arch, pool_size=2).body
    features = {"resnet101": 1024, "googlenet": 832, "resnet:10": 256, "mobilenet_v2": 96}
    channels = features.get(arch, 112 if arch.startswith("efficientnet") else 512)
    crops, valid = torch.randn(5, channels, 2, 2), torch.tensor([True, True, False, True, False])
    with torch.no_grad():
        expected = body(crops[valid])
        for layer in body.modules():
            if isinstance(layer, BatchNorm2d):
                layer.reset_running_stats()
        found = body(crops, valid)[valid]
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("arch", BACKBONES)
def test_a_training_step_is_finite_and_reaches_every_weight(arch):
    torch.manual_seed(0)
    options = {"dropout_rate": 0.1, "drop_connect_rate": 0.1, "use_bias": True, "all_projections": True}
    model = detector(arch, **options)
    total = loss(model, (48, 64))
    assert total.isfinite()
    total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 1e-4 * parameter.grad
    assert loss(model, (48, 64)).isfinite()


@pytest.mark.parametrize("arch", ["resnet:10", "vgg:16", "efficientnet:b0"])
def test_activations_end_where_a_network_trained_for_quantisation_has_them_end(arch: str) -> None:
    """TAO's quantisation-aware training puts ReLU6 in the place of ReLU (facts: eval-prune-export 5)."""
    options = {"activation": "relu"} if arch.startswith("efficientnet") else {}
    backbone = build_backbone(arch, pool_size=2, **options)  # type: ignore[arg-type]
    trunk = backbone.trunk.eval()
    image = 1000 * torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        free = trunk(image)
        trunk.ceiling = 0.5  # 6 in such a network, which fresh weights hardly reach
        ended = trunk(image)
    assert float(free.max()) > 0.5
    assert not torch.equal(free, ended)
    if not arch.startswith("efficientnet"):  # its last layer is linear
        assert float(ended.max()) <= 0.5
