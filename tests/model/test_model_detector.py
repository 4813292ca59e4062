import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode

from frcnn.errors import SpecError
from frcnn.model import detector
from frcnn.model.backbones import build_backbone
from frcnn.model.detector import DetectionSettings, FasterRCNN, ProposalSettings

SETTINGS = DetectionSettings(pre_nms_top_n=100, post_nms_top_n=20, score_threshold=0.1, max_detections=15)


def build(*, freeze_blocks=(), freeze_bn=False, seed=0, **options):
    torch.manual_seed(seed)
    return FasterRCNN(
        backbone=build_backbone("resnet:10", pool_size=3),
        num_classes=2,
        anchor_scales=[16.0, 32.0],
        anchor_ratios=[1.0, 2.0],
        rpn_sample=32,
        roi_sample=12,
        proposals=ProposalSettings(pre_nms_top_n=150, post_nms_top_n=40),
        freeze_blocks=freeze_blocks,
        freeze_bn=freeze_bn,
        **options,
    )


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 3, 64, 96, generator=generator)
    boxes = torch.zeros(2, 4, 4)
    boxes[0, :2] = torch.tensor([[10.0, 10, 45, 40], [50, 20, 90, 60]])
    return images, boxes, torch.tensor([[0, 1, -1, -1], [-1, -1, -1, -1]])


def losses(model, seed=0, **options):
    return model.losses(*batch(), generator=torch.Generator().manual_seed(seed), **options)


