"""An exported ONNX file as a backend, run by ONNX Runtime."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from frcnn.bridge import yaml
from frcnn.bridge.document import Document
from frcnn.deploy.graph import INPUT, OUTPUTS, STAGES, Pixels
from frcnn.deploy.graph_texts import PREFIX
from frcnn.deploy.needs import need
from frcnn.encryption import unsealed
from frcnn.errors import DataError, WeightsError
from frcnn.model.detector import Detections


def with_stages(content: bytes) -> bytes:
    """A file's content with the tensors of `STAGES` among the outputs."""
    need("onnx")
    import onnx

    model = onnx.load_from_string(content)
    inner = {value.name: value for value in model.graph.value_info}
    model.graph.output.extend(inner[name] for name in STAGES if name in inner)
    written: bytes = model.SerializeToString()
    return written


class OnnxFile:
    """A file that `export` wrote, ready to run.

    Args:
        path: a .onnx file, or .onnx.enc, which is opened in memory.
        stages: whether tensors of its inside are wanted too; takes the package `onnx`.
        gpu: whether a GPU may be used, where ONNX Runtime has one.
        key: of a sealed file; that of the environment if empty.

    Raises:
        SpecError: the key is missing or wrong.
        WeightsError: it cannot be read, or `export` did not write it.
        RunError: ONNX Runtime is not installed.
    """

    def __init__(self, path: str | Path, *, stages: bool = False, gpu: bool = False, key: str = "") -> None:
        need("onnxruntime")
        import onnxruntime

        self.path = Path(path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider") if gpu else ("CPUExecutionProvider",)
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
        content = unsealed(self.path, key)
        try:
            source = with_stages(content) if stages else content
            self.session = onnxruntime.InferenceSession(source, options, providers=providers)
        except Exception as error:
            found = str(error).strip().split("\n")[0][:200]
            raise WeightsError("ONNX Runtime cannot load it", where=path, found=found) from error
        stored = self.session.get_modelmeta().custom_metadata_map
        self.texts = {
            name.removeprefix(PREFIX): text for name, text in stored.items() if name.startswith(PREFIX)
        }
        if not {"config", "graph"} <= set(self.texts):
            hint = "scripts/export.py model_path=CHECKPOINT"
            raise WeightsError("was not exported by frcnn: it brings no settings", where=path, hint=hint)
        self.facts: dict[str, Any] = json.loads(self.texts["graph"])

    @property
    def settings(self) -> Document:
        """The settings that it was exported with."""
        return yaml.parse(self.texts["config"], source=str(self.path))


class OnnxBackend:
    """Finds objects with an exported file; see `frcnn.backend.Backend`.

    Args:
        file: to run.
        pixels: how pixels become network input; what the file takes may be pixels.
    """

    def __init__(self, file: OnnxFile, *, pixels: Pixels) -> None:
        self.file, self.pixels = file, pixels
        self.epochs = int(file.facts["epochs"])
        self.after_network: Callable[[], None] = lambda: None
        height, width = file.facts["size"]
        self.size = (int(height), int(width))

    def detect(self, images: Tensor, *, image_sizes: Tensor) -> Detections:
        """See `Backend`. There are no proposals: nobody asked the graph for them.

        Raises:
            DataError: images of another size than the graph's.
        """
        if tuple(images.shape[-2:]) != self.size:
            found, allowed = ("x".join(map(str, size)) for size in (images.shape[-2:], self.size))
            raise DataError(
                "the exported graph takes one size", where=self.file.path, found=found, allowed=allowed
            )
        rows = torch.from_numpy(np.concatenate([self.run(part)[0] for part in self.batches(images)]))
        rows = rows[: len(images), 0].to(images.device)
        self.after_network()
        height, width = self.size
        boxes = rows[..., 3:] * rows.new_tensor([width, height, width, height])
        none = rows.new_zeros(len(rows), 0, 4)
        return Detections(boxes, rows[..., 2], rows[..., 1].long(), none, none[..., 0].bool())

    def stages(self, images: Tensor) -> dict[str, Tensor]:
        """Tensors of `STAGES` for images, of a file that was opened with its stages."""
        names = [value.name for value in self.file.session.get_outputs() if value.name in STAGES]
        parts = [self.run(part, names) for part in self.batches(images)]
        tables = [torch.from_numpy(np.concatenate(found)) for found in zip(*parts, strict=True)]
        images_in = sum(len(part) for part in self.batches(images))
        # Regions of all images lie in one dimension.
        return {
            name: table[: len(table) // images_in * len(images)]
            for name, table in zip(names, tables, strict=True)
        }

    def run(self, batch: np.ndarray, outputs: Sequence[str] = OUTPUTS) -> list[np.ndarray]:
        """Outputs of the graph by name."""
        found: list[np.ndarray] = self.file.session.run(list(outputs), {INPUT: batch})
        return found

    def batches(self, images: Tensor) -> list[np.ndarray]:
        """Network input as the graph takes it, in batches of the number that it was made for."""
        values = images.detach().float().cpu()
        if self.file.facts["input"] == "pixels":
            values = self.pixels.back(values)
        size = int(self.file.facts["batch"])
        if size < 0:
            return [values.numpy()]
        missing = -len(values) % size
        values = torch.cat([values, values.new_zeros(missing, *values.shape[1:])])
        return [part.numpy() for part in torch.split(values, size)]
