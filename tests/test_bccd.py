"""Real pictures, beside the project: what training reaches, and that ImageNet's weights are worth it (slow)."""

import json

import pytest

from frcnn.entry.main import main

pytestmark = pytest.mark.slow


def train(shared_data, out, *more):
    """mAP at IoU 0.5 on the validation folder, of 292 images at 320x240 and the settings of the shared spec."""
    bccd = shared_data / "bccd"
    source, validation = "dataset_config.data_sources.0", "dataset_config.validation_data_source"
    arguments = [
        f"spec={shared_data / 'specs' / 'bccd_resnet18.txt'}",
        f"{source}.tfrecords_path={bccd}/tfrecords/train*",
        f"{source}.image_directory_path={bccd}/train",
        f"{validation}.tfrecords_path={bccd}/tfrecords/val*",
        f"{validation}.image_directory_path={bccd}/val",
        "evaluation_config.validation_period_during_training=6",
        "run.num_workers=0",
        f"hydra.run.dir={out}",
        *more,
    ]
    assert main("train", arguments) == 0
    return json.loads((out / "results.json").read_text())["mAP"]


def imagenet(shared_data):
    weights = shared_data / "weights" / "mobilenet_v2-b0353104.pth"
    return ["backbone=mobilenet_v2", f"training_config.pretrained_weights={weights}"]


def test_imagenet_beats_a_start_from_scratch(shared_data, tmp_path):
    two = ["training_config.num_epochs=2"]
    pretrained = train(shared_data, tmp_path / "pretrained", *imagenet(shared_data), *two)
    scratch = train(shared_data, tmp_path / "scratch", "backbone=mobilenet_v2", *two)
    assert pretrained > scratch + 0.15


@pytest.mark.parametrize("seed", [42, 1])
def test_resnet18_from_scratch(shared_data, tmp_path, seed):
    assert train(shared_data, tmp_path / "run", f"random_seed={seed}") >= 0.55
