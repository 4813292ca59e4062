"""Whole networks that round: where, and that folding, loading and exporting change nothing."""

import copy

import pytest
import torch
from keras_files import make, narrow_plan

from frcnn.errors import SpecError
from frcnn.model.backbones import BACKBONES
from frcnn.model.batch_norm import BatchNorm2d
from frcnn.model.detector import DetectionSettings
from frcnn.quantize import (
    activation_quantizers,
    activation_scales,
    calibrate,
    copy_ranges,
    fold_batch_norm,
    is_quantized,
    layer_errors,
    quantize,
    quantized_layers,
    set_ranges,
    trait,
)
from frcnn.quantize.placement import ENTRY, trace
from frcnn.quantize.ranges import largest

VIEW = DetectionSettings(pre_nms_top_n=50, post_nms_top_n=6)
SLOW = {"vgg:19", "vgg16", "resnet:101", "resnet101", "resnet:34", "resnet:50", "darknet:53"} | {
    f"efficientnet:b{i}" for i in range(1, 8)
}


def lively(arch="resnet:10", **options):
    """A network whose batch norms do something, in evaluation."""
    torch.manual_seed(0)
    detector = make(arch, **options).eval()
    for module in detector.modules():
        if isinstance(module, BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, -1.2, 1.2)
    return detector


def images():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def ready(detector):
    """Quantised and calibrated."""
    quantize(detector)
    calibrate(detector, lambda: detector.outputs(images(), settings=VIEW), largest)
    return detector


def features(detector):
    with torch.no_grad():
        return detector.trunk(images())


def difference(a, b):
    return float((a - b).norm() / b.norm())


# Where


def places(arch, **options):
    with torch.device("meta"):
        detector = make(arch, **options)
    return trace(detector)


def test_places_of_a_resnet():
    """A convolution's input, and of a sum what its last convolution is added to: one tensor, one name."""
    assert places("resnet:10", all_projections=True) == {
        "conv1": "input_image",
        "block_1a_conv_1": "conv1_act",
        "block_1a_conv_2": "block_1a_conv_1_act",
        "block_1a_conv_shortcut": "conv1_act",
        "block_1a_conv_2_entry": "block_1a_conv_shortcut",
        "block_2a_conv_1": "block_1a_conv_2_add_act",
        "block_2a_conv_2": "block_2a_conv_1_act",
        "block_2a_conv_shortcut": "block_1a_conv_2_add_act",
        "block_2a_conv_2_entry": "block_2a_conv_shortcut",
        "block_3a_conv_1": "block_2a_conv_2_add_act",
        "block_3a_conv_2": "block_3a_conv_1_act",
        "block_3a_conv_shortcut": "block_2a_conv_2_add_act",
        "block_3a_conv_2_entry": "block_3a_conv_shortcut",
        "rpn_conv1": "block_3a_conv_2_add_act",
        "rpn_out_class": "rpn_conv1_act",
        "rpn_out_regress": "rpn_conv1_act",
        "block_4a_conv_1": "crops",
        "block_4a_conv_2": "block_4a_conv_1_act",
        "block_4a_conv_shortcut": "crops",
        "block_4a_conv_2_entry": "block_4a_conv_shortcut",
        "dense_class": "block_4a_conv_2_add_act_mean",
        "dense_regress": "block_4a_conv_2_add_act_mean",
    }


def test_places_of_an_identity_shortcut():
    """The block's entry is rounded once for its first convolution and its sum."""
    found = places("resnet:18", use_pooling=True)
    assert found["block_1b_conv_1"] == found["block_1b_conv_2_entry"] == "block_1a_conv_2_add_act"
    assert found["block_1a_conv_1"] == "conv1_act"  # a pool picks values and rounds nothing


def start_of(arch, count, **options):
    return dict(list(places(arch, **options).items())[:count])


