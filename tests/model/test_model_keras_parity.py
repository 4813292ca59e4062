"""Every architecture against an independent graph in Keras, with the same random weights and statistics."""

from pathlib import Path

import numpy as np
import pytest
import seeded_weights
import torch

from frcnn.model.backbones import BACKBONES, build_backbone
from frcnn.model.detector import FasterRCNN

DATA = Path(__file__).parent / "data"
ALL = {"use_bias": True, "use_pooling": True, "all_projections": True, "pool_size_2x": True}
EVERY = [
    {},
    {"use_bias": True},
    {"use_pooling": True},
    {"all_projections": True},
    {"pool_size_2x": True},
    ALL | {"size": (83, 97)},
    {"size": (83, 97), "in_channels": 1},
]
SMALL = ("resnet:10", "resnet:50", "vgg:16", "googlenet", "mobilenet_v1", "mobilenet_v2", "darknet:19")
EXTRA = {
    "efficientnet:b0": [
        *EVERY,
        {"activation": "relu"},
        {"dynamic_size": True, "size": (83, 97)},
        {"size": (75, 90)},
    ]
}


def detector(arch, in_channels=3, pool_size=2, **options):
    model = FasterRCNN(
        backbone=build_backbone(arch, in_channels=in_channels, pool_size=pool_size, **options),
        num_classes=3,
        anchor_scales=[64.0, 128.0, 256.0],
        anchor_ratios=[1.0, 0.5, 2.0],
    )
    return seeded_weights.fill_torch(model).eval()


@torch.no_grad()
def outputs(model, size, in_channels=3):
    """Name -> result for seeded images and crops, as `keras_graphs.outputs`."""
    features = model.feature_map(torch.from_numpy(seeded_weights.images(2, in_channels, *size)))
    rpn = model.rpn(features)
    side = model.crop_size
    crops = torch.from_numpy(seeded_weights.crops(2, features.shape[1], side, side))
    head = model.head(crops)
    found = (features, rpn.logits, rpn.deltas, model.head.body(crops), head.logits, head.deltas)
    names = ("feature_map", "rpn_out_class", "rpn_out_regress", "vectors", "dense_class", "dense_regress")
    return {name: x.numpy() for name, x in zip(names, found, strict=True)}


def assert_close(found, expected):
    assert found.keys() >= expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        assert np.isfinite(value).all(), name
        assert value.std() > 1e-3 * np.abs(value).max(), name
        assert np.abs(found[name] - value).max() <= 1e-4 * np.abs(value).max(), name


def cases():
    for arch in BACKBONES:
        for options in EXTRA.get(arch, EVERY if arch in SMALL else [{}, ALL | {"size": (83, 97)}]):
            yield pytest.param(arch, options, id=f"{arch}-{'-'.join(options)}")


@pytest.mark.tensorflow
@pytest.mark.parametrize(("arch", "options"), list(cases()))
def test_outputs_of_an_independent_graph(arch, options):
    import keras_graphs

    expected = keras_graphs.outputs(keras_graphs.detector(arch, **options))
    options = dict(options)
    size = options.pop("size", (64, 64))
    model = detector(arch, **options)
    assert_close(outputs(model, size, options.get("in_channels", 3)), expected)


@pytest.mark.tensorflow
@pytest.mark.parametrize("arch", ["mobilenet_v1", "googlenet"])
def test_stored_outputs_are_those_of_the_graph(arch):
    import keras_graphs

    with np.load(DATA / f"{arch}.npz") as stored:
        assert_close(keras_graphs.stored(arch), dict(stored))


@pytest.mark.parametrize(
    ("arch", "options"),
    [("mobilenet_v1", {}), ("googlenet", {"use_bias": True, "pool_size_2x": True})],
)
def test_stored_outputs(arch, options):
    """`python tests/keras_graphs.py tests/model/data` wrote them: seeded weights, every fourth channel."""
    found = outputs(detector(arch, **options), (32, 32))
    with np.load(DATA / f"{arch}.npz") as stored:
        assert_close({name: value[:, ::4] for name, value in found.items()}, dict(stored))
