"""Inputs of varying size (spec-and-data 5.6), trained and evaluated in batches as a user would."""

import json

import pytest
import runs
from PIL import Image
from tiny_data import label, write_kitti

from frcnn.entry.main import main

SIZES = [(128, 192), (150, 130), (128, 300)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """KITTI folders whose images differ in size; one bright car each."""
    root = tmp_path_factory.mktemp("sizes")
    for split in ("training", "validation"):
        for i, (height, width) in enumerate(SIZES):
            write_kitti(root / split, {f"{i}": [label("car", 20, 30, 80, 90)]}, width=width, height=height)
    return root


def train(folder, out, *more):
    items = [
        *runs.data(folder),
        *runs.SMALL,
        "model=dynamic",
        "augmentation=dynamic",
    ]
    items += ["dataset_config.target_class_mapping={car: car}", f"hydra.run.dir={out}", *more]
    return main("train", items)


def test_batches_of_different_sizes_train_validate_and_evaluate(folder, tmp_path):
    out = tmp_path / "run"
    assert train(folder, out, "training_config.num_epochs=2", "evaluation_config.batch_size=3") == 0
    found = json.loads((out / "results.json").read_text())
    assert found["images"] == 3
    assert found["per_class"]["car"]["ground_truth"] == 3
    with Image.open(out / "report" / "first_batch.png") as sheet:
        assert sheet.width > 192
    model = f"model_path={out / 'checkpoints' / 'last.ckpt'}"
    alone = tmp_path / "alone"
    assert main("evaluate", [model, "evaluation_config.batch_size=1", f"hydra.run.dir={alone}"]) == 0
    one = json.loads((alone / "results.json").read_text())
    assert one["images"] == 3
    # The batch of three is padded; images are evaluated without that, so the batch changes no score.
    first, second = (found["per_class"]["car"] for found in (found, one))
    assert second["detections"] == first["detections"] > 10
    assert second["rpn_recall"] == first["rpn_recall"]
    for figure in ("score", "precision", "detections"):
        assert second["calibration"][figure] == pytest.approx(first["calibration"][figure], abs=1e-4)


def test_a_dynamic_model_needs_its_limits(folder, tmp_path, capsys):
    assert train(folder, tmp_path / "run", "augmentation=none") == 2
    message = capsys.readouterr().err
    assert "output_image_max" in message
    assert "augmentation=dynamic" in message
