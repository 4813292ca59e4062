"""Engines of TensorRT as a backend: images in, detections out, on a GPU."""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from frcnn.bridge import yaml
from frcnn.bridge.document import Document
from frcnn.deploy.engine_record import EngineRecord, read_record
from frcnn.deploy.graph_texts import graph_texts
from frcnn.deploy.tensorrt_library import Device, Library, needed_device, open_library
from frcnn.errors import ExportError, RunError, WeightsError
from frcnn.model.detector import Detections, DetectionSettings
from frcnn.paths import refuse_missing

ROWS = "nms_out"
"""The output (B, 1, K, 7): rows [0, label, score, x1 / W, y1 / H, x2 / W, y2 / H], label -1 if unused."""

_TYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "UINT8": torch.uint8,
    "INT8": torch.int8,
    "BOOL": torch.bool,
}


class Session(Protocol):
    """What runs a batch.

    Attributes:
        input_shape: (B, C, H, W), -1 where any number of images goes in.
        input_type: of the images.
        batches: smallest and largest number of images of a call.
    """

    input_shape: tuple[int, ...]
    input_type: torch.dtype
    batches: tuple[int, int]

    def run(self, images: Tensor) -> Mapping[str, Tensor]:
        """Outputs by name, on the device of the images."""


class EngineBackend:
    """An engine behind the interface of `Backend`.

    Its limits (proposals, suppression, slots) are compiled in; a higher threshold and fewer slots are applied
    to what it finds.

    Args:
        path: the engine.
        settings: threshold and slots.
        to_pixels: from normalised images back to pixels, for engines that take uint8.
        session: what runs it; the engine on this machine's GPU if None.

    Raises:
        WeightsError: no such file.
        ExportError: no library or GPU, an engine of another version or device, or one with other inputs or
            outputs than a detector's.
    """

    def __init__(
        self,
        path: str | Path,
        settings: DetectionSettings,
        *,
        to_pixels: Callable[[Tensor], Tensor] | None = None,
        session: Session | None = None,
    ) -> None:
        self.path, self.settings, self.to_pixels = Path(path), settings, to_pixels
        self.session = session or open_engine(self.path)
        self.after_network: Callable[[], None] = lambda: None
        if self.session.input_type == torch.uint8 and to_pixels is None:
            message = "takes uint8 pixels, and images come normalised"
            hint = "an engine of an export without the pre-processing inside"
            raise ExportError(message, where=path, hint=hint)

    def detect(self, images: Tensor, *, image_sizes: Tensor) -> Detections:
        """See `Backend`; any number of images, in as many calls of the engine as it takes.

        Raises:
            ExportError: images of another size than the engine's.
        """
        expected, found = self.session.input_shape[1:], tuple(images.shape[1:])
        if found != expected:
            found_text, allowed = ("x".join(map(str, sides)) for sides in (found, expected))
            raise ExportError("takes images of one size", where=self.path, found=found_text, allowed=allowed)
        x = images
        if self.to_pixels is not None and self.session.input_type == torch.uint8:
            x = self.to_pixels(images)
        # What a call returns may be written over by the next one.
        rows = torch.cat([self.session.run(part)[ROWS][:count].clone() for part, count in self._calls(x)])
        self.after_network()
        return unpack(rows, size=(found[1], found[2]), settings=self.settings)

    def _calls(self, images: Tensor) -> Iterator[tuple[Tensor, int]]:
        """Parts of a batch that the engine takes, and how many images of each count."""
        least, most = self.session.batches
        images = images.to(self.session.input_type)
        for start in range(0, len(images), most):
            part = images[start : start + most]
            lacking = max(least - len(part), 0)
            yield torch.cat([part, part[-1:].expand(lacking, -1, -1, -1)]) if lacking else part, len(part)


def engine_settings(path: str | Path) -> Document:
    """The settings of the model that an engine was made of.

    Args:
        path: an engine with its record, or with the .onnx file that it was built from beside it.

    Raises:
        WeightsError: no such file, or neither is there.
    """
    path = Path(path)
    refuse_missing(path, what="engine")
    record, graph = read_record(path), path.with_suffix(".onnx")
    texts = record.texts if record else graph_texts(graph.read_bytes()) if graph.is_file() else {}
    if "config" not in texts:
        hint = f"scripts/build_engine.py of an export of ours; or keep {graph.name}, the export, beside it"
        raise WeightsError("brings no settings of a model", where=path, hint=hint)
    return yaml.parse(texts["config"], source=str(path))


def unpack(rows: Tensor, *, size: tuple[int, int], settings: DetectionSettings) -> Detections:
    """Detections of an engine's rows.

    Args:
        rows: (B, 1, K, 7), see `ROWS`, by falling score.
        size: height and width of the network input, pixels.
        settings: threshold and slots.
    """
    rows = rows.float().squeeze(1)[:, : settings.max_detections]
    labels, scores = rows[..., 1].long(), rows[..., 2]
    kept = (labels >= 0) & (scores > settings.score_threshold)
    sides = rows.new_tensor([size[1], size[0]]).repeat(2)
    none = rows.new_zeros(len(rows), 0, 4)
    return Detections(
        boxes=rows[..., 3:] * sides * kept.unsqueeze(-1),
        scores=scores * kept,
        labels=labels.where(kept, -1),
        proposals=none,
        proposals_valid=none[..., 0].bool(),
    )


