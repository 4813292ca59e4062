"""Sweeps as a user starts them: folders, failures, launchers in other processes, Optuna."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import types

import pytest
import runs
from project import ROOT

from frcnn.entry.main import main
from frcnn.errors import RunError

SMALL = [item for item in runs.SMALL if "num_epochs" not in item]
SMALL += ["training_config.num_epochs=1", "trainer.limit_train_batches=2", "trainer.limit_val_batches=1"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return runs.scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """`train` that takes no time: job by job it does what the function says."""

    def use(function):
        def train(app, folder):
            score = function(app, folder)
            found = {"mAP": score, "per_class": {}, "optimized": {"metric": app.run.optimize, "value": score}}
            (folder / "results.json").write_text(json.dumps(found))
            return score

        monkeypatch.setitem(sys.modules, "frcnn.run", types.SimpleNamespace(train=train))
        monkeypatch.setattr("frcnn.run", sys.modules["frcnn.run"], raising=False)

    monkeypatch.setenv("FRCNN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return use


def table(root):
    with (root / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def column(root, name):
    return [row[name] for row in table(root)]


def script(*arguments):
    return [sys.executable, str(ROOT / "scripts" / "train.py"), *map(str, arguments)]


def test_jobs_of_different_networks_share_one_folder(pretend, tmp_path, capsys):
    pretend(lambda app, folder: 0.5 if app.model_config.arch == "resnet:34" else 0.25)
    assert main("train", ["-m", "backbone=resnet18,resnet34", "lr=soft_start,step"]) == 0
    (root,) = (tmp_path / "results" / "train").glob("*/*")
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == ["0", "1", "2", "3"]
    assert column(root, "backbone") == ["resnet18", "resnet18", "resnet34", "resnet34"]
    assert column(root, "lr") == ["soft_start", "step"] * 2
    assert column(root, "mAP") == ["0.25", "0.25", "0.5", "0.5"]
    assert column(root, "best") == ["", "", "best", ""]
    assert "2 best" in capsys.readouterr().err


def test_a_failed_job_is_named_and_stops_no_other(pretend, tmp_path, capsys):
    def work(app, folder):
        if app.random_seed == 1:
            raise RunError("the disk is full", where="here")
        return 0.5

    pretend(work)
    # In batches of one Hydra would stop at the first failure.
    more = ["hydra.sweeper.max_batch_size=1", "-r", str(tmp_path / "out")]
    assert main("train", ["-m", "random_seed=0,1,2", *more]) == 1
    assert column(tmp_path / "out", "status") == ["done", "failed", "done"]
    said = capsys.readouterr().err
    assert "1 of 3 jobs did not finish" in said
    assert "job 1 failed: here: the disk is full" in said
    assert "Traceback" not in said and "overrides:" not in said


def test_wrong_settings_of_a_job_are_its_own_failure(pretend, tmp_path):
    pretend(lambda app, folder: 0.5)
    arguments = ["-m", "training_config.num_epochs=2,-1", "-r", str(tmp_path / "out")]
    assert main("train", arguments) == 2
    assert column(tmp_path / "out", "status") == ["done", "failed"]


def test_an_interrupted_sweep_still_has_its_table(pretend, tmp_path, capsys):
    def work(app, folder):
        if app.random_seed == 1:
            raise KeyboardInterrupt
        return 0.5

    pretend(work)
    assert main("train", ["-m", "random_seed=0,1,2", "-r", str(tmp_path / "out")]) == 130
    assert column(tmp_path / "out", "status") == ["done", "interrupted"]
    assert "interrupted" in capsys.readouterr().err


def test_the_folder_of_a_sweep_is_not_used_twice(pretend, tmp_path, capsys):
    pretend(lambda app, folder: 0.5)
    assert main("train", ["-m", "random_seed=0,1", "-r", str(tmp_path / "a b")]) == 0
    assert main("train", ["-m", "random_seed=7", "-r", str(tmp_path / "a b")]) == 2
    assert "holds a sweep" in capsys.readouterr().err
    assert len(table(tmp_path / "a b")) == 2
    assert main("train", ["-m", "random_seed=7", "run.overwrite=true", "-r", str(tmp_path / "a b")]) == 0
    assert len(table(tmp_path / "a b")) == 1


def test_a_launcher_without_its_plugin_names_the_extra(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for choice in ("hydra/launcher=joblib", "hydra/launcher=slurm", "hydra/launcher=local", "hparams=search"):
        assert main("train", ["-m", choice]) == 2
        assert "pip install 'frcnn[sweep]'" in capsys.readouterr().err
    assert main("train", ["-m", "hydra/launcher=ray"]) == 2
    assert "pip install 'frcnn[ray]'" in capsys.readouterr().err


def test_a_launcher_without_a_sweep_is_refused(capsys):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    assert main("train", ["hydra/launcher=joblib", "lr=step"]) == 2
    assert "add -m" in capsys.readouterr().err


def test_a_search_over_adams_rate_is_not_for_another_optimizer(capsys):
    assert main("train", ["-m", "hparams=search", "optimizer=sgd"]) == 2
    assert "found: optimizer=sgd" in capsys.readouterr().err


def test_help_lists_launchers_and_sweepers(capsys):
    assert main("train", ["--help"]) == 0
    page = capsys.readouterr().out
    names = ("joblib", "slurm", "local", "ray", "optuna", "search")
    assert all(f"    {name} " in page for name in names)


def test_optuna_looks_for_the_best_rate_decay_and_anchors(pretend, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")

    def work(app, folder):
        if folder.name == "2":
            raise RunError("lost")
        assert app.training_config.regularizer.type.name == "L2"
        return 1 - abs(app.training_config.optimizer.adam.lr - 1e-3)

    pretend(work)
    arguments = ["-m", "hparams=search", "hydra.sweeper.n_trials=5", "-r", str(tmp_path / "out")]
    assert main("train", arguments) == 1  # a job failed, the search went on
    rows = table(tmp_path / "out")
    assert [row["status"] for row in rows] == ["done", "done", "failed", "done", "done"]
    rates = [float(row["training_config.optimizer.adam.lr"]) for row in rows]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates) and len(set(rates)) == 5
    assert len({row["training_config.regularizer.weight"] for row in rows}) == 5
    scales = {row["model_config.anchor_box_config.scale"] for row in rows}
    assert scales <= {"[11.2,22.4,44.8]", "[16,32,64]", "[22.4,44.8,89.6]"} and len(scales) > 1
    best = max((row for row in rows if row["mAP"]), key=lambda row: float(row["mAP"]))
    assert [row["job"] for row in rows if row["best"]] == [best["job"]]
    found = (tmp_path / "out" / "optimization_results.yaml").read_text()
    assert f"best_value: {best['mAP']}" in found


def test_optuna_minimises_a_loss_and_says_when_nothing_worked(pretend, tmp_path, capsys):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
    pretend(lambda app, folder: float(app.random_seed))
    arguments = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "run.optimize=train/loss_epoch"]
    seeds = "random_seed=range(1,9)"
    assert main("train", ["-m", *arguments, seeds, "-r", str(tmp_path / "out")]) == 0
    rows = table(tmp_path / "out")
    least = min(float(row["train/loss_epoch"]) for row in rows)
    assert [float(row["train/loss_epoch"]) for row in rows if row["best"]] == [least]
    assert f"best_value: {least}" in (tmp_path / "out" / "optimization_results.yaml").read_text()

    pretend(lambda app, folder: None)  # such as mAP without validation
    assert main("train", ["-m", *arguments, seeds, "-r", str(tmp_path / "none")]) == 1
    assert "the sweep could not go on" in capsys.readouterr().err


def test_every_job_has_a_run_of_wandb_and_closes_it(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    arguments = [*runs.data(folder), *SMALL, "logger=[csv,tensorboard,wandb]", "optimizer=sgd"]
    arguments += ["training_config.optimizer.sgd.lr=1e30,1e-3", "-r", str(tmp_path / "many" / "out")]
    assert main("train", ["-m", *arguments]) == 1
    import wandb

    assert wandb.run is None
    groups = []
    for job in "01":
        (file,) = (tmp_path / "many" / "out" / job / "wandb").glob("offline-run-*/*.wandb")
        groups.append(bool(re.search(rb"[^/]many/out", file.read_bytes())))  # not a path
        assert list((tmp_path / "many" / "out" / job / "tensorboard").glob("events.*"))
    assert groups == [True, True]
    assert column(tmp_path / "many" / "out", "status") == ["failed", "done"]


def test_a_job_that_goes_on_by_hand_brings_the_table_up_to_date(pretend, tmp_path):
    def work(app, folder):
        if app.random_seed == 1 and app.training_config.num_epochs < 20:
            raise RunError("the disk is full", where="here")
        return 0.5

    pretend(work)
    root, job = tmp_path / "out", f"hydra.run.dir={tmp_path / 'out' / '0'}"
    assert main("train", ["-m", "random_seed=1,2", "hydra.sweeper.max_batch_size=1", "-r", str(root)]) == 1
    assert column(root, "status") == ["failed", "done"]
    assert main("train", [job, "random_seed=1", "training_config.num_epochs=x"]) == 2  # refused: no news
    assert column(root, "message")[0] == "here: the disk is full"
    assert main("train", [job, "random_seed=1", "training_config.num_epochs=20"]) == 0
    assert column(root, "status") == ["done", "done"]
    assert column(root, "mAP") == ["0.5", "0.5"]
    assert column(root, "random_seed") == ["1", "2"]


@pytest.mark.slow
def test_any_logged_metric_is_optimised_and_an_unknown_one_refused(folder, tmp_path, capsys):
    arguments = [*runs.data(folder), *SMALL]
    out = ["-r", str(tmp_path / "out")]
    assert main("train", ["-m", *arguments, "run.optimize=train/loss_epoch", "random_seed=1,2", *out]) == 0
    losses = [float(value) for value in column(tmp_path / "out", "train/loss_epoch")]
    assert losses[0] > 0 and losses[0] != losses[1]
    with (tmp_path / "out" / "0" / "metrics.csv").open() as file:
        logged = [row["train/loss_epoch"] for row in csv.DictReader(file) if row["train/loss_epoch"]]
    assert losses[0] == pytest.approx(float(logged[-1]))
    for name, hint in (("train/los_epoch", "train/loss_epoch"), ("val/AP/cat", "val/AP/car")):
        run = [f"run.optimize={name}", f"hydra.run.dir={tmp_path / hint.replace('/', '_')}"]
        assert main("train", [*arguments, *run]) == 2
        said = capsys.readouterr().err
        assert f"found: {name}" in said and hint in said


@pytest.mark.parametrize(
    "launcher",
    ["joblib", pytest.param("local", marks=pytest.mark.slow), pytest.param("ray", marks=pytest.mark.slow)],
)
def test_jobs_in_processes_of_their_own(folder, tmp_path, launcher):
    """One of two jobs fails; each has its folder, its console and its line of the table."""
    module = {"joblib": "joblib", "local": "submitit", "ray": "ray"}[launcher]
    pytest.importorskip(f"hydra_plugins.hydra_{module}_launcher")
    arguments = [*runs.data(folder), *SMALL, "optimizer=sgd", "training_config.optimizer.sgd.lr=1e30,1e-3"]
    command = script("-m", *arguments, f"hydra/launcher={launcher}", "-r", tmp_path / "out")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1, done.stderr
    assert column(tmp_path / "out", "status") == ["failed", "done"]
    assert "job 0 failed: " in done.stderr and "not a finite number" in done.stderr
    assert "UserWarning" not in done.stderr
    assert [(tmp_path / "out" / job / "results.json").exists() for job in "01"] == [False, True]
    assert "epoch 1/1" in (tmp_path / "out" / "1" / "console.txt").read_text()
    assert (tmp_path / "out" / "sweep.png").exists()


@pytest.mark.slow
def test_ctrl_c_ends_all_jobs_and_leaves_the_table(folder, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    arguments = [*runs.data(folder), *runs.SMALL, "training_config.num_epochs=500", "random_seed=1,2,3"]
    command = script("-m", *arguments, "hydra/launcher=joblib", "-r", tmp_path / "out")
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    metrics = [tmp_path / "out" / job / "checkpoints" / "last.ckpt" for job in "01"]
    while not all(path.exists() for path in metrics):
        assert process.poll() is None, process.stderr.read()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    said = process.stderr.read()
    assert process.wait(60) == 130, said
    assert set(column(tmp_path / "out", "status")) <= {"interrupted", "killed"}
    assert "Traceback" not in said


@pytest.mark.slow
def test_two_processes_per_job_share_its_folder(folder, tmp_path):
    """A job of two devices that fails takes neither the sweep nor the next job with it."""
    arguments = [*runs.data(folder), *SMALL, "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    arguments += ["optimizer=sgd", "training_config.optimizer.sgd.lr=1e30,1e-3"]
    done = subprocess.run(
        script("-m", *arguments, "-r", tmp_path / "out"),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=tmp_path,
    )
    assert done.returncode == 1, done.stderr
    assert column(tmp_path / "out", "status") == ["failed", "done"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.is_dir()) == ["0", "1"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert json.loads((tmp_path / "out" / "1" / "results.json").read_text())["images"] <= 3
    # TAO: two processes double the rate, so there were two.
    with (tmp_path / "out" / "1" / "metrics.csv").open() as file:
        rates = [float(row["lr"]) for row in csv.DictReader(file) if row["lr"]]
    assert max(rates) == pytest.approx(2e-3)
