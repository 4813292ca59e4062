"""A small member of every family learns eight drawn images by heart."""

import json

import pytest
import runs

pytestmark = pytest.mark.slow

SETTINGS = (
    "augmentation=none",
    "training_config.batch_size_per_gpu=4",
    "training_config.checkpoint_interval=1000",
    "training_config.regularizer.weight=1e-6",
    "model_config.roi_mini_batch=16",
    "model_config.roi_pooling_config.pool_size=3",
    "evaluation_config.validation_period_during_training=1000",
    "evaluation_config.rpn_nms_max_boxes=100",
    "run.num_workers=0",
    "logger=none",
)


EPOCHS = {
    **dict.fromkeys(("resnet10", "googlenet", "mobilenet_v1", "mobilenet_v2", "efficientnet_b0"), 250),
    **dict.fromkeys(("vgg16", "darknet19"), 100),
}
"""The large ones need fewer, and more time for each."""


@pytest.mark.parametrize("backbone", EPOCHS)
def test_eight_images(backbone, tmp_path):
    folder = runs.scenes(tmp_path / "toy", train=8, val=1)
    same = [
        f"dataset_config.validation_data_source.tfrecords_path={folder}/training/label_2",
        f"dataset_config.validation_data_source.image_directory_path={folder}/training",
    ]
    settings = [*same, *SETTINGS, f"backbone={backbone}", f"training_config.num_epochs={EPOCHS[backbone]}"]
    assert runs.main("train", [*runs.data(folder), *settings, f"hydra.run.dir={tmp_path / 'out'}"]) == 0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["mAP"] > 0.9
