"""Training that gives the same bits again."""

import copy
import os

import pytest
import runs
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from frcnn.model.backbones import build_backbone
from frcnn.model.detector import FasterRCNN, ProposalSettings
from frcnn.ops import roi
from frcnn.trainer import reproducible

NO_DETERMINISTIC_KERNEL = {
    # aten's names of what torch.use_deterministic_algorithms lists as raising on CUDA, and torchvision's.
    *("avg_pool3d_backward", "_adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward"),
    *("fractional_max_pool2d_backward", "max_unpool2d", "upsample_linear1d_backward"),
    *("upsample_bilinear2d_backward", "upsample_bicubic2d_backward", "_upsample_bilinear2d_aa_backward"),
    *("reflection_pad2d_backward", "nll_loss2d_forward", "put_", "put", "histc", "median", "kthvalue"),
    *("grid_sampler_2d_backward", "_roi_align_backward", "_roi_pool_backward"),
}


class Ops(TorchDispatchMode):
    """The names of what runs."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def detector(arch="resnet:10", form="auto"):
    torch.manual_seed(0)
    return FasterRCNN(
        backbone=build_backbone(arch, pool_size=2, use_pooling=arch == "resnet:10"),
        num_classes=2,
        anchor_scales=(16, 32),
        anchor_ratios=(1.0,),
        roi_sample=8,
        ground_truth_regions=True,
        rpn_sample=16,
        proposals=ProposalSettings(pre_nms_top_n=60, post_nms_top_n=20),
        crop_form=form,
    )


def step(network, device="cpu"):
    """Losses of one batch, and the gradients of all weights."""
    torch.manual_seed(1)
    images = torch.randn(2, 3, 96, 128)
    boxes = torch.tensor([[[8.0, 8, 40, 40], [60, 30, 100, 80]]]).repeat(2, 1, 1)
    labels = torch.tensor([[0, 1], [1, -1]])
    generator = torch.Generator(device).manual_seed(2)
    losses = network.losses(images.to(device), boxes.to(device), labels.to(device), generator=generator)
    torch.stack(list(losses.values())).sum().backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {name: value.detach() for name, value in losses.items()}, gradients


def ops_of(arch, form):
    network = detector(arch, form)
    with Ops() as ops:
        step(network)
    return ops.names


@pytest.mark.parametrize("arch", ["resnet:10", "vgg:16", "efficientnet:b0", "mobilenet_v2"])
def test_no_op_of_a_step_lacks_a_deterministic_kernel(arch):
    assert not ops_of(arch, "matmul") & NO_DETERMINISTIC_KERNEL


@pytest.mark.parametrize("form", ["grid_sample", "roi_align"])
def test_other_crops_have_no_deterministic_backward(form):
    assert ops_of("resnet:10", form) & NO_DETERMINISTIC_KERNEL


def test_a_deterministic_step_equals_the_usual_one():
    usual = step(detector())
    with reproducible(True):
        ours = step(detector(form="matmul"))
    assert all(value > 0 for value in usual[0].values())
    for mine, theirs in zip(ours, usual, strict=True):
        assert mine.keys() == theirs.keys()
        for name, value in mine.items():
            torch.testing.assert_close(value, theirs[name], rtol=1e-5, atol=1e-5)


def test_a_gpu_crops_by_products_only_where_bits_matter():
    gpu = torch.device("cuda")
    assert roi._auto(gpu) == "grid_sample"
    with reproducible(True):
        assert (roi._auto(gpu), roi._auto(torch.device("cpu"))) == ("matmul", "gather")
    assert roi._auto(gpu) == "grid_sample"


def test_settings_of_torch_come_back(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with reproducible(False):
        assert not torch.are_deterministic_algorithms_enabled()
    with pytest.raises(ZeroDivisionError), reproducible(True):
        assert torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        raise ZeroDivisionError
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_two_runs_end_with_the_same_weights(tmp_path, monkeypatch):
    data = runs.scenes(tmp_path / "data", train=4, val=2)
    modes = []
    losses = FasterRCNN.losses

    def watched(*args, **kwargs):
        modes.append(torch.are_deterministic_algorithms_enabled())
        return losses(*args, **kwargs)

    monkeypatch.setattr(FasterRCNN, "losses", watched)
    weights = []
    for name in ("a", "b"):
        more = ("run.deterministic=true", "training_config.num_epochs=1", "augmentation=full")
        assert runs.train(data, tmp_path / name, *more) == 0
        stored = torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)
        weights.append(stored["state_dict"])
    assert modes
    assert all(modes)
    assert not torch.are_deterministic_algorithms_enabled()
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.gpu
def test_a_gpu_gives_the_same_gradients_again():
    network = detector().cuda()
    with reproducible(True):
        first, again = (step(copy.deepcopy(network), "cuda") for _ in range(2))
    for mine, theirs in zip(first, again, strict=True):
        assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
