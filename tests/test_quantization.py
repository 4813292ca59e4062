"""Quantisation as a user does it: train with it, calibrate for it, resume, prune, evaluate."""

import json
import os
import subprocess
import sys

import pytest
import runs
import torch
from keras_files import make, narrow_plan, write_detector
from PIL import Image
from project import ROOT

import frcnn
from frcnn.entry.main import main
from frcnn.weights.checkpoint import Checkpoint

QAT = ("training_config.enable_qat=true", "quantize.batches=2")
SHORT = ("training_config.num_epochs=1",)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return runs.scenes(tmp_path_factory.mktemp("scenes"), train=4, val=2)


@pytest.fixture(scope="module")
def whole(folder, tmp_path_factory):
    """A float checkpoint."""
    out = tmp_path_factory.mktemp("float") / "out"
    assert runs.train(folder, out, *SHORT) == 0
    return out / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def smaller(whole, tmp_path_factory):
    """The same, pruned: what other trainings begin with is small."""
    out = tmp_path_factory.mktemp("pruned") / "out"
    more = ["prune.target_ratio=0.1", "run.num_workers=0"]
    assert main("prune", [f"model_path={whole}", f"hydra.run.dir={out}", *more]) == 0
    return out / "pruned.ckpt"


@pytest.fixture(scope="module")
def trained(folder, smaller, tmp_path_factory):
    """Two epochs of a pruned network, quantised; ranges freeze within the second."""
    out = tmp_path_factory.mktemp("qat") / "out"
    assert (
        runs.train(
            folder, out, f"training_config.retrain_pruned_model={smaller}", *QAT, "quantize.freeze_at=0.5"
        )
        == 0
    )
    return out


@pytest.fixture(scope="module")
def calibrated(smaller, tmp_path_factory):
    out = tmp_path_factory.mktemp("ptq") / "out"
    more = ["quantize.batches=2", "quantize.method=percentile", "quantize.skip=[conv1]", "run.num_workers=0"]
    assert main("quantize", [f"model_path={smaller}", f"hydra.run.dir={out}", *more]) == 0
    return out


def results(out):
    return json.loads((out / "results.json").read_text())


def state(path):
    return Checkpoint(path).content["state_dict"]


def evaluate(path, out):
    assert main("evaluate", [f"model_path={path}", f"hydra.run.dir={out}", "run.num_workers=0"]) == 0
    return results(out)


def test_a_training_leaves_a_quantised_checkpoint(trained, smaller, tmp_path):
    last = Checkpoint(trained / "checkpoints" / "last.ckpt")
    assert last.traits["quantized"] == {"skip": [], "learned": False}
    assert last.channels == Checkpoint(smaller).channels
    scales = {name: value for name, value in last.content["state_dict"].items() if name.endswith(".scale")}
    assert all(bool((value > 0).all()) for value in scales.values())
    assert scales["detector.trunk.conv1.weight_quantizer.scale"].shape == (last.channels["conv1"],)
    log = (trained / "log.txt").read_text()
    assert "calibrating 15 activations with 2 batches of training images" in log
    assert "quantised: 16 layers, 15 activations" in log
    assert "ranges and statistics are frozen from epoch 2, step 1" in log
    found = evaluate(last.path, tmp_path / "e")
    assert found["mAP"] == results(trained)["mAP"]
    assert found["per_class"] == results(trained)["per_class"]


def test_after_the_freeze_ranges_and_statistics_stay(trained):
    """The second of two epochs is frozen from its first step on."""
    first, last = (
        state(trained / "checkpoints" / name) for name in ("frcnn_resnet_10.epoch_1.ckpt", "last.ckpt")
    )
    kept = ("scale", "seen", "running_mean", "running_var")
    assert all(torch.equal(first[name], last[name]) for name in first if name.endswith(kept))
    assert not torch.equal(first["detector.rpn.rpn_conv1.weight"], last["detector.rpn.rpn_conv1.weight"])


def test_a_resumed_training_equals_one_that_was_not_stopped(folder, trained, smaller, tmp_path):
    again = tmp_path / "again"
    start = trained / "checkpoints" / "frcnn_resnet_10.epoch_1.ckpt"
    items = [f"training_config.resume_from_model={start}", f"hydra.run.dir={again}"]
    assert main("train", [*items, f"spec={trained / 'config.yaml'}"]) == 0
    a, b = (torch.load(out / "checkpoints" / "last.ckpt", weights_only=True) for out in (again, trained))
    assert all(torch.equal(a["state_dict"][name], b["state_dict"][name]) for name in b["state_dict"])
    assert "calibrating" not in (again / "log.txt").read_text()


