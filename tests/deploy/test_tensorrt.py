"""Engines with TensorRT 10 and 11, by stand-ins for their modules; what real ones do is in test_tensorrt_rtx.py."""

import json
import logging
import sys

import fake_tensorrt
import pytest

from frcnn.deploy import tensorrt_library
from frcnn.deploy.engine_record import read_record
from frcnn.deploy.tensorrt import EngineSettings, build_engine
from frcnn.deploy.tensorrt_library import Device, open_library
from frcnn.encryption import seal
from frcnn.errors import ExportError, SpecError, WeightsError

PLAIN = {
    "inputs": {"input_image": [-1, 3, 384, 1248]},
    "outputs": {"nms_out": [-1, 1, 100, 7], "nms_out_1": [-1, 1, 1, 1]},
    "types": ["FLOAT", "INT64"],
}
FIXED = PLAIN | {"inputs": {"input_image": [4, 3, 384, 1248]}}
HALF = PLAIN | {"types": ["FLOAT", "HALF"]}
QDQ = PLAIN | {"types": ["FLOAT", "INT8"]}
CACHE = "TRT-8501-EntropyCalibration2\ninput_image: 3d418306\nblock/conv:0: 3c009976\n"


@pytest.fixture
def install(monkeypatch):
    """Makes a module of a version the one that is installed, on a machine with a GPU."""

    def install(version, gpu=True):
        module = fake_tensorrt.module(version)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        device = Device("NVIDIA A100", "8.0") if gpu else None
        monkeypatch.setattr(tensorrt_library, "cuda_device", lambda: device)
        return module

    return install


@pytest.fixture
def build(tmp_path):
    """Builds an engine of a graph; returns what the builder was told."""

    def build(graph, **settings):
        (tmp_path / "model.onnx").write_text(json.dumps(graph))
        target = tmp_path / "model.engine"
        build_engine(tmp_path / "model.onnx", target, settings=EngineSettings(**settings))
        return json.loads(target.read_bytes())

    return build


VERSIONS = ["10.16.1.11", "11.4.0.3"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("graph", "precision"), [(PLAIN, "fp32"), (HALF, "fp16"), (HALF, "fp32"), (QDQ, "int8")]
)
def test_a_graph_computes_in_its_own_types_with_every_version(install, build, version, graph, precision):
    install(version)
    told = build(graph, precision=precision)
    assert told["strongly_typed"] is True
    assert told["flags"] == []
    assert told["pools"] == {"WORKSPACE": 2 << 30}


def test_version_10_makes_fp16_of_a_plain_graph(install, build, tmp_path):
    install("10.16.1.11")
    told = build(PLAIN, precision="fp16", strict_types=True)
    assert (told["strongly_typed"], told["flags"]) == (False, ["FP16", "OBEY_PRECISION_CONSTRAINTS"])
    record = read_record(tmp_path / "model.engine")
    assert (record.types, record.precision, record.strongly_typed) == (["fp32"], "fp16", False)


@pytest.mark.parametrize(
    ("strict", "flags"), [(False, ["FP16", "INT8"]), (True, ["OBEY_PRECISION_CONSTRAINTS", "INT8"])]
)
def test_version_10_makes_int8_of_a_plain_graph_and_scales(install, build, tmp_path, strict, flags):
    install("10.16.1.11")
    (tmp_path / "cal.bin").write_text(CACHE)
    told = build(PLAIN, precision="int8", calibration_cache=tmp_path / "cal.bin", strict_types=strict)
    assert (told["strongly_typed"], told["flags"]) == (False, flags)
    assert told["cache"] == CACHE.replace("8501", "101601")  # it skips those of other versions


@pytest.mark.parametrize(("precision", "file"), [("fp16", "writes it"), ("int8", "writes model_int8.onnx")])
def test_version_11_names_the_typed_graph_to_take(install, build, tmp_path, precision, file):
    install("11.4.0.3")
    (tmp_path / "cal.bin").write_text(CACHE)
    with pytest.raises(ExportError, match="this one is all fp32") as error:
        build(PLAIN, precision=precision, calibration_cache=tmp_path / "cal.bin")
    assert f"export.data_type={precision} {file}" in str(error.value)


def test_int8_of_a_plain_graph_needs_scales(install, build):
    install("10.16.1.11")
    with pytest.raises(SpecError, match="needs scales"):
        build(PLAIN, precision="int8")


