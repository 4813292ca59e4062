"""The arguments of build_engine: tao-converter's, gen_trt_engine's, and what is wrong with some."""

from pathlib import Path

import pytest

from frcnn import build_engine
from frcnn.deploy.engine_record import EngineRecord
from frcnn.deploy.tensorrt import EngineSettings
from frcnn.errors import ExportError

RECORD = EngineRecord(
    library="tensorrt",
    version="11.4.0.3",
    device={"name": "NVIDIA A100", "capability": "8.0"},
    precision="fp32",
    types=["fp32"],
    strongly_typed=True,
    flags={"workspace": 1 << 20},
    inputs={"input_image": {"type": "float32", "shape": [-1, 3, 384, 1248]}},
    outputs={"nms_out": {"type": "float32", "shape": [-1, 1, 100, 7]}},
    profile={"input_image": [[1, 3, 384, 1248], [1, 3, 384, 1248], [8, 3, 384, 1248]]},
    onnx="model.onnx",
    sha256="0",
    bytes=3 << 20,
    seconds=2.5,
)


@pytest.fixture
def asked(monkeypatch):
    """What would be built: (graph, engine, settings, key) of the last call."""
    calls = []

    def instead(graph, engine, *, settings, key):
        calls.append((graph, engine, settings, key))
        return RECORD

    monkeypatch.setattr(build_engine, "build_engine", instead)
    return calls


def test_nothing_but_the_graph(asked, capsys):
    assert build_engine.main(["folder/model.onnx.enc"]) == 0
    assert asked == [(Path("folder/model.onnx.enc"), Path("folder/model.engine"), EngineSettings(), "")]
    out = capsys.readouterr().out
    assert "tensorrt 11.4.0.3" in out
    assert "float32 Nx3x384x1248" in out
    assert "1x3x384x1248 | 1x3x384x1248 | 8x3x384x1248" in out
    assert "3.0 MiB" in out


def test_the_arguments_of_tao_converter(asked):
    line = "-k nvidia_tlt -d 3,384,1248 -o NMS -e saved.engine -t int8 -c cal.bin -b 8 -m 16 -w 1073741824 "
    line += "-i nchw -p input_image,1x3x384x1248,8x3x384x1248,16x3x384x1248 -s -u 1 model.onnx"
    assert build_engine.main(line.split()) == 0
    shapes = tuple((count, 3, 384, 1248) for count in (1, 8, 16))
    settings = EngineSettings(
        precision="int8",
        workspace=1 << 30,
        opt_batch=16,
        max_batch=16,
        dims=(3, 384, 1248),
        shapes={"input_image": shapes},
        calibration_cache=Path("cal.bin"),
        dla_core=1,
        strict_types=True,
    )
    assert asked == [(Path("model.onnx"), Path("saved.engine"), settings, "nvidia_tlt")]


def test_the_arguments_of_gen_trt_engine(asked, tmp_path, caplog):
    line = (
        "--model_path model.onnx --experiment_spec spec.txt --key k --data_type fp16 --engine_file a.engine "
    )
    line += "--min_batch_size 2 --opt_batch_size 4 --max_batch_size 8 --max_workspace_size 2 --batch_size 8 "
    line += f"--batches 10 --strict_type_constraints --results_dir {tmp_path} -v"
    assert build_engine.main(line.split()) == 0
    settings = EngineSettings(
        precision="fp16", workspace=2 << 30, min_batch=2, opt_batch=4, max_batch=8, strict_types=True
    )
    assert asked == [(Path("model.onnx"), Path("a.engine"), settings, "k")]
    assert '"kpi": {"size": 3.0}' in (tmp_path / "status.json").read_text()
    assert "experiment_spec is not used: the graph has all of it in itself" in caplog.text


def test_our_own_arguments(asked):
    line = "model.onnx --library tensorrt_rtx --timing_cache t --hardware ampere_plus --version_compatible "
    line += "--optimization_level 5 --compute_capability 8.6 --compute_capability 8.9 --no_tf32 --cal_json_file s.json"
    assert build_engine.main(line.split()) == 0
    assert asked[0][2] == EngineSettings(
        library="tensorrt_rtx",
        timing_cache=Path("t"),
        hardware="ampere_plus",
        version_compatible=True,
        optimization_level=5,
        compute_capabilities=("8.6", "8.9"),
        tf32=False,
        calibration_cache=Path("s.json"),
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "one graph at a time"),
        ("a.onnx --model_path b.onnx", "one graph at a time\n  found: a.onnx, b.onnx"),
        ("model.etlt", "scripts/import_weights.py takes the decoded .hdf5"),
        ("model.onnx -o boxes", "-o: no such output\n  found: boxes"),
        ("model.onnx -i nhwc", "-i: no graph of ours has it"),
        ("model.onnx -w 1 --max_workspace_size 1", "one of them"),
        ("model.onnx -c a --cal_json_file b", "one of them"),
        ("model.onnx --cal_image_dir images", "scripts/export.py export.data_type=int8 calibrates"),
        ("model.onnx -e model.onnx", "is no place for an engine"),
        ("model.onnx -e .", "is no place for an engine"),
    ],
)
def test_what_cannot_be(asked, capsys, line, said):
    assert build_engine.main(line.split()) == 2
    assert said in capsys.readouterr().err
    assert asked == []


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("model.onnx -m other.onnx", "other.onnx is no number; the graph is --model_path"),
        ("model.onnx -p input_image,1x3x4x4", "is not NAME,MIN,OPT,MAX"),
        ("model.onnx -p a,1x3x4,1x3x4,1xCx4", "1xCx4 is no shape such as"),
        ("model.onnx -d 3,4", "3,4 is not C,H,W"),
        ("model.onnx -t bf16", "invalid choice"),
        ("model.onnx --max_batch 4", "unrecognized"),
    ],
)
def test_arguments_that_are_none(capsys, line, said):
    with pytest.raises(SystemExit) as ended:
        build_engine.main(line.split())
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_failure_is_on_record(monkeypatch, tmp_path, capsys):
    def fails(*_, **__):
        raise ExportError("TensorRT 11 cannot read the graph", found="node x")

    monkeypatch.setattr(build_engine, "build_engine", fails)
    assert build_engine.main(["model.onnx", "-r", str(tmp_path)]) == 2
    assert "found: node x" in capsys.readouterr().err
    assert '"FAILURE"' in (tmp_path / "status.json").read_text()
