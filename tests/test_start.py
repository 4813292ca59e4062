"""What a training starts from, as a user gives it (facts: model-and-training 9)."""

import csv
import json

import pytest
import runs
import torch

from frcnn import build
from frcnn.bridge import prototxt
from frcnn.entry.main import main
from frcnn.model.detector import channel_plan
from frcnn.weights.checkpoint import Checkpoint, save_detector


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return runs.scenes(tmp_path_factory.mktemp("scenes"), train=4, val=2)


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    """A finished run of two epochs."""
    out = tmp_path_factory.mktemp("runs") / "first"
    assert runs.train(folder, out) == 0
    return out / "checkpoints"


def losses(out):
    with (out / "metrics.csv").open() as file:
        return [row["train/loss"] for row in csv.DictReader(file) if row.get("train/loss")]


def state(path):
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_run_goes_on_from_a_checkpoint_of_another(folder, finished, tmp_path):
    middle = finished / "frcnn_resnet_10.epoch_1.ckpt"
    # The two other sources would fail: they are not even looked at, as in the original.
    others = [
        "training_config.retrain_pruned_model=/nowhere.hdf5",
        "training_config.pretrained_weights=/no.h5",
    ]
    assert runs.train(folder, tmp_path / "on", f"training_config.resume_from_model={middle}", *others) == 0
    assert losses(tmp_path / "on") == losses(finished.parent)[2:]
    there, here = state(finished / "last.ckpt"), state(tmp_path / "on" / "checkpoints" / "last.ckpt")
    assert all(torch.equal(there[name], here[name]) for name in there)


def test_pretrained_weights_start_a_run_and_are_accounted_for(folder, finished, tmp_path, capsys):
    weights = f"training_config.pretrained_weights={finished / 'last.ckpt'}"
    quick = ["training_config.num_epochs=1", "training_config.learning_rate.soft_start.base_lr=1e-9"]
    quick += ["training_config.learning_rate.soft_start.start_lr=1e-9", "model_config.freeze_bn=true"]
    assert runs.train(folder, tmp_path / "out", weights, *quick) == 0
    report = json.loads((tmp_path / "out" / "weights.json").read_text())
    assert {row["status"] for row in report["rows"]} == {"Yes"}
    there, here = state(finished / "last.ckpt"), state(tmp_path / "out" / "checkpoints" / "last.ckpt")
    name = "detector.trunk.block_3a_conv_1.weight"
    torch.testing.assert_close(there[name], here[name], atol=1e-6, rtol=0)
    assert "pretrained weights" in (tmp_path / "out" / "log.txt").read_text()


def test_weights_of_another_network_start_nothing(folder, finished, tmp_path, capsys):
    (tmp_path / "x.ckpt").write_bytes(b"nonsense")
    assert (
        runs.train(folder, tmp_path / "a", f"training_config.pretrained_weights={tmp_path / 'x.ckpt'}") == 2
    )
    assert "x.ckpt" in capsys.readouterr().err
    assert runs.train(folder, tmp_path / "b", "training_config.pretrained_weights=/nowhere/x.hdf5") == 2
    assert "training_config.pretrained_weights" in capsys.readouterr().err


def test_a_pruned_model_is_retrained_and_evaluated_with_its_own_channels(folder, finished, tmp_path):
    document = Checkpoint(finished / "last.ckpt").document()
    plan = {"block_1a_conv_1": 24, "block_2a_conv_1": 40, "block_4a_conv_1": 8, "rpn_conv1": 16}
    pruned = build.build_detector(document.spec, plan=plan)
    texts = torch.load(finished / "last.ckpt", weights_only=True)["frcnn"]
    save_detector(pruned, tmp_path / "pruned.ckpt", stored=texts)
    # The spec asks for another network; the pruned model brings its own, with its frozen blocks from the spec.
    model = f"training_config.retrain_pruned_model={tmp_path / 'pruned.ckpt'}"
    more = ["backbone=resnet18", "training_config.num_epochs=1", "training_config.regularizer.type=NO_REG"]
    assert runs.train(folder, tmp_path / "out", model, *more) == 0
    last = tmp_path / "out" / "checkpoints" / "last.ckpt"
    report = json.loads((tmp_path / "out" / "weights.json").read_text())
    assert {row["status"] for row in report["rows"]} == {"Yes"}
    found = Checkpoint(last).channels
    assert {name: found[name] for name in plan} == plan
    assert found == channel_plan(pruned)
    assert prototxt.load(tmp_path / "out" / "spec.txt").model_config.arch == "resnet:10"
    assert main("evaluate", [f"model_path={last}", f"hydra.run.dir={tmp_path / 'evaluated'}"]) == 0
    before = json.loads((tmp_path / "out" / "results.json").read_text())["mAP"]
    assert json.loads((tmp_path / "evaluated" / "results.json").read_text())["mAP"] == before


def test_a_keras_model_is_no_run_to_go_on_with(folder, tmp_path, capsys):
    (tmp_path / "m.epoch_3.hdf5").write_bytes(b"")
    model = f"training_config.resume_from_model={tmp_path / 'm.epoch_3.hdf5'}"
    assert runs.train(folder, tmp_path / "out", model) == 2
    assert "retrain_pruned_model" in capsys.readouterr().err


def test_an_encrypted_model_is_to_be_decoded_first(folder, tmp_path, capsys):
    (tmp_path / "m.tlt").write_bytes(bytes(range(100)))
    model = f"training_config.resume_from_model={tmp_path / 'm.tlt'}"
    assert runs.train(folder, tmp_path / "out", model) == 2
    printed = capsys.readouterr().err
    assert "decode it to .hdf5" in printed
    assert "retrain_pruned_model" not in printed


def test_a_dry_run_describes_the_network_and_stops(folder, tmp_path):
    assert runs.train(folder, tmp_path / "out", "run.dry_run=true", "model_config.freeze_blocks=[0]") == 0
    text = (tmp_path / "out" / "log.txt").read_text()
    stem = next(line for line in text.split("\n") if line.strip().startswith("trunk         0"))
    # 7 x 7 x 3 x 64 weights and 2 x 64 of batch normalisation, none of them trained; 64 x 96 places.
    assert stem.split() == ["trunk", "0", "1", "9,536", "0", "0.1156", "64x64x96", "2"]
    assert pytest.approx(0.1156, abs=1e-4) == 2 * 7 * 7 * 3 * 64 * 64 * 96 / 1e9
    assert not (tmp_path / "out" / "config.yaml").exists()
    assert runs.train(folder, tmp_path / "out", "training_config.num_epochs=1") == 0  # the folder is free
