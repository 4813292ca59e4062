"""Loading by name and shape, and the table of what became of each layer."""

import json
import logging

import pytest
import torch
from keras_files import groups, keras_weights, make, narrow_plan, randomise, write, write_detector
from torch import nn

from frcnn.errors import WeightsError
from frcnn.model.batch_norm import BatchNorm2d
from frcnn.weights.checkpoint import save_detector
from frcnn.weights.load import channel_plan_of, load_layers
from frcnn.weights.sources import load_pretrained

PLAN = narrow_plan()


def model():
    layers = {"conv1": nn.Conv2d(3, 4, 3), "bn_conv1": BatchNorm2d(4), "fc1": nn.Linear(4, 2)}
    return nn.ModuleDict(layers)


def test_yes_no_and_none():
    layers = {
        "conv1": {"weight": torch.ones(4, 3, 3, 3), "bias": torch.zeros(4)},
        "bn_conv1": {n: torch.ones(5) for n in ("weight", "bias", "running_mean", "running_var")},
        "predictions": {"weight": torch.ones(2, 2)},
    }
    network = model()
    report = load_layers(network, layers, source="a.h5")
    assert [(row.name, row.kind, row.status) for row in report.rows] == [
        ("conv1", "Conv2d", "Yes"),
        ("bn_conv1", "BatchNorm2d", "No"),
        ("fc1", "Linear", "None"),
    ]
    assert report.rows[1].note == "weight (5,) in the file, (4,) here"
    assert report.unused == ("predictions",)
    assert (network["conv1"].weight == 1).all()
    assert (network["bn_conv1"].running_mean == 0).all()
    assert network["bn_conv1"].num_batches_tracked == 0
    assert json.loads(json.dumps(report.to_dict()))["rows"][0] == {
        "name": "conv1",
        "kind": "Conv2d",
        "status": "Yes",
        "note": "",
    }
    lines = report.table().splitlines()
    assert lines[0] == "a.h5: 1 of 3 layers loaded; not used: predictions"
    assert [line.split()[:2] for line in lines[4:]] == [
        ["conv1(Conv2d)", "Yes"],
        ["bn_conv1(BatchNorm2d)", "No"],
        ["fc1(Linear)", "None"],
    ]


def test_a_layer_is_loaded_whole_or_not_at_all():
    layers = {
        "fc1": {"weight": torch.ones(2, 4), "bias": torch.ones(2)},
        "conv1": {"weight": torch.ones(4, 3, 3, 3)},
    }
    network = model()
    before = network["conv1"].weight.clone()
    row = load_layers(network, layers, source="a.h5").rows[0]
    assert (row.status, row.note) == ("No", "weight in the file, bias + weight here")
    assert torch.equal(network["conv1"].weight, before)


def test_loaded_statistics_outlast_the_first_steps():
    """Bias correction weighs step t by max(1 / t, momentum): 0.01 after many, 1 after none."""
    network = model()
    names = ("weight", "bias", "running_mean", "running_var")
    load_layers(network, {"bn_conv1": {name: torch.full((4,), 5.0) for name in names}}, source="a.h5")
    bn = network["bn_conv1"].train()
    bn(torch.zeros(2, 4, 3, 3))
    assert bn.running_mean[0].item() == pytest.approx(4.95)


def test_nothing_that_fits_is_an_error():
    with pytest.raises(WeightsError) as error:
        load_layers(model(), {f"layer_{i}": {"weight": torch.ones(2)} for i in range(9)}, source="a.h5")
    assert "layer_0, layer_1" in str(error.value)
    assert "and 4 more" in str(error.value)
    assert "conv1, bn_conv1, fc1" in str(error.value)
    with pytest.raises(WeightsError, match=r"fc1: weight \(9, 9\) in the file"):
        layers = {"fc1": {"weight": torch.ones(9, 9), "bias": torch.ones(2)}}
        load_layers(model(), layers, source="a.h5")


def test_weights_that_are_no_numbers_are_named(caplog):
    layers = {"fc1": {"weight": torch.full((2, 4), float("nan")), "bias": torch.ones(2)}}
    load_layers(model(), layers, source="a.h5")
    assert "no finite numbers in fc1" in caplog.text


def test_channel_plan_of_shapes():
    layers = {
        "conv1": {"weight": torch.ones(24, 3, 7, 7)},
        "bn": {"weight": torch.ones(24), "running_mean": torch.ones(24)},
        "fc1": {"weight": torch.ones(40, 8)},
        "dw": {"weight": torch.ones(16, 1, 3, 3)},
    }
    assert channel_plan_of(layers) == {"conv1": 24, "fc1": 40, "dw": 16}


def test_pretrained_weights_fill_backbone_and_heads(tmp_path):
    """Other classes: their dense layers keep their start, everything else is loaded."""
    source = randomise(make(channels=PLAN, num_classes=5))
    detector = make(channels=PLAN, num_classes=2)
    for name, config in (("model.hdf5", True), ("weights.h5", False)):
        report = load_pretrained(detector, str(write_detector(tmp_path / name, source, config=config)))
        assert {row.name for row in report.rows if row.status != "Yes"} == {"dense_class", "dense_regress"}
    assert torch.equal(detector.head.body.block_4a_conv_2.weight, source.head.body.block_4a_conv_2.weight)


def test_a_classification_backbone(tmp_path):
    """Inner names, no RPN, layers that a detector has no use for."""
    source = randomise(make(channels=PLAN))
    layers = {
        inner: weights
        for inner, weights in groups(source).values()
        if inner.startswith(("conv", "bn", "block"))
    }
    layers["predictions"] = keras_weights(nn.Linear(8, 3))
    report = load_pretrained(
        make(channels=PLAN), str(write(tmp_path / "a.hdf5", layers, config={"config": []}))
    )
    assert report.unused == ("predictions",)
    assert [row.name for row in report.rows if row.status == "None"] == [
        *("rpn_conv1", "rpn_out_class", "rpn_out_regress", "dense_class", "dense_regress")
    ]


def test_our_own_checkpoints(tmp_path):
    source = randomise(make(channels=PLAN))
    save_detector(source, tmp_path / "a.ckpt", stored={"config": ""})
    detector = make(channels=PLAN)
    assert len(load_pretrained(detector, str(tmp_path / "a.ckpt")).loaded) == 31
    assert torch.equal(detector.rpn.rpn_conv1.weight, source.rpn.rpn_conv1.weight)


def test_quantised_sources_are_told(tmp_path, caplog):
    path = write_detector(tmp_path / "a.hdf5", make(channels=PLAN), scales={"conv1_qdq": 5.0})
    with caplog.at_level(logging.WARNING):
        load_pretrained(make(channels=PLAN), str(path))
    assert "end at 6" in caplog.text


def test_quantised_checkpoints_are_told_too(tmp_path, caplog):
    save_detector(make(channels=PLAN), tmp_path / "a.ckpt", stored={"config": "", "relu6": True})
    detector = make(channels=PLAN)
    with caplog.at_level(logging.WARNING):
        load_pretrained(detector, str(tmp_path / "a.ckpt"))
    assert "run.relu6=true" in caplog.text
    caplog.clear()
    detector.limit_activations(6.0)
    load_pretrained(detector, str(tmp_path / "a.ckpt"))
    assert "end at 6" not in caplog.text


def test_unknown_kinds_of_files(tmp_path):
    with pytest.raises(WeightsError, match=r"\.hdf5, \.h5, \.tlt, \.ckpt"):
        load_pretrained(make(channels=PLAN), str(tmp_path / "model.onnx"))