def test_a_quantised_model_is_not_trained_in_float(folder, trained, tmp_path, capsys):
    last = trained / "checkpoints" / "last.ckpt"
    assert runs.train(folder, tmp_path / "a", f"training_config.retrain_pruned_model={last}", *SHORT) == 2
    message = capsys.readouterr().err
    assert "the model to retrain is quantised" in message
    assert "training_config.enable_qat=true" in message
    more = [f"training_config.resume_from_model={last}", "training_config.num_epochs=3"]
    assert (
        runs.train(
            folder,
            tmp_path / "b",
            *more,
            f"spec={trained / 'config.yaml'}",
            "training_config.enable_qat=false",
        )
        == 2
    )
    assert "training_config.enable_qat" in capsys.readouterr().err


def test_a_quantised_model_is_trained_on_as_it_is(folder, calibrated, tmp_path):
    """Its ranges are a start, and the layers that it leaves in float stay so."""
    out, source = tmp_path / "out", calibrated / "quantized.ckpt"
    more = [f"training_config.retrain_pruned_model={source}", *QAT, *SHORT, "quantize.ranges=fixed"]
    assert runs.train(folder, out, *more) == 0
    before, after = state(source), state(out / "checkpoints" / "last.ckpt")
    assert before.keys() == after.keys()
    inputs = [name for name in before if name.endswith("input_quantizer.scale")]
    assert all(torch.equal(before[name], after[name]) for name in inputs)
    assert Checkpoint(out / "checkpoints" / "last.ckpt").traits["quantized"]["skip"] == ["conv1"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("quantize.skip=[rpn_conv1]", "allowed: ['conv1']"),
        ("quantize.ranges=learned", "allowed: averaged, fixed"),
    ],
)
def test_places_are_those_of_the_model(folder, calibrated, tmp_path, capsys, more, words):
    source = calibrated / "quantized.ckpt"
    items = [f"training_config.retrain_pruned_model={source}", *QAT, *SHORT, more]
    assert runs.train(folder, tmp_path / "out", *items) == 2
    message = capsys.readouterr().err
    assert "the model is quantised otherwise" in message
    assert words in message


def test_what_a_calibration_leaves_behind(calibrated, smaller, folder, tmp_path):
    found = results(calibrated)
    assert (found["command"], found["method"], found["skipped"]) == ("quantize", "percentile", ["conv1"])
    assert found["mAP"] is not None and found["mAP_float"] is not None
    layers = {row["layer"]: row for row in found["layers"]}
    assert len(layers) == 15 and "conv1" not in layers
    errors = [row["error"] for row in found["layers"]]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] > 0 and errors[0] < 0.2
    scales = found["activation_scales"]
    assert scales["conv1_act"] * 127 == pytest.approx(layers["block_1a_conv_1"]["range"])
    assert (calibrated / "quantization.png").stat().st_size > 10_000
    log = (calibrated / "log.txt").read_text()
    assert "calibrated by percentile with 4 images" in log
    assert f"quantize.skip=[{found['layers'][0]['layer']}]" in log
    assert evaluate(calibrated / "quantized.ckpt", tmp_path / "e")["mAP"] == found["mAP"]
    picture = next((folder / "validation" / "image_2").glob("*.png"))
    assert frcnn.load(calibrated / "quantized.ckpt")(picture).size == (128, 192)


def test_what_is_quantised_is_not_quantised_again(calibrated, tmp_path, capsys):
    line = [
        f"model_path={calibrated / 'quantized.ckpt'}",
        f"hydra.run.dir={tmp_path / 'a'}",
        "run.num_workers=0",
    ]
    assert main("quantize", line) == 2
    assert "is quantised already" in capsys.readouterr().err


def test_a_layer_to_skip_that_is_not_there(smaller, tmp_path, capsys):
    line = [
        f"model_path={smaller}",
        f"hydra.run.dir={tmp_path / 'a'}",
        "run.num_workers=0",
        "quantize.skip=[conv2]",
    ]
    assert main("quantize", line) == 2
    assert "no layer of this network that could be quantised" in capsys.readouterr().err


def test_pictures_without_labels_calibrate_too(smaller, tmp_path):
    for i in range(3):
        Image.new("RGB", (60 + i, 50), (90 * i, 80, 200)).save(tmp_path / f"{i}.jpg")
    out = tmp_path / "out"
    line = [
        *(f"model_path={smaller}", f"hydra.run.dir={out}", f"quantize.image_dir={tmp_path}"),
        *("quantize.method=max", "dataset_config.validation_data_source=null", "run.num_workers=0"),
    ]
    assert main("quantize", line) == 0
    assert results(out)["mAP"] is results(out)["mAP_float"] is None
    assert "calibrated by max with 3 images" in (out / "log.txt").read_text()


