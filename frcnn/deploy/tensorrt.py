"""Engines of TensorRT: an ONNX graph compiled for a device.

Networks are strongly typed: a graph computes in the types that it is written in, the one way that TensorRT
10, 11 and RTX share. Of a plain fp32 graph TensorRT 10 alone still makes an fp16 or int8 engine by itself.
"""

import hashlib
import logging
import re
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from frcnn.bridge.files import write_bytes
from frcnn.deploy.calibration_cache import cache_of
from frcnn.deploy.engine_record import EngineRecord, write_record
from frcnn.deploy.graph_texts import graph_texts
from frcnn.deploy.tensorrt_library import Library, cuda_device, needed_device, open_library
from frcnn.encryption import unsealed
from frcnn.errors import ExportError, SpecError

log = logging.getLogger(__name__)

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = tuple[Shape, Shape, Shape]
"""The smallest, the one that an engine is made fastest for, and the largest."""

PRECISIONS = ("fp32", "fp16", "int8")
HARDWARE = {"ampere_plus": "AMPERE_PLUS", "same_compute_capability": "SAME_COMPUTE_CAPABILITY"}
TYPES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8", "INT4": "int4"}
"""TensorRT's names of the types that networks compute in."""

HINTS = {
    "ProposalDynamic|CropAndResizeDynamic|NMSDynamic_TRT": "an export of the original needs plugins that "
    "TensorRT 11 lacks: bring its .hdf5 in with scripts/import_weights.py, then scripts/export.py",
    "RoiAlign|NonMaxSuppression|NMS": "scripts/export.py goes without it, unless export.nms=standard",
    "TopK|TOPK": "it ranks 3840 values at most: fewer proposals before NMS, as scripts/export.py has",
    "ParseFromCodedStream": "it is no .onnx file, or cut off",
    "libnvinfer_lean": "version compatibility takes the library's lean runtime beside it",
    "memory|Could not find any implementation": "more workspace (-w), smaller batches, or a larger device",
}
"""Words of an error, the operator that it is about among them, and what to do."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """What an engine is built for.

    Attributes:
        library: auto, tensorrt or tensorrt_rtx.
        precision: fp32, fp16 or int8; a graph that is typed so already needs no word of it.
        workspace: memory for what the network computes in between, bytes.
        min_batch, opt_batch, max_batch: images of a call, where the graph leaves their number open.
        dims: what is behind the number of images, such as (3, 384, 1248); empty: what the graph says.
        shapes: input name -> whole shapes, in place of the batches and `dims`.
        timing_cache: file of timings, read and written, which makes the next build faster.
        calibration_cache: scales for an int8 engine of a plain graph, see `cache_of`; TensorRT 10 only.
        dla_core: core of the deep learning accelerator of a Jetson; what it cannot do runs on the GPU.
        strict_types: no other precision than this one, where TensorRT 10 chooses; graphs are always obeyed.
        tf32: whether fp32 may be multiplied in TF32, as torch's convolutions do by default.
        hardware: devices beside this one that it should run on: ampere_plus or same_compute_capability.
        version_compatible: whether later versions with the same first number may run it.
        optimization_level: 0 builds fastest, 5 runs fastest; None: the library's own.
        compute_capabilities: of the devices to build for, such as 8.6, none of which need be here; RTX only.
    """

    library: str = "auto"
    precision: str = "fp32"
    workspace: int = 2 << 30
    min_batch: int = 1
    opt_batch: int = 1
    max_batch: int = 1
    dims: Shape = ()
    shapes: Mapping[str, Shapes] = field(default_factory=dict)
    timing_cache: Path | None = None
    calibration_cache: Path | None = None
    dla_core: int | None = None
    strict_types: bool = False
    tf32: bool = True
    hardware: str = ""
    version_compatible: bool = False
    optimization_level: int | None = None
    compute_capabilities: tuple[str, ...] = ()


def build_engine(
    onnx_path: str | Path, engine_path: str | Path, *, settings: EngineSettings | None = None, key: str = ""
) -> EngineRecord:
    """Compile a graph; writes the engine, whole or not at all, and its record beside it.

    Args:
        onnx_path: .onnx file, or .onnx.enc, which is opened in memory.
        engine_path: file to write.
        settings: what to build for.
        key: of an .onnx.enc file; that of the environment if empty.

    Raises:
        SpecError: settings that do not fit each other, the graph or the library; or a wrong key.
        WeightsError: no such file, or a file without scales.
        ExportError: no library, no device, or the library refuses the graph.
        RunError: the file cannot be written.
    """
    settings = settings or EngineSettings()
    _refuse_settings(settings)
    content = unsealed(onnx_path, key)
    library = open_library(settings.library)
    _refuse_unknown(library, settings)
    device = cuda_device() if library.is_rtx else needed_device(to=f"build an engine with {library}")
    since = time.perf_counter()
    work = _choose_typing(library, content, settings, where=Path(onnx_path))
    profile = work.profile(settings)
    plan, flags = work.run(settings, profile)
    write_bytes(engine_path, plan)
    record = EngineRecord(
        library=library.name,
        version=library.version,
        device=asdict(device) if device else None,
        precision=settings.precision,
        types=work.types,
        strongly_typed=work.strongly_typed,
        flags=flags,
        inputs={tensor.name: _described(tensor) for tensor in work.inputs},
        outputs={tensor.name: _described(tensor) for tensor in work.outputs},
        profile={name: [list(shape) for shape in shapes] for name, shapes in profile.items()},
        onnx=Path(onnx_path).name,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(plan),
        seconds=round(time.perf_counter() - since, 1),
        texts=graph_texts(content),
    )
    write_record(record, engine_path)
    return record


class _Build(NamedTuple):
    """A graph in the library's hands."""

    library: Library
    builder: Any
    network: Any
    parser: Any  # holds the graph's weights
    where: Path
    strongly_typed: bool

    @property
    def inputs(self) -> list[Any]:
        """Tensors that go in."""
        return [self.network.get_input(i) for i in range(self.network.num_inputs)]

    @property
    def outputs(self) -> list[Any]:
        """Tensors that come out."""
        return [self.network.get_output(i) for i in range(self.network.num_outputs)]

    @property
    def layers(self) -> list[Any]:
        """What the graph became."""
        return [self.network.get_layer(i) for i in range(self.network.num_layers)]

    @property
    def types(self) -> list[str]:
        """The types that the graph is written in."""
        layers = self.layers
        found = {layer.get_output(i).dtype.name for layer in layers for i in range(layer.num_outputs)}
        return [words for name, words in TYPES.items() if name in found]

    def profile(self, settings: EngineSettings) -> dict[str, Shapes]:
        """Shapes of each input that leaves something open.

        Raises:
            SpecError: shapes that do not fit the graph.
        """
        inputs = {tensor.name: tuple(tensor.shape) for tensor in self.inputs}
        if unknown := sorted(settings.shapes.keys() - inputs.keys()):
            raise SpecError("no such input", where=self.where, found=unknown, allowed=", ".join(inputs))
        found: dict[str, Shapes] = {}
        for name, shape in inputs.items():
            batches = (settings.min_batch, settings.opt_batch, settings.max_batch)
            if batches == (1, 1, 1) and shape[0] != -1:
                batches = (shape[0],) * 3
            low, best, high = ((count, *(settings.dims or shape[1:])) for count in batches)
            shapes = settings.shapes.get(name, (low, best, high))
            for wanted in shapes:
                _refuse_shape(wanted, shape, where=f"{self.where}: {name}")
            if not all(a <= b <= c for a, b, c in zip(*shapes, strict=True)):
                found_text = ", ".join(map(_sides, shapes))
                raise SpecError("min, opt and max have to rise", where=name, found=found_text)
            if -1 in shape:
                found[name] = shapes
        return found

    def run(
        self, settings: EngineSettings, profile: Mapping[str, Shapes]
    ) -> tuple[memoryview, dict[str, Any]]:
        """Build; returns the engine and the options that it was built with."""
        library, trt = self.library, self.library.module
        config = self.builder.create_builder_config()
        if profile:
            shapes = self.builder.create_optimization_profile()
            for name, given in profile.items():
                shapes.set_shape(name, *given)
            config.add_optimization_profile(shapes)
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace)
        flags = {"workspace": settings.workspace, **dict(_options(library, self.builder, config, settings))}
        config.progress_monitor = _progress(library)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of what TensorRT 10 still does
            if not self.strongly_typed:
                flags |= _precision(library, config, settings)
            if settings.timing_cache:
                _use_timings(config, settings.timing_cache)
            plan = self.builder.build_serialized_network(self.network, config)
            if plan is None:
                problems = [self._with_operator(text) for text in library.logger.taken()]
                raise _refused(library, "cannot build the engine", problems, self.where)
            if settings.timing_cache:
                write_bytes(settings.timing_cache, memoryview(config.get_timing_cache().serialize()))
        return memoryview(plan), flags

    def _with_operator(self, text: str) -> str:
        """An error with the kind of the layer that it names."""
        words = set(re.split(r"[\s,:;'\"()\[\]]+", text))
        kinds = dict.fromkeys(layer.type.name for layer in self.layers if layer.name in words)
        return f"{', '.join(kinds)}: {text}" if kinds else text