def open_engine(path: Path) -> Session:
    """An engine on this machine's GPU; arguments and errors as in `EngineBackend`."""
    refuse_missing(path, what="engine")
    record = read_record(path)
    library = open_library(record.library if record else "auto")
    if record is not None:
        refuse_other_version(record, library, where=path)
    device = needed_device(to="run an engine")
    if record is not None:
        refuse_other_device(record, device, where=path)
    return CudaSession(library, path)


def refuse_other_version(record: EngineRecord, library: Library, *, where: Path) -> None:
    """Stop at an engine that this library would not load.

    Raises:
        ExportError: with both versions.
    """
    built, here = (_numbers(text) for text in (record.version, library.version))
    compatible = bool(record.flags.get("version_compatible")) and built[0] == here[0] and built <= here
    if built != here and not compatible:
        allowed = f"{record.library} {record.version}"
        hint = f"install that version, or build it again from {record.onnx} with scripts/build_engine.py"
        raise ExportError(
            "was built with another version", where=where, found=str(library), allowed=allowed, hint=hint
        )


def refuse_other_device(record: EngineRecord, device: Device, *, where: Path) -> None:
    """Stop at an engine that is for other devices.

    Raises:
        ExportError: with both devices.
    """
    targets = record.flags.get("compute_capabilities")
    if record.library == "tensorrt_rtx":
        fits, built = not targets or device.capability in targets, ", ".join(targets or ())
    else:
        own = (record.device or {}).get("capability", "")
        ampere = record.flags.get("hardware") == "ampere_plus" and float(device.capability) >= 8.0
        fits, built = ampere or own == device.capability, f"{own} ({(record.device or {}).get('name')})"
    if not fits:
        found = f"{device.capability} ({device.name})"
        hint = f"build it here from {record.onnx}, or with --hardware ampere_plus for Ampere and later"
        message = "was built for devices of another compute capability"
        raise ExportError(message, where=where, found=found, allowed=built, hint=hint)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


class CudaSession:
    """An engine, its buffers and a stream of its own.

    Buffers are made once, for the largest batch. Images of the host go by a page-locked copy, so that
    transfers run on the stream; those that are on the GPU already are read where they are.

    Args:
        library: that built the engine.
        path: the engine.

    Raises:
        ExportError: it cannot be loaded, or has other inputs and outputs than a detector's.
    """

    def __init__(self, library: Library, path: Path) -> None:
        self.library, self.path = library, path
        trt, messages = library.module, library.logger
        self._runtime = library.start("Runtime")
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            found = "\n         ".join(messages.taken()) or "it gives no reason"
            hint = "build it again here with scripts/build_engine.py"
            raise ExportError(f"{library} cannot load the engine", where=path, found=found, hint=hint)
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        inputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        self._outputs = [name for name in names if name not in inputs]
        if len(inputs) != 1 or ROWS not in self._outputs:
            allowed = f"one input, and {ROWS} among the outputs"
            raise ExportError("is no detector's engine", where=path, found=", ".join(names), allowed=allowed)
        self._input = inputs[0]
        self.input_shape = tuple(self._engine.get_tensor_shape(self._input))
        self.input_type = self._type(self._input)
        self.batches = (self.input_shape[0],) * 2
        if self.input_shape[0] == -1:
            smallest, _, largest = self._engine.get_tensor_profile_shape(self._input, 0)
            self.batches = smallest[0], largest[0]
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pinned: dict[str, Tensor] = {}
        self._device: dict[str, Tensor] = {}

    def run(self, images: Tensor) -> dict[str, Tensor]:
        """See `Session`.

        Raises:
            RunError: the engine failed.
        """
        on_host, current = images.device.type == "cpu", torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            given = images.contiguous()
            if on_host:
                staged = self._buffer(self._pinned, self._input, tuple(images.shape)).copy_(given)
                given = self._buffer(self._device, self._input, tuple(images.shape))
                given.copy_(staged, non_blocking=True)
            self._context.set_input_shape(self._input, tuple(given.shape))
            self._context.set_tensor_address(self._input, given.data_ptr())
            found = {}
            for name in self._outputs:
                shape = tuple(self._context.get_tensor_shape(name))
                found[name] = self._buffer(self._device, name, shape)
                self._context.set_tensor_address(name, found[name].data_ptr())
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                reasons = "; ".join(self.library.logger.taken()) or None
                raise RunError("the engine failed", where=self.path, found=reasons)
            if on_host:
                pinned = {name: self._buffer(self._pinned, name, tuple(x.shape)) for name, x in found.items()}
                for name, value in found.items():
                    pinned[name].copy_(value, non_blocking=True)
                self._stream.synchronize()
                return pinned
        current.wait_stream(self._stream)
        given.record_stream(self._stream)
        return found

    def _buffer(self, buffers: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
        """A part of a buffer that has room for the largest batch."""
        if name not in buffers:
            pinned, most = buffers is self._pinned, (self.batches[1], *shape[1:])
            device = "cpu" if pinned else "cuda"
            buffers[name] = torch.empty(most, dtype=self._type(name), device=device, pin_memory=pinned)
        return buffers[name][: shape[0]]

    def _type(self, name: str) -> torch.dtype:
        return _TYPES[self._engine.get_tensor_dtype(name).name]
