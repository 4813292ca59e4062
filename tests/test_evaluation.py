"""Evaluations of one small model through the entry point: what they report, and what must not matter."""

import json
from pathlib import Path

import numpy as np
import pytest
import runs
from PIL import Image

from frcnn.entry.main import main


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A checkpoint that finds some of the objects of 5 validation images."""
    folder = tmp_path_factory.mktemp("evaluation")
    more = ("training_config.num_epochs=6", "evaluation_config.validation_period_during_training=6")
    assert runs.train(runs.scenes(folder / "data", train=24, val=5), folder / "run", *more) == 0
    return folder / "run" / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def one(model, tmp_path_factory):
    """The evaluation with batches of one image, at two IoU thresholds."""
    out = tmp_path_factory.mktemp("one")
    span = "evaluation_config.gt_matching_iou_threshold_range={start: 0.5, end: 1.0, step: 0.25}"
    more = ("evaluation_config.batch_size=1", "evaluation_config.visualize_pr_curve=true")
    return out, evaluated(model, out, span, *more)


def evaluated(model, out, *more):
    """results.json of an evaluation."""
    arguments = [f"model_path={model}", f"hydra.run.dir={out}", "run.num_workers=0", "run.overwrite=true"]
    assert main("evaluate", [*arguments, *more]) == 0
    return json.loads((out / "results.json").read_text())


def test_everything_is_reported(one):
    out, found = one
    assert len(found["coco"]) == 12
    assert found["coco"]["AP50"] is not None
    assert found["confusion"]["labels"] == ["car", "cyclist", "pedestrian", ""]
    rows = np.array(found["confusion"]["counts"])
    objects = [figures["ground_truth"] for figures in found["per_class"].values()]
    assert rows[:3].sum(axis=1) == pytest.approx(objects, abs=2)  # those taken by a difficult neighbour apart
    times = found["milliseconds_per_image"]
    assert list(times) == ["pre-processing", "network", "post-processing"]
    assert all(value > 0 for value in times.values())
    named = [*found["worst_images"], *found["best_images"]]
    assert len({image["image"] for image in named}) == len(named) <= 5
    mistakes = [image["wrong"] + image["missed"] for image in found["worst_images"]]
    assert mistakes == sorted(mistakes, reverse=True)
    assert (out / "report" / "best.png").exists() == bool(found["best_images"])
    page = (out / "report" / "index.html").read_text()
    for image in named:
        counts = f"{image['right']} right, {image['wrong']} wrong, {image['missed']} missed"
        assert f"{Path(image['image']).name}: {counts}" in page
    for words in ("Confusion", "Calibration", "COCO", "Precision over recall at IoU 0.75", "post-processing"):
        assert words in page
    assert "COCO, IoU 0.50:0.95" in (out / "log.txt").read_text()


@pytest.mark.parametrize("name", ["confusion", "calibration", "PR_curve_0.50", "PR_curve_0.75", "worst"])
def test_pictures_show_something(one, name):
    out, _ = one
    with Image.open(out / "report" / f"{name}.png") as picture:
        assert picture.width > 400
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 20


def test_batches_of_one_and_of_eight_find_the_same(model, one, tmp_path):
    _, found = one
    assert found["mAP"] > 0
    eight = evaluated(model, tmp_path, "evaluation_config.batch_size=8")
    assert eight["images"] == found["images"] == 5
    assert eight["coco"] == pytest.approx(found["coco"], abs=1e-4)
    for name, figures in found["per_class"].items():
        other = eight["per_class"][name]
        assert other["AP_per_iou"][0] == pytest.approx(figures["AP_per_iou"][0], abs=1e-4)
        assert other["rpn_recall"] == pytest.approx(figures["rpn_recall"], abs=1e-4)


def test_the_original_counts_first_images_twice_and_its_thresholds_are_single(model, tmp_path):
    quirks = ("run.tao_quirks=true", "evaluation_config.gt_matching_iou_threshold=0.7")
    once = evaluated(model, tmp_path / "one", *quirks, "evaluation_config.batch_size=1")
    twice = evaluated(model, tmp_path / "four", *quirks, "evaluation_config.batch_size=4")
    assert once["iou_thresholds"] == twice["iou_thresholds"] == [0.699999988079071]
    objects = [
        sum(v["ground_truth"] + v["difficult"] for v in r["per_class"].values()) for r in (once, twice)
    ]
    assert objects[0] < objects[1]
    assert twice["images"] == 5
    assert twice["coco"] == pytest.approx(once["coco"], abs=1e-4)  # COCO's figures are not the original's


def test_no_detection_at_all(model, tmp_path):
    found = evaluated(model, tmp_path, "evaluation_config.object_confidence_thres=0.999")
    assert found["mAP"] == found["coco"]["AP"] == 0.0
    for figures in found["per_class"].values():
        assert (figures["AP"], figures["precision"], figures["recall"]) == (0.0, None, 0.0)
        assert (figures["detections"], figures["calibration"], figures["best_f1"]) == (0, None, None)
    assert [row[:3] for row in found["confusion"]["counts"]] == [[0, 0, 0]] * 4
    assert (tmp_path / "report" / "calibration.png").exists()


def test_a_class_without_an_object(model, tmp_path):
    """Every cyclist of the labels is called something else, which is background."""
    labels = model.parents[2] / "data"
    files = list(labels.rglob("validation/label_2/*.txt"))
    before = {path: path.read_text() for path in files}
    try:
        for path, text in before.items():
            path.write_text(text.replace("cyclist", "tricycle").replace("Cyclist", "tricycle"))
        found = evaluated(model, tmp_path)
    finally:
        for path, text in before.items():
            path.write_text(text)
    cyclist = found["per_class"].pop("cyclist")
    assert (cyclist["AP"], cyclist["recall"], cyclist["rpn_recall"], cyclist["ground_truth"]) == (
        None,
        None,
        None,
        0,
    )
    assert found["mAP"] == pytest.approx(np.mean([v["AP"] for v in found["per_class"].values()]))
    assert found["confusion"]["counts"][1] == [0, 0, 0, 0]
