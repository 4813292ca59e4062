"""Small runs for tests: a few drawn scenes, a small network, settings that take seconds."""

from pathlib import Path

from frcnn.data.toy import ensure_toy
from frcnn.entry.main import main

SMALL = (
    "backbone=resnet10",
    "training_config.num_epochs=2",
    "training_config.batch_size_per_gpu=2",
    "training_config.checkpoint_interval=1",
    "training_config.rpn_pre_nms_top_N=200",
    "training_config.rpn_nms_max_boxes=40",
    "model_config.roi_mini_batch=8",
    "model_config.roi_pooling_config.pool_size=2",
    "evaluation_config.rpn_pre_nms_top_N=200",
    "evaluation_config.rpn_nms_max_boxes=20",
    "evaluation_config.validation_period_during_training=1",
    "run.num_workers=0",
)


def scenes(folder: Path, *, train: int = 6, val: int = 3) -> Path:
    """A small drawn data set: folder/training and folder/validation."""
    return ensure_toy(folder, train=train, val=val)


def data(folder: Path) -> list[str]:
    """Overrides that point at a KITTI data set of `scenes`."""
    classes = "{car: car, pedestrian: pedestrian, cyclist: cyclist}"
    return [
        "dataset=kitti",
        f"run.data_root={folder}",
        "training=toy",
        "run.natural.height=128",
        "run.natural.width=192",
        "run.natural.scale=[16,32,64]",
        f"dataset_config.target_class_mapping={classes}",
    ]


def train(folder: Path, out: Path, *more: str) -> int:
    """Run the train command; returns its exit code."""
    return main("train", [*data(folder), *SMALL, f"hydra.run.dir={out}", *more])
