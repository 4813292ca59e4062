"""`scripts/export.py`: the file, what it computes, and what lies beside it."""

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from deepstream import nvinfer_input, parse_nms_tlt
from models import DYNAMIC, GRAY, settings, write_model

from frcnn import build, export
from frcnn.data.transforms import normalize
from frcnn.deploy import bundle
from frcnn.deploy.graph import within_limits
from frcnn.deploy.onnx_runtime import OnnxFile
from frcnn.entry.main import main
from frcnn.errors import SpecError
from frcnn.model.detector import DetectionSettings
from frcnn.spec.run import App
from frcnn.weights.checkpoint import Checkpoint

SIZE = (128, 192)
FILES = {
    "model.onnx",
    "labels.txt",
    "nvinfer_config.txt",
    "config_infer_primary.txt",
    "spec.txt",
    "README.md",
}


def run(model, out, *more):
    return main("export", [f"model_path={model}", f"hydra.run.dir={out}", "export.parity=false", *more])


def session(path, **options):
    return ort.InferenceSession(str(path), **options)


def detector(model, *, images_per_batch=1):
    stored = Checkpoint(model)
    app = App.of(stored.settings)
    network = build.build_detector(app, plan=stored.channels).eval()
    stored.load_into(network)
    return network, build.detection_settings(app.inference_config)


def images(count, *, seed=0):
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(seed)) * 60


def agrees(rows, count, network, batch, how):
    """Whether the outputs say what the network says: boxes to 0.05 pixels, scores to 1e-4."""
    found = network.detect(batch, settings=how)
    assert count.flatten().tolist() == (found.labels >= 0).sum(1).tolist()
    assert np.allclose(rows[:, 0, :, 2], found.scores, atol=1e-4)
    assert (rows[:, 0, :, 1] == found.labels.numpy()).all()
    height, width = SIZE
    assert np.allclose(rows[:, 0, :, 3:] * [width, height, width, height], found.boxes, atol=0.05)
    assert (rows[:, 0, :, 0] == 0).all()


def test_a_bundle_has_what_it_takes(made):
    assert {file.name for file in made.iterdir()} >= FILES
    assert not [file for file in made.iterdir() if file.name.startswith(".")]
    assert (made / "labels.txt").read_text() == "car\npedestrian\nbackground\n"
    results = json.loads((made / "results.json").read_text())
    assert results["command"] == "export"
    assert results["graph"]["size"] == [128, 192]
    readme = (made / "README.md").read_text()
    assert all(part in readme for part in ("trtexec", "nvinfer", "onnxruntime", "tritonserver", "infer.py"))


def test_the_file_is_standard_onnx_with_fixed_outputs(made):
    model = onnx.load(made / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(part.domain, part.version) for part in model.opset_import] == [("", 18)]
    assert {node.domain for node in model.graph.node} == {""}
    assert "NonMaxSuppression" not in {node.op_type for node in model.graph.node}
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    shapes = {
        value.name: [part.dim_param or part.dim_value for part in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "input_image": ["batch", 3, 128, 192],
        "nms_out": ["batch", 1, 100, 7],
        "nms_out_1": ["batch", 1, 1, 1],
    }
    kinds = [value.type.tensor_type.elem_type for value in model.graph.output]
    assert kinds == [onnx.TensorProto.FLOAT, onnx.TensorProto.INT32]
    ranked = [
        onnx.numpy_helper.to_array(next(c for c in model.graph.initializer if c.name == node.input[1]))
        for node in model.graph.node
        if node.op_type == "TopK"
    ]
    assert max(int(k[0]) for k in ranked) <= 3840


@pytest.mark.parametrize("count", [1, 4])
def test_it_finds_what_the_network_finds(made, model, count):
    network, how = detector(model)
    batch = images(count)
    rows, counts = session(made / "model.onnx").run(None, {"input_image": batch.numpy()})
    assert counts.min() > 0
    agrees(rows, counts, network, batch, how)


def test_the_file_brings_its_settings(made, model):
    metadata = OnnxFile(made / "model.onnx").texts
    assert metadata["spec"] == (made / "spec.txt").read_text()
    assert json.loads(metadata["graph"])["detections"]["post_nms_top_n"] == 12


def test_the_parser_of_deepstream_reads_our_detections(made, model):
    network, how = detector(model)
    batch = images(2)
    rows, counts = session(made / "model.onnx").run(None, {"input_image": batch.numpy()})
    found = network.detect(batch, settings=how)
    for i in range(2):
        parsed = parse_nms_tlt(rows[i], counts[i], size=SIZE, classes=3, threshold=0.35)
        keep = found.scores[i] >= 0.35
        assert len(parsed) == int(keep.sum()) > 0
        boxes = found.boxes[i][keep]
        want = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        assert np.allclose([item[:4] for item in parsed], want, atol=0.05)
        assert [item[4] for item in parsed] == found.labels[i][keep].tolist()


def test_nothing_found_is_a_valid_answer(model, tmp_path):
    """A threshold that nothing exceeds; and pixels in, a fixed batch, ONNX's own suppression."""
    options = ("export.preprocess=true", "export.batch_size=2", "export.nms=standard")
    high = "inference_config.object_confidence_thres=0.99999"
    assert run(model, tmp_path / "none", high, *options) == 0
    graph = session(tmp_path / "none" / "model.onnx")
    assert graph.get_inputs()[0].type == "tensor(uint8)"
    assert graph.get_inputs()[0].shape == [2, 3, 128, 192]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, *SIZE), np.uint8)
    rows, counts = graph.run(None, {"input_image": pixels})
    assert counts.flatten().tolist() == [0, 0]
    assert (rows[..., 1] == -1).all()
    assert (rows[..., 2:] == 0).all()
    assert not (tmp_path / "none" / "nvinfer_config.txt").exists()
    assert parse_nms_tlt(rows[0], counts[0], size=SIZE, classes=3, threshold=0.0) == []


