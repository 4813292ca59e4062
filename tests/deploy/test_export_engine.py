"""Exports that are encrypted, and engines that are made of exports."""

import json

import pytest
import torch
from runs import scenes

from frcnn import encryption
from frcnn.build_engine import main as build_engine
from frcnn.deploy.engine_record import read_record
from frcnn.entry.main import main

pytest.importorskip("tensorrt_rtx_bindings", reason="pip install 'frcnn[tensorrt-rtx]'")


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    monkeypatch.setenv(encryption.VARIABLE, "")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return scenes(tmp_path_factory.mktemp("scenes"), train=1, val=1) / "validation" / "image_2"


@pytest.mark.slow
def test_an_encrypted_export_with_its_engine(model, pictures, tmp_path, capsys):
    out, engine, key = tmp_path / "out", tmp_path / "model.engine", "enc_key=secret"
    command = [f"model_path={model}", f"hydra.run.dir={out}", "export.encrypt=true", "export.parity_images=1"]
    command += [f"export.engine_file={engine}", "export.max_batch_size=4"]
    assert main("export", command) == 2
    assert "export.encrypt: needs the key" in capsys.readouterr().err
    assert main("export", [*command, key]) == 0  # its parity run opens the file
    assert (out / "model.onnx.enc").is_file()
    assert not list(tmp_path.rglob("*.onnx"))
    assert json.loads((out / "results.json").read_text())["exported"][0].endswith("model.onnx.enc")
    assert not any(b"secret" in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    record = read_record(engine)
    assert record.onnx == "model.onnx.enc"
    assert record.profile == {"input_image": [[1, 3, 128, 192], [1, 3, 128, 192], [4, 3, 128, 192]]}
    command = [f"model_path={out}/model.onnx.enc", f"images={pictures}", "run.draw=false"]
    assert main("infer", [*command, f"hydra.run.dir={tmp_path}/found", key]) == 0
    assert main("infer", [*command, f"hydra.run.dir={tmp_path}/not", "enc_key=other"]) == 2
    assert "the key is not the file's" in capsys.readouterr().err


@pytest.fixture(scope="module")
def engine(made, tmp_path_factory):
    path = tmp_path_factory.mktemp("engine") / "model.engine"
    arguments = ["-d", "3,128,192", "-o", "nms_out,nms_out_1", "-m", "8", "--library", "tensorrt_rtx"]
    assert build_engine([str(made / "model.onnx"), "-e", str(path), *arguments]) == 0
    return path


def test_an_export_builds_without_a_gpu(engine):
    record = read_record(engine)
    assert record.inputs == {"input_image": {"type": "float32", "shape": [-1, 3, 128, 192]}}
    assert record.outputs["nms_out_1"] == {"type": "int32", "shape": [-1, 1, 1, 1]}
    assert record.bytes == engine.stat().st_size
    assert json.loads(record.texts["graph"])["size"] == [128, 192]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_an_engine_as_a_model_needs_one(engine, pictures, tmp_path, capsys):
    command = [f"model_path={engine}", f"images={pictures}", f"hydra.run.dir={tmp_path}/found"]
    assert main("infer", command) == 2
    assert "a GPU is needed to run an engine" in capsys.readouterr().err


@pytest.mark.gpu
def test_an_engine_finds_what_the_checkpoint_finds(engine, model, pictures, tmp_path):
    found = []
    for name, path in (("torch", model), ("engine", engine)):
        command = [
            f"model_path={path}",
            f"images={pictures}",
            "inference_config.bbox_visualize_threshold=0.01",
        ]
        assert main("infer", [*command, f"hydra.run.dir={tmp_path / name}"]) == 0
        found.append(json.loads((tmp_path / name / "detections" / "coco.json").read_text()))
    ours, theirs = (sorted(items, key=lambda item: -item["score"])[:5] for items in found)
    for one, other in zip(ours, theirs, strict=True):
        assert one["category_id"] == other["category_id"]
        assert other["score"] == pytest.approx(one["score"], abs=1e-2)
        assert other["bbox"] == pytest.approx(one["bbox"], abs=2)