def test_places_of_mobilenet_v2():
    assert start_of("mobilenet_v2", 10) == {
        "conv1": "input_image",
        "expanded_conv_depthwise": "conv1_act",
        "expanded_conv_project": "expanded_conv_depthwise_act",
        "block_1_expand": "expanded_conv_project",
        "block_1_depthwise": "block_1_expand_act",
        "block_1_project": "block_1_depthwise_act",
        "block_2_expand": "block_1_project",
        "block_2_depthwise": "block_2_expand_act",
        "block_2_project": "block_2_depthwise_act",
        "block_2_project_entry": "block_1_project",
    }
    found = places("mobilenet_v2", all_projections=True)
    assert found["block_2_projected_inputs"] == "block_1_project"
    assert found["block_2_project_entry"] == "block_2_projected_inputs"
    assert found["block_3_expand"] == "block_2_project_add"


def test_places_of_an_efficientnet():
    """Squeeze and excitation: two small convolutions; their product is rounded, the factors are not."""
    found = places("efficientnet:b0")
    first = [name for name in found if name.startswith(("stem", "block1a"))]
    assert {name: found[name] for name in first} == {
        "stem_conv": "input_image",
        "block1a_dwconv": "stem_conv_act",
        "block1a_se_reduce": "block1a_dwconv_act_mean",
        "block1a_se_expand": "block1a_se_reduce_act",
        "block1a_project_conv": "block1a_dwconv_act_mul",
    }
    assert found["block2b_project_conv" + ENTRY] == found["block2b_expand_conv"] == "block2a_project_conv"
    assert found["block3a_expand_conv"] == "block2b_project_conv_add"


def test_places_of_darknet_53():
    """What a pair adds is activated before the sum: it stays as it is, its entry is rounded."""
    assert start_of("darknet:53", 7) == {
        "conv1": "input_image",
        "conv2": "conv1_act",
        "b1_conv1_1": "conv2_act",
        "b1_conv1_2": "b1_conv1_1_act",
        "b1_conv1_2_entry": "conv2_act",
        "conv3": "b1_conv1_2_add",
        "b2_conv1_1": "conv3_act",
    }


def test_places_of_googlenet():
    """A concatenation is rounded as a whole, and once for the four branches behind it."""
    found = places("googlenet")
    branches = ("1x1", "3x3_reduce", "5x5_reduce", "pool_proj")
    assert {found[f"inception_3a_{part}"] for part in branches} == {"conv2_act"}
    assert {found[f"inception_3b_{part}"] for part in branches} == {"inception_3a_pool_proj_act_cat"}
    assert {found[f"inception_5a_{part}"] for part in branches} == {"crops"}
    assert found["inception_3a_3x3"] == "inception_3a_3x3_reduce_act"


def test_places_of_a_vgg():
    assert start_of("vgg:16", 4, use_pooling=True) == {
        "block_1a_conv_1": "input_image",
        "block_1b_conv_1": "block_1a_conv_1_act",
        "block_2a_conv_1": "block_1b_conv_1_act",
        "block_2b_conv_1": "block_2a_conv_1_act",
    }
    found = places("vgg:16")
    assert (found["fc1"], found["fc2"], found["dense_class"]) == ("crops", "fc1_act", "fc2_act")


# What


@pytest.mark.parametrize(
    "arch", [pytest.param(a, marks=pytest.mark.slow if a in SLOW else ()) for a in BACKBONES]
)
def test_every_network_rounds_and_stays_close(arch):
    """Narrow networks, as pruned ones are; every layer but the two outputs rounds, and tensors share ranges."""
    plan = narrow_plan(arch, width=16)
    detector = lively(arch, channels=plan)
    exact = features(detector)
    names = set(detector.state_dict())
    ready(detector)
    assert set(plan) - set(quantized_layers(detector)) == set()
    assert not {"dense_class", "dense_regress"} & set(quantized_layers(detector))
    assert names <= set(detector.state_dict())
    assert len(activation_scales(detector)) == len(activation_quantizers(detector))
    assert all(scale > 0 for scale in activation_scales(detector).values())
    assert 0 < difference(features(detector), exact) < 0.35
    detector.train()
    boxes = torch.tensor([[[4.0, 4.0, 40.0, 40.0]]]).expand(2, -1, -1)
    sum(detector.losses(images(), boxes, torch.zeros(2, 1, dtype=torch.long)).values()).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in detector.parameters())