@pytest.mark.slow
def test_half_precision_keeps_float_at_its_ends(model, tmp_path):
    assert (
        run(
            model, tmp_path / "half", "export.data_type=fp16", "export.preprocess=true", "export.nms=standard"
        )
        == 0
    )
    written = onnx.load(tmp_path / "half" / "model.onnx")
    weights = {
        tensor.name: tensor.data_type for tensor in written.graph.initializer if ".weight" in tensor.name
    }
    assert set(weights.values()) == {onnx.TensorProto.FLOAT16}
    graph = session(tmp_path / "half" / "model.onnx")
    assert [value.type for value in graph.get_outputs()] == ["tensor(float)", "tensor(int32)"]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 3, *SIZE), np.uint8)
    rows, counts = graph.run(None, {"input_image": pixels})
    network, how = detector(model)
    app = settings()
    chance, none = torch.Generator(), torch.zeros(0, 4)
    mean, scale = tuple(build.means(app)), app.model_config.input_image_config.image_scaling_factor
    batch = torch.stack(
        [
            normalize(torch.from_numpy(p).float(), none, chance, mean=mean, scale=scale, bgr=True)[0]
            for p in pixels
        ]
    )
    found = network.detect(batch, settings=how)
    assert np.allclose(rows[:, 0, :5, 2], found.scores[:, :5], atol=0.01)
    assert counts.min() > 0


VARIANTS = {
    "bgr": {},
    "rgb": {"image_channel_order: 'bgr'": "image_channel_order: 'rgb'"},
    "scaled": {"image_scaling_factor: 1.0": "image_scaling_factor: 57.5"},
    "gray": {"image_channel_order: 'bgr'": "image_channel_order: 'l'", **GRAY},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_nvinfer_computes_our_network_input(variant):
    app = settings(VARIANTS[variant])
    channels = build.channels(app)
    pixels = np.random.default_rng(1).integers(0, 256, (*SIZE, channels), np.uint8)
    image, boxes = torch.from_numpy(pixels).permute(2, 0, 1), torch.zeros(0, 4)
    for step in build.transforms(app):
        image, boxes = step(image, boxes, torch.Generator())
    card = export.model_card(app, "model.onnx")
    computed = nvinfer_input(pixels, bundle.nvinfer_lines(card))
    assert computed.shape == tuple(image.shape)
    if variant == "scaled":  # nvinfer multiplies by 1/57.5, we divide by 57.5
        assert np.allclose(computed, image, rtol=3e-7, atol=0)
    else:
        assert (computed == image.numpy()).all()


def test_a_spec_that_crops_warns_in_deepstreams_file():
    app = settings({"enable_auto_resize: True": "enable_auto_resize: False"})
    assert "stretches whole frames" in bundle.config_infer_primary(export.model_card(app, "model.onnx"))
    assert "stretches" not in bundle.config_infer_primary(export.model_card(settings(), "model.onnx"))


def test_limits_are_named():
    asked = DetectionSettings(pre_nms_top_n=6000, post_nms_top_n=300)
    lowered, notices = within_limits(asked)
    assert (lowered.pre_nms_top_n, lowered.post_nms_top_n) == (3840, 300)
    assert notices == ["proposals before NMS: 3840 in place of 6000, the most that TensorRT's TopK takes"]


def test_a_model_of_any_size_needs_one(tmp_path, capsys):
    model = write_model(tmp_path / "model.ckpt", DYNAMIC)
    assert run(model, tmp_path / "out") == 2
    assert "export.height" in capsys.readouterr().err
    assert not (tmp_path / "out" / "model.onnx").exists()
    app = settings(DYNAMIC)
    app.export.height, app.export.width = 128, 224
    export.fix_size(app)
    assert build.usual_size(app) == (128, 224)
    assert app.model_config.input_image_config.size_min is None
    with pytest.raises(SpecError, match="another size"):
        _other(app)


def _other(app):
    app.export.height = 160
    export.fix_size(app)


def test_a_file_that_is_there_stays(model, tmp_path, capsys):
    (tmp_path / "mine.onnx").write_text("mine")
    assert run(model, tmp_path / "out", f"export.output_file={tmp_path / 'mine.onnx'}") == 2
    assert (tmp_path / "mine.onnx").read_text() == "mine"
    assert "is there already" in capsys.readouterr().err
