"""Pruning as a user does it: prune, evaluate, retrain, resume, prune again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import runs
import torch
from keras_files import make, narrow_plan, write_detector

from frcnn import build, run
from frcnn.entry.main import main
from frcnn.import_weights import main as import_weights
from frcnn.pruning import Pruner
from frcnn.spec.run import App
from frcnn.weights.checkpoint import Checkpoint, save_detector
from frcnn.weights.load import weighted_layers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return runs.scenes(tmp_path_factory.mktemp("scenes"), train=4, val=2)


@pytest.fixture(scope="module")
def model(folder, tmp_path_factory):
    """A checkpoint of a short run, its filters made uneven as those of a long one are."""
    out = tmp_path_factory.mktemp("runs") / "first"
    assert runs.train(folder, out, "training_config.num_epochs=1") == 0
    path = out / "checkpoints" / "last.ckpt"
    stored = Checkpoint(path)
    detector = build.build_detector(stored.settings)
    stored.load_into(detector)
    generator = torch.Generator().manual_seed(0)
    for layer in weighted_layers(detector).values():
        if (weight := layer.weight).dim() > 1:
            weight.data *= torch.rand(len(weight), generator=generator).view(-1, *[1] * (weight.dim() - 1))
    save_detector(detector, out / "uneven.ckpt", stored=stored.content["frcnn"])
    return out / "uneven.ckpt"


def prune(model, out, *more):
    return main("prune", [f"model_path={model}", f"hydra.run.dir={out}", "run.num_workers=0", *more])


@pytest.fixture(scope="module")
def pruned(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("pruned") / "out"
    more = ["prune.threshold=0.7", "prune.granularity=4", "prune.excluded_layers=[block_2a_conv_shortcut]"]
    assert prune(model, out, *more) == 0
    return out


def results(out):
    return json.loads((out / "results.json").read_text())


def parameters(path):
    state = Checkpoint(path).content["state_dict"].values()
    return sum(value.numel() for value in state if value.is_floating_point())


def test_what_a_pruning_leaves_behind(model, pruned):
    found = results(pruned)
    assert found["command"] == "prune"
    assert found["before"]["parameters"] == parameters(model) == 6_127_357
    assert found["after"]["parameters"] == parameters(pruned / "pruned.ckpt")
    assert found["ratio"]["parameters"] == found["after"]["parameters"] / 6_127_357 < 0.7
    assert found["ratio"]["flops"] == found["after"]["gflops"] / found["before"]["gflops"] < 0.7
    rows = {row["layer"]: row for row in found["layers"]}
    plan = Checkpoint(pruned / "pruned.ckpt").channels
    assert {name: row["after"] for name, row in rows.items()} == plan
    assert rows["block_2a_conv_2"]["after"] == rows["block_2a_conv_shortcut"]["after"] == 128
    assert rows["block_2a_conv_2"]["reason"] == "block_2a_conv_shortcut is excluded"
    assert rows["rpn_out_class"]["reason"] == "rpn_out_class is an output"
    assert rows["block_1a_conv_2"]["with"] == "block_1a_conv_shortcut"
    assert rows["rpn_conv1"]["after"] < 512
    assert all(row["after"] % 4 == 0 for name, row in rows.items() if not name.startswith(("rpn_o", "dense")))
    log = (pruned / "log.txt").read_text()
    line = f"Pruning ratio (pruned model / original model): {found['ratio']['parameters']:.4f}"
    assert line in log
    assert "block_4a_conv_shortcut" in log
    assert (pruned / "pruning.png").stat().st_size > 10_000
    last = json.loads((pruned / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "SUCCESS"
    assert last["kpi"]["pruning_ratio"] == found["ratio"]["parameters"]
    assert last["kpi"]["param_count"] == found["after"]["parameters"] / 1e6
    assert last["kpi"]["size"] == (pruned / "pruned.ckpt").stat().st_size / 2**20


def test_a_threshold_of_zero_changes_nothing(model, tmp_path):
    """The same mAP and the same weights: pruning itself is no training."""
    assert prune(model, tmp_path / "all", "prune.threshold=0") == 0
    before, after = (Checkpoint(path).content["state_dict"] for path in (model, tmp_path / "all/pruned.ckpt"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert results(tmp_path / "all")["ratio"] == {"parameters": 1.0, "flops": 1.0}


def test_a_pruned_model_is_evaluated_retrained_resumed_and_pruned_again(folder, pruned, tmp_path):
    smaller = pruned / "pruned.ckpt"
    assert main("evaluate", [f"model_path={smaller}", f"hydra.run.dir={tmp_path / 'e'}"]) == 0
    again = tmp_path / "again"
    retrain = [
        f"training_config.retrain_pruned_model={smaller}",
        "training_config.regularizer.type=NO_REG",
        "training_config.num_epochs=1",
    ]
    assert runs.train(folder, again, *retrain) == 0
    last = again / "checkpoints" / "last.ckpt"
    assert Checkpoint(last).channels == Checkpoint(smaller).channels
    resumed = ["run.resume=last", f"hydra.run.dir={again}", "training_config.num_epochs=2"]
    assert main("train", resumed) == 0
    assert Checkpoint(last).epochs == 2
    assert Checkpoint(last).channels == Checkpoint(smaller).channels
    assert prune(last, tmp_path / "second", "prune.threshold=0.8") == 0
    assert parameters(tmp_path / "second" / "pruned.ckpt") < parameters(last)


@pytest.mark.parametrize(("kind", "decay"), [("NO_REG", 0.0), ("L2", 0.5)])
def test_the_regularizer_of_a_retraining_is_the_specs(folder, pruned, tmp_path, kind, decay):
    """A weight of the spec without its type counts for nothing, and nothing comes from the file."""
    more = [
        f"training_config.retrain_pruned_model={pruned / 'pruned.ckpt'}",
        f"training_config.regularizer.type={kind}",
        "training_config.regularizer.weight=0.25",
        "training_config.num_epochs=1",
        "optimizer=sgd",
        "training_config.learning_rate.soft_start.base_lr=1e-9",
        "training_config.learning_rate.soft_start.start_lr=1e-9",
    ]
    assert runs.train(folder, tmp_path / "out", *more) == 0
    content = Checkpoint(tmp_path / "out" / "checkpoints" / "last.ckpt").content
    groups = content["optimizer_states"][0]["param_groups"]
    assert [group["weight_decay"] for group in groups] == [decay, 0.0]


def test_a_share_of_the_network_is_searched(model, tmp_path):
    out, of = tmp_path / "out", "flops"
    target = ["prune.target_ratio=0.2", f"prune.target={of}", f"prune.output_file={tmp_path / 'x.ckpt'}"]
    assert prune(model, out, *target) == 0
    found = results(out)
    assert 0.17 < found["ratio"][of] <= 0.2
    assert not (out / "pruned.ckpt").exists()
    # The threshold that was found is one to type.
    again = [f"prune.threshold={found['threshold']}"]
    assert prune(model, tmp_path / "again", *again) == 0
    assert results(tmp_path / "again")["after"] == found["after"]
    assert parameters(tmp_path / "x.ckpt") == found["after"]["parameters"]


def test_sensitivity_is_measured_on_the_validation_set(model, tmp_path):
    """On one device, also where there are two: further processes would all prune."""
    script = Path(__file__).parents[1] / "scripts" / "prune.py"
    settings = [f"model_path={model}", f"hydra.run.dir={tmp_path / 'out'}", "run.num_workers=0"]
    settings += ["trainer.accelerator=cpu", "trainer.devices=2", "prune.sensitivity=true"]
    subprocess.run([sys.executable, script, *settings], check=True, timeout=240)
    log = (tmp_path / "out" / "log.txt").read_text()
    assert log.count("prune.threshold") > 5
    assert "Best F1" not in log  # a line per threshold, not a table
    rows = results(tmp_path / "out")["sensitivity"]
    assert rows[0]["threshold"] == 0
    assert rows[0]["parameters"] == 1
    assert main("evaluate", [f"model_path={model}", f"hydra.run.dir={tmp_path / 'e'}"]) == 0
    assert rows[0]["mAP"] == results(tmp_path / "e")["mAP"]
    assert [row["parameters"] for row in rows] == sorted((r["parameters"] for r in rows), reverse=True)
    assert rows[-1]["parameters"] < 0.05
    assert (tmp_path / "out" / "sensitivity.png").stat().st_size > 10_000


def test_an_interrupted_sensitivity_leaves_the_pruning_whole(model, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "score_of", interrupted)
    out = tmp_path / "out"
    assert prune(model, out, "prune.sensitivity=true", "prune.threshold=0.5") == 130
    assert results(out)["after"]["parameters"] == parameters(out / "pruned.ckpt")
    assert json.loads((out / "status.json").read_text().splitlines()[-1])["status"] == "FAILURE"


def test_what_was_replaced_leaves_nothing_behind(model, tmp_path):
    out = tmp_path / "out"
    assert prune(model, out) == 0
    (out / "sensitivity.png").touch()
    elsewhere = f"prune.output_file={tmp_path / 'x.ckpt'}"
    assert prune(model, out, elsewhere) == 2
    assert prune(model, out, elsewhere, "run.overwrite=true") == 0
    assert not (out / "pruned.ckpt").exists()
    assert not (out / "sensitivity.png").exists()


def test_a_file_that_is_there_is_replaced_only_when_asked(model, tmp_path, capsys):
    there = tmp_path / "best.ckpt"
    there.write_bytes(b"of another run")
    assert prune(model, tmp_path / "out", f"prune.output_file={there}") == 2
    assert "is there already" in capsys.readouterr().err
    assert there.read_bytes() == b"of another run"
    assert prune(model, tmp_path / "out", f"prune.output_file={there}", "run.overwrite=true") == 0
    assert Checkpoint(there).channels


def test_what_is_measured_computes_as_the_imported_network_does(model):
    """ReLUs of a network that was trained for quantisation end at 6, also before it is written and read."""
    stored = Checkpoint(model)
    detector = build.build_detector(stored.settings)
    stored.load_into(detector)
    detector.limit_activations(6.0)
    pruned = Pruner(App.of(stored.settings), detector).prune(0.5).detector
    assert {part.ceiling for part in (pruned.trunk, pruned.rpn, pruned.head.body)} == {6.0}


@pytest.mark.parametrize(
    "setting",
    ["dataset_config.target_class_mapping={car: car}", "model_config.anchor_box_config.scale=[16,32]"],
)
def test_retraining_with_other_classes_or_anchors_is_refused(folder, pruned, tmp_path, capsys, setting):
    start = f"training_config.retrain_pruned_model={pruned / 'pruned.ckpt'}"
    assert runs.train(folder, tmp_path / "out", start, setting) == 2
    message = capsys.readouterr().err
    assert "does not fit the spec" in message
    assert "classes, anchors" in message


def test_a_training_does_not_replace_the_model_that_it_starts_from(folder, model, tmp_path, capsys):
    out = tmp_path / "out"
    assert prune(model, out) == 0
    start = f"training_config.retrain_pruned_model={out / 'pruned.ckpt'}"
    assert runs.train(folder, out, start, "run.overwrite=true") == 2
    assert "would delete the model that it is to read" in capsys.readouterr().err
    assert Checkpoint(out / "pruned.ckpt").channels


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("prune.excluded_layers=[block_1a_conv1]", ["prune.excluded_layers", "block_1a_conv_1"]),
        ("prune.target_ratio=0.0001", ["no threshold leaves so few parameters", "prune.min_num_filters"]),
        ("prune.normalizer=L1", ["prune.normalizer", "max or L2"]),
        ("prune.granularity=0", ["prune.granularity"]),
        ("prune.target_ratio=20", ["prune.target_ratio", "a share below 1"]),
        ("prune.output_file=a.hdf5", ["prune.output_file", "NAME.ckpt"]),
        ("prune.thresold=1", ["prune.threshold"]),
        ("model_config.arch=resnet:18", ["the network's settings come with the checkpoint"]),
    ],
)
def test_wrong_input_is_named(model, tmp_path, capsys, setting, words):
    assert prune(model, tmp_path / "out", setting) == 2
    message = capsys.readouterr().err
    assert all(word in message for word in words), message
    assert not (tmp_path / "out" / "pruned.ckpt").exists()


def test_it_needs_a_model_and_does_not_overwrite_it(model, capsys):
    assert main("prune", []) == 2
    assert "needs a model to prune" in capsys.readouterr().err
    assert prune(model, model.parent / "o", f"prune.output_file={model}") == 2
    assert "prune.output_file" in capsys.readouterr().err


def test_tao_names_of_output_layers_may_be_excluded(model, tmp_path):
    assert prune(model, tmp_path / "out", "prune.excluded_layers=[dense_class_td,conv1]") == 0
    rows = {row["layer"]: row for row in results(tmp_path / "out")["layers"]}
    assert rows["conv1"]["after"] == 64


def test_a_pruned_keras_model_is_imported_and_pruned_again(model, tmp_path):
    theirs = make("resnet:10", channels=narrow_plan(width=24), num_classes=3)
    source = write_detector(tmp_path / "theirs.hdf5", theirs)
    ours = tmp_path / "ours.ckpt"
    assert import_weights([str(source), str(ours), f"spec={model.parent / 'spec.txt'}"]) == 0
    few = ["prune.threshold=2", "prune.min_num_filters=8"]
    assert prune(source, tmp_path / "direct") == 2
    assert prune(ours, tmp_path / "out", *few) == 0
    found = results(tmp_path / "out")
    assert {row["before"] for row in found["layers"]} == {24, 9, 36, 4, 12}
    assert {row["after"] for row in found["layers"]} == {8, 9, 36, 4, 12}
    assert Checkpoint(tmp_path / "out" / "pruned.ckpt").channels["block_4a_conv_1"] == 8


def test_weights_that_are_no_numbers_are_named(model, tmp_path, capsys):
    stored = Checkpoint(model)
    detector = build.build_detector(stored.settings)
    stored.load_into(detector)
    detector.trunk.get_submodule("block_2a_conv_1").weight.data[3] = float("nan")
    save_detector(detector, tmp_path / "bad.ckpt", stored=stored.content["frcnn"])
    assert prune(tmp_path / "bad.ckpt", tmp_path / "out") == 2
    assert "block_2a_conv_1: holds weights that are no finite numbers" in capsys.readouterr().err
