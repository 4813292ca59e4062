"""A network on several devices: which layer goes where, and what crosses the cut."""

from collections import Counter
from functools import partial

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from frcnn.lit_module import LitFasterRCNN
from frcnn.model.backbones import BACKBONES, build_backbone
from frcnn.model.detector import DetectionSettings, FasterRCNN, ProposalSettings
from frcnn.model.parallel import boundaries, follow, graph_layers, place, split
from frcnn.optim.optimizers import SGD, Adam, l1_penalty, l2_penalty, parameter_groups
from frcnn.report.summary import split_rows

# A fake tensor believes to be on the device that it names, and no operation takes two that differ. The root
# is the one of the two that the network does not take for a CPU.
A, B = torch.device("meta"), torch.device("cpu")
THERE, BACK = (A.type, B.type), (B.type, A.type)
SETTINGS = DetectionSettings(pre_nms_top_n=60, post_nms_top_n=6, max_detections=4)


def detector(arch="resnet:10", *, pool_size=2, freeze_blocks=(), **options):
    return FasterRCNN(
        backbone=build_backbone(arch, pool_size=pool_size, **options),
        num_classes=2,
        anchor_scales=(16, 32),
        anchor_ratios=(1.0,),
        freeze_blocks=freeze_blocks,
        roi_sample=4,
        rpn_sample=16,
        proposals=ProposalSettings(pre_nms_top_n=60, post_nms_top_n=10),
    )


def on_meta(arch, **options):
    with torch.device("meta"):
        return detector(arch, **options)


# Which layer goes where


def test_boundaries_by_hand():
    # round(cumulative share * layers), shares by their sum
    assert boundaries(31, [1, 1]) == [16, 31]  # 15.5, to even
    assert boundaries(31, [0.4, 0.6]) == [12, 31]  # 12.4
    assert boundaries(31, [2, 3, 5]) == [6, 16, 31]  # 6.2, 15.5
    assert boundaries(10, [0.7]) == [10]
    assert boundaries(2, [0.1, 0.1, 9.8]) == [0, 0, 2]


RESNET_10 = [
    *("conv1", "bn_conv1"),
    *(
        f"block_{stage}a_{kind}_{i}"
        for stage in (1, 2, 3)
        for i in (1, 2, "shortcut")
        for kind in ("conv", "bn")
    ),
    *("rpn_conv1", "rpn_out_class", "rpn_out_regress"),
    *(f"block_4a_{kind}_{i}" for i in (1, 2, "shortcut") for kind in ("conv", "bn")),
    *("dense_class", "dense_regress"),
]


def test_layers_in_the_order_in_which_they_run():
    assert list(graph_layers(on_meta("resnet:10"))) == RESNET_10
    vgg = list(graph_layers(on_meta("vgg:16")))
    assert len(vgg) == 13 * 2 + 3 + 2 + 2
    assert vgg[-7:] == [
        *("rpn_conv1", "rpn_out_class", "rpn_out_regress"),
        *("fc1", "fc2", "dense_class", "dense_regress"),
    ]


@pytest.mark.parametrize("arch", BACKBONES)
def test_every_weight_belongs_to_one_layer(arch):
    network = on_meta(arch)
    parts = [p for layer in graph_layers(network).values() for p in layer.parameters()]
    assert len(parts) == len({id(p) for p in parts}) == len(list(network.parameters()))


@pytest.mark.parametrize(
    ("arch", "fractions", "firsts"),
    [
        ("resnet:10", [1, 1], ["conv1", "block_3a_conv_2"]),  # 16 of 31
        ("resnet:10", [0.4, 0.6], ["conv1", "block_2a_conv_shortcut"]),  # 12
        ("resnet:10", [1, 1, 2], ["conv1", "block_2a_conv_1", "block_3a_conv_2"]),  # 7.75 -> 8, 16
        ("vgg:16", [3, 1], ["block_1a_conv_1", "block_5c_bn_1"]),  # 0.75 * 33 = 24.75 -> 25
        ("mobilenet_v1", [0.5, 0.5], ["conv1", "conv_dw_8"]),  # 0.5 * 59 = 29.5 -> 30
    ],
)
def test_parts_begin_where_the_formula_says(arch, fractions, firsts):
    parts = split(on_meta(arch), fractions)
    assert [next(iter(part)) for part in parts] == firsts
    assert sum(map(len, parts)) == len(graph_layers(on_meta(arch)))


