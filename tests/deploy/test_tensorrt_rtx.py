"""Engines that TensorRT for RTX builds here, without a GPU; what a GPU is needed for is marked so."""

import subprocess
import sys

import pytest
import torch
from project import ROOT

from frcnn.build_engine import main
from frcnn.deploy.engine_record import read_record
from frcnn.deploy.tensorrt import EngineSettings, build_engine
from frcnn.deploy.tensorrt_library import open_library
from frcnn.encryption import seal
from frcnn.errors import ExportError, SpecError

pytest.importorskip("tensorrt_rtx_bindings", reason="pip install 'frcnn[tensorrt-rtx]'")
onnx, onnx_graphs = pytest.importorskip("onnx"), pytest.importorskip("onnx_graphs")

RTX = EngineSettings(library="tensorrt_rtx")
RTX_8 = EngineSettings(library="tensorrt_rtx", opt_batch=4, max_batch=8)


@pytest.fixture
def graph(tmp_path):
    return onnx_graphs.write(tmp_path / "model.onnx")


def test_an_engine_of_a_graph_with_an_open_batch(graph, tmp_path):
    record = build_engine(graph, tmp_path / "model.engine", settings=RTX_8)
    assert (tmp_path / "model.engine").stat().st_size == record.bytes > 10_000
    assert record == read_record(tmp_path / "model.engine")
    shape = [3, onnx_graphs.HEIGHT, onnx_graphs.WIDTH]
    assert record.inputs == {"input_image": {"type": "float32", "shape": [-1, *shape]}}
    assert record.outputs["nms_out"] == {"type": "float32", "shape": [-1, 1, 5, 7]}
    assert record.outputs["nms_out_1"] == {"type": "int32", "shape": [-1, 1, 1, 1]}
    assert record.profile == {"input_image": [[1, *shape], [4, *shape], [8, *shape]]}
    assert record.types == ["fp32"]


def test_devices_that_are_not_here_can_be_named(graph, tmp_path):
    build_engine(graph, tmp_path / "any", settings=RTX)
    capabilities = ("8.6", "8.9")
    two = EngineSettings(library="tensorrt_rtx", compute_capabilities=capabilities)
    record = build_engine(graph, tmp_path / "two", settings=two)
    assert record.flags["compute_capabilities"] == list(capabilities)
    assert record.bytes != (tmp_path / "any").stat().st_size
    with pytest.raises(SpecError, match="does not build for it"):
        build_engine(
            graph,
            tmp_path / "x",
            settings=EngineSettings(library="tensorrt_rtx", compute_capabilities=("3.0",)),
        )


def typed(path, kind):
    """The graph with its ReLU in half precision, or behind quantisation."""
    model = onnx.load(onnx_graphs.write(path))
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    make = onnx.helper.make_node
    half, full = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    before, after = {
        "fp16": (make("Cast", ["convolved"], ["in"], to=half), make("Cast", ["out"], ["features"], to=full)),
        "int8": (
            make("QuantizeLinear", ["convolved", "scale", "zero"], ["q"]),
            make("DequantizeLinear", ["q", "scale", "zero"], ["in"]),
        ),
    }[kind]
    relu.input[0] = "in"
    if kind == "fp16":
        relu.output[0] = "out"
    else:
        numpy_helper = onnx.numpy_helper
        model.graph.initializer.append(numpy_helper.from_array(torch.tensor(0.1).numpy(), "scale"))
        model.graph.initializer.append(
            numpy_helper.from_array(torch.tensor(0, dtype=torch.int8).numpy(), "zero")
        )
    place = list(model.graph.node).index(relu)
    model.graph.node.insert(place, before)
    if kind == "fp16":
        model.graph.node.insert(place + 2, after)
    else:
        model.graph.node.insert(place + 1, after)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("kind", ["fp16", "int8"])
def test_a_typed_graph_builds_as_it_is(tmp_path, kind):
    path = typed(tmp_path / "model.onnx", kind)
    settings = EngineSettings(library="tensorrt_rtx", precision=kind)
    assert build_engine(path, tmp_path / "model.engine", settings=settings).types == ["fp32", kind]


def test_a_plain_graph_stays_fp32(graph, tmp_path):
    with pytest.raises(ExportError, match="this one is all fp32"):
        build_engine(graph, tmp_path / "x", settings=EngineSettings(library="tensorrt_rtx", precision="fp16"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"hardware": "ampere_plus"}, "its engines run on all RTX devices"),
        ({"timing_cache": "cache"}, "it times nothing"),
        ({"dla_core": 0}, "no RTX device has a DLA"),
    ],
)
def test_what_rtx_does_not_know(graph, tmp_path, settings, said):
    with pytest.raises(SpecError, match=said):
        build_engine(graph, tmp_path / "x", settings=EngineSettings(library="tensorrt_rtx", **settings))


