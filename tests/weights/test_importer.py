"""Whole detectors: out and in again, pruned and quantised, and files that are another network's."""

import pytest
import torch
from keras_files import SIZE, groups, make, model_config, narrow_plan, randomise, write, write_detector

from frcnn.errors import SpecError, WeightsError
from frcnn.model.backbones import BACKBONES
from frcnn.weights.checkpoint import Checkpoint, save_detector
from frcnn.weights.importer import guess, import_detector, look
from frcnn.weights.keras_hdf5 import read_hdf5

DEFAULTS = {"use_bias": False, "all_projections": False, "use_pooling": False, "pool_size_2x": False}


def load(path, arch="resnet:10", *, expected=(), **options):
    def build(channels):
        return make(arch, channels=channels, **options)

    return import_detector(
        read_hdf5(path), build, arch=arch, expected={**DEFAULTS, **options, **dict(expected)}
    )


def assert_same(found, wanted):
    theirs = wanted.state_dict()
    for name, value in found.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(value, theirs[name]), name


FAMILIES = ("resnet:10", "resnet101", "vgg:16", "vgg16", "googlenet", "mobilenet_v1", "mobilenet_v2")
FAMILIES += ("darknet:19", "efficientnet:b0")


@pytest.mark.parametrize(
    ("arch", "config"),
    [
        *((arch, arch in ("resnet:10", "mobilenet_v2")) for arch in FAMILIES),
        *(pytest.param(arch, True, marks=pytest.mark.slow) for arch in BACKBONES),
    ],
)
def test_out_and_in_again(tmp_path, arch, config):
    """Narrow networks, so pruned files at the same time; a weight file numbers the head's layers."""
    source = randomise(make(arch, channels=narrow_plan(arch)))
    imported = load(write_detector(tmp_path / "a.hdf5", source, config=config), arch)
    assert imported.pruned
    assert_same(imported.detector, source)


@pytest.mark.parametrize("options", [{"use_bias": True}, {"all_projections": True}, {"use_pooling": True}])
def test_options(tmp_path, options):
    source = randomise(make("resnet:18", channels=narrow_plan("resnet:18", **options), **options))
    path = write_detector(tmp_path / "a.hdf5", source)
    assert_same(load(path, "resnet:18", **options).detector, source)
    with pytest.raises(WeightsError) as error:
        load(path, "resnet:18")
    name = next(iter(options))
    assert f"found: {name} True in the file" in str(error.value)
    assert f"allowed: {name} False in the settings" in str(error.value)


def test_what_a_file_shows(tmp_path):
    options = {"use_bias": True, "all_projections": True, "use_pooling": True, "pool_size_2x": True}
    plan = narrow_plan("resnet:18", **options)
    source = make("resnet:18", channels=plan, in_channels=1, num_classes=4, ratios=(1.0, 2.0), **options)
    assert look(read_hdf5(write_detector(tmp_path / "a.hdf5", source)), "resnet:18")[1] == {
        **options,
        "in_channels": 1,
        "num_classes": 4,
        "num_anchors": 6,
        "pool_size": SIZE,
        "input_size": (128, 192),
    }
    # Strides and crop sizes stand in model_config alone.
    shown = look(read_hdf5(write_detector(tmp_path / "a.h5", source, config=False)), "resnet:18")[1]
    assert shown.keys() == {"use_bias", "all_projections", "in_channels", "num_classes", "num_anchors"}


def test_crop_size_by_the_first_dense_layer(tmp_path):
    source = make("vgg16", channels=narrow_plan("vgg16"), pool_size=3)
    file = read_hdf5(write_detector(tmp_path / "a.h5", source, config=False))
    assert look(file, "vgg16")[1]["pool_size"] == 3


@pytest.mark.parametrize("name", ["num_classes", "num_anchors", "in_channels", "pool_size"])
def test_numbers_that_disagree(tmp_path, name):
    path = write_detector(tmp_path / "a.hdf5", make(channels=narrow_plan()))
    found = {"num_classes": 2, "num_anchors": 9, "in_channels": 3, "pool_size": SIZE}[name]
    with pytest.raises(WeightsError, match=f"found: {name} {found} in the file\n  allowed: {name} 77 in the"):
        load(path, expected={name: 77})


def test_activations_that_disagree(tmp_path):
    """Only EfficientNet has a choice."""
    source = make("efficientnet:b0", channels=narrow_plan("efficientnet:b0"))
    config = model_config(source)
    config["config"]["layers"].append(
        {"name": "act", "class_name": "Activation", "config": {"name": "act", "activation": "relu"}}
    )
    layers = {name: weights for name, (_, weights) in groups(source).items()}
    path = write(tmp_path / "a.hdf5", layers, config=config)
    with pytest.raises(WeightsError, match="activation relu in the file\n  allowed: activation swish in the"):
        load(path, "efficientnet:b0", expected={"activation": "swish"})
    assert load(path, "efficientnet:b0", activation="relu").pruned