def test_a_graph_that_is_typed_otherwise_is_not_turned(install, build):
    install("10.16.1.11")
    with pytest.raises(SpecError, match=r"its own types \(fp32, int8\)"):
        build(QDQ, precision="fp16")


def test_scales_that_nothing_reads_are_said(install, build, tmp_path, caplog):
    install("10.16.1.11")
    build(QDQ, precision="int8", calibration_cache=tmp_path / "cal.bin")
    assert "cal.bin: nothing reads it: the graph computes in fp32, int8 as it is" in caplog.text


# Shapes


def test_an_open_batch_gets_a_profile(install, build):
    install("11.4.0.3")
    shape = [3, 384, 1248]
    assert build(PLAIN, min_batch=2, opt_batch=4, max_batch=8)["profiles"] == [
        {"input_image": [[2, *shape], [4, *shape], [8, *shape]]}
    ]


def test_a_fixed_batch_needs_none(install, build):
    install("11.4.0.3")
    assert build(FIXED)["profiles"] == []
    assert build(FIXED, min_batch=4, opt_batch=4, max_batch=4, dims=(3, 384, 1248))["profiles"] == []


@pytest.mark.parametrize(
    ("graph", "settings", "said"),
    [
        (FIXED, {"max_batch": 8}, "found: 1x3x384x1248"),
        (PLAIN, {"dims": (3, 384, 1280)}, "found: 1x3x384x1280\n  allowed: ?x3x384x1248"),
        (PLAIN, {"shapes": {"image": ((1,), (1,), (1,))}}, "no such input"),
        (
            PLAIN,
            {"shapes": {"input_image": ((2, 3, 384, 1248), (1, 3, 384, 1248), (4, 3, 384, 1248))}},
            "have to rise",
        ),
        (PLAIN | {"inputs": {"x": [-1, 3, -1, -1]}}, {}, "-d C,H,W or -p"),
        (PLAIN, {"min_batch": 2}, "min, opt and max batch have to rise"),
        (PLAIN, {"workspace": 2}, "--max_workspace_size in GiB"),
        (PLAIN, {"precision": "bf16"}, "allowed: fp32, fp16, int8"),
    ],
)
def test_settings_that_do_not_fit(install, build, graph, settings, said):
    install("11.4.0.3")
    with pytest.raises(SpecError) as error:
        build(graph, **settings)
    assert said in str(error.value)


# Options


@pytest.mark.parametrize("version", VERSIONS)
def test_options_reach_the_builder(install, build, tmp_path, version):
    install(version)
    told = build(
        HALF,
        tf32=False,
        version_compatible=True,
        hardware="ampere_plus",
        optimization_level=5,
        dla_core=1,
        workspace=1 << 28,
    )
    assert told["flags"] == ["no TF32", "VERSION_COMPATIBLE", "GPU_FALLBACK"]
    assert (told["hardware"], told["level"], told["dla"]) == ("AMPERE_PLUS", 5, 1)
    record = read_record(tmp_path / "model.engine")
    assert record.flags == {
        "workspace": 1 << 28,
        "tf32": False,
        "version_compatible": True,
        "hardware": "ampere_plus",
        "optimization_level": 5,
        "dla_core": 1,
    }
    assert record.device == {"name": "NVIDIA A100", "capability": "8.0"}
    assert (record.library, record.version) == ("tensorrt", version)


@pytest.mark.parametrize(
    ("graph", "core", "said"), [(PLAIN, 0, "fp16 and int8 only"), (HALF, 2, "2 cores are here")]
)
def test_a_dla_that_cannot(install, build, graph, core, said):
    install("10.16.1.11")
    with pytest.raises(SpecError, match=said):
        build(graph, dla_core=core)


def test_capabilities_are_for_rtx(install, build):
    install("11.4.0.3")
    with pytest.raises(SpecError, match="it builds for the device at hand"):
        build(PLAIN, compute_capabilities=("8.6",))


def test_timings_are_kept(install, build, tmp_path, caplog):
    install("10.16.1.11")
    cache = tmp_path / "timings"
    build(PLAIN, timing_cache=cache)
    build(PLAIN, timing_cache=cache)
    assert cache.read_bytes() == b"++"
    cache.write_bytes(b"other device")
    build(PLAIN, timing_cache=cache)
    assert cache.read_bytes() == b"+"
    assert "it begins anew" in caplog.text


