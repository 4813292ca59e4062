"""From a command line to checked settings (interface decisions 2 to 17)."""

import os
import resource
import subprocess
import sys
import types

import pytest
import yaml as pyyaml
from project import ROOT
from specs import TINY

from frcnn.bridge import prototxt, yaml
from frcnn.entry.main import main
from frcnn.paths import conf_dir
from frcnn.spec import Experiment
from frcnn.spec.fields import settings_of


@pytest.fixture
def compose(monkeypatch, tmp_path, capsys):
    """Runs a command line whose `train` only hands its settings back."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRCNN_CACHE", str(tmp_path))
    jobs = []

    def train(app, folder):
        jobs.append((app, folder))
        return 0.5

    monkeypatch.setitem(sys.modules, "frcnn.run", types.SimpleNamespace(train=train))
    monkeypatch.setattr("frcnn.run", sys.modules["frcnn.run"], raising=False)

    def run(*arguments, code=0):
        jobs.clear()
        assert main("train", arguments) == code, capsys.readouterr().err
        return [app for app, _ in jobs] if "-m" in arguments else (jobs[0][0] if jobs else None)

    run.jobs = jobs
    return run


@pytest.fixture
def spec_file(tmp_path):
    path = tmp_path / "their spec.txt"
    path.write_text(TINY + "enc_key: 'secret-key'\n")
    return path


def test_groups_choose(compose):
    app = compose("backbone=resnet34", "lr=step", "optimizer=sgd")
    assert app.model_config.arch == "resnet:34"
    training = app.training_config
    assert (training.optimizer.adam, training.learning_rate.soft_start) == (None, None)
    # interface 8: the schedule follows the chosen optimizer's own rate
    assert training.learning_rate.step.base_lr == training.optimizer.sgd.lr == 0.02
    assert compose("optimizer=adam").training_config.learning_rate.soft_start.start_lr == pytest.approx(1e-4)


def test_a_data_set_knows_its_natural_size(compose):
    model = compose("dataset=kitti").model_config
    size = model.input_image_config.size_height_width
    assert (size.height, size.width, model.anchor_box_config.scale) == (384, 1248, [64, 128, 256])
    assert model.roi_pooling_config.pool_size == 7


def test_a_spec_stands_in_for_the_groups(compose, spec_file):
    app = compose(f"spec={spec_file}", "training_config.num_epochs=3")
    expected = prototxt.loads(TINY)
    expected.training_config.num_epochs = 3
    assert app.experiment() == expected
    assert app.run.name == "resnet_10-their_spec"


def test_a_named_group_replaces_its_section_of_a_spec(compose, spec_file):
    training = compose(f"spec={spec_file}", "optimizer=sgd", "lr=step").training_config
    assert training.optimizer.adam is None
    assert training.learning_rate.soft_start is None
    assert training.rpn_mini_batch == 64  # the spec's own
    training = compose(f"spec={spec_file}", "training=toy").training_config
    assert (training.rpn_mini_batch, training.num_epochs) == (64, 9)
    assert training.optimizer.adam.lr == 1e-3  # optimizer and lr are groups of their own


def test_a_gray_model_over_a_spec_keeps_its_size_but_not_its_colours(compose, spec_file):
    model = compose(
        f"spec={spec_file}", "model=gray", "augmentation_config.preprocessing.output_image_channel=0"
    ).model_config
    assert model.input_image_config.image_channel_mean == {"l": 117.0}
    assert model.input_image_config.size_height_width.width == 192
    assert model.arch == "resnet:10"


def test_a_data_set_over_a_spec_changes_the_data_only(compose, spec_file):
    app = compose(f"spec={spec_file}", "dataset=kitti")
    assert app.dataset_config.data_sources[0].image_directory_path == "data/kitti/training"
    assert app.model_config.input_image_config.size_height_width.width == 192


def test_optional_sections_and_oneofs(compose):
    app = compose(
        "training_config.early_stopping.monitor=loss",
        "training_config.early_stopping.patience=3",
        "training_config.learning_rate.step.base_lr=0.5",
        "dataset_config.validation_fold=0",
    )
    assert (app.training_config.early_stopping.patience, app.training_config.early_stopping.min_delta) == (
        3,
        0,
    )
    assert app.training_config.learning_rate.soft_start is None
    assert app.training_config.learning_rate.step.base_lr == 0.5
    assert app.dataset_config.validation_data_source is None


def test_maps(compose):
    key = "dataset_config.target_class_mapping"
    assert compose(f"{key}={{bus: van}}").dataset_config.target_class_mapping == {"bus": "van"}
    assert compose(f"+{key}.bus=van").dataset_config.target_class_mapping["bus"] == "van"
    assert "car" not in compose(f"~{key}.car").dataset_config.target_class_mapping


def test_sweeps_over_specs_and_groups(compose, spec_file, tmp_path):
    other = tmp_path / "other.txt"
    other.write_text(TINY.replace("'resnet:10'", "'resnet:18'"))
    apps = compose("-m", f"spec={spec_file},{other}", "lr=soft_start,step")
    found = [(app.model_config.arch, app.training_config.learning_rate.step is not None) for app in apps]
    assert found == [("resnet:10", False), ("resnet:10", True), ("resnet:18", False), ("resnet:18", True)]
    assert [folder.name for _, folder in compose.jobs] == ["0", "1", "2", "3"]


def test_the_key_is_written_nowhere(compose, spec_file, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FRCNN_ENC_KEY", "")
    compose("-m", f"spec={spec_file}", "lr=soft_start,step")
    assert os.environ["FRCNN_ENC_KEY"] == "secret-key"
    compose(f"spec={spec_file}", "enc_key=other-key")
    assert os.environ["FRCNN_ENC_KEY"] == "other-key"
    main("train", [f"spec={spec_file}", "--cfg", "job"])
    written = "".join(file.read_text() for file in (tmp_path / "results").rglob("*") if file.is_file())
    assert "secret-key" not in written + capsys.readouterr().out


def test_yaml_specs_and_run_sections(compose, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        yaml.dumps(prototxt.loads(TINY)) + "run:\n  difficult: none\ntrainer:\n  precision: bf16-mixed\n"
    )
    app = compose(f"spec={path}")
    assert app.experiment() == prototxt.loads(TINY)
    assert (app.run.difficult, app.trainer.precision) == ("none", "bf16-mixed")


def test_a_runs_config_restores_what_stands_beside_the_spec(compose, tmp_path):
    path = tmp_path / "config.yaml"
    sections = "run: {name: mine, overwrite: true, resume: last}\ntrainer: {accelerator: cpu, devices: '2'}\nlogger: {csv: false}\n"
    path.write_text(yaml.dumps(prototxt.loads(TINY)) + sections)
    app = compose(f"spec={path}")
    assert (app.run.name, app.run.overwrite, app.run.resume) == ("mine", False, "")
    assert (app.trainer.accelerator, app.trainer.devices, app.logger.csv) == ("cpu", "2", False)
    app = compose(f"spec={path}", "trainer=auto", "logger=tensorboard")
    assert (app.trainer.accelerator, app.trainer.devices) == ("auto", "auto")
    assert (app.logger.csv, app.logger.tensorboard) == (False, True)


def test_a_specs_visualizer_chooses_the_loggers_and_the_command_line_overrules(compose, tmp_path):
    path = tmp_path / "spec.txt"
    path.write_text(
        TINY + "training_config { visualizer { enabled: True wandb_config { key: 'my-secret' } } }"
    )
    logger = compose(f"spec={path}").logger
    assert (logger.csv, logger.tensorboard, logger.wandb) == (True, True, True)
    app = compose(f"spec={path}", "logger=none")
    assert app.logger == type(logger)()
    assert app.training_config.visualizer.wandb_config.key == ""


def test_a_sweep_refuses_what_would_differ_between_its_jobs(compose, capsys):
    line = ["-m", "dataset=toy,kitti", "dataset_config.target_class_mapping={car: a}"]
    assert main("train", line) == 2
    assert "each job of this sweep" in capsys.readouterr().err
    compose("-m", "optimizer=adam,rmsprop", "dataset_config.target_class_mapping={car: a}")
    assert len(compose.jobs) == 2


def test_several_specs_want_a_sweep(compose, spec_file, capsys):
    assert main("train", [f"spec={spec_file},{spec_file}"]) == 2
    assert "add -m" in capsys.readouterr().err


def test_early_stopping_needs_only_its_patience(compose):
    stopping = compose("training_config.early_stopping.patience=3").training_config.early_stopping
    assert (stopping.monitor, stopping.patience) == ("loss", 3)


def test_strings_survive_hydra(compose, tmp_path):
    path = tmp_path / "spec.txt"
    path.write_text(TINY + "training_config { output_model: '${x} 1e-4' }")
    assert compose(f"spec={path}").training_config.output_model == "${x} 1e-4"


def test_folders(compose, tmp_path):
    compose("backbone=resnet10")
    assert compose.jobs[0][1].parent == tmp_path / "results" / "train" / "resnet_10-toy"
    compose("-r", "here")
    assert compose.jobs[0][1] == tmp_path / "here"
    assert not (tmp_path / "here" / ".hydra").exists()


def test_several_loggers(compose):
    logger = compose("logger=[csv,wandb]").logger
    assert (logger.csv, logger.tensorboard, logger.wandb) == (True, False, True)
    assert compose("logger=none").logger == type(logger)()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["training_config.num_epochs=x"], ["training_config.num_epochs", "found: x", "a whole number"]),
        (
            ["training_config.num_epochs=-3", "model_config.arch=foo"],
            ["2 problems", "found: -3", "resnet:18"],
        ),
        (["training_config.num_epochs=1099511627776"], ["4294967295"]),
        (["run.difficult=maybe"], ["run.difficult", "ignore"]),
        (["spec=none.txt"], ["none.txt: no such file"]),
        (["trainer.accelerator=banana", "trainer.precision=fp99"], ["2 problems", "bf16-mixed"]),
        (["trainer.limit_train_batches=2.5"], ["limit_train_batches", "a share"]),
        (["dataset_config.target_class_mapping.new=x"], ["+KEY.NAME=VALUE"]),
        (["optimizer=null"], ["optimizer=null", "adam, rmsprop, sgd"]),
        (["trainer.accumulate_grad_batches=0"], ["accumulate_grad_batches", "at least 1"]),
        (["model_config.freeze_blocks=[a]"], ["freeze_blocks.0: a value", "found: a", "a whole number"]),
        (["model_config.freeze_blocks=[1.5]"], ["freeze_blocks.0: a value", "found: 1.5", "a whole number"]),
        (["model_config.freeze_blocks=1"], ["freeze_blocks: a value", "a list"]),
        (["model_config.freeze_blocks=[9]"], ["freeze_blocks.0: is no block", "found: 9", "0 to 3"]),
    ],
)
def test_refusals(compose, capsys, arguments, words):
    assert main("train", arguments) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert "Traceback" not in message


def test_a_spec_problem_has_its_line(compose, tmp_path, capsys):
    path = tmp_path / "spec.txt"
    path.write_text(
        TINY.replace("num_epochs: 1", "num_epochs: 0").replace("rpn_mini_batch: 64", "rpn_mini_batch: 0")
    )
    assert main("train", [f"spec={path}"]) == 2
    message = capsys.readouterr().err
    assert f"{path}:25:3: training_config.num_epochs" in message
    assert "training_config.rpn_mini_batch" in message
    path.write_text(TINY.replace("model_config {", "model_config {{"))
    assert main("train", [f"spec={path}"]) == 2


def test_a_stack_trace_only_on_request(compose, capsys):
    assert main("train", ["run.difficult=maybe", "run.debug=true"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_files_of_a_group_set_the_same_keys():
    """A file that left a key out would let a sibling's value through (interface 4)."""
    for group in (
        "model",
        "backbone",
        "dataset",
        "augmentation",
        "optimizer",
        "lr",
        "training",
        "evaluation",
    ):
        keys = {
            file.stem: set(_paths(pyyaml.safe_load(file.read_text())))
            for file in (conf_dir() / group).glob("*")
        }
        first = next(iter(keys.values()))
        assert all(other == first for other in keys.values()), (group, keys)


