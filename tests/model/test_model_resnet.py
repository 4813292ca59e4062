import pytest
import torch

from frcnn.errors import SpecError
from frcnn.model.backbones import build_backbone
from frcnn.model.detector import FasterRCNN, channel_plan


def detector(arch, **options):
    return FasterRCNN(
        backbone=build_backbone(arch, **options),
        num_classes=3,
        anchor_scales=[64.0, 128.0, 256.0],
        anchor_ratios=[1.0, 0.5, 2.0],
        channels=options.get("channels"),
    )


# tao/model-and-training.md 2.10: parameters and moving statistics, 9 anchors, 3 classes and background.
@pytest.mark.parametrize(
    ("arch", "options", "count"),
    [
        ("resnet:10", {"all_projections": True}, 6_127_357),
        ("resnet:18", {"all_projections": True}, 12_753_917),
        ("resnet:34", {"all_projections": True}, 23_438_077),
        ("resnet:50", {"all_projections": True}, 42_930_173),
        ("resnet:101", {"all_projections": True}, 79_869_949),
        ("resnet:10", {}, 6_127_357),
        ("resnet:18", {}, 12_401_917),
        ("resnet:34", {}, 22_517_501),
        ("resnet:50", {}, 28_336_125),
        ("resnet:101", {}, 47_380_477),
        ("resnet:18", {"all_projections": True, "use_bias": True}, 12_759_741),
        ("resnet:18", {"use_pooling": True, "pool_size_2x": True}, 12_401_917),
    ],
)
def test_scalar_count_of_the_original(arch, options, count):
    with torch.device("meta"):
        state = detector(arch, **options).state_dict()
    assert sum(v.numel() for k, v in state.items() if not k.endswith("num_batches_tracked")) == count


def test_layers_have_their_tao_names():
    with torch.device("meta"):
        names = {name.rpartition(".")[2] for name, _ in detector("resnet:101").named_modules()}
    expected = {"conv1", "bn_conv1", "block_3w_conv_3", "block_4a_bn_shortcut", "rpn_conv1", "rpn_out_class"}
    assert expected | {"rpn_out_regress", "dense_class", "dense_regress"} <= names
    assert "block_1b_conv_shortcut" not in names


@pytest.mark.parametrize("use_pooling", [False, True])
@pytest.mark.parametrize("in_channels", [1, 3])
def test_stride_is_16_whatever_downsamples(use_pooling, in_channels):
    trunk = build_backbone("resnet:10", use_pooling=use_pooling, in_channels=in_channels).trunk.eval()
    with torch.no_grad():
        assert trunk(torch.zeros(1, in_channels, 64, 90)).shape == (1, 256, 4, 6)


def test_stage_one_strides_only_without_the_pool():
    strides = [build_backbone("resnet:10", use_pooling=p).trunk.block_1a_conv_1.stride for p in (True, False)]
    assert strides == [(1, 1), (2, 2)]


def test_bottleneck_stride_sits_on_the_first_convolution():
    with torch.device("meta"):
        trunk = build_backbone("resnet:50").trunk
    assert trunk.block_2a_conv_1.stride == trunk.block_2a_conv_shortcut.stride == (2, 2)
    assert trunk.block_2a_conv_2.stride == (1, 1)


@pytest.mark.parametrize(("double", "side"), [(False, 3), (True, 6)])
def test_double_crops_are_halved_in_stage_four(double, side):
    backbone = build_backbone("resnet:10", pool_size=3, pool_size_2x=double)
    assert backbone.crop_size == side
    body = backbone.body.eval()
    crops = torch.rand(2, 256, side, side)
    with torch.no_grad():
        stage, vectors = body.run_block(4, crops, None), body(crops)
    assert stage.shape == (2, 512, 3, 3)
    torch.testing.assert_close(vectors, stage.mean((2, 3)))
    assert body.block_4a_conv_1.stride == ((2, 2) if double else (1, 1))


def test_pruned_widths_flow_through():
    plan = {"conv1": 8, "block_1a_conv_1": 5, "block_1a_conv_2": 7, "block_1a_conv_shortcut": 7}
    plan |= {"block_4a_conv_2": 24, "block_4a_conv_shortcut": 24, "rpn_conv1": 16}
    model = detector("resnet:10", channels=plan)
    built = channel_plan(model)
    assert {name: built[name] for name in plan} == plan
    assert model.trunk.block_2a_conv_1.weight.shape == (128, 7, 3, 3)
    assert model.head.dense_class.in_features == 24
    features = model.eval().feature_map(torch.zeros(1, 3, 32, 32))
    assert model.rpn(features).logits.shape == (1, 9, 2, 2)


def test_a_plan_that_cannot_be_added_is_refused():
    with pytest.raises(SpecError, match="block_2a_conv_2 and block_2a_conv_shortcut"):
        build_backbone("resnet:10", channels={"block_2a_conv_2": 100})


def test_unknown_arch_lists_the_known():
    with pytest.raises(SpecError, match="resnet:18"):
        build_backbone("resnet:20")


def test_start_is_kerass():
    torch.manual_seed(0)
    model = detector("resnet:10", use_bias=True)
    kernel = model.trunk.block_3a_conv_2.weight  # 3x3, 256 -> 256
    limit = (6 / (9 * 256 + 9 * 256)) ** 0.5
    assert 0.99 * limit < kernel.abs().max() <= limit
    assert all(not p.any() for name, p in model.named_parameters() if name.endswith("conv_1.bias"))
    assert not model.rpn.rpn_out_class.bias.any()
