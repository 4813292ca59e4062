"""An exported file in place of a checkpoint, in every command and in Python."""

import json

import numpy as np
import onnx
import pytest
import runs
import torch
from onnx import TensorProto, helper

import frcnn
from frcnn.deploy.graph import Pixels
from frcnn.deploy.onnx_runtime import OnnxBackend, OnnxFile
from frcnn.entry.main import main
from frcnn.errors import DataError, WeightsError

PIXELS = Pixels(mean=(123.7, 116.8, 103.9), scale=1.0, bgr=True)


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (90, 150, 3), np.uint8)


def test_load_takes_the_exported_file(made, model):
    ours, exported = (frcnn.load(path, threshold=0.36) for path in (model, made / "model.onnx"))
    for want, found in zip(ours([picture(1), picture(2)]), exported([picture(1), picture(2)]), strict=True):
        assert len(want) > 0
        assert found.names == want.names
        assert np.allclose(found.boxes, want.boxes, atol=0.05)
        assert np.allclose(found.scores, want.scores, atol=1e-4)
        assert found.size == (90, 150)


def test_evaluation_through_the_file_gives_the_same_ap(made, model, tmp_path):
    """The objects to find are what the checkpoint found, so that there is something to be right about."""
    scenes = runs.scenes(tmp_path, train=1, val=4)
    pictures, found = scenes / "validation" / "image_2", tmp_path / "labels"
    more = ["inference_config.bbox_visualize_threshold=0.36", f"inference_config.labels_dump_dir={found}"]
    out = f"hydra.run.dir={tmp_path / 'infer'}"
    assert main("infer", [f"model_path={model}", f"images={pictures}", out, "run.draw=false", *more]) == 0
    (tmp_path / "spec.txt").write_text(f"""
        dataset_config {{
          validation_data_source {{ tfrecords_path: '{found}' image_directory_path: '{pictures.parent}' }}
          image_extension: 'png'
          target_class_mapping {{ key: 'car' value: 'car' }}
          target_class_mapping {{ key: 'pedestrian' value: 'pedestrian' }}
        }}
        evaluation_config {{ rpn_pre_nms_top_N: 100 rpn_nms_max_boxes: 12 batch_size: 3 }}
    """)
    results = []
    for path in (model, made / "model.onnx"):
        folder = tmp_path / path.suffix[1:]
        command = [f"model_path={path}", f"spec={tmp_path / 'spec.txt'}", f"hydra.run.dir={folder}"]
        command += ["run.num_workers=0", "run.allow_label_scores=true"]
        assert main("evaluate", command) == 0
        results.append(json.loads((folder / "results.json").read_text()))
    ours, exported = results
    assert ours["mAP"] > 0.3
    assert exported["mAP"] == pytest.approx(ours["mAP"], abs=1e-4)
    assert exported["epoch"] == ours["epoch"]
    assert exported["per_class"]["car"]["rpn_recall"] is None  # nobody asks the graph for proposals


def test_a_graph_of_a_fixed_batch_takes_any_number(made):
    file = OnnxFile(made / "model.onnx")
    backend = OnnxBackend(file, pixels=PIXELS)
    images = torch.randn(3, 3, 128, 192, generator=torch.Generator().manual_seed(0)) * 60
    sizes = torch.tensor([[128.0, 192.0]] * 3)
    whole = backend.detect(images, image_sizes=sizes)
    file.facts["batch"] = 2
    assert [part.shape[0] for part in backend.batches(images)] == [2, 2]
    parts = backend.detect(images, image_sizes=sizes)
    assert torch.equal(parts.labels, whole.labels)
    assert torch.allclose(parts.boxes, whole.boxes, atol=1e-3)


def test_pixels_come_back_from_network_input(made):
    pixels = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    network = (pixels.float() - torch.tensor(PIXELS.mean)[:, None, None]).flip(1)
    assert torch.equal(PIXELS.back(network), pixels)


def test_another_size_is_refused(made):
    backend = OnnxBackend(OnnxFile(made / "model.onnx"), pixels=PIXELS)
    with pytest.raises(DataError, match="one size"):
        backend.detect(torch.zeros(1, 3, 128, 160), image_sizes=torch.tensor([[128.0, 160.0]]))


def test_settings_that_are_in_the_graph_are_named(made, tmp_path):
    scenes = runs.scenes(tmp_path, train=1, val=1)
    arguments = [f"model_path={made / 'model.onnx'}", f"images={scenes / 'validation' / 'image_2'}"]
    arguments += [f"hydra.run.dir={tmp_path / 'out'}", "inference_config.rpn_nms_max_boxes=20"]
    assert main("infer", arguments) == 0
    assert "post_nms_top_n is 12 in the exported graph, not 20" in (tmp_path / "out" / "log.txt").read_text()


def test_files_that_export_did_not_write(tmp_path):
    with pytest.raises(WeightsError, match="no such model file"):
        OnnxFile(tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(WeightsError, match="cannot load"):
        OnnxFile(tmp_path / "broken.onnx")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9),
        tmp_path / "a.onnx",
    )
    with pytest.raises(WeightsError, match="not exported by frcnn"):
        OnnxFile(tmp_path / "a.onnx")
