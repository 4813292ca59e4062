"""Every stage against what the original's graph computed for seeded weights (shared data, tao_reference)."""

import gzip
import json
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from frcnn.model.backbones import build_backbone
from frcnn.model.detector import DetectionSettings, FasterRCNN, ProposalSettings
from frcnn.model.rpn import Proposals, RpnOutput

DATA = Path(os.environ.get("FRCNN_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
CASES = DATA / "tao_reference"
COUNTS = {"resnet10": 6_127_357, "mobilenet_v2": 2_828_989}
TENSORS = {
    "kernel": "weight",
    "depthwise_kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}

pytestmark = pytest.mark.skipif(not CASES.exists(), reason="no shared reference data")


def weight(name, shape, scales):
    """The rule of make_hdf5.py beside the case, in PyTorch's axis order."""
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    last = name.rsplit("/", 1)[-1]
    if last.startswith(("gamma", "moving_variance")):
        values = 0.5 + random.rand(*shape)
    elif last.startswith(("beta", "moving_mean", "bias")):
        values = 0.2 * random.randn(*shape)
    else:
        fan = shape[0] * shape[1] if last.startswith("depthwise") else np.prod(shape[:-1])
        values = random.randn(*shape) * np.sqrt(2 / fan) * scales.get(name.split("|")[0], 0.8)
    order = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[len(shape)]
    order = (2, 3, 0, 1) if last.startswith("depthwise") else order
    return torch.from_numpy(values.astype(np.float32).transpose(order).copy())


@pytest.fixture(scope="module", params=COUNTS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    with gzip.open(CASES / f"{name}.json.gz", "rt") as file:
        case = json.load(file)
    options = case["options"]
    model = FasterRCNN(
        backbone=build_backbone(options["arch"], all_projections=True, pool_size=options["pool_size"]),
        num_classes=options["num_classes_with_background"] - 1,
        anchor_scales=options["scale"],
        anchor_ratios=options["ratio"],
        roi_stds=options["classifier_regr_std"],
    ).eval()
    layers = {name.rpartition(".")[2]: layer for name, layer in model.named_modules()}
    wrapped = {
        layer["name"]: layer["config"]["layer"]["config"]["name"]
        for layer in json.loads(case["attrs"]["model_config"])["config"]["layers"]
        if layer["class_name"] == "TimeDistributed"
    }
    loaded = 0
    for layer, weights in case["layers"]:
        for path, shape in weights:
            tensor = getattr(
                layers[wrapped.get(layer, layer)], TENSORS[path.rsplit("/", 1)[-1].split(":")[0]]
            )
            tensor.data.copy_(weight(f"{layer}|{path}", shape, case["scales"]))
            loaded += tensor.numel()
    assert loaded == COUNTS[name]
    return model


@pytest.fixture(scope="module")
def expected(name):
    arrays = np.load(CASES / f"{name}.npz")
    return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


SIZES = torch.tensor([[160.0, 192.0]])


def xyxy(boxes):
    return boxes[..., [1, 0, 3, 2]]


def assert_same(found, expected):
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.fixture(params=[True, False], ids=["gradient", "folded"])
def gradient(request):
    with torch.set_grad_enabled(request.param):
        yield


@pytest.mark.usefixtures("gradient")
def test_trunk_and_rpn(model, expected):
    features = model.feature_map(expected["image"])
    assert_same(features, expected["feature_map"])
    logits, deltas = model.rpn(features)
    assert_same(logits.sigmoid(), expected["rpn_out_class"])
    assert_same(deltas, expected["rpn_out_regress"])


@pytest.mark.parametrize("form", ["greedy", "blocked", "matrix"])
def test_proposals(model, expected, form):
    model.nms_form = form
    output = RpnOutput(expected["rpn_out_class"].logit(), expected["rpn_out_regress"])
    settings = ProposalSettings(pre_nms_top_n=300, post_nms_top_n=60, nms_iou=0.7)
    boxes, valid = model.propose(output, model.anchors(expected["feature_map"]), SIZES, settings=settings)
    assert valid.sum() == expected["proposals"].any(-1).sum()
    torch.testing.assert_close(boxes, xyxy(expected["proposals"]), atol=0.01, rtol=0)


@pytest.mark.parametrize("form", ["gather", "grid_sample", "roi_align"])
def test_crops(model, expected, form):
    model.crop_form = form
    crops = model.crop(expected["feature_map"], xyxy(expected["rois"])[:, :4], input_size=(160, 192))
    assert_same(crops, expected["crop"][0])


@pytest.mark.usefixtures("gradient")
def test_head_and_detections(model, expected):
    rois = xyxy(expected["rois"])
    crops = model.crop(expected["feature_map"], rois, input_size=(160, 192))
    output = model.head(crops)
    assert_same(output.logits.softmax(-1), expected["dense_class"][0])
    assert_same(output.deltas, expected["dense_regress"][0])

    proposals = Proposals(rois, torch.ones(1, 24, dtype=torch.bool))
    found = model.postprocess(output, proposals, SIZES, settings=DetectionSettings())
    count = expected["det_count"].item()
    assert (found.labels >= 0).sum() == count
    assert found.labels[0, :count].tolist() == expected["det_classes"][0, :count].int().tolist()
    torch.testing.assert_close(found.boxes, xyxy(expected["det_boxes"]), atol=0.01, rtol=0)
    torch.testing.assert_close(found.scores, expected["det_scores"], atol=1e-5, rtol=0)
