"""Where a value comes from: command line, group, spec, or nowhere."""

from types import SimpleNamespace

import pytest
from specs import TINY

from frcnn.bridge.convert import read_spec
from frcnn.entry.main import main
from frcnn.entry.overrides import implied_loggers


@pytest.fixture
def compose(monkeypatch, tmp_path):
    """Runs a command line whose `train` only hands its settings back."""
    import sys

    monkeypatch.chdir(tmp_path)
    jobs = []
    stub = SimpleNamespace(train=lambda app, folder: jobs.append(app))
    monkeypatch.setitem(sys.modules, "frcnn.run", stub)
    monkeypatch.setattr("frcnn.run", stub, raising=False)

    def run(*arguments):
        jobs.clear()
        assert main("train", arguments) == 0
        return jobs

    return run


@pytest.fixture
def spec_file(tmp_path):
    path = tmp_path / "their.txt"
    path.write_text(TINY)
    return path


def test_groups_and_single_values(compose):
    [app] = compose(
        "optimizer=sgd", "training_config.num_epochs=3", "dataset_config.target_class_mapping={a: b}"
    )
    origins = app.origins()
    assert origins["training_config.optimizer.sgd.momentum"] == "group optimizer=sgd"
    assert origins["training_config.num_epochs"] == "command line"
    assert origins["dataset_config.target_class_mapping"] == "command line"
    assert origins["model_config.arch"] == "group backbone=resnet18"
    assert origins["training_config.batch_size_per_gpu"] == "group training=toy"
    assert "run.tao_quirks" not in origins


def test_a_spec_with_the_line_and_what_is_named_over_it(compose, spec_file):
    [app] = compose(f"spec={spec_file}", "optimizer=sgd", "model_config.roi_mini_batch=8")
    origins, document = app.origins(), read_spec(spec_file)
    line = document.places.of["model_config.arch"][0]
    assert origins["model_config.arch"] == f"spec their.txt:{line}"
    assert origins["model_config.roi_mini_batch"] == "command line"
    assert origins["training_config.optimizer.sgd.lr"] == "group optimizer=sgd"
    assert origins["dataset_config.target_class_mapping"].startswith("spec their.txt:")
    unsaid = "model_config.dropout_rate"
    assert unsaid not in document.places.of
    assert unsaid not in origins  # though its block is there


def test_each_job_of_a_sweep_has_its_own(compose, spec_file, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(TINY)
    jobs = compose("-m", f"spec={spec_file},{other}", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert [app.origins()["model_config.arch"].partition(":")[0] for app in jobs] == [
        "spec their.txt",
        "spec other.txt",
    ]


@pytest.mark.parametrize(
    ("typed", "implied"),
    [
        (["training_config.visualizer.enabled=true"], ["logger.tensorboard=true"]),
        (["training_config.visualizer.enabled=false"], []),
        (["training_config.visualizer.num_images=3"], []),
        (["training_config.visualizer.wandb_config.project=p"], ["logger.wandb=true"]),
        (["training_config.visualizer.enabled=true", "logger=csv"], []),
        (["training_config.visualizer.enabled=true", "logger.csv=false"], []),
    ],
)
def test_a_visualizer_on_the_command_line_switches_loggers_on(typed, implied):
    assert implied_loggers(typed) == implied


def test_the_switch_reaches_the_settings(compose):
    [app] = compose("training_config.visualizer.enabled=true")
    assert (app.logger.csv, app.logger.tensorboard, app.logger.wandb) == (True, True, False)


def test_what_stands_beside_the_spec_has_a_place_too(compose, tmp_path):
    settings = tmp_path / "config.yaml"
    settings.write_text("run:\n  ema_decay: 0.5\ntrainer:\n  precision: bf16-mixed\n")
    [first] = compose()
    from frcnn.bridge import yaml

    settings.write_text(yaml.dumps(first.experiment(), full=True) + settings.read_text())
    lines = settings.read_text().splitlines()
    [app] = compose(f"spec={settings}", "run.dry_run=true")
    origins = app.origins()
    assert app.run.ema_decay == 0.5
    assert origins["run.ema_decay"] == f"spec config.yaml:{lines.index('  ema_decay: 0.5') + 1}"
    assert origins["trainer.precision"] == f"spec config.yaml:{lines.index('  precision: bf16-mixed') + 1}"
    assert origins["run.dry_run"] == "command line"