def test_memory_of_a_part_by_hand():
    rows = split_rows(
        on_meta("resnet:10"),
        fractions=[2, 29],
        devices=[torch.device("cuda", 0), torch.device("cuda", 1)],
        size=(32, 64),
        channels=3,
        regions=5,
        images=2,
    )
    # conv1: 7 * 7 * 3 * 64 weights, its batch norm 2 * 64; both put out 64 x 16 x 32, two images, four bytes.
    assert (rows[0]["device"], rows[0]["layers"], rows[0]["last"]) == ("cuda:0", 2, "bn_conv1")
    assert rows[0]["parameters MB"] == pytest.approx((7 * 7 * 3 * 64 + 2 * 64) * 4 / 1e6)
    assert rows[0]["activations MB"] == pytest.approx(2 * 64 * 16 * 32 * 2 * 4 / 1e6)
    total = sum(p.numel() for p in on_meta("resnet:10").parameters()) * 4 / 1e6
    assert sum(row["parameters MB"] for row in rows) == pytest.approx(total)


# What crosses the cut


class Crossings(TorchDispatchMode):
    """Counts copies of floating-point tensors from one device to another."""

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten._to_copy.default and args[0].is_floating_point():
            pair = (args[0].device.type, result.device.type)
            self.seen[pair] += pair[0] != pair[1]
        return result


def spread(network, fractions, devices):
    """`place` for tensors without values, which torch cannot move."""
    parts = zip(devices, split(network, fractions), strict=True)
    where = {layer: device for device, part in parts for layer in part.values()}
    for module in network.modules():
        device = where.get(module, devices[0])
        for name, value in module._parameters.items():
            if value is not None:
                moved = torch.empty_like(value, device=device)
                module._parameters[name] = nn.Parameter(moved, value.requires_grad)
        for name, value in module._buffers.items():
            module._buffers[name] = torch.empty_like(value, device=device)


def batch(device):
    images = torch.randn(2, 3, 96, 128, device=device)
    boxes = torch.rand(2, 3, 4, device=device) * 40
    return images, boxes, torch.zeros(2, 3, dtype=torch.int64, device=device)


def fake_run(arch, fractions, **options):
    """Losses, their backward pass and detections without values, where devices must not mix."""
    network = on_meta(arch, **options)
    with FakeTensorMode(allow_non_fake_inputs=True), Crossings() as crossings:
        spread(network, fractions, [(A, B)[part % 2] for part in range(len(fractions))])
        images, boxes, labels = batch(A)
        crossings.seen.clear()
        losses = network.losses(images, boxes, labels)
        assert {loss.device for loss in losses.values()} == {A}
        forward = +crossings.seen
        crossings.seen.clear()
        torch.stack(list(losses.values())).sum().backward()
        backward = +crossings.seen
        assert all(p.grad.device == p.device for p in network.parameters() if p.requires_grad)
        crossings.seen.clear()
        network.eval()
        found = network.detect(images, settings=SETTINGS)
        assert found.boxes.device == A
        return forward, backward, +crossings.seen


def test_every_transfer_of_a_cut_in_the_trunk():
    """Cut before block_3a_conv_1 (14 of 31): the unit's input goes over for the convolution and the shortcut."""
    forward, backward, evaluation = fake_run("resnet:10", [14, 17])
    # The boxes of the crops go over, too; back come two outputs of the RPN and two of the head.
    assert forward == {THERE: 3, BACK: 4}
    assert backward == {BACK: 2, THERE: 4}  # no gradient for the boxes
    assert evaluation == forward


def test_every_transfer_of_a_cut_between_a_convolution_and_its_batch_norm():
    """Cut before block_3a_bn_2 (17): the convolution's output, and the input of the shortcut."""
    forward, backward, _ = fake_run("resnet:10", [17, 14])
    assert forward == {THERE: 3, BACK: 4}
    assert backward == {BACK: 2, THERE: 4}


def test_every_transfer_of_a_cut_before_a_shortcut():
    """Cut before block_3a_conv_shortcut (18): the sum is on the later device, so that it stays there."""
    forward, _, _ = fake_run("resnet:10", [18, 13])
    assert forward == {THERE: 3, BACK: 4}


def test_every_transfer_of_a_cut_in_the_head():
    """Cut before block_4a_conv_2 (25): patches for the shortcut, and the first convolution's output."""
    forward, backward, evaluation = fake_run("resnet:10", [25, 6])
    assert forward == {THERE: 2, BACK: 2}
    assert backward == {BACK: 2, THERE: 2}
    assert evaluation == forward


def test_frozen_blocks_take_no_gradient_across():
    forward, backward, _ = fake_run("resnet:10", [8, 23], freeze_blocks=(0, 1))
    assert forward[THERE] == 3
    assert backward == {THERE: 4}  # into the RPN's and the head's outputs only