def test_a_quantised_model_is_pruned(trained, tmp_path):
    """Ranges go along, each channel's with it; pruned by nothing it is the same network."""
    last = trained / "checkpoints" / "last.ckpt"
    for threshold, same in ((0, True), (0.9, False)):
        out = tmp_path / str(threshold)
        more = [f"prune.threshold={threshold}", "prune.granularity=4"]
        assert main("prune", [f"model_path={last}", f"hydra.run.dir={out}", "run.num_workers=0", *more]) == 0
        before, after = state(last), state(out / "pruned.ckpt")
        assert before.keys() == after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before) is same
    entry = "detector.trunk.entries.block_1a_conv_2.scale"
    assert torch.equal(before[entry], after[entry])
    evaluate(out / "pruned.ckpt", tmp_path / "e")


def test_learned_ranges_averaged_weights_and_half_precision(folder, smaller, tmp_path):
    out = tmp_path / "out"
    more = [
        *(f"training_config.retrain_pruned_model={smaller}", *QAT, *SHORT, "quantize.ranges=learned"),
        *(
            "run.ema_decay=0.9",
            "trainer.precision=bf16-mixed",
            "quantize.freeze_at=1",
            "trainer.accelerator=cpu",
        ),
    ]
    assert runs.train(folder, out, *more) == 0
    last = Checkpoint(out / "checkpoints" / "last.ckpt")
    assert last.traits["quantized"]["learned"] is True
    name = "detector.rpn.rpn_conv1.input_quantizer."
    now = last.content["current_model_state"]
    # The scale is that of the last step, the logarithm has been moved since.
    assert now[name + "scale"].item() == pytest.approx(now[name + "log_scale"].exp().item(), rel=0.05)
    assert last.content["state_dict"][name + "scale"] > 0
    assert evaluate(last.path, tmp_path / "e")["mAP"] == results(out)["mAP"]


@pytest.mark.parametrize(
    ("more", "word"),
    [("run.compile=true", "run.compile"), ("training_config.model_parallelism=[1,1]", "model_parallelism")],
)
def test_what_does_not_go_together(folder, tmp_path, capsys, more, word):
    assert runs.train(folder, tmp_path / "out", *QAT, *SHORT, more) == 2
    assert f"does not go together with {word}" in capsys.readouterr().err.replace("training_config.m", "m")


def test_ranges_of_a_quantised_file_of_the_originals(folder, tmp_path, capsys):
    """Where they have a tensor of ours they are used, and the others are calibrated; in float it is refused."""
    source = make(channels=narrow_plan(), num_classes=3)
    scales = {"input_image_qdq": 151.0, "rpn_conv1_act_qdq": 2.54, "activation_1_qdq": 6.0}
    file = write_detector(tmp_path / "m.hdf5", source, scales=scales, relu6=True)
    more = [f"training_config.retrain_pruned_model={file}", *SHORT, "quantize.ranges=fixed"]
    assert runs.train(folder, tmp_path / "float", *more) == 2
    assert "the model to retrain is quantised" in capsys.readouterr().err
    out = tmp_path / "out"
    assert runs.train(folder, out, *more, *QAT) == 0
    last = Checkpoint(out / "checkpoints" / "last.ckpt")
    assert last.traits["relu6"] is True and "activation_scales" not in last.traits
    values = last.content["state_dict"]
    assert values["detector.trunk.conv1.input_quantizer.scale"].item() == pytest.approx(151 / 127)
    assert values["detector.rpn.rpn_out_class.input_quantizer.scale"].item() == pytest.approx(0.02)
    assert "2 of the file's 3 ranges are used" in (out / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("ranges", ["averaged", "learned"])
def test_two_processes_train_together(folder, smaller, tmp_path, ranges):
    """Also with frozen blocks, and after the freeze: no process waits for a gradient that never comes."""
    out = tmp_path / "out"
    items = [
        *runs.data(folder),
        *runs.SMALL,
        *QAT,
        *(
            f"training_config.retrain_pruned_model={smaller}",
            f"quantize.ranges={ranges}",
            "quantize.freeze_at=0.5",
        ),
        *(
            "model_config.freeze_blocks=[0,1]",
            "trainer.accelerator=cpu",
            "trainer.devices=2",
            f"hydra.run.dir={out}",
        ),
    ]
    command = [sys.executable, str(ROOT / "scripts" / "train.py"), *items]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stderr
    found = evaluate(out / "checkpoints" / "last.ckpt", tmp_path / "e")
    assert found["mAP"] == results(out)["mAP"]
