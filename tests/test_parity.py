"""`scripts/parity.py FIRST SECOND`, and the comparison that an export makes."""

import json

import onnx
import pytest
import runs
import torch
from models import write_model
from onnx import numpy_helper

from frcnn.entry.main import main
from frcnn.weights.checkpoint import Checkpoint

CLASSES = """
  target_class_mapping { key: 'car' value: 'car' }
  target_class_mapping { key: 'pedestrian' value: 'pedestrian' }
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model") / "model.ckpt")


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    """Validation data of a few drawn scenes."""
    folder = tmp_path_factory.mktemp("data")
    scenes = runs.scenes(folder, train=1, val=3) / "validation"
    source = f"tfrecords_path: '{scenes / 'label_2'}' image_directory_path: '{scenes}'"
    text = f"dataset_config {{ validation_data_source {{ {source} }} image_extension: 'png' {CLASSES} }}"
    (folder / "spec.txt").write_text(f"{text}\nevaluation_config {{ batch_size: 2 }}\n")
    return folder / "spec.txt"


@pytest.fixture(scope="module")
def exported(model, spec, tmp_path_factory):
    """An export with its comparison, of a spec that asks for more than a graph can rank."""
    out = tmp_path_factory.mktemp("export") / "out"
    more = ["inference_config.rpn_pre_nms_top_N=5000", "export.nms=standard", "trainer.limit_val_batches=2"]
    assert main("export", [f"model_path={model}", f"spec={spec}", f"hydra.run.dir={out}", *more]) == 0
    return out


def found_in(folder):
    return json.loads((folder / "parity.json").read_text())


def test_an_export_compares_itself(exported):
    found = found_in(exported)
    assert found["agree"] is True
    assert found["parts_at"] is None
    assert found["images"] == 3
    assert found["detections"]["unexplained"] == 0
    assert found["detections"]["matched"] > 20
    assert found["proposals"]["matched"] == 36
    assert found["detections"]["box_difference"] < 0.05
    assert found["detections"]["score_difference"] < 1e-4
    assert (
        0
        < found["stages"]["features"]["largest difference"]
        < 1e-3
        < found["stages"]["features"]["largest value"]
    )
    assert found["mAP"]["first"] == found["mAP"]["second"]
    assert (exported / "parity.png").stat().st_size > 10_000
    assert json.loads((exported / "results.json").read_text())["parity"]["agree"] is True


def test_what_the_limits_of_the_graph_cost_is_measured(exported):
    limits = found_in(exported)["limits"]
    assert limits["spec"]["proposals before NMS"] == 5000
    assert limits["graph"]["proposals before NMS"] == 3840
    assert limits["spec"]["recall"] == limits["graph"]["recall"]  # there are 864 anchors
    log = (exported / "log.txt").read_text()
    assert "3840 in place of 5000" in log
    assert "limits are lower" in log


@pytest.mark.parametrize(
    ("part", "stage"),
    [("trunk", "features"), ("rpn_conv1", "rpn_logits"), ("dense_class", "head_logits")],
)
def test_a_file_that_computes_something_else_fails_and_is_located(
    exported, model, tmp_path, part, stage, capsys
):
    broken = onnx.load(exported / "model.onnx")
    for tensor in broken.graph.initializer:
        if part in tensor.name and tensor.name.endswith("weight"):
            values = numpy_helper.to_array(tensor) * 1.05
            tensor.CopyFrom(numpy_helper.from_array(values.astype("float32"), tensor.name))
    onnx.save(broken, tmp_path / "broken.onnx")
    assert main("parity", [str(model), str(tmp_path / "broken.onnx"), "-r", str(tmp_path / "out")]) == 1
    found = found_in(tmp_path / "out")
    assert (found["agree"], found["parts_at"]) == (False, stage)
    assert found["unexplained"][0]["only in"] in ("first", "second")
    assert f"part at {stage}" in capsys.readouterr().err


def test_two_checkpoints_can_be_compared(model, spec, tmp_path):
    content = torch.load(model, weights_only=False)
    content["state_dict"]["detector.head.dense_regress.bias"] += 0.5
    torch.save(content, tmp_path / "other.ckpt")
    assert Checkpoint(tmp_path / "other.ckpt").epochs == 0
    command = [str(model), str(tmp_path / "other.ckpt"), f"spec={spec}", f"hydra.run.dir={tmp_path / 'out'}"]
    assert main("parity", command) == 1
    assert found_in(tmp_path / "out")["parts_at"] == "head_deltas"
    # Without data it looks at patterns.
    assert main("parity", [str(model), str(model), "-r", str(tmp_path / "same")]) == 0
    assert found_in(tmp_path / "same")["mAP"] is None
    assert found_in(tmp_path / "same")["images"] == 8


@pytest.mark.slow
def test_a_training_can_export_its_best_checkpoint_at_its_end(tmp_path):
    scenes = runs.scenes(tmp_path / "data", train=4, val=2)
    options = ["export.at_end=true", "export.nms=standard", "training_config.num_epochs=1"]
    assert runs.train(scenes, tmp_path / "run", *options) == 0
    assert (tmp_path / "run" / "export" / "model.onnx").is_file()
    assert found_in(tmp_path / "run" / "export")["agree"] is True
    assert json.loads((tmp_path / "run" / "results.json").read_text())["command"] == "train"


def test_wrong_command_lines(model, capsys):
    assert main("parity", [str(model)]) == 2
    assert "two model files" in capsys.readouterr().err
    assert main("parity", [str(model), "missing.ckpt"]) == 2
    assert main("parity", ["--help"]) == 0
    assert "FIRST SECOND" in capsys.readouterr().out