def test_an_unpruned_network_has_no_plan_of_its_own(tmp_path):
    source = make()
    path = write_detector(tmp_path / "a.hdf5", source)
    assert not load(path).pruned
    # The RPN may be the only layer that was pruned.
    source = make(channels={"rpn_conv1": 24})
    imported = load(write_detector(tmp_path / "a.hdf5", source))
    assert (imported.pruned, imported.detector.rpn.rpn_conv1.out_channels) == (True, 24)


def test_a_pruned_file_that_does_not_fit_together(tmp_path):
    source = make(channels=narrow_plan())
    layers = {name: weights for name, (_, weights) in groups(source).items()}
    layers["block_1a_conv_shortcut"]["kernel"] = layers["block_1a_conv_shortcut"]["kernel"][..., :4]
    path = write(tmp_path / "a.hdf5", layers, config=model_config(source))
    with pytest.raises(SpecError, match="need the same number of channels"):
        load(path)
    layers = {name: weights for name, (_, weights) in groups(source).items()}
    layers["block_1a_conv_2"]["kernel"] = layers["block_1a_conv_2"]["kernel"][:, :, :4]
    path = write(tmp_path / "a.hdf5", layers, config=model_config(source))
    with pytest.raises(
        WeightsError, match=r"block_1a_conv_2: weight \(8, 4, 3, 3\) in the file, \(8, 8, 3, 3\) here"
    ):
        load(path)


def test_a_quantised_file(tmp_path):
    source = randomise(make(channels=narrow_plan()))
    scales = {"conv1_qdq": 4.5, "time_distributed_3_qdq": 2.5}
    imported = load(write_detector(tmp_path / "a.hdf5", source, middle="_1", relu6=True, scales=scales))
    assert_same(imported.detector, source)
    assert imported.detector.trunk.ceiling == imported.detector.head.body.ceiling == 6
    assert imported.traits["activation_scales"] == {"conv1": 4.5, "block_4a_conv_2": 2.5}


def test_another_network(tmp_path):
    path = write_detector(tmp_path / "a.hdf5", make("resnet:18", channels=narrow_plan("resnet:18")))
    with pytest.raises(WeightsError) as error:
        load(path, "resnet:34")
    assert "found: resnet:18\n  allowed: resnet:34\n  try: model_config.arch=resnet:18" in str(error.value)


@pytest.mark.slow
def test_names_that_two_networks_share_are_told_apart_by_widths(tmp_path):
    assert (
        guess(read_hdf5(write_detector(tmp_path / "a.hdf5", make("efficientnet:b2"), config=False)))[0]
        == "efficientnet:b2"
    )


def test_a_network_that_none_of_ours_is(tmp_path):
    source = make(channels=narrow_plan())
    layers = {name.replace("block_1a", "unit_1a"): weights for name, (_, weights) in groups(source).items()}
    with pytest.raises(WeightsError, match="layers missing: block_1a_bn_1, .*layers too many: unit_1a_bn_1"):
        load(write(tmp_path / "a.hdf5", layers, config=model_config(source)))
    config = model_config(source)
    next(layer for layer in config["config"]["layers"] if layer["name"] == "conv1")["config"]["strides"] = [
        4,
        4,
    ]
    layers = {name: weights for name, (_, weights) in groups(source).items()}
    with pytest.raises(WeightsError, match="resnet:10 with biases or strides that none of its options gives"):
        load(write(tmp_path / "a.hdf5", layers, config=config))


def test_a_backbone_is_no_detector(tmp_path):
    layers = {
        name: weights
        for name, (_, weights) in groups(make(channels=narrow_plan())).items()
        if "td" not in name
    }
    with pytest.raises(
        WeightsError, match="no dense_class, dense_regress\n  try: training_config.pretrained_weights"
    ):
        load(write(tmp_path / "a.hdf5", layers, config={"config": []}))


def test_another_epsilon_is_told(tmp_path, caplog):
    source = make(channels=narrow_plan())
    config = model_config(source)
    next(layer for layer in config["config"]["layers"] if layer["name"] == "bn_conv1")["config"][
        "epsilon"
    ] = 1e-5
    layers = {name: weights for name, (_, weights) in groups(source).items()}
    load(write(tmp_path / "a.hdf5", layers, config=config))
    assert "epsilon of bn_conv1 is 1e-05, and 0.001 here" in caplog.text


def test_a_pruned_detector_as_a_checkpoint(tmp_path):
    source = randomise(make(channels=narrow_plan()))
    imported = load(write_detector(tmp_path / "a.hdf5", source, scales={"conv1_qdq": 4.5}))
    stored = {"config": "", **imported.traits}
    save_detector(imported.detector, tmp_path / "a.ckpt", stored=stored)
    stored = Checkpoint(tmp_path / "a.ckpt")
    assert stored.content["frcnn"]["activation_scales"] == {"conv1": 4.5}
    assert stored.epochs == 0
    again = make(channels=stored.channels)
    stored.load_into(again)
    assert_same(again, source)


def test_a_keras_file_in_place_of_a_checkpoint(tmp_path):
    with pytest.raises(WeightsError, match=r"import_weights\.py IN OUT\.ckpt"):
        Checkpoint(tmp_path / "model.hdf5")