def _choose_typing(library: Library, content: bytes, settings: EngineSettings, *, where: Path) -> _Build:
    """Parse a graph; once more, weakly typed, if it is plain and another precision is wanted."""
    work = _parsed(library, content, strongly_typed=True, where=where)
    types, wanted = work.types, settings.precision
    plain = set(types) <= {"fp32"}
    if settings.dla_core is not None and plain and wanted == "fp32":
        raise SpecError("a DLA computes in fp16 and int8 only", where="dla_core", found="fp32")
    if wanted == "fp32" or wanted in types:
        if settings.calibration_cache:
            message = "%s: nothing reads it: the graph computes in %s as it is"
            log.warning(message, settings.calibration_cache, ", ".join(types))
        return work
    if not plain:
        allowed = f"its own types ({', '.join(types)}), which -t fp32 leaves as they are"
        raise SpecError("the graph is typed otherwise", where=where, found=wanted, allowed=allowed)
    if not library.has_precision_flags:
        raise ExportError(
            f"{library} computes in the types that a graph is written in, and this one is all fp32",
            where=where,
            found=f"asked for {wanted}",
            hint=f"the typed graph: scripts/export.py export.data_type={wanted} writes "
            + ("model_int8.onnx" if wanted == "int8" else "it"),
        )
    if wanted == "int8" and not settings.calibration_cache:
        hint = (
            "-c FILE, the cache that scripts/export.py export.data_type=int8 writes, or its model_int8.onnx"
        )
        raise SpecError("an int8 engine of a plain graph needs scales", where=where, hint=hint)
    return _parsed(library, content, strongly_typed=False, where=where)