def test_layers_to_skip_stay_in_float():
    detector = lively("resnet:18", channels=narrow_plan("resnet:18"))
    quantize(detector, skip=["conv1", "block_1b_conv_2_entry", "block_4a_conv_1_td"])
    rounded = quantized_layers(detector)
    assert "conv1" not in rounded and "block_4a_conv_1" not in rounded
    assert not is_quantized(detector.trunk.entries["block_1b_conv_2"])
    assert is_quantized(detector.trunk.entries["block_1a_conv_2"])
    assert trait(detector) == {
        "skip": ["conv1", "block_4a_conv_1", "block_1b_conv_2_entry"],
        "learned": False,
    }


def test_a_layer_to_skip_that_is_not_there():
    with pytest.raises(SpecError, match="no layer of this network") as error:
        quantize(lively(channels=narrow_plan()), skip=["block_1a_conv1"])
    assert "did you mean block_1a_conv_1" in str(error.value)


def test_the_same_network_again():
    source = ready(lively(channels=narrow_plan()))
    again = quantize(lively(channels=narrow_plan()), **trait(source))
    again.load_state_dict(source.state_dict())
    assert torch.equal(features(again), features(source))


def test_in_float_it_is_the_network_that_it_was():
    detector = lively(channels=narrow_plan())
    exact = features(copy.deepcopy(detector))
    ready(detector)
    for module in detector.modules():
        if hasattr(module, "enabled"):
            module.enabled = False
    torch.testing.assert_close(features(detector), exact)


def test_folding_keeps_every_integer():
    """The norm's factor goes into weights and scales alike, so that weights are the same integers."""
    detector = ready(lively(channels=narrow_plan()))
    folded = fold_batch_norm(copy.deepcopy(detector))
    assert not any(isinstance(module, BatchNorm2d) for module in folded.modules())
    pairs = detector.trunk.batch_norms
    assert pairs["conv1"] == "bn_conv1" and folded.trunk.batch_norms == {}
    for name, layer in quantized_layers(folded).items():
        before = quantized_layers(detector)[name]
        integers = [
            (x.weight.flatten(1) / x.weight_quantizer.scale[:, None]).round().abs() for x in (before, layer)
        ]
        assert torch.equal(*integers)
    image = images()
    before, after = detector.trunk, folded.trunk
    with torch.no_grad():
        one = before.bn_conv1(before.conv1(image))
        torch.testing.assert_close(after.conv1(image), one, atol=1e-5, rtol=1e-4)
    assert difference(features(folded), features(detector)) < 0.02  # where rounding errors meet a tie


def test_errors_of_layers_name_the_worst_first():
    detector = ready(lively(channels=narrow_plan()))
    spoilt = detector.trunk.block_2a_conv_2
    spoilt.weight_quantizer.scale.mul_(20)
    rows = layer_errors(detector, lambda: detector.outputs(images(), settings=VIEW))
    assert rows[0]["layer"] == "block_2a_conv_2"
    assert rows[0]["by_weights"] > 5 * rows[0]["by_input"]
    assert rows[0]["error"] == pytest.approx(rows[0]["by_weights"], rel=0.1)
    assert len(rows) == len(quantized_layers(detector))
    image = next(row for row in rows if row["layer"] == "conv1")
    assert (image["tensor"], image["range"]) == ("input_image", pytest.approx(float(images().abs().max())))


