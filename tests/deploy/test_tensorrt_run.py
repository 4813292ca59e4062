"""What surrounds an engine: rows into detections, batches of any size, engines that do not belong here."""

import json
import sys
from dataclasses import asdict

import fake_tensorrt
import pytest
import torch

from frcnn.deploy import tensorrt_library
from frcnn.deploy.engine_record import EngineRecord
from frcnn.deploy.graph_texts import graph_texts
from frcnn.deploy.tensorrt_library import Device, Library
from frcnn.deploy.tensorrt_run import (
    EngineBackend,
    engine_settings,
    open_engine,
    refuse_other_device,
    refuse_other_version,
    unpack,
)
from frcnn.errors import ExportError, WeightsError
from frcnn.model.detector import DetectionSettings

ROWS = [
    [0, 1, 0.9, 0.25, 0.5, 0.75, 1.0],
    [0, 0, 0.2, 0.0, 0.0, 0.5, 0.5],
    [0, -1, 0.0, 0.0, 0.0, 0.0, 0.0],
]


def test_rows_become_boxes_in_pixels():
    found = unpack(torch.tensor([[ROWS]]), size=(100, 200), settings=DetectionSettings())
    assert found.boxes.tolist() == [[[50, 50, 150, 100], [0, 0, 100, 50], [0, 0, 0, 0]]]
    assert found.labels.tolist() == [[1, 0, -1]]
    assert found.scores.tolist() == [[pytest.approx(0.9), pytest.approx(0.2), 0]]
    assert found.labels.dtype == torch.int64
    assert (found.proposals.shape, found.proposals_valid.shape) == ((1, 0, 4), (1, 0))


def test_a_higher_threshold_and_fewer_slots_count():
    settings = DetectionSettings(score_threshold=0.5, max_detections=2)
    found = unpack(torch.tensor([[ROWS]]), size=(100, 200), settings=settings)
    assert found.labels.tolist() == [[1, -1]]
    assert found.scores[0, 1] == 0
    assert found.boxes[0, 1].tolist() == [0, 0, 0, 0]


def test_no_detections_are_none():
    found = unpack(
        torch.zeros(2, 1, 3, 7).index_fill(3, torch.tensor(1), -1), size=(8, 8), settings=DetectionSettings()
    )
    assert (found.labels == -1).all()
    assert (found.boxes == 0).all()


class Session:
    """Scores each image by its first pixel, in one buffer that every call writes over."""

    input_type = torch.float32

    def __init__(self, batches, input_type=torch.float32):
        self.batches, self.input_shape, self.input_type = batches, (-1, 3, 8, 8), input_type
        self.calls, self.buffer = [], torch.zeros(batches[1], 1, 1, 7)

    def run(self, images):
        assert images.dtype == self.input_type
        assert self.batches[0] <= len(images) <= self.batches[1]
        self.calls.append(len(images))
        self.buffer[: len(images), 0, 0, 2] = images[:, 0, 0, 0].float()
        return {"nms_out": self.buffer[: len(images)]}


@pytest.mark.parametrize(
    ("batches", "images", "calls"),
    [((1, 4), 3, [3]), ((1, 4), 9, [4, 4, 1]), ((4, 4), 5, [4, 4]), ((2, 2), 1, [2]), ((2, 8), 9, [8, 2])],
)
def test_any_number_of_images_in_calls_that_the_engine_takes(batches, images, calls):
    session = Session(batches)
    backend = EngineBackend("x.engine", DetectionSettings(), session=session)
    values = torch.arange(1, images + 1) / 100
    x = values.view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    found = backend.detect(x, image_sizes=torch.tensor([[8, 8]] * images))
    assert session.calls == calls
    torch.testing.assert_close(found.scores[:, 0], values)


def test_the_clock_is_told_once_per_batch():
    backend, told = EngineBackend("x", DetectionSettings(), session=Session((1, 1))), []
    backend.after_network = lambda: told.append(1)
    backend.detect(torch.ones(3, 3, 8, 8), image_sizes=torch.tensor([[8, 8]] * 3))
    assert told == [1]


def test_images_of_another_size_are_refused():
    backend = EngineBackend("x.engine", DetectionSettings(), session=Session((1, 1)))
    with pytest.raises(ExportError, match="takes images of one size\n  found: 3x8x9\n  allowed: 3x8x8"):
        backend.detect(torch.ones(1, 3, 8, 9), image_sizes=torch.tensor([[8, 9]]))


def test_pixels_come_by_a_function():
    with pytest.raises(ExportError, match="takes uint8 pixels"):
        EngineBackend("x.engine", DetectionSettings(), session=Session((1, 1), torch.uint8))
    session = Session((1, 1), torch.uint8)
    backend = EngineBackend("x", DetectionSettings(), session=session, to_pixels=lambda images: images * 255)
    found = backend.detect(torch.ones(1, 3, 8, 8) / 255, image_sizes=torch.tensor([[8, 8]]))
    assert found.scores.tolist() == [[1.0]]


