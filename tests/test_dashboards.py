"""What W&B (offline) and TensorBoard get of a run, read back from their files; the report needs neither."""

import json
import re

import pytest
import runs
from html_reader import Reader
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb_files import OfflineRun

from frcnn.bridge import prototxt
from frcnn.callbacks import WandbMedia

LOSSES = {f"train/{name}" for name in ("loss", "loss_rpn_class", "loss_rcnn_box")}
APS = {"val/mAP", "val/AP/car", "val/AP/pedestrian", "val/AP/cyclist"}
VISUALIZER = (
    "training_config.visualizer.enabled=true",
    "training_config.visualizer.num_images=3",
    "training_config.visualizer.wandb_config.project=ours",
    "training_config.visualizer.wandb_config.name=night",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return runs.scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def offline():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setenv("WANDB_SILENT", "true")
        yield


@pytest.fixture(scope="module")
def once(folder, offline, tmp_path_factory):
    """A run of one epoch that the spec's visualizer sends to TensorBoard and W&B."""
    out = tmp_path_factory.mktemp("runs") / "one"
    more = ("logger.csv=false", "logger.tensorboard=true", "logger.wandb=true", "run.log_checkpoints=true")
    assert runs.train(folder, out, "training_config.num_epochs=1", *VISUALIZER, *more) == 0
    return out


@pytest.fixture(scope="module")
def resumed(once, folder):
    """The same after a second epoch, which was added by resuming."""
    assert runs.train(folder, once, "run.resume=last", "training_config.num_epochs=2") == 0
    return once


def events(out):
    reader = EventAccumulator(str(out / "tensorboard"), size_guidance={"images": 0, "scalars": 0})
    return reader.Reload()


def test_wandb_has_the_same_run_before_and_after_resuming(resumed):
    known = json.loads((resumed / "wandb" / "run.json").read_text())
    assert re.fullmatch(r"night_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", known["name"])
    folders = sorted(resumed.glob("wandb/offline-run-*"))
    assert len(folders) == 2
    starts = [next(iter(OfflineRun(resumed, number=i).of("run"))) for i in (0, 1)]
    assert {(run.run_id, run.project, run.display_name) for run in starts} == {
        (known["id"], "ours", known["name"])
    }
    steps = [[row["trainer/global_step"] for row in OfflineRun(resumed, number=i).history] for i in (0, 1)]
    assert max(steps[0]) <= min(steps[1])


def test_wandb_has_the_figures(once):
    run = OfflineRun(once, number=0)
    rows = run.history
    steps = [row for row in rows if "train/loss" in row]
    assert len(steps) == 3
    assert {*LOSSES, "lr", "throughput/images_per_second", "epoch"} <= steps[0].keys()
    (validated,) = [row for row in rows if "val/mAP" in row]
    assert validated.keys() >= APS
    assert validated["epoch"] == 1
    metrics = {metric.name or metric.glob_name: metric for metric in run.of("metric")}
    assert metrics["val/*"].step_metric == "epoch"
    assert [end.exit_code for end in run.of("exit")] == [0]


def test_wandb_has_settings_spec_and_checkpoints(once):
    run = OfflineRun(once, number=0)
    config = {
        update.key: json.loads(update.value_json) for part in run.of("config") for update in part.update
    }
    assert config["model_config.arch"] == "resnet:10"
    assert config["training_config.regularizer.type"] == "L2"
    assert not any(key.endswith(("enc_key", "wandb_config.key")) and value for key, value in config.items())
    assert run.artifacts["spec"] == ["spec.txt"]
    assert run.artifacts["model"] == ["best.ckpt", "last.ckpt"]


def test_wandb_has_images_with_boxes_to_toggle_by_class(once):
    run = OfflineRun(once, number=0)
    (shown,) = [row for row in run.history if "validation_images.count" in row]
    assert shown["validation_images.count"] == 3
    assert all((run.folder / "files" / name).is_file() for name in shown["validation_images.filenames"])
    first = shown["validation_images.all_boxes"][0]
    assert set(first) == {"ground_truth", "detections"}
    truth = json.loads((run.folder / "files" / first["ground_truth"]["path"]).read_text())
    assert truth["class_labels"] == {"0": "car", "1": "cyclist", "2": "pedestrian"}
    position = truth["box_data"][0]["position"]
    assert 0 <= position["minX"] < position["maxX"] <= 192
    assert 0 <= position["minY"] < position["maxY"] <= 128
    (ended,) = [row for row in run.history if "evaluation/worst.path" in row]
    assert {"evaluation/confusion.path", "evaluation/calibration.path"} < ended.keys()
    assert ended["trainer/global_step"] == shown["trainer/global_step"]
    assert (run.folder / "files" / ended["evaluation/worst.path"]).is_file()
    (augmented,) = [row for row in run.history if "augmented_images.count" in row]
    assert augmented["augmented_images.count"] == 3


def test_tensorboard_has_the_same_and_goes_on_in_its_folder(resumed):
    reader = events(resumed)
    tags = reader.Tags()
    assert {*LOSSES, *APS, "lr", "throughput/images_per_second", "epoch"} <= set(tags["scalars"])
    assert [event.step for event in reader.Scalars("train/loss")] == [0, 1, 2, 3, 4, 5]
    assert reader.Scalars("epoch")[0].value == 1
    assert len(reader.Scalars("val/AP/car")) == 2
    ended = {f"evaluation/{name}" for name in ("worst", "confusion", "calibration")}
    assert set(tags["images"]) - {"evaluation/best"} == {"image/validation", "image/augmented_images", *ended}
    assert len(reader.Images("image/validation")) == 2
    image = reader.Images("image/validation")[0]
    assert max(image.width, image.height) <= 1600
    text = reader.Tensors("spec/text_summary")[0].tensor_proto.string_val[0].decode()
    spec = "\n".join(line.removeprefix("    ") for line in text.splitlines())
    assert prototxt.loads(spec).model_config.arch == "resnet:10"
    assert not tags["histograms"]  # the original wrote them whatever the flag said


def test_the_report_has_the_curves_of_both_parts_without_any_csv(resumed):
    assert not (resumed / "metrics.csv").exists()
    page = Reader((resumed / "report" / "index.html").read_text())
    assert "2 of 2" in [text for place, text in page.texts if place.endswith("dl/div/dd")]
    marks = [text for place, text in page.texts if place.endswith("circle/title")]
    assert [mark.rpartition(" at ")[2] for mark in marks if mark.startswith("total")][:6] == list("123456")


def test_weight_histograms_when_asked(folder, tmp_path):
    more = ("training_config.visualizer.weight_histograms=true", "training_config.visualizer.enabled=true")
    assert runs.train(folder, tmp_path / "run", "training_config.num_epochs=1", *more) == 0
    tags = events(tmp_path / "run").Tags()
    assert {"weights/trunk/conv1/weight", "weights/head/dense_class/weight"} <= set(tags["histograms"])
    assert {tag for tag in tags["images"] if tag.startswith("image")} == {
        "image/validation"
    }  # num_images is 0


def test_a_wandb_run_that_fails_is_closed_as_failed(folder, offline, tmp_path, capsys):
    out = tmp_path / "run"
    more = ("logger=wandb", "optimizer=sgd", "training_config.optimizer.sgd.lr=1e30")
    assert runs.train(folder, out, *more) == 1
    import wandb

    assert wandb.run is None
    assert [end.exit_code for end in OfflineRun(out, number=0).of("exit")] == [1]


def test_boxes_that_are_padding_or_unsure_are_not_sent():
    import torch

    media = WandbMedia(
        None, settings={}, spec=None, validation=None, class_names=["car"], pixels=None, min_score=0.5
    )
    boxes, labels = torch.tensor([[1.0, 2, 3, 4]] * 3), torch.tensor([0, 0, -1])
    sent = media._boxes(boxes, labels, torch.tensor([0.9, 0.4, 0.9]))
    assert sent["class_labels"] == {0: "car"}
    (box,) = sent["box_data"]
    assert box["position"] == {"minX": 1, "minY": 2, "maxX": 3, "maxY": 4}
    assert (box["class_id"], box["box_caption"], box["domain"]) == (0, "car 0.90", "pixel")
    assert box["scores"]["score"] == pytest.approx(0.9)
    assert len(media._boxes(boxes, labels)["box_data"]) == 2
