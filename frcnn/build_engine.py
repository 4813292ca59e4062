"""TensorRT engines on the command line, as `scripts/build_engine.py` offers them.

Arguments are those of TAO's tao-converter, and the long ones of its gen_trt_engine.
"""

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from frcnn.deploy.engine_record import EngineRecord, record_path
from frcnn.deploy.tensorrt import HARDWARE, PRECISIONS, EngineSettings, Shape, Shapes, build_engine
from frcnn.deploy.tensorrt_library import LIBRARIES
from frcnn.errors import SpecError
from frcnn.exits import exit_code
from frcnn.report.tables import render, rows_table
from frcnn.status import reported

log = logging.getLogger(__name__)

OUTPUTS = ("NMS", "nms_out", "nms_out_1", "NMS_1")
"""Names that `-o` may have: those of an export, and the original's, which its users' scripts pass on."""

UNUSED = {
    "experiment_spec": "the graph has all of it in itself",
    "calibration_batch": "nothing is calibrated here",
    "batches": "nothing is calibrated here",
}
CALIBRATION = ("cal_image_dir", "cal_data_file")


def main(argv: Sequence[str] | None = None) -> int:
    """Command line of `build_engine`; returns the exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s", stream=sys.stderr, level=logging.INFO)
    logging.getLogger("frcnn").setLevel(logging.DEBUG if arguments.verbose else logging.INFO)
    return exit_code(lambda: _run(arguments), debug=arguments.verbose, hint="-v shows where this came from")


def _run(arguments: argparse.Namespace) -> None:
    graph = _graph(arguments)
    target = Path(arguments.engine or graph.with_name(graph.name.removesuffix(".enc")).with_suffix(".engine"))
    settings = _settings(arguments)
    for name, why in UNUSED.items():
        if getattr(arguments, name) is not None:
            log.info("%s is not used: %s", name, why)
    if target.is_dir() or target.resolve() == graph.resolve():
        raise SpecError("is no place for an engine", where="-e", found=target, allowed="a file name")
    with reported(
        arguments.results_dir, start="Starting engine.", end="Engine finished successfully."
    ) as kpi:
        log.info("building %s from %s", target, graph)
        record = build_engine(graph, target, settings=settings, key=arguments.key or "")
        kpi["size"] = record.bytes / 2**20
    sys.stdout.write(render(rows_table(_rows(record))) + "\n")
    log.info("written: %s and %s", target, record_path(target).name)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build_engine",
        description="Compile an ONNX file for TensorRT 10 or 11, or for TensorRT for RTX, which needs no GPU "
        "here. Types are the graph's own; see docs/tensorrt.md.",
        epilog="example: build_engine model.onnx -e model.engine -m 8, then "
        "evaluate.py model_path=model.engine",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("model", metavar="ONNX", nargs="?", help=".onnx file of an export, or .onnx.enc")
    add("--model_path", "--model", dest="model_path", metavar="ONNX", help="the same")
    add(
        "-e",
        "--engine_file",
        dest="engine",
        metavar="FILE",
        help="engine to write; default: beside the graph",
    )
    add("-k", "--key", metavar="KEY", help="of an .onnx.enc file")
    add("-t", "--data_type", default="fp32", choices=PRECISIONS, help="fp32 leaves a typed graph as it is")
    add("-d", dest="dims", metavar="C,H,W", type=_dims, default=(), help="input of the network, to compare")
    add("-o", dest="outputs", metavar="NAMES", help="outputs, to compare; NMS is nms_out")
    add("-i", dest="order", default="nchw", choices=("nchw", "nhwc", "nc"), help="only nchw there is")
    add("--min_batch_size", type=int, metavar="N", help="fewest images of a call")
    add("--opt_batch_size", type=int, metavar="N", help="what to be fastest for; default: the most")
    add("-m", "--max_batch_size", type=_batch, metavar="N", help="most images of a call")
    add(
        *("-p", "--profile"),
        action="append",
        default=[],
        metavar="NAME,MIN,OPT,MAX",
        type=_profile,
        help="whole shapes such as 1x3x384x1248 in place of these; once per input",
    )
    add("-w", dest="workspace", type=int, metavar="BYTES", help="memory for the network; default 2 GiB")
    add("--max_workspace_size", type=float, metavar="GIB", help="the same in GiB")
    add("-s", "--strict_type_constraints", action="store_true", help="TensorRT 10: no other type than -t")
    add("-c", "--cal_cache_file", metavar="FILE", type=Path, help="int8 scales for TensorRT 10, of an export")
    add("--cal_json_file", metavar="FILE", type=Path, help="the same as JSON")
    add("-u", "--dla_core", type=int, metavar="CORE", help="core of a DLA")
    add("-b", "--batch_size", dest="calibration_batch", type=int, metavar="N", help=argparse.SUPPRESS)
    add("--batches", type=int, help=argparse.SUPPRESS)
    add("--experiment_spec", help=argparse.SUPPRESS)
    for name in CALIBRATION:
        add(f"--{name}", help=argparse.SUPPRESS)
    add("--force_ptq", action="store_true", help=argparse.SUPPRESS)
    add(
        "--library", default="auto", choices=("auto", *LIBRARIES), help="default: the first that is installed"
    )
    add(
        "--timing_cache", metavar="FILE", type=Path, help="timings, read and written: later builds are faster"
    )
    add("--hardware", default="", choices=tuple(HARDWARE), help="other devices that it should run on")
    add("--version_compatible", action="store_true", help="runs on later versions of the same first number")
    add("--optimization_level", type=int, choices=range(6), help="0 builds fastest, 5 runs fastest")
    add("--compute_capability", action="append", default=[], metavar="8.6", help="RTX: devices to build for")
    add("--no_tf32", action="store_true", help="multiply fp32 as fp32")
    add("-r", "--results_dir", metavar="DIR", type=Path, help="for status.json")
    add("-v", "--verbose", action="store_true", help="all that the library says, stack traces")
    return parser


def _graph(arguments: argparse.Namespace) -> Path:
    given = [name for name in (arguments.model, arguments.model_path) if name]
    if len(given) != 1:
        found = ", ".join(given) or "none"
        raise SpecError(
            "one graph at a time", where="command line", found=found, hint="build_engine model.onnx"
        )
    path = Path(given[0])
    if path.suffix in (".etlt", ".tlt", ".uff"):
        raise SpecError(
            "is of a format that only the toolkit that wrote it reads",
            where=path,
            allowed="a .onnx or .onnx.enc file",
            hint="scripts/import_weights.py takes the decoded .hdf5, scripts/export.py makes the .onnx of it",
        )
    return path


def _settings(arguments: argparse.Namespace) -> EngineSettings:
    """The settings that the arguments mean.

    Raises:
        SpecError: arguments that contradict each other, or of what is done elsewhere.
    """
    for name in CALIBRATION:
        if getattr(arguments, name):
            hint = "scripts/export.py export.data_type=int8 calibrates and writes the cache for -c"
            raise SpecError("engines are built of scales that are there", where=f"--{name}", hint=hint)
    if arguments.order != "nchw":
        raise SpecError("no graph of ours has it", where="-i", found=arguments.order, allowed="nchw")
    unknown = [name for name in (arguments.outputs or "").split(",") if name and name not in OUTPUTS]
    if unknown:
        raise SpecError("no such output", where="-o", found=", ".join(unknown), allowed="nms_out, nms_out_1")
    if arguments.workspace is not None and arguments.max_workspace_size is not None:
        raise SpecError("one of them", where="command line", found="-w and --max_workspace_size")
    if arguments.cal_cache_file and arguments.cal_json_file:
        raise SpecError("one of them", where="command line", found="-c and --cal_json_file")
    most = arguments.max_batch_size or max(arguments.opt_batch_size or 1, arguments.min_batch_size or 1)
    settings = EngineSettings(
        library=arguments.library,
        precision=arguments.data_type,
        min_batch=1 if arguments.min_batch_size is None else arguments.min_batch_size,
        opt_batch=most if arguments.opt_batch_size is None else arguments.opt_batch_size,
        max_batch=most,
        dims=arguments.dims,
        shapes=dict(arguments.profile),
        timing_cache=arguments.timing_cache,
        calibration_cache=arguments.cal_cache_file or arguments.cal_json_file,
        dla_core=arguments.dla_core,
        strict_types=arguments.strict_type_constraints,
        tf32=not arguments.no_tf32,
        hardware=arguments.hardware,
        version_compatible=arguments.version_compatible,
        optimization_level=arguments.optimization_level,
        compute_capabilities=tuple(arguments.compute_capability),
    )
    if arguments.max_workspace_size is not None:
        return replace(settings, workspace=int(arguments.max_workspace_size * 2**30))
    return settings if arguments.workspace is None else replace(settings, workspace=arguments.workspace)


def _dims(text: str) -> Shape:
    dims = _shape(text.replace(",", "x"))
    if len(dims) != 3:
        raise argparse.ArgumentTypeError(f"{text} is not C,H,W")
    return dims


def _profile(text: str) -> tuple[str, Shapes]:
    parts = text.rsplit(",", 3)
    if len(parts) != 4:
        raise argparse.ArgumentTypeError(f"{text} is not NAME,MIN,OPT,MAX")
    return parts[0], (_shape(parts[1]), _shape(parts[2]), _shape(parts[3]))


def _shape(text: str) -> Shape:
    if not re.fullmatch(r"\d+(x\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text} is no shape such as 1x3x384x1248")
    return tuple(int(part) for part in text.split("x"))


def _batch(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(
            f"{text} is no number; the graph is --model_path, or goes without a flag"
        )
    return int(text)


def _rows(record: EngineRecord) -> list[dict[str, object]]:
    """What was built, a line for each thing."""
    tensors = {**record.inputs, **record.outputs}
    rows = {
        "library": f"{record.library} {record.version}",
        "device": f"{record.device['name']}, {record.device['capability']}"
        if record.device
        else "none needed",
        "types": ", ".join(record.types)
        + ("" if record.strongly_typed else f", computed in {record.precision}"),
        **{name: f"{tensor['type']} {_sides(tensor['shape'])}" for name, tensor in tensors.items()},
        **{f"{name}, profile": " | ".join(map(_sides, shapes)) for name, shapes in record.profile.items()},
        "options": ", ".join(f"{name} {value}" for name, value in record.flags.items()),
        "size": f"{record.bytes / 2**20:.1f} MiB",
        "seconds": f"{record.seconds}",
    }
    return [{"engine": name, "is": value} for name, value in rows.items()]


def _sides(shape: Sequence[int]) -> str:
    return "x".join("N" if side == -1 else str(side) for side in shape)