def _parsed(library: Library, content: bytes, *, strongly_typed: bool, where: Path) -> _Build:
    trt, messages = library.module, library.logger
    builder = library.start("Builder")
    flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if strongly_typed else 0
    network = builder.create_network(flags)
    parser = trt.OnnxParser(network, messages)
    if not parser.parse(content):
        problems = [_problem(parser.get_error(i)) for i in range(parser.num_errors)]
        raise _refused(library, "cannot read the graph", problems or messages.taken(), where)
    return _Build(library, builder, network, parser, where, strongly_typed)


def _refuse_settings(settings: EngineSettings) -> None:
    choices = {"precision": PRECISIONS, "hardware": ("", *HARDWARE)}
    for name, allowed in choices.items():
        if (found := getattr(settings, name)) not in allowed:
            names = ", ".join(filter(None, allowed))
            raise SpecError("no such choice", where=name, found=found, allowed=names)
    batches = (settings.min_batch, settings.opt_batch, settings.max_batch)
    if sorted(batches) != list(batches) or batches[0] < 1:
        found = ", ".join(map(str, batches))
        raise SpecError("min, opt and max batch have to rise, from 1", where="batch", found=found)
    if settings.workspace < 1 << 20:
        hint = "-w is in bytes, --max_workspace_size in GiB"
        raise SpecError("is too little", where="workspace", found=f"{settings.workspace} bytes", hint=hint)


def _refuse_unknown(library: Library, settings: EngineSettings) -> None:
    """What this library cannot do, before it is asked."""
    refused: dict[str, tuple[object, str]] = {
        "compute_capabilities": (settings.compute_capabilities, "it builds for the device at hand")
    }
    if library.is_rtx:
        refused = {
            "hardware": (settings.hardware, "its engines run on all RTX devices, or those that are named"),
            "timing_cache": (settings.timing_cache, "it times nothing while it builds"),
            "dla_core": (settings.dla_core, "no RTX device has a DLA"),
        }
    for name, (value, why) in refused.items():
        if value not in (None, "", ()):
            raise SpecError(f"is not for {library}: {why}", where=name, found=value)


def _refuse_shape(wanted: Shape, shape: Shape, *, where: str) -> None:
    fits = len(wanted) == len(shape) and all(a in (-1, b) for a, b in zip(shape, wanted, strict=True))
    if fits and min(wanted) > 0:
        return
    hint = "export.batch_size=-1 leaves the number of images open"
    if -1 in wanted:
        hint = "-d C,H,W or -p NAME,MIN,OPT,MAX says the sides that the graph leaves open"
    message = "a shape that the graph does not take"
    raise SpecError(message, where=where, found=_sides(wanted), allowed=_sides(shape), hint=hint)


def _sides(shape: Shape) -> str:
    return "x".join("?" if side == -1 else str(side) for side in shape)


