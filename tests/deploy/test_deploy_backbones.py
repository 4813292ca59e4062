"""Every backbone as ONNX against itself in torch, and through TensorRT-RTX's parser and builder."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from keras_files import make
from seeded_weights import fill_torch

from frcnn.deploy.agreement import Boxes, Limits, compare
from frcnn.deploy.graph import DetectionGraph
from frcnn.deploy.onnx_file import export_onnx
from frcnn.deploy.tensorrt import EngineSettings, build_engine
from frcnn.model.backbones import BACKBONES
from frcnn.model.detector import DetectionSettings

SIZE = (128, 160)
SETTINGS = DetectionSettings(pre_nms_top_n=400, post_nms_top_n=20, max_detections=30, score_threshold=0.3)
QUICK = ("mobilenet_v1",)


def images(count):
    return torch.randn(count, 3, *SIZE, generator=torch.Generator().manual_seed(2))


def seeded(arch):
    """A network with weights that follow from their names; its outputs are centred and of a usual size."""
    detector = fill_torch(make(arch, pool_size=7)).eval()
    boxes = torch.tensor([[[10.0, 10, 90, 80], [40, 20, 150, 120]]]).expand(2, -1, -1)
    with torch.no_grad():
        features = detector.feature_map(images(2))
        crops = detector.crop(features, boxes, input_size=SIZE)
        for stage, value, names in (
            (detector.rpn, features, ("rpn_out_class", "rpn_out_regress")),
            (detector.head, crops, ("dense_class", "dense_regress")),
        ):
            for i, layer in enumerate(map(stage.get_submodule, names)):
                layer.weight /= float(stage(value)[i].std())
                layer.bias -= stage(value)[i].transpose(0, 1).flatten(1).mean(1)
    return detector


@pytest.fixture(
    scope="module",
    params=[arch if arch in QUICK else pytest.param(arch, marks=pytest.mark.slow) for arch in BACKBONES],
)
def exported(request):
    detector = seeded(request.param)
    graph = DetectionGraph(detector, settings=SETTINGS, size=SIZE)
    model = export_onnx(graph, opset=18, images=-1).SerializeToString()
    return detector, model


def rows(boxes, scores, labels):
    used = np.asarray(labels) >= 0
    return Boxes(
        np.asarray(boxes)[used].astype(float), np.asarray(scores)[used], np.asarray(labels)[used].astype(int)
    )


def test_onnx_runtime_agrees_with_torch(exported):
    """By the parity rule: boxes within 0.05 pixels, scores within 1e-4."""
    detector, model = exported
    session = ort.InferenceSession(model)
    height, width = SIZE
    limits = Limits(score=0.3, iou=SETTINGS.nms_iou, most=SETTINGS.max_detections)
    for count in (1, 4):
        batch = images(count)
        found = detector.detect(batch, settings=SETTINGS)
        table, counts = session.run(None, {"input_image": batch.numpy()})
        assert counts.min() > 0
        for i in range(count):
            used = table[i, 0, : int(counts[i, 0, 0, 0])]
            theirs = rows(used[:, 3:] * [width, height, width, height], used[:, 2], used[:, 1])
            ours = rows(found.boxes[i], found.scores[i], found.labels[i])
            agreement = compare(ours, theirs, limits=limits)
            assert agreement.unexplained == []
            assert len(agreement.pairs) >= len(ours.scores) - 1


def test_tensorrt_rtx_parses_and_builds(exported, tmp_path):
    """For any number of images up to four, without a GPU; nothing is run."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="pip install 'frcnn[tensorrt-rtx]'")
    _, model = exported
    (tmp_path / "m.onnx").write_bytes(model)
    settings = EngineSettings(library="tensorrt_rtx", opt_batch=2, max_batch=4)
    record = build_engine(tmp_path / "m.onnx", tmp_path / "m.engine", settings=settings)
    assert record.bytes > 100_000
    assert record.outputs["nms_out"]["shape"] == [-1, 1, 30, 7]
    assert record.outputs["nms_out_1"]["shape"] == [-1, 1, 1, 1]