def test_ranges_of_a_quantised_file_are_used():
    """By the name of the tensor, or of the batch norm that it comes out of; the others are calibrated."""
    detector = quantize(lively("mobilenet_v2", channels=narrow_plan("mobilenet_v2")))
    given = {"input_image": 151.0, "block_1_project_bn": 6.35, "rpn_conv1_act": 2.54, "activation_3": 1.0}
    assert set(set_ranges(detector, given)) == {"input_image", "block_1_project", "rpn_conv1_act"}
    calibrate(detector, lambda: detector.outputs(images(), settings=VIEW), largest)
    scales = activation_scales(detector)
    assert scales["input_image"] == pytest.approx(151 / 127)
    assert scales["block_1_project"] == pytest.approx(0.05)
    assert scales["rpn_conv1_act"] == pytest.approx(0.02)
    assert min(scales.values()) > 0


def test_ranges_go_over_to_another_network():
    source, target = ready(lively(channels=narrow_plan())), quantize(lively(channels=narrow_plan(width=4)))
    copy_ranges(source, target)
    assert activation_scales(target) == activation_scales(source)


@pytest.mark.parametrize("learned", [False, True])
def test_a_network_learns_while_it_rounds(learned):
    """From random weights, as TAO's specs have it: the loss of one batch falls to a third in twenty steps."""
    torch.manual_seed(0)
    detector = quantize(make(channels=narrow_plan(width=32)).train(), learned=learned)
    boxes = torch.tensor([[[8.0, 8, 50, 56]], [[40.0, 10, 90, 50]]])
    data = images(), boxes, torch.tensor([[0], [1]])

    def loss():
        return sum(detector.losses(*data, generator=torch.Generator().manual_seed(0)).values())

    calibrate(detector, loss, largest)
    scales = activation_scales(detector)
    optimizer = torch.optim.Adam([p for p in detector.parameters() if p.requires_grad], 2e-3)
    values = []
    for _ in range(20):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < values[0] / 3
    assert activation_scales(detector) != scales


# Out


@pytest.mark.parametrize("arch", ["resnet:10", pytest.param("mobilenet_v2", marks=pytest.mark.slow)])
def test_an_export_has_pairs_with_stored_scales(arch, tmp_path):
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    detector = fold_batch_norm(ready(lively(arch, channels=narrow_plan(arch))))

    class Stage(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.rpn = detector.trunk, detector.rpn

        def forward(self, image):
            return tuple(self.rpn(self.trunk(image)))

    crops = torch.randn(3, detector.trunk.out_channels, 2, 2)
    for stage, x in ((Stage(), images()), (detector.head, crops)):
        file = str(tmp_path / "a.onnx")
        exported = torch.onnx.export(
            stage.eval(),
            (x,),
            dynamo=True,
            opset_version=18,
            dynamic_shapes=({0: torch.export.Dim("n")},),
            verbose=False,
        )
        exported.save(file)
        graph = onnx.load(file).graph
        stored = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
        pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
        assert pairs and all(name in stored for node in pairs for name in node.input[1:])
        zeros = {node.input[2] for node in pairs}
        assert all(stored[name].dtype == "int8" and not stored[name].any() for name in zeros)
        made_by = {name: node.op_type for node in graph.node for name in node.output}
        layers = [node for node in graph.node if node.op_type == "Conv"]
        assert layers
        for node in layers:
            assert [made_by[name] for name in node.input[:2]] == ["DequantizeLinear"] * 2
            assert all(
                name in stored for name in node.input[2:]
            )  # a bias is in float; there is none of zeros
        assert not {"BatchNormalization", "Sqrt", "Reciprocal", "Mod"} & {node.op_type for node in graph.node}
        found = runtime.InferenceSession(file).run(None, {graph.input[0].name: x.numpy()})
        with torch.no_grad():
            expected = stage(x)
        for a, b in zip(found, expected, strict=True):
            assert difference(torch.from_numpy(a), b) < 0.02