def suppression(path):
    """A graph of nothing but NonMaxSuppression."""
    info, full = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    values = {"most": torch.tensor([10]), "iou": torch.tensor([0.5]), "score": torch.tensor([0.1])}
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("NonMaxSuppression", ["boxes", "scores", *values], ["chosen"], name="/nms"),
            onnx.helper.make_node("Cast", ["chosen"], ["out"], to=onnx.TensorProto.INT32),
        ],
        "graph",
        [info("boxes", full, [1, 50, 4]), info("scores", full, [1, 2, 50])],
        [info("out", onnx.TensorProto.INT32, ["n", 3])],
        [onnx.numpy_helper.from_array(value.numpy(), name) for name, value in values.items()],
    )
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), path
    )


def broken(name, path):
    make = onnx.helper.make_node
    if name == "suppression":
        suppression(path)
    elif name == "too many":
        onnx_graphs.write(path, slots=3841)
    elif name == "original":
        node = make("ProposalDynamic", ["convolved"], ["features"], name="proposal_1", input_height=384)
        onnx_graphs.write(path, node=node)
    elif name == "unknown":
        onnx_graphs.write(path, node=make("Foo", ["convolved"], ["features"], name="foo_1", domain="mine"))
    else:
        path.write_bytes(onnx_graphs.write(path).read_bytes()[:200])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("suppression", ["NMS: ", "/nms", "goes without it, unless export.nms=standard"]),
        ("too many", ["TOPK: ", "/topk", "(3840)", "fewer proposals before NMS"]),
        ("original", ["node proposal_1 (ProposalDynamic): it is none of ONNX's operators", "import_weights"]),
        ("unknown", ["node foo_1 (Foo): it is none of ONNX's operators"]),
        ("cut off", ["it is no .onnx file, or cut off"]),
    ],
)
def test_a_graph_that_it_cannot_build_is_explained(tmp_path, capsys, caplog, name, said):
    path = tmp_path / "model.onnx"
    broken(name, path)
    assert main([str(path), "--library", "tensorrt_rtx"]) == 2
    error = capsys.readouterr().err
    assert all(part in error for part in said), error
    assert not (tmp_path / "model.engine").exists()


def test_the_command_as_a_process(graph, tmp_path):
    """tao-converter's arguments, the key among them."""
    sealed = seal(graph, "secret")
    arguments = [
        "-k",
        "secret",
        "-d",
        "3,16,24",
        "-o",
        "NMS",
        "-e",
        "out.engine",
        "-m",
        "4",
        "-w",
        str(1 << 28),
    ]
    command = [
        sys.executable,
        ROOT / "scripts" / "build_engine.py",
        sealed,
        *arguments,
        "-r",
        "results",
        "-b",
        "8",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "input_image, profile   1x3x16x24 | 4x3x16x24 | 4x3x16x24" in done.stdout
    assert "calibration_batch is not used" in done.stderr
    assert "secret" not in done.stdout + done.stderr + (tmp_path / "out.engine.json").read_text()
    assert "SUCCESS" in (tmp_path / "results" / "status.json").read_text()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ["", ".enc", ".engine", ".json"]


@pytest.mark.gpu
@pytest.mark.parametrize("library", ["tensorrt", "tensorrt_rtx"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_an_engine_computes_what_torch_does(graph, tmp_path, library, device):
    from frcnn.deploy.tensorrt_run import EngineBackend, unpack
    from frcnn.model.detector import DetectionSettings

    try:
        open_library(library)
    except ExportError as error:
        pytest.skip(str(error))
    settings = EngineSettings(library=library, min_batch=2, opt_batch=2, max_batch=4, tf32=False)
    build_engine(graph, tmp_path / "model.engine", settings=settings)
    backend = EngineBackend(tmp_path / "model.engine", DetectionSettings())
    generator, size = torch.Generator().manual_seed(0), (onnx_graphs.HEIGHT, onnx_graphs.WIDTH)
    for count in (1, 3, 4, 9):  # fewer than it takes, between, as many, in several calls
        images = torch.rand(count, 3, *size, generator=generator).to(device)
        expected = unpack(onnx_graphs.in_torch(images), size=size, settings=DetectionSettings())
        found = backend.detect(images, image_sizes=torch.tensor([size] * count))
        assert found.boxes.device.type == device
        torch.testing.assert_close(found.boxes, expected.boxes, atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(found.scores, expected.scores, atol=1e-4, rtol=1e-4)
        assert torch.equal(found.labels, expected.labels)