SHAPES = [
    *((arch, {}) for arch in ("resnet:18", "vgg:16", "googlenet", "mobilenet_v1", "darknet:53")),
    ("mobilenet_v2", {"all_projections": True}),
    ("efficientnet:b0", {"drop_connect_rate": 0.2, "dropout_rate": 0.1}),
]


@pytest.mark.parametrize(
    ("arch", "options"), SHAPES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_no_operation_takes_tensors_of_two_devices(arch, options):
    """With every layer on another device than the one before: whatever can be cut is cut."""
    count = len(graph_layers(on_meta(arch, **options)))
    forward, backward, evaluation = fake_run(arch, [1] * count, **options)
    assert forward == evaluation
    assert min(forward.total(), backward.total()) > 0.8 * count


# Around the network


def test_moving_the_module_does_not_undo_the_split(monkeypatch):
    """As Lightning moves it: to the first device before training, to the CPU after it."""
    meta = torch.device("meta")
    lit = LitFasterRCNN(
        detector=detector(),
        evaluation=SETTINGS,
        place=partial(place, fractions=[20, 11], groups=[[torch.device("cpu"), meta]]),
    )
    assert lit.to(torch.device("cpu")) is lit
    where = {name: next(layer.parameters()).device for name, layer in graph_layers(lit.detector).items()}
    assert [where[name].type for name in RESNET_10] == ["cpu"] * 20 + ["meta"] * 11
    assert lit.detector.cell_anchors.device.type == "cpu"
    assert lit.device.type == "cpu"


def test_slots_follow_their_parameters():
    """What Lightning puts on the first device when it restores a run."""
    layer = nn.Linear(2, 2, device="meta")
    optimizer = Adam(layer.parameters(), lr=1.0)
    for parameter in layer.parameters():
        optimizer.state[parameter] = {
            "step": torch.tensor(3.0),
            "exp_avg": torch.zeros(parameter.shape),
            "exp_avg_sq": torch.zeros(parameter.shape),
        }
    follow(optimizer)
    found = {name: slot.device.type for slots in optimizer.state.values() for name, slot in slots.items()}
    assert found == {"step": "cpu", "exp_avg": "meta", "exp_avg_sq": "meta"}


def test_penalties_and_clipping_span_devices():
    with FakeTensorMode():
        layers = nn.Sequential(nn.Linear(2, 2, device=A), nn.Linear(2, 2, device=B))
        assert l1_penalty(layers, 0.1).device == l2_penalty(layers, 0.1).device == A
        for parameter in layers.parameters():
            parameter.grad = torch.ones_like(parameter)
        nn.utils.clip_grad_norm_(layers.parameters(), 1.0)
        for make in (partial(SGD, momentum=0.9), Adam):
            optimizer = make(parameter_groups(layers, l2=0.1), lr=0.1)
            optimizer.step()
            assert all(
                slot.device == p.device
                for p, slots in optimizer.state.items()
                for name, slot in slots.items()
                if name != "step"
            )


@pytest.mark.gpu
def test_a_gpu_and_the_cpu_share_a_network():
    """The same losses, gradients and detections as on one device."""
    torch.manual_seed(0)
    whole = detector()
    parted = detector()
    parted.load_state_dict(whole.state_dict())
    root = torch.device("cuda", 0)
    parted.to(root)
    place(parted, root, fractions=[18, 13], groups=[[root, torch.device("cpu")]])
    assert {key: value.shape for key, value in parted.state_dict().items()} == {
        key: value.shape for key, value in whole.state_dict().items()
    }
    found = {}
    for network, device in ((whole, "cpu"), (parted, "cuda")):
        network.eval()  # random choices differ between devices; features and detections do not
        images = batch("cpu")[0].to(device)
        found[device] = network.detect(images, settings=SETTINGS)
        features = network.feature_map(images)
        features.square().mean().backward()
    torch.testing.assert_close(found["cuda"].scores.cpu(), found["cpu"].scores, rtol=1e-3, atol=1e-3)
    for (name, ours), theirs in zip(parted.trunk.named_parameters(), whole.trunk.parameters(), strict=True):
        assert ours.grad.device == ours.device, name
        torch.testing.assert_close(ours.grad.cpu(), theirs.grad, rtol=1e-2, atol=1e-4)
    parted.train()
    images, boxes, labels = (x.cuda() for x in batch("cpu"))
    losses = parted.losses(images, boxes, labels)
    sum(losses.values()).backward()
    assert all(p.grad.device == p.device for p in parted.parameters())