def _options(
    library: Library, builder: Any, config: Any, settings: EngineSettings
) -> Iterator[tuple[str, Any]]:
    """Set what all versions share; yields what was set."""
    trt = library.module
    if not settings.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
        yield "tf32", False
    if settings.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        yield "version_compatible", True
    if settings.hardware:
        level = getattr(trt.HardwareCompatibilityLevel, HARDWARE[settings.hardware], None)
        if level is None:
            raise SpecError(f"{library} does not have it", where="hardware", found=settings.hardware)
        config.hardware_compatibility_level = level
        yield "hardware", settings.hardware
    if settings.optimization_level is not None:
        config.builder_optimization_level = settings.optimization_level
        yield "optimization_level", settings.optimization_level
    if settings.compute_capabilities:
        config.num_compute_capabilities = len(settings.compute_capabilities)
        for i, text in enumerate(settings.compute_capabilities):
            config.set_compute_capability(_capability(library, text), i)
        yield "compute_capabilities", list(settings.compute_capabilities)
    if settings.dla_core is not None:
        if settings.dla_core >= builder.num_DLA_cores:
            found, there = settings.dla_core, builder.num_DLA_cores
            raise SpecError("no such core", where="dla_core", found=found, allowed=f"{there} cores are here")
        config.default_device_type, config.DLA_core = trt.DeviceType.DLA, settings.dla_core
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
        yield "dla_core", settings.dla_core


def _capability(library: Library, text: str) -> Any:
    kinds = library.module.ComputeCapability
    known = sorted(name for name in dir(kinds) if re.fullmatch(r"SM\d+", name))
    if (name := f"SM{text.replace('.', '')}") not in known:
        allowed = ", ".join(f"{item[2:-1]}.{item[-1]}" for item in known)
        raise SpecError(f"{library} does not build for it", where=name, found=text, allowed=allowed)
    return getattr(kinds, name)


def _precision(library: Library, config: Any, settings: EngineSettings) -> dict[str, Any]:
    """Let TensorRT 10 choose the types of a plain graph; returns what was set."""
    flag, flags = library.module.BuilderFlag, {"strict_types": settings.strict_types}
    if settings.precision == "fp16" or not settings.strict_types:  # TAO: int8 goes with fp16 unless -s
        config.set_flag(flag.FP16)
    if settings.strict_types:
        config.set_flag(flag.OBEY_PRECISION_CONSTRAINTS)
    if settings.precision != "int8" or settings.calibration_cache is None:
        return flags
    config.set_flag(flag.INT8)
    config.int8_calibrator = _calibrator(
        library, cache_of(settings.calibration_cache, version=library.version)
    )
    return {**flags, "calibration_cache": settings.calibration_cache.name}


def _calibrator(library: Library, text: bytes) -> Any:
    """What answers TensorRT's question for scales: it has them all, and no images."""
    base: Any = library.module.IInt8EntropyCalibrator2

    class Calibrator(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)

        def get_batch_size(self) -> int:
            return 1

        def get_batch(self, names: Sequence[str]) -> None:
            return None

        def read_calibration_cache(self) -> bytes:
            return text

        def write_calibration_cache(self, cache: bytes) -> None:
            pass

    return Calibrator()


def _progress(library: Library) -> Any:
    """Tells on the log what the library is at, each thing once: a build takes minutes."""
    base: Any = library.module.IProgressMonitor

    class Progress(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self._told: set[str] = set()

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if parent and name not in self._told:
                self._told.add(name)
                log.info("  %s", name)

        def step_complete(self, name: str, step: int) -> bool:
            return True

        def phase_finish(self, name: str) -> None:
            pass

    return Progress()


def _use_timings(config: Any, path: Path) -> None:
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        log.warning("%s is of another device or version: it begins anew", path)
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _problem(error: Any) -> str:
    """An error of the parser: the node, its operator and why."""
    name, operator, why = error.node_name(), error.node_operator(), error.desc()
    if "Plugin not found" in why:
        why = "it is none of ONNX's operators, and no plugin has its name"
    why = re.sub(r"^Assertion failed: ", "", why)
    return f"node {name or error.node()} ({operator}): {why}" if operator else why


def _refused(library: Library, message: str, problems: Sequence[str], where: Path) -> ExportError:
    text = "\n         ".join(problems) or "it gives no reason"
    hint = next((hint for words, hint in HINTS.items() if re.search(words, text)), None)
    return ExportError(f"{library} {message}", where=where, found=text, hint=hint)


def _described(tensor: Any) -> dict[str, Any]:
    name = tensor.dtype.name
    return {
        "type": {"FLOAT": "float32", "HALF": "float16"}.get(name, name.lower()),
        "shape": list(tensor.shape),
    }
