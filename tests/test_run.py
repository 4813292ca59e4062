"""Whole runs, as a user starts them: what they leave behind, that they repeat, and how they end."""

import csv
import json
import shutil
import subprocess
import sys

import pytest
import runs
import torch
from html_reader import Reader
from PIL import Image
from project import ROOT

from frcnn.bridge import prototxt, yaml
from frcnn.entry.main import main
from frcnn.lit_module import LitFasterRCNN


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return runs.scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """The folder of a finished run of two epochs."""
    out = tmp_path_factory.mktemp("runs") / "first"
    assert runs.train(folder, out) == 0
    return out


def losses(out):
    with (out / "metrics.csv").open() as file:
        return [row["train/loss"] for row in csv.DictReader(file) if row.get("train/loss")]


def results(out):
    return json.loads((out / "results.json").read_text())


def test_a_run_leaves_what_the_readme_lists(finished):
    names = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    assert names == {
        *("config.yaml", "spec.txt", "status.json", "metrics.csv", "results.json", "log.txt"),
        *("report/index.html", "report/first_batch.png", "report/confusion.png", "report/calibration.png"),
        *("report/losses.png", "report/map.png", "report/validation.png", "report/worst.png"),
        *("checkpoints/frcnn_resnet_10.epoch_1.ckpt", "checkpoints/frcnn_resnet_10.epoch_2.ckpt"),
        *("checkpoints/last.ckpt", "checkpoints/best.ckpt"),
    }


def test_settings_are_stored_in_both_forms_with_absolute_paths(finished, folder):
    spec = prototxt.load(finished / "spec.txt")
    assert spec == yaml.load(finished / "config.yaml")
    assert spec.dataset_config.data_sources[0].tfrecords_path == str(folder / "training" / "label_2")
    assert main("train", [f"spec={finished / 'spec.txt'}", "--cfg", "job"]) == 0


def test_the_report_is_for_someone_without_an_account(finished, folder):
    text = (finished / "report" / "index.html").read_text()
    assert len(text) < 5_000_000
    page = Reader(text)
    cells = [text for place, text in page.texts if "/td" in place]
    at = cells.index("training_config.num_epochs")
    assert cells[at : at + 3] == ["training_config.num_epochs", "2", "command line"]
    at = cells.index("model_config.arch")
    assert cells[at : at + 3] == ["model_config.arch", "resnet:10", "group backbone=resnet10"]
    assert any(str(folder) in text for place, text in page.texts if place.endswith("caption"))
    facts = [text for place, text in page.texts if place.endswith(("dt", "dd"))]
    assert facts[facts.index("Epochs") + 1] == "2 of 2"
    assert facts[facts.index("torch") + 1] == torch.__version__.partition("+")[0]
    named = [*results(finished)["worst_images"], *results(finished)["best_images"]]
    assert named
    assert page.tags.count("img") == 6 + 3 + len(named)
    assert [text for place, text in page.texts if place.endswith("header/p/span")] == ["finished"]


def test_metrics_count_epochs_from_one(finished):
    with (finished / "metrics.csv").open() as file:
        assert {row["epoch"] for row in csv.DictReader(file)} == {"1", "2"}


def test_results_follow_the_schema(finished):
    found = results(finished)
    assert found["schema"] == 1
    assert found["command"] == "train"
    assert found["iou_thresholds"] == [0.5]
    assert set(found["per_class"]) == {"car", "pedestrian", "cyclist"}
    keys = {"AP", "precision", "recall", "rpn_recall", "ground_truth", "detections"}
    assert all(keys <= set(values) for values in found["per_class"].values())
    assert (found["images"], found["epoch"], found["metric"]) == (3, 2, "area")
    assert found["images_per_second"] > 0
    assert found["best"]["checkpoint"] == "best.ckpt"
    assert torch.__version__.startswith(found["versions"]["torch"])
    assert len(found["spec_sha256"]) == 64
    assert "NaN" not in (finished / "results.json").read_text()