def _paths(tree, prefix=""):
    for name, value in tree.items():
        path = f"{prefix}.{name}"
        maps = ("image_channel_mean", "target_class_mapping", "classifier_regr_std")
        deep = isinstance(value, dict) and name not in maps and _is_block(name, value)
        yield from _paths(value, path) if deep else [path]


def _is_block(name, value):
    oneofs = ("adam", "sgd", "rmsprop", "step", "soft_start", "size_height_width", "size_min")
    return name not in (*oneofs, "gt_matching_iou_threshold_range", "validation_data_source")


def test_primary_configs_hold_no_values():
    tao = {field.name for field in settings_of(Experiment)}
    for name in ("train", "evaluate", "preview_augmentation", "run"):
        assert not tao & set(pyyaml.safe_load((conf_dir() / f"{name}.yaml").read_text()))


def run_script(*arguments):
    """The finished process and the processor time it took: the wall clock knows how busy the machine is."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_lists_groups_and_is_quick():
    runs = [run_script("--help") for _ in range(3)]
    page = runs[0][0].stdout
    assert all(
        f"  {group}\n" in page for group in ("backbone", "dataset", "optimizer", "lr", "trainer", "logger")
    )
    assert "*resnet18 " in page
    assert page.count("python scripts/train.py") >= 4
    assert min(seconds for _, seconds in runs) < 0.5


def test_the_settings_are_printed_quickly():
    runs = [run_script("--cfg", "job") for _ in range(3)]
    assert pyyaml.safe_load(runs[0][0].stdout)["model_config"]["arch"] == "resnet:18"
    assert min(seconds for _, seconds in runs) < 1.5


def test_a_typo_answers_without_importing_torch():
    done, _ = run_script("backbone=resnet19")
    assert done.returncode == 2
    code = "import sys; from frcnn.entry.main import main; main('train', ['training_config.num_epochs=x']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