def test_progress_is_told_once(install, build, caplog):
    install("10.16.1.11")
    with caplog.at_level(logging.INFO, logger="frcnn"):
        build(PLAIN)
    assert [record.message for record in caplog.records] == ["  Timing tactics"]


# Refusals


def test_a_node_that_it_does_not_know_is_named(install, build):
    install("11.4.0.3")
    why = 'creator && "Plugin not found, are the plugin name, version, and namespace correct?"'
    error = {"node_name": "proposal_1", "node_operator": "ProposalDynamic", "desc": why}
    with pytest.raises(ExportError) as raised:
        build(PLAIN | {"errors": [error]})
    assert "node proposal_1 (ProposalDynamic): it is none of ONNX's operators" in str(raised.value)
    assert "scripts/import_weights.py" in str(raised.value)


def test_a_build_that_fails_leaves_the_old_engine(install, build, tmp_path):
    install("10.16.1.11")
    build(PLAIN)
    before = (tmp_path / "model.engine").read_bytes()
    words = "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (ITopKLayer /topk: K exceeds the maximum "
    words += "value allowed (3840). In processCheck at /_src/optimizer/graphShapeAnalyzer.cpp:1066)"
    with pytest.raises(ExportError) as error:
        build(PLAIN | {"fails": words, "layers": {"/topk": "TOPK"}})
    assert "found: TOPK: ITopKLayer /topk: K exceeds the maximum value allowed (3840).\n" in str(error.value)
    assert "fewer proposals before NMS" in str(error.value)
    assert (tmp_path / "model.engine").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "model.engine",
        "model.engine.json",
        "model.onnx",
    ]


@pytest.mark.parametrize("version", VERSIONS)
def test_without_a_gpu_the_library_is_not_touched(install, build, version):
    module = install(version, gpu=False)
    module.Builder = module.Runtime = None
    with pytest.raises(ExportError, match="a GPU is needed to build an engine") as error:
        build(PLAIN)
    assert "tensorrt_rtx builds without one" in str(error.value)


def test_a_library_that_does_not_start(install, build):
    module = install("11.4.0.3")

    def builder(logger):
        logger.log(module.ILogger.Severity.ERROR, "CUDA initialization failure with error: 35")
        raise TypeError("factory function returned nullptr")

    module.Builder = builder
    with pytest.raises(
        ExportError, match="TensorRT 11.4.0.3 does not start\n  found: CUDA init.*35\n  try: a driver"
    ):
        build(PLAIN)


def test_an_encrypted_graph_opens_with_its_key(install, tmp_path, monkeypatch):
    install("11.4.0.3")
    monkeypatch.setenv("FRCNN_ENC_KEY", "")
    (tmp_path / "model.onnx").write_text(json.dumps(PLAIN))
    plain = build_engine(tmp_path / "model.onnx", tmp_path / "a.engine")
    sealed = seal(tmp_path / "model.onnx", "key")
    assert build_engine(sealed, tmp_path / "b.engine", key="key").sha256 == plain.sha256
    with pytest.raises(SpecError, match="needs the key"):
        build_engine(sealed, tmp_path / "b.engine")


# The library


def test_a_library_that_is_not_there_says_how_to_get_it(monkeypatch):
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        ExportError, match=r"pip install 'frcnn\[tensorrt\]'.*; pip install 'frcnn\[tensorrt-rtx\]'"
    ):
        open_library()
    with pytest.raises(ExportError, match="tensorrt is not installed"):
        open_library("tensorrt")
    with pytest.raises(SpecError, match="allowed: auto, tensorrt, tensorrt_rtx"):
        open_library("trt")


def test_a_library_that_does_not_load(tmp_path, monkeypatch):
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(ExportError, match="tensorrt: is installed and does not load") as error:
        open_library()
    assert "libnvinfer.so.10" in str(error.value)


def test_the_plain_library_comes_first(install):
    install("11.4.0.3")
    assert str(open_library()) == "TensorRT 11.4.0.3"


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 1}', '{"schema": 2}'])
def test_a_record_that_is_none(tmp_path, text):
    (tmp_path / "a.engine.json").write_text(text)
    with pytest.raises(WeightsError, match=r"a\.engine\.json: is"):
        read_record(tmp_path / "a.engine")
