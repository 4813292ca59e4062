"""INT8: two graphs of one network, the ranges in TensorRT's formats, and the images to find them with."""

import json
import struct

import h5py
import numpy as np
import onnx
import onnxruntime as ort
import pytest
import runs
import torch

from frcnn.deploy.calibration_cache import calibration_cache, scales_json
from frcnn.deploy.int8 import read_tensorfile, write_tensorfile
from frcnn.entry.main import main
from frcnn.errors import DataError

ROUNDING = {"QuantizeLinear", "DequantizeLinear"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return runs.scenes(tmp_path_factory.mktemp("data"), train=1, val=4) / "validation" / "image_2"


@pytest.fixture(scope="module")
def exported(model, scenes, tmp_path_factory):
    """Calibrated with a few images, which are kept in a tensorfile."""
    out = tmp_path_factory.mktemp("int8")
    options = ["export.data_type=int8", f"export.cal_image_dir={scenes}", "export.batches=2"]
    options += ["export.cal_batch_size=2", f"export.cal_data_file={out / 'images.h5'}", "export.nms=standard"]
    assert main("export", [f"model_path={model}", f"hydra.run.dir={out / 'run'}", *options]) == 0
    return out / "run"


def operators(path):
    return {node.op_type for node in onnx.load(path).graph.node}


def test_one_file_rounds_and_the_other_does_not(exported):
    assert operators(exported / "model_int8.onnx") >= ROUNDING
    assert not operators(exported / "model.onnx") & ROUNDING
    onnx.checker.check_model(onnx.load(exported / "model.onnx"), full_check=True)
    # The plain one is the checkpoint's network, compared box by box; the other is judged by mAP.
    assert json.loads((exported / "parity.json").read_text())["agree"] is True
    assert json.loads((exported / "parity.json").read_text())["judged_by"].startswith("every box")
    rounded = json.loads((exported / "parity_int8.json").read_text())
    share = rounded["stages"]["features"]
    assert 1e-4 < share["largest difference"] / share["largest value"] < 0.2


def test_both_find_about_the_same(exported):
    images = np.random.default_rng(0).normal(0, 60, (2, 3, 128, 192)).astype(np.float32)
    plain, rounded = (
        ort.InferenceSession(str(exported / name)).run(None, {"input_image": images})
        for name in ("model.onnx", "model_int8.onnx")
    )
    assert plain[0].shape == rounded[0].shape
    assert rounded[1].min() > 0


def test_ranges_are_those_of_the_graph_and_name_its_tensors(exported):
    scales = json.loads((exported / "cal.json").read_text())["tensor_scales"]
    plain = onnx.load(exported / "model.onnx")
    tensors = {name for node in plain.graph.node for name in (*node.input, *node.output)}
    assert set(scales) <= tensors
    assert "input_image" in scales
    assert min(scales.values()) > 0
    lines = (exported / "cal.bin").read_text().splitlines()
    assert lines[0] == "TRT-100300-EntropyCalibration2"
    found = dict(line.rsplit(": ", 1) for line in lines[1:])
    assert set(found) == set(scales)
    (value,) = struct.unpack("<f", struct.pack("<I", int(found["input_image"], 16)))
    assert value == pytest.approx(scales["input_image"] / 127)
    config = (exported / "config_infer_primary.txt").read_text()
    assert "network-mode=1\nint8-calib-file=cal.bin\n" in config


def test_the_images_are_in_a_tensorfile(exported):
    with h5py.File(exported.parent / "images.h5") as file:
        assert file.attrs["count"] == 2
        assert file.attrs["shape"].tolist() == [2, 3, 128, 192]
        assert file["_tensorfile_array_key__1/_tensorfile_array_key_"].dtype == np.float64


def test_the_cache_of_the_original():
    """tao/eval-prune-export.md 6.4: 6.0 -> 3d418306, lower case without 0x or padding."""
    assert (
        calibration_cache({"a:0/b": 6.0}, version=8501) == "TRT-8501-EntropyCalibration2\na:0/b: 3d418306\n"
    )
    assert json.loads(scales_json({"a": 6.0})) == {"tensor_scales": {"a": 6.0}}


def test_tensorfiles_come_back(tmp_path):
    batches = [torch.randn(2, 1, 3, 4), torch.randn(2, 1, 3, 4)]
    write_tensorfile(tmp_path / "t.h5", [*batches, torch.randn(1, 1, 3, 4)])
    found = list(read_tensorfile(tmp_path / "t.h5"))
    assert len(found) == 2
    assert all(torch.equal(a, b) for a, b in zip(found, batches, strict=True))
    (tmp_path / "no.h5").write_text("no")
    with pytest.raises(DataError, match="no tensorfile"):
        list(read_tensorfile(tmp_path / "no.h5"))


def test_a_cache_that_is_there_stays(model, tmp_path, capsys):
    (tmp_path / "mine.bin").write_text("mine")
    options = ["export.data_type=int8", f"export.cal_cache_file={tmp_path / 'mine.bin'}"]
    assert main("export", [f"model_path={model}", f"hydra.run.dir={tmp_path / 'out'}", *options]) == 2
    assert "is there already" in capsys.readouterr().err
    assert (tmp_path / "mine.bin").read_text() == "mine"


@pytest.mark.slow
def test_a_quantised_checkpoint_brings_its_ranges(model, scenes, tmp_path):
    source = "dataset_config.validation_data_source"
    data = [f"quantize.image_dir={scenes}", "quantize.batches=2", f"hydra.run.dir={tmp_path / 'quantized'}"]
    data += [
        f"{source}.tfrecords_path={scenes.parent / 'label_2'}",
        f"{source}.image_directory_path={scenes.parent}",
    ]
    assert main("quantize", [f"model_path={model}", *data]) == 0
    known = json.loads((tmp_path / "quantized" / "results.json").read_text())["activation_scales"]
    quantized, out = tmp_path / "quantized" / "quantized.ckpt", tmp_path / "out"
    options = ["export.data_type=int8", "export.nms=standard", f"hydra.run.dir={out}"]
    assert main("export", [f"model_path={quantized}", *options]) == 0
    found = json.loads((out / "cal.json").read_text())["tensor_scales"]
    assert sorted(found.values()) == pytest.approx(sorted(127 * scale for scale in known.values()))
    assert (
        json.loads((out / "parity.json").read_text())["agree"] is True
    )  # the plain file and the plain network
    # A plain export of it has no rounding either.
    assert (
        main("export", [f"model_path={quantized}", "export.nms=standard", f"hydra.run.dir={out / 'plain'}"])
        == 0
    )
    assert not operators(out / "plain" / "model.onnx") & ROUNDING