def test_losses_are_finite_and_reach_every_weight():
    model = build()
    values = losses(model)
    assert list(values) == ["rpn_class", "rpn_box", "rcnn_class", "rcnn_box"]
    sum(values.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_same_seed_same_losses_and_another_seed_others():
    first, second, third = (losses(build(), seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


def test_areas_to_ignore_change_the_background_only_and_without_them_nothing_changes():
    plain = losses(build())
    for nothing in (torch.zeros(2, 0, 4), torch.zeros(2, 3, 4)):
        found = losses(build(), ignored=nothing)
        assert all(torch.equal(found[name], plain[name]) for name in plain)
    everywhere = torch.tensor([[[0.0, 0, 96, 64]]]).expand(2, 1, 4)
    found = losses(build(), ignored=everywhere)
    assert torch.equal(found["rpn_box"], plain["rpn_box"])  # of positives, which are fewer than the sample
    assert 0 < found["rpn_class"] < plain["rpn_class"]


def test_loss_weights_multiply():
    plain, weighted = losses(build()), losses(build(loss_weights={"rpn_box": 3.0}))
    torch.testing.assert_close(weighted, plain | {"rpn_box": 3 * plain["rpn_box"]})


def test_some_steps_lower_the_loss():
    model = build()
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    history = []
    for _ in range(5):
        optimizer.zero_grad()
        total = sum(losses(model).values())
        total.backward()
        optimizer.step()
        history.append(total.item())
    assert history[-1] < 0.7 * history[0]


def test_a_batch_without_objects_trains():
    images, boxes, labels = batch()
    values = build().losses(images, boxes * 0, labels * 0 - 1)
    assert values["rpn_box"] == values["rcnn_box"] == 0
    assert values["rpn_class"] > 0
    assert values["rcnn_class"] > 0


def test_frozen_prefix_builds_no_graph():
    model = build(freeze_blocks=[0, 1])
    graphs = []
    for name in ("block_1a_bn_2", "block_2a_bn_2"):
        model.trunk.get_submodule(name).register_forward_hook(lambda *args: graphs.append(args[2].grad_fn))
    before = copy.deepcopy(model.state_dict())
    sum(losses(model).values()).backward()
    assert graphs[0] is None
    assert graphs[1] is not None
    frozen = [*model.trunk.block_layers[0], *model.trunk.block_layers[1]]
    for name, parameter in model.trunk.named_parameters():
        is_frozen = name.partition(".")[0] in frozen
        assert parameter.requires_grad is not is_frozen, name
        assert (parameter.grad is None) is is_frozen, name
    for name, tensor in model.trunk.state_dict().items():
        if name.endswith("running_mean"):
            same = torch.equal(tensor, before[f"trunk.{name}"])
            assert same is (name.partition(".")[0] in frozen), name


def test_a_frozen_block_behind_a_trained_one_passes_the_gradient():
    model = build(freeze_blocks=[1])
    sum(losses(model).values()).backward()
    assert model.trunk.conv1.weight.grad.any()
    assert model.trunk.block_1a_conv_1.weight.grad is None


def test_freezing_outlives_train_and_eval():
    model = build(freeze_bn=True)
    model.eval().train()
    before = copy.deepcopy(model.state_dict())
    sum(losses(model).values()).backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.trunk.bn_conv1.weight.grad.any()
    assert model.head.body.block_4a_bn_1.bias.grad.any()


@pytest.mark.parametrize("blocks", [[4], [0, 9]])
def test_unknown_blocks_are_refused(blocks):
    with pytest.raises(SpecError, match=r"allowed: \[0, 1, 2, 3\]"):
        build(freeze_blocks=blocks)


@pytest.fixture(scope="module")
def trained():
    """Running statistics of one step, random weights."""
    model = build()
    losses(model)
    return model.eval()


def test_detections_have_a_fixed_shape(trained):
    images, _, _ = batch()
    found = trained.detect(images, settings=SETTINGS)
    assert found.boxes.shape == (2, 15, 4)
    assert found.proposals.shape == (2, 20, 4)
    used = found.labels >= 0
    assert used.any()
    assert (found.scores[used] > 0.1).all()
    assert not found.scores[~used].any()
    assert (found.scores[:, :-1] >= found.scores[:, 1:]).all()
    assert found.labels.dtype == torch.int64
    assert torch.equal(found.proposals_valid, found.proposals.any(-1))


def test_one_batch_or_two_is_the_same(trained):
    images, _, _ = batch()
    together = trained.detect(images, settings=SETTINGS)
    alone = [trained.detect(image[None], settings=SETTINGS) for image in images]
    for whole, *parts in zip(together, *alone, strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), atol=1e-3, rtol=1e-3)


def test_detections_stay_in_the_valid_part(trained):
    images, _, _ = batch()
    found = trained.detect(images, settings=SETTINGS, image_sizes=torch.tensor([[64.0, 96.0], [40.0, 50.0]]))
    assert found.boxes[1, :, 2].max() <= 49
    assert found.boxes[1, :, 3].max() <= 39
    assert found.boxes[0, :, 2].max() > 49


def test_neighbours_of_other_sizes_change_nothing(trained):
    sizes = [(64, 96), (40, 50), (48, 96), (40, 50)]
    images = torch.zeros(4, 3, 64, 96)
    generator = torch.Generator().manual_seed(3)
    for image, (height, width) in zip(images, sizes, strict=True):
        image[:, :height, :width] = torch.randn(3, height, width, generator=generator)
    calls = []
    together = trained.detect(
        images,
        settings=SETTINGS,
        image_sizes=torch.tensor(sizes, dtype=torch.float32),
        after_network=lambda: calls.append(1),
    )
    assert calls == [1]
    alone = [
        trained.detect(image[None, :, :height, :width], settings=SETTINGS)
        for image, (height, width) in zip(images, sizes, strict=True)
    ]
    assert all((found.labels >= 0).any() for found in alone)
    for whole, *parts in zip(together, *alone, strict=True):
        torch.testing.assert_close(whole, torch.cat(parts), atol=1e-3, rtol=1e-3)


def test_objects_in_a_smaller_image_train():
    sizes = torch.tensor([[64.0, 96.0], [40.0, 50.0]])
    values = losses(build(), image_sizes=sizes)
    assert all(value.isfinite() for value in values.values())


@pytest.mark.parametrize(("nms_form", "crop_form"), [("blocked", "grid_sample"), ("matrix", "roi_align")])
def test_forms_do_not_change_detections(trained, nms_form, crop_form):
    images, _, _ = batch()
    other = copy.deepcopy(trained)
    other.nms_form, other.crop_form = nms_form, crop_form
    for a, b in zip(
        trained.detect(images, settings=SETTINGS), other.detect(images, settings=SETTINGS), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_a_step_never_reads_a_value_back(monkeypatch):
    # A fake tensor has no values: .item(), a branch on one and data-dependent shapes all fail. On the CPU
    # the step does look at values, where that is free; this is the step that a GPU runs.
    monkeypatch.setattr(detector, "_mask", lambda valid: valid.flatten())
    model = build(nms_form="blocked", crop_form="grid_sample")
    fake = FakeTensorMode()
    with FakeCopyMode(fake):
        model = copy.deepcopy(model)
    with fake:
        images, labels = torch.empty(2, 3, 64, 96), torch.empty(2, 4, dtype=torch.int64)
        values = model.losses(images, torch.empty(2, 4, 4), labels, ignored=torch.empty(2, 3, 4))
        sum(values.values()).backward()
        found = model.eval().detect(images, settings=SETTINGS)
    assert found.boxes.shape == (2, 15, 4)
    assert model.trunk.conv1.weight.grad.shape == (64, 3, 7, 7)


def test_detect_exports_with_static_shapes(trained):
    class Wrapper(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = copy.deepcopy(trained)
            self.model.nms_form, self.model.crop_form = "matrix", "grid_sample"

        def forward(self, images):
            return self.model.detect(images, settings=SETTINGS)

    images, _, _ = batch()
    exported = torch.export.export(Wrapper(), (images,)).module()
    expected = trained.detect(images, settings=SETTINGS)
    for a, b in zip(exported(images), expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_the_layout_in_memory_changes_no_result():
    first, second = (build(channels_last=flag) for flag in (True, False))
    weights = first.trunk.conv1.weight, second.trunk.conv1.weight
    assert [w.is_contiguous(memory_format=torch.channels_last) for w in weights] == [True, False]
    for name, value in losses(first).items():
        torch.testing.assert_close(losses(second)[name], value)


def test_stages_compile_to_one_graph_each_and_keep_their_names():
    torch.compiler.reset()
    plain, compiled = build(), build()
    compiled.compile_stages(backend="eager")  # without the minutes that machine code takes
    assert list(compiled.state_dict()) == list(plain.state_dict())
    for name, value in losses(plain).items():
        torch.testing.assert_close(losses(compiled)[name], value)
    assert copy.deepcopy(compiled) is not None  # the moving average needs a copy