def test_the_settings_come_with_the_engine_or_the_graph_beside_it(tmp_path):
    engine, graph = tmp_path / "model.engine", tmp_path / "model.onnx"
    engine.write_bytes(b"engine")
    with pytest.raises(WeightsError, match=r"brings no settings of a model\n  try: .*keep model\.onnx"):
        engine_settings(engine)
    # Field 14 of a ModelProto, after fields that nobody here knows: key and value, as ONNX writes them.
    text = b"random_seed: 7\n"
    entry = b"\x0a\x0cfrcnn.config\x12" + bytes([len(text)]) + text
    other = b"\x0a\x01a\x12\x01b"
    graph.write_bytes(
        b"\x08\x09\x12\x03abc" + b"\x72" + bytes([len(other)]) + other + b"\x72" + bytes([len(entry)]) + entry
    )
    assert graph_texts(graph.read_bytes()) == {"config": "random_seed: 7\n"}
    assert engine_settings(engine).spec.random_seed == 7
    texts = {"config": "random_seed: 8"}
    (tmp_path / "model.engine.json").write_text(json.dumps(asdict(record(texts=texts))))
    assert engine_settings(engine).spec.random_seed == 8
    assert graph_texts(b"no protobuf") == {}


# Engines that do not belong here


def record(**changes):
    parts = {
        **{"library": "tensorrt", "version": "10.9.0.34", "precision": "fp32", "types": ["fp32"]},
        **{"device": {"name": "NVIDIA T4", "capability": "7.5"}, "strongly_typed": True, "flags": {}},
        **{
            "inputs": {},
            "outputs": {},
            "profile": {},
            "onnx": "model.onnx",
            "sha256": "",
            "bytes": 1,
            "seconds": 1.0,
        },
    }
    return EngineRecord(**{**parts, **changes})


def library(version, name="tensorrt"):
    return Library(name, fake_tensorrt.module(version))


@pytest.mark.parametrize(
    ("built", "here", "compatible", "fits"),
    [
        ("10.9.0.34", "10.9.0.34", False, True),
        ("10.9.0.34", "10.9.0.35", False, True),
        ("10.9.0.34", "10.16.1.11", False, False),
        ("10.9.0.34", "10.16.1.11", True, True),
        ("10.16.1.11", "10.9.0.34", True, False),
        ("10.9.0.34", "11.4.0.3", True, False),
    ],
)
def test_versions(built, here, compatible, fits):
    engine = record(version=built, flags={"version_compatible": True} if compatible else {})
    if fits:
        refuse_other_version(engine, library(here), where="model.engine")
        return
    with pytest.raises(ExportError, match="was built with another version") as error:
        refuse_other_version(engine, library(here), where="model.engine")
    assert f"found: TensorRT {here}\n  allowed: tensorrt {built}" in str(error.value)


@pytest.mark.parametrize(
    ("name", "flags", "here", "fits"),
    [
        ("tensorrt", {}, "7.5", True),
        ("tensorrt", {}, "8.6", False),
        ("tensorrt", {"hardware": "ampere_plus"}, "8.6", True),
        ("tensorrt", {"hardware": "ampere_plus"}, "12.0", True),
        ("tensorrt", {"hardware": "same_compute_capability"}, "8.6", False),
        ("tensorrt_rtx", {}, "12.0", True),
        ("tensorrt_rtx", {"compute_capabilities": ["8.6"]}, "8.6", True),
        ("tensorrt_rtx", {"compute_capabilities": ["8.6"]}, "8.9", False),
    ],
)
def test_devices(name, flags, here, fits):
    engine, device = record(library=name, flags=flags), Device("another", here)
    if fits:
        refuse_other_device(engine, device, where="model.engine")
        return
    with pytest.raises(ExportError, match=f"another compute capability\n  found: {here} "):
        refuse_other_device(engine, device, where="model.engine")


def test_an_engine_without_a_gpu_touches_nothing(tmp_path, monkeypatch):
    """A runtime without a device may end the process."""
    module = fake_tensorrt.module("10.9.0.34")
    module.Runtime = lambda logger: pytest.fail("a runtime was made")
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    monkeypatch.setattr(tensorrt_library, "cuda_device", lambda: None)
    path = tmp_path / "model.engine"
    path.write_bytes(b"engine")
    with pytest.raises(ExportError, match="a GPU is needed to run an engine"):
        open_engine(path)
    (tmp_path / "model.engine.json").write_text(json.dumps(asdict(record(version="10.3.0"))))
    with pytest.raises(ExportError, match="another version"):
        open_engine(path)
    with pytest.raises(WeightsError, match="there is no such engine"):
        open_engine(tmp_path / "other.engine")