def test_checkpoints_hold_weights_and_settings_and_nothing_to_execute(finished):
    content = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)
    assert prototxt.loads(content["frcnn"]["spec"]) == prototxt.load(finished / "spec.txt")
    assert "detector.trunk.conv1.weight" in content["state_dict"]


def test_status_lines_follow_the_original(finished):
    lines = [json.loads(line) for line in (finished / "status.json").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["STARTED", "RUNNING", "RUNNING", "RUNNING", "SUCCESS"]
    assert lines[-1]["message"] == "Training finished successfully."


def test_the_log_tells_what_became_of_every_object(finished):
    log = (finished / "log.txt").read_text()
    assert "training: 6 images" in log
    assert "car" in log
    assert "adam: beta_1 0.9, beta_2 0.999" in log


def test_pictures_are_pictures(finished):
    for name in ("losses", "map", "validation"):
        with Image.open(finished / "report" / f"{name}.png") as image:
            assert min(image.size) > 300


def test_evaluate_reproduces_the_last_validation(finished, tmp_path):
    model = finished / "checkpoints" / "last.ckpt"
    assert main("evaluate", [f"model_path={model}", f"hydra.run.dir={tmp_path / 'eval'}"]) == 0
    again, before = results(tmp_path / "eval"), results(finished)
    assert again["mAP"] == pytest.approx(before["mAP"], abs=1e-6)
    for name, values in before["per_class"].items():
        assert again["per_class"][name]["AP"] == pytest.approx(values["AP"], abs=1e-6)
        assert again["per_class"][name]["detections"] == values["detections"]
    assert again["command"] == "evaluate"
    assert (tmp_path / "eval" / "report" / "validation.png").exists()
    page = Reader((tmp_path / "eval" / "report" / "index.html").read_text())
    headings = [text for place, text in page.texts if place.endswith("section/h2")]
    assert headings == [
        *("Classes", "Precision and recall", "COCO", "Confusion", "Calibration", "Time"),
        *("Worst images", "Validation images", "Data", "Model", "Settings", "Environment"),
    ]
    lines = [json.loads(line) for line in (tmp_path / "eval" / "status.json").read_text().splitlines()]
    assert [line["status"] for line in lines] == ["STARTED", "SUCCESS"]
    assert lines[-1]["kpi"] == {"mAP": again["mAP"]}  # TAO: a number here, strings in training


def test_evaluate_takes_settings_from_the_command_line_but_not_the_network(finished, tmp_path, capsys):
    model = f"model_path={finished / 'checkpoints' / 'last.ckpt'}"
    assert main("evaluate", [model, "model_config.arch=resnet:18"]) == 2
    assert "come with the checkpoint" in capsys.readouterr().err
    curve = "evaluation_config.visualize_pr_curve=true"
    assert main("evaluate", [model, "evaluation=coco", curve, f"hydra.run.dir={tmp_path / 'eval'}"]) == 0
    assert len(list((tmp_path / "eval" / "report").glob("PR_curve_0.??.png"))) == 10
    assert len(results(tmp_path / "eval")["iou_thresholds"]) == 10


@pytest.mark.slow
def test_the_built_in_data_set_is_drawn_and_drawn_again_for_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("FRCNN_CACHE", str(tmp_path / "cache"))
    small = [item for item in runs.SMALL if "num_epochs" not in item]
    assert main("train", [*small, "hparams=smoke", f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    model = f"model_path={tmp_path / 'run' / 'checkpoints' / 'last.ckpt'}"
    assert main("evaluate", [model, f"hydra.run.dir={tmp_path / 'first'}"]) == 0
    shutil.rmtree(tmp_path / "cache")
    assert main("evaluate", [model, f"hydra.run.dir={tmp_path / 'second'}"]) == 0
    found = [results(tmp_path / name)["per_class"] for name in ("run", "first", "second")]
    assert found[0] == found[1] == found[2]


def test_the_same_seed_gives_the_same_losses(finished, folder, tmp_path):
    assert runs.train(folder, tmp_path / "again") == 0
    assert losses(tmp_path / "again") == losses(finished) != []
    assert results(tmp_path / "again")["per_class"] == results(finished)["per_class"]


def test_worker_processes_change_nothing(finished, folder, tmp_path):
    assert runs.train(folder, tmp_path / "again", "run.num_workers=2") == 0
    assert losses(tmp_path / "again") == losses(finished)


def test_a_folder_with_a_run_is_refused_with_three_ways_on(finished, folder, capsys):
    before = (finished / "results.json").read_bytes()
    assert runs.train(folder, finished) == 2
    message = capsys.readouterr().err
    assert all(words in message for words in ("another folder", "run.resume=last", "run.overwrite=true"))
    assert (finished / "results.json").read_bytes() == before


def test_resume_goes_on_and_overwrite_starts_anew(folder, tmp_path):
    out = tmp_path / "run"
    assert runs.train(folder, out, "training_config.num_epochs=1") == 0
    assert runs.train(folder, out, "run.resume=last") == 0
    assert results(out)["epoch"] == 2
    assert len(losses(out)) == 6
    assert (out / "checkpoints" / "frcnn_resnet_10.epoch_2.ckpt").exists()
    assert runs.train(folder, out, "run.overwrite=true", "training_config.num_epochs=1") == 0
    assert results(out)["epoch"] == 1
    assert not (out / "checkpoints" / "frcnn_resnet_10.epoch_2.ckpt").exists()


def test_a_spec_trains_the_sgd_step_l1_way_and_stops_early(folder, tmp_path):
    out = tmp_path / "run"
    more = (
        "optimizer=sgd",
        "lr=step",
        "training_config.learning_rate.step.base_lr=0.0",
        "training_config.regularizer.type=L1",
        "training_config.early_stopping.monitor=loss",
        "training_config.early_stopping.patience=1",
        "training_config.early_stopping.min_delta=1000",
        "training_config.num_epochs=5",
        "training_config.checkpoint_interval=2",
    )
    assert runs.train(folder, out, *more) == 0
    assert results(out)["epoch"] == 2  # one epoch sets the mark, one is patience
    names = sorted(path.name for path in (out / "checkpoints").iterdir())
    assert names == ["best.ckpt", "frcnn_resnet_10.epoch_2.ckpt", "last.ckpt"]


def test_a_loss_that_is_no_number_stops_the_run(folder, tmp_path, capsys):
    out = tmp_path / "run"
    assert runs.train(folder, out, "optimizer=sgd", "training_config.optimizer.sgd.lr=1e30") == 1
    message = capsys.readouterr().err
    assert "the loss is not a finite number" in message
    assert str(folder / "training" / "image_2") in message
    assert json.loads((out / "status.json").read_text().splitlines()[-1])["status"] == "FAILURE"
    page = Reader((out / "report" / "index.html").read_text())
    assert [text for place, text in page.texts if place.endswith("header/p/span")] == ["failed"]
    assert any("the loss is not a finite number" in text for _, text in page.texts)


def test_gray_networks_train(folder, tmp_path):
    assert runs.train(folder, tmp_path / "run", "model=gray", "training_config.num_epochs=1") == 0
    weights = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert weights["detector.trunk.conv1.weight"].shape[1] == 1


def test_no_validation_means_no_map(folder, tmp_path):
    more = ("dataset_config.validation_data_source=null", "training_config.num_epochs=1")
    assert runs.train(folder, tmp_path / "run", *more) == 0
    assert results(tmp_path / "run")["mAP"] is None
    assert "no validation" in (tmp_path / "run" / "log.txt").read_text()


def test_several_loggers_write_side_by_side(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    out = tmp_path / "run"
    assert runs.train(folder, out, "logger=[csv,tensorboard,wandb]", "training_config.num_epochs=1") == 0
    assert (out / "metrics.csv").exists()
    assert list((out / "tensorboard").glob("events.*"))
    assert list((out / "wandb").glob("offline-run-*/*.wandb"))


def test_a_sweep_has_a_folder_per_job(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [
        *runs.data(folder),
        *runs.SMALL,
        "training_config.num_epochs=1",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
    ]
    assert main("train", ["-m", *arguments, "optimizer=adam,sgd"]) == 0
    found = [yaml.load(tmp_path / "sweep" / job / "config.yaml").training_config.optimizer for job in "01"]
    assert [member.adam is None for member in found] == [False, True]
    assert all((tmp_path / "sweep" / job / "results.json").exists() for job in "01")


def test_ctrl_c_ends_with_130_and_leaves_a_good_checkpoint(folder, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *runs.data(folder), *runs.SMALL]
    command += [f"hydra.run.dir={out}", "training_config.num_epochs=500"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if "epoch 2/500" in line:
            process.send_signal(2)
            break
    rest = process.stderr.read()
    assert process.wait(60) == 130
    assert "Traceback" not in rest
    assert "run.resume=last" in rest
    last = json.loads((out / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "FAILURE"
    assert '<span class="state interrupted">' in (out / "report" / "index.html").read_text()
    assert "state_dict" in torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)


def test_two_processes_share_a_run(folder, tmp_path):
    """Data parallel on the CPU: one folder, every validation image once, the rate times the devices."""
    out = tmp_path / "run"
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *runs.data(folder), *runs.SMALL]
    command += ["trainer.accelerator=cpu", "trainer.devices=2", "trainer.strategy=ddp"]
    command += ["training_config.num_epochs=1", f"hydra.run.dir={out}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150)
    assert done.returncode == 0, done.stderr
    assert results(out)["images"] == 3
    with (out / "metrics.csv").open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file) if row.get("lr")]
    assert rates[0] == pytest.approx(2 * 1e-4)
    assert json.loads((out / "status.json").read_text().splitlines()[-1])["status"] == "SUCCESS"
    evaluation = [
        "evaluate.py",
        f"model_path={out / 'checkpoints' / 'last.ckpt'}",
        f"hydra.run.dir={tmp_path / 'eval'}",
    ]
    assert main("evaluate", [*evaluation[1:], "trainer.devices=1", "trainer.strategy=auto"]) == 0
    assert results(tmp_path / "eval")["mAP"] == pytest.approx(results(out)["mAP"], abs=1e-6)


def test_resume_needs_nothing_but_the_folder_and_equals_an_unbroken_run(finished, folder, tmp_path, capsys):
    out = tmp_path / "run"
    # One epoch of a two-epoch run: stop it as Ctrl-C would, then go on as its message says.
    assert runs.train(folder, out) == 0
    for name in ("frcnn_resnet_10.epoch_2.ckpt", "last.ckpt", "best.ckpt"):
        (out / "checkpoints" / name).unlink()
    (out / "checkpoints" / "frcnn_resnet_10.epoch_1.ckpt").rename(out / "checkpoints" / "last.ckpt")
    assert main("train", ["run.resume=last", f"hydra.run.dir={out}"]) == 0
    ours, theirs = (
        torch.load(path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for path in (out, finished)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert results(out)["per_class"] == results(finished)["per_class"]
    assert losses(out) == losses(finished)
    assert "resume" not in yaml.parse((out / "config.yaml").read_text()).extra["run"]["resume"]

    assert main("train", ["run.resume=last", f"hydra.run.dir={out}"]) == 2
    assert "the run is complete" in capsys.readouterr().err
    assert json.loads((out / "status.json").read_text().splitlines()[-1])["status"] == "SUCCESS"
    assert results(out)["mAP"] is not None
    more = ["run.resume=last", f"hydra.run.dir={out}", "training_config.num_epochs=3"]
    assert main("train", [*more, "model_config.roi_pooling_config.pool_size=3"]) == 2
    assert "model_config" in capsys.readouterr().err
    assert main("train", ["run.resume=last", f"hydra.run.dir={tmp_path / 'none'}"]) == 2


def test_overwriting_begins_only_once_the_new_run_does(folder, tmp_path):
    out = tmp_path / "run"
    assert runs.train(folder, out, "training_config.num_epochs=1") == 0
    before = sorted(
        (path.name, path.read_bytes()) for path in out.rglob("*") if path.suffix in (".json", ".ckpt")
    )
    broken = ("run.overwrite=true", f"dataset_config.data_sources.0.image_directory_path={tmp_path / 'none'}")
    assert runs.train(folder, out, *broken) == 2
    after = sorted(
        (path.name, path.read_bytes()) for path in out.rglob("*") if path.suffix in (".json", ".ckpt")
    )
    assert after == before
    model = f"model_path={out / 'checkpoints' / 'last.ckpt'}"
    assert main("evaluate", [model, f"hydra.run.dir={out}", "run.overwrite=true"]) == 2
    assert main("evaluate", [model, f"hydra.run.dir={out}", "run.resume=last"]) == 2
    assert results(out)["command"] == "train"
    assert (out / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize(
    "more",
    [
        ("evaluation_config.validation_period_during_training=5",),
        (
            "training_config.num_epochs=9",
            "evaluation_config.validation_period_during_training=5",
            "training_config.early_stopping.patience=1",
            "training_config.early_stopping.monitor=loss",
            "training_config.early_stopping.min_delta=1000",
        ),
    ],
    ids=["period beyond the end", "early stop between validations"],
)
def test_results_speak_of_the_last_checkpoint(folder, tmp_path, more):
    out = tmp_path / "run"
    assert runs.train(folder, out, *more) == 0
    found = results(out)
    assert found["epoch"] == found["best"]["epoch"] == 2
    assert (
        main(
            "evaluate", [f"model_path={out / 'checkpoints' / 'last.ckpt'}", f"hydra.run.dir={tmp_path / 'e'}"]
        )
        == 0
    )
    assert results(tmp_path / "e")["mAP"] == pytest.approx(found["mAP"], abs=1e-6)
    assert results(tmp_path / "e")["epoch"] == 2


def test_trainer_options_reach_lightning(folder, tmp_path):
    out = tmp_path / "run"
    options = (
        "trainer.precision=bf16-mixed",
        "trainer.accumulate_grad_batches=3",
        "trainer.gradient_clip_val=1.0",
    )
    assert (
        runs.train(folder, out, *options, "trainer.limit_val_batches=1", "training_config.num_epochs=1") == 0
    )
    content = torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 1
    assert results(out)["images"] == 3  # one batch of up to four
    assert content["state_dict"]["detector.trunk.conv1.weight"].dtype == torch.float32


@pytest.mark.slow
def test_a_compiled_network_trains_as_any_other(finished, folder, tmp_path):
    assert runs.train(folder, tmp_path / "run", "run.compile=true", "run.ema_decay=0.9") == 0
    first, second = (list(map(float, losses(out))) for out in (finished, tmp_path / "run"))
    assert second[0] == pytest.approx(first[0], rel=1e-3)  # later ones go apart with the chosen regions
    assert len(second) == len(first)


def test_a_batch_size_is_found_and_kept(folder, tmp_path, caplog):
    out = tmp_path / "run"
    assert runs.train(folder, out, "run.auto_batch=true", "training_config.num_epochs=1") == 0
    assert "batch_size_per_gpu is 1: " in caplog.text  # a tenth of six images, at least one
    stored = yaml.parse((out / "config.yaml").read_text())
    assert stored.spec.training_config.batch_size_per_gpu == 1
    assert stored.extra["run"]["auto_batch"] is False


def test_mixed_precision_clipping_and_accumulation_train(folder, tmp_path):
    more = [
        "trainer.precision=bf16-mixed",
        "trainer.gradient_clip_val=0.5",
        "trainer.accumulate_grad_batches=2",
    ]
    assert runs.train(folder, tmp_path / "run", *more, "training_config.num_epochs=1") == 0
    content = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] == 2  # three batches of two images, two batches a step
    assert all(value.dtype != torch.bfloat16 for value in content["state_dict"].values())
    assert len(losses(tmp_path / "run")) == 2


def test_no_memory_names_what_to_lower(folder, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...")

    monkeypatch.setattr(LitFasterRCNN, "training_step", fail)
    assert runs.train(folder, tmp_path / "run") == 1
    message = capsys.readouterr().err
    for words in ("CUDA out of memory", "batch_size_per_gpu", "roi_mini_batch", "run.auto_batch=true"):
        assert words in message
