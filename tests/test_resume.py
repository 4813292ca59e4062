"""A run that was stopped, killed or finished goes on as if nothing had been."""

import csv
import json
import os
import signal
import subprocess
import sys

import pytest
import runs
import torch
from project import ROOT

from frcnn.entry.main import main

EPOCHS = 3
SPEED = "throughput/"  # what depends on the clock
MORE = (
    f"training_config.num_epochs={EPOCHS}",
    "training_config.early_stopping.monitor=loss",  # it looks at the epochs' means, so those must be whole
    "training_config.early_stopping.patience=100",
    "model_config.dropout_rate=0.2",
    "backbone=mobilenet_v2",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return runs.scenes(tmp_path_factory.mktemp("scenes"), train=8, val=2)


def options(folder, out, *more):
    small = [item for item in runs.SMALL if not item.startswith(("backbone", "training_config.num_epochs"))]
    return [*runs.data(folder), *small, *MORE, f"hydra.run.dir={out}", *more]


@pytest.fixture(scope="module")
def unbroken(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    assert main("train", options(folder, out)) == 0
    return out


# A training that gets a signal as the given step begins, wherever that happens to be.
SIGNALLED = """
import os, sys
from frcnn.entry.main import main
from frcnn.lit_module import LitFasterRCNN
number, step = int(sys.argv[1]), int(sys.argv[2])
training_step = LitFasterRCNN.training_step
def watched(module, batch, batch_idx):
    if module.global_step == step:
        os.kill(os.getpid(), number)
    return training_step(module, batch, batch_idx)
LitFasterRCNN.training_step = watched
sys.exit(main("train", sys.argv[3:]))
"""


def run_until(step, number, arguments):
    """Run a training in a process of its own up to a signal; returns how it ended."""
    command = [sys.executable, "-c", SIGNALLED, str(int(number)), str(step), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def stored(out):
    return torch.load(out / "checkpoints" / "last.ckpt", weights_only=True)


def rows(out):
    with (out / "metrics.csv").open() as file:
        found = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
    return [{name: value for name, value in row.items() if not name.startswith(SPEED)} for row in found]


def assert_same(ours, theirs):
    """Bit for bit, down to the optimizer and the figures of every step and epoch."""
    a, b = stored(ours), stored(theirs)
    assert a["global_step"] == b["global_step"] == 4 * EPOCHS
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks"):
        same(a[part], b[part], part)
    ordered = [sorted(map(sorted, map(dict.items, rows(out)))) for out in (ours, theirs)]
    assert ordered[0] == ordered[1]
    first, second = (json.loads((out / "results.json").read_text()) for out in (ours, theirs))
    for name in ("mAP", "per_class", "epoch", "best"):
        assert first[name] == second[name]


def same(a, b, place):
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), place
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), place
        for key in (key for key in a if not str(key).startswith(SPEED)):
            same(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), place
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{place}.{i}")
    elif not str(a).endswith(".ckpt"):
        assert a == b, place


def test_a_run_that_is_killed_within_an_epoch(folder, unbroken, tmp_path):
    out = tmp_path / "run"
    ended = run_until(7, signal.SIGKILL, options(folder, out, "run.save_every_n_steps=2"))
    assert ended.returncode == -signal.SIGKILL
    assert stored(out)["global_step"] == 6  # of 4 an epoch
    # Steps go on where they were, so one of another size is no longer possible.
    resume = ["run.resume=last", f"hydra.run.dir={out}"]
    other = subprocess.run(
        [sys.executable, ROOT / "scripts" / "train.py", *resume, "training_config.batch_size_per_gpu=1"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert other.returncode == 2
    assert "stopped within an epoch" in other.stderr
    assert main("train", resume) == 0
    assert_same(out, unbroken)


def test_a_run_that_is_told_to_end_within_an_epoch(folder, unbroken, tmp_path):
    out = tmp_path / "run"
    ended = run_until(5, signal.SIGTERM, options(folder, out))
    assert ended.returncode == 143, ended.stderr
    assert "run.resume=last" in ended.stderr
    assert json.loads((out / "status.json").read_text().splitlines()[-1])["status"] == "FAILURE"
    assert stored(out)["global_step"] == 6  # the step is finished first
    assert main("train", ["run.resume=last", f"hydra.run.dir={out}"]) == 0
    assert_same(out, unbroken)


@pytest.mark.slow
def test_gradients_under_way_and_validations_are_finished_first(folder, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    more = ["trainer.accumulate_grad_batches=2", "run.ema_decay=0.9"]
    assert main("train", options(folder, whole, *more)) == 0
    # Step 3 of 6 has two batches; the second signal comes in the last validation, and ends nothing.
    ended = run_until(3, signal.SIGTERM, options(folder, parts, *more))
    assert ended.returncode == 143, ended.stderr
    assert stored(parts)["global_step"] == 4
    validating = SIGNALLED.replace("training_step", "validation_step").replace("global_step", "current_epoch")
    command = [sys.executable, "-c", validating, "15", "2", "run.resume=last", f"hydra.run.dir={parts}"]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=300, check=False)
    assert done.returncode == 0
    same(stored(parts)["current_model_state"], stored(whole)["current_model_state"], "weights")
    same(stored(parts)["state_dict"], stored(whole)["state_dict"], "average")


def test_a_job_that_is_started_again_begins_or_goes_on(folder, tmp_path, capsys):
    out = tmp_path / "run"
    again = ["run.resume=auto", "training_config.num_epochs=2", "training_config.batch_size_per_gpu=1"]
    assert main("train", options(folder, out, "run.resume=auto", "training_config.num_epochs=1")) == 0
    # With other batches the schedule still ends with the last epoch.
    assert main("train", options(folder, out, *again)) == 0
    rates = [float(row["lr"]) for row in rows(out) if "lr" in row]
    assert len(rates) == 4 + 8
    assert rates[-1] < 0.5 * max(rates[4:])
    # A power cut in a line of the log; a run whose results are missing is finished.
    with (out / "metrics.csv").open("a") as file:
        file.write("3,0.0009")
    (out / "results.json").unlink()
    assert main("train", ["run.resume=last", f"hydra.run.dir={out}"]) == 0
    assert json.loads((out / "results.json").read_text())["epoch"] == 2
    assert main("train", ["run.resume=last", f"hydra.run.dir={out}"]) == 2
    assert "the run is complete" in capsys.readouterr().err


def test_a_finished_run_is_extended_with_other_settings(folder, unbroken, tmp_path, capsys, caplog):
    # As TAO's users do it: the checkpoint is named, the run is the one that it lies in.
    out = tmp_path / "run"
    short = options(folder, out, "training_config.num_epochs=1")
    assert main("train", short) == 0
    last = out / "checkpoints" / "last.ckpt"
    more = ["training_config.num_epochs=2", "training_config.regularizer.weight=0.5"]
    more += ["training_config.learning_rate.soft_start.base_lr=0.004"]
    assert main("train", [f"training_config.resume_from_model={last}", *more]) == 0
    assert "going on after epoch 1 of 2" in caplog.text
    assert "training_config.num_epochs 1 -> 2" in caplog.text
    assert "the learning rate follows the schedule as it is now, over 2 epochs" in caplog.text
    assert json.loads((out / "results.json").read_text())["epoch"] == 2
    content = stored(out)
    assert content["optimizer_states"][0]["param_groups"][0]["weight_decay"] == 1.0  # TAO: 2 * 0.5
    # Step 4 of 8 is at half of the way, where soft_start is at base_lr; the old run had ended at its own.
    rates = {int(row["step"]): float(row["lr"]) for row in rows(out) if "lr" in row}
    assert rates[4] == pytest.approx(0.004)
    assert rates[3] == pytest.approx(0.001)
    assert len(rates) == 8


def test_a_checkpoint_far_from_its_run_brings_its_settings(folder, unbroken, tmp_path, caplog):
    away, out = tmp_path / "kept.ckpt", tmp_path / "out"
    away.write_bytes((unbroken / "checkpoints" / "frcnn_mobilenet_v2.epoch_1.ckpt").read_bytes())
    goes_on = [f"training_config.resume_from_model={away}", "training_config.num_epochs=2"]
    assert main("train", [*goes_on, f"hydra.run.dir={out}"]) == 0
    assert "going on after epoch 1 of 2" in caplog.text
    assert json.loads((out / "results.json").read_text())["epoch"] == 2
    jobs = tmp_path / "jobs"
    assert main("train", ["-m", *goes_on, "training_config.regularizer.weight=0.5", "-r", str(jobs)]) == 0
    assert json.loads((jobs / "0" / "results.json").read_text())["epoch"] == 2


def test_an_average_of_the_weights_is_stored_validated_and_gone_on_with(folder, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main("train", options(folder, whole, "run.ema_decay=0.9", "training_config.num_epochs=2")) == 0
    content, name = stored(whole), "detector.rpn.rpn_out_class.weight"
    assert not torch.equal(content["state_dict"][name], content["current_model_state"][name])
    evaluated = tmp_path / "evaluated"
    model = whole / "checkpoints" / "last.ckpt"
    assert main("evaluate", [f"model_path={model}", f"hydra.run.dir={evaluated}"]) == 0
    figures = [json.loads((out / "results.json").read_text())["per_class"] for out in (whole, evaluated)]
    assert figures[0] == figures[1]
    # In two parts it is the same, and a run without an average is no part of it.
    assert main("train", options(folder, parts, "run.ema_decay=0.9", "training_config.num_epochs=2")) == 0
    first = parts / "checkpoints" / "frcnn_mobilenet_v2.epoch_1.ckpt"
    first.replace(parts / "checkpoints" / "last.ckpt")
    resume = ["run.resume=last", f"hydra.run.dir={parts}"]
    assert main("train", [*resume, "run.ema_decay=0"]) == 2
    assert main("train", resume) == 0
    again = stored(parts)
    for part in ("state_dict", "current_model_state", "averaging_state", "optimizer_states"):
        same(again[part], content[part], part)


def test_only_the_newest_numbered_checkpoints_stay(folder, tmp_path):
    assert main("train", options(folder, tmp_path / "run", "run.keep_checkpoints=2")) == 0
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    numbered = ["frcnn_mobilenet_v2.epoch_2.ckpt", "frcnn_mobilenet_v2.epoch_3.ckpt"]
    assert names == ["best.ckpt", *numbered, "last.ckpt"]
