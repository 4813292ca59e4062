import pytest
import torch

from frcnn.errors import SpecError
from frcnn.model.backbones import build_backbone

# tao/model-and-training.md 2.8: stem, outs of stages 1 to 7, units of stages 1 to 7, last convolution.
TABLE = {
    "b0": (32, (16, 24, 40, 80, 112, 192, 320), (1, 2, 2, 3, 3, 4, 1), 1280),
    "b1": (32, (16, 24, 40, 80, 112, 192, 320), (2, 3, 3, 4, 4, 5, 2), 1280),
    "b2": (32, (16, 24, 48, 88, 120, 208, 352), (2, 3, 3, 4, 4, 5, 2), 1408),
    "b3": (40, (24, 32, 48, 96, 136, 232, 384), (2, 3, 3, 5, 5, 6, 2), 1536),
    "b4": (48, (24, 32, 56, 112, 160, 272, 448), (2, 4, 4, 6, 6, 8, 2), 1792),
    "b5": (48, (24, 40, 64, 128, 176, 304, 512), (3, 5, 5, 7, 7, 9, 3), 2048),
    "b6": (56, (32, 40, 72, 144, 200, 344, 576), (3, 6, 6, 8, 8, 11, 3), 2304),
    "b7": (64, (32, 48, 80, 160, 224, 384, 640), (4, 7, 7, 10, 10, 13, 4), 2560),
}


def meta(scale, **options):
    with torch.device("meta"):
        return build_backbone(f"efficientnet:{scale}", pool_size=2, **options)


def units(backbone):
    return [unit for part in backbone[:2] for stage in part.units.values() for unit in stage]


@pytest.mark.parametrize("scale", TABLE)
def test_scaling(scale):
    stem, outs, counts, top = TABLE[scale]
    backbone = meta(scale)
    assert backbone.trunk.stem_conv.out_channels == stem
    stages = [[unit for unit in units(backbone) if unit.stage == stage] for stage in range(1, 8)]
    assert tuple(len(stage) for stage in stages) == counts
    assert tuple(stage[-1].filters for stage in stages) == outs
    assert (backbone.trunk.out_channels, backbone.body.out_features) == (outs[4], top)


def test_a_unit():
    trunk = meta("b0").trunk
    # Input of block2a is 16 wide: expanded to 96, squeezed to a quarter of 16.
    assert trunk.block2a_expand_conv.weight.shape == (96, 16, 1, 1)
    assert trunk.block2a_dwconv.weight.shape == (96, 1, 3, 3)
    assert trunk.block2a_se_reduce.weight.shape == (4, 96, 1, 1)
    assert trunk.block2a_se_expand.weight.shape == (96, 4, 1, 1)
    assert trunk.block1a_se_reduce.weight.shape == (8, 32, 1, 1)
    assert not hasattr(trunk, "block1a_expand_conv")


def test_drop_rates_divide_by_16_whatever_the_depth():
    rates = [unit.drop_rate for unit in units(meta("b0", drop_connect_rate=0.16))]
    assert rates == pytest.approx([0.01 * index for index in range(16)])
    # 55 units: the last drops 54 / 16 = 3.375 times the rate.
    assert units(meta("b7", drop_connect_rate=0.2))[-1].drop_rate == pytest.approx(0.675)


def test_drop_connect_takes_rows_whole_and_scales_the_others():
    torch.manual_seed(0)
    body = build_backbone("efficientnet:b0", pool_size=2, drop_connect_rate=0.5).body.train()
    for layer in body.modules():
        layer.frozen = True  # batch statistics would mix rows
    unit = body.units[6][1]
    assert unit.drop_rate == 0.5 * 12 / 16
    x = torch.randn(64, 192, 2, 2)
    with torch.no_grad():
        added = body._run_unit(unit, x, None) - x
        branch = body.eval()._run_unit(unit, x, None) - x
    dropped = ~added.flatten(1).any(1)
    assert 10 < dropped.sum() < 40  # 24 expected
    torch.testing.assert_close(added[~dropped], branch[~dropped] / (1 - 0.375), atol=1e-5, rtol=1e-4)


def test_a_rate_of_one_drops_nothing():
    torch.manual_seed(0)
    body = build_backbone("efficientnet:b0", pool_size=2, drop_connect_rate=2.0, dropout_rate=1.0).body
    for layer in body.modules():
        layer.frozen = True
    x = torch.randn(3, 112, 2, 2)
    with torch.no_grad():
        torch.testing.assert_close(body.train()(x), body.eval()(x))


def test_dropout_of_the_head():
    torch.manual_seed(0)
    body = build_backbone("efficientnet:b0", pool_size=2, dropout_rate=0.25).body.train()
    with torch.no_grad():
        vectors = body(torch.randn(8, 112, 2, 2))
    assert (vectors == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert body.eval().vectors(torch.ones(1, 4, 2, 2)).tolist() == [[1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("activation", "expected"), [("", [-0.2689, 0.7311]), ("swish", [-0.2689, 0.7311]), ("relu", [0, 1])]
)
def test_activations(activation, expected):
    trunk = meta("b0", activation=activation).trunk
    found = trunk.activation(torch.tensor([-1.0, 1.0])).tolist()
    assert found == pytest.approx(expected, abs=1e-4)


def test_unknown_activation_lists_the_known():
    with pytest.raises(
        SpecError, match=r"model_config\.activation\.activation_type: no .*\n.*\n.*swish, relu"
    ):
        meta("b0", activation="elu")


def test_padding_is_tensorflows():
    trunk, image = meta("b0").trunk, torch.ones(1, 1, 4, 5)
    # An even side gets all of k3's zeros behind, an odd one on both sides.
    assert trunk.pad(image, 3).sum((0, 1, 3)).tolist() == [5, 5, 5, 5, 0]
    assert trunk.pad(image, 3).sum((0, 1, 2)).tolist() == [0, 4, 4, 4, 4, 4, 0]
    assert trunk.pad(image, 5).shape == (1, 1, 7, 9)
    dynamic = meta("b0", dynamic_size=True).trunk
    assert dynamic.pad(image, 3).sum((0, 1, 2)).tolist() == [4, 4, 4, 4, 4, 0]


def test_start_is_keras_variance_scaling():
    torch.manual_seed(0)
    backbone = build_backbone("efficientnet:b0", pool_size=2, use_bias=True)
    for kernel, fan_out in (
        (backbone.body.top_conv.weight, 1280),
        (backbone.body.block6b_dwconv.weight, 25),
        (backbone.trunk.stem_conv.weight, 9 * 32),
    ):
        std = (2 / fan_out) ** 0.5
        assert kernel.std().item() == pytest.approx(std, rel=0.06)
        assert kernel.abs().max().item() <= 2 * std / 0.8796
    assert not backbone.body.top_conv.bias.any()
