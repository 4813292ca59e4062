"""What finds objects in network input: one interface, an implementation per kind of model file."""

import logging
from collections.abc import Callable, Collection
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple, Protocol

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from frcnn import build
from frcnn.bridge.document import Document
from frcnn.data.sample import Batch
from frcnn.deploy.onnx_runtime import OnnxBackend, OnnxFile
from frcnn.deploy.tensorrt_run import EngineBackend, engine_settings
from frcnn.encryption import model_suffix
from frcnn.model.detector import Detections, DetectionSettings, FasterRCNN
from frcnn.spec.evaluation import EvaluationConfig, InferenceConfig
from frcnn.spec.run import App
from frcnn.weights.checkpoint import Checkpoint, settings_of_model

log = logging.getLogger(__name__)


class Backend(Protocol):
    """A loaded model. One that is an `nn.Module` too is moved to the device of a run."""

    after_network: Callable[[], None]
    """Called between the network and its post-processing, for a clock."""

    def detect(self, images: Tensor, *, image_sizes: Tensor) -> Detections:
        """Find objects.

        Args:
            images: (B, C, H, W) float32, normalised: what `build.transforms` makes of files.
            image_sizes: (B, 2) height and width of the valid part of each.

        Returns:
            Boxes in pixels of `images`, at most as many as the settings say.
        """


class TorchBackend(nn.Module):
    """Our own network.

    Args:
        detector: with its weights.
        settings: how detections are made.
        epochs: how many it has behind it.
    """

    def __init__(self, detector: FasterRCNN, settings: DetectionSettings, *, epochs: int = 0) -> None:
        super().__init__()
        self.detector, self.settings, self.epochs = detector.eval(), settings, epochs
        self.after_network: Callable[[], None] = lambda: None

    @torch.no_grad()
    def detect(self, images: Tensor, *, image_sizes: Tensor) -> Detections:
        """See `Backend`."""
        raw = self.detector.outputs(images, settings=self.settings, image_sizes=image_sizes)
        self.after_network()
        return self.detector.postprocess(*raw, settings=self.settings)


class LitBackend(pl.LightningModule):
    """A backend whose detections Lightning's validation hands to the callbacks."""

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self.backend = backend

    def validation_step(self, batch: Batch, batch_idx: int) -> Detections:  # type: ignore[override]
        """Detections of a batch."""
        return self.backend.detect(batch.images, image_sizes=batch.image_sizes)


def model_settings(
    path: str | Path,
    *,
    over: Document | None = None,
    blocks: Collection[str] | None = None,
    key: str = "",
) -> Document:
    """The settings that a model file brings along.

    Args:
        path: a model file.
        over: a spec whose blocks take the place of the model's; the network's settings stay.
        blocks: the blocks of `over` that count; all if None.
        key: of a sealed file; that of the environment if empty.

    Raises:
        WeightsError: there is no such file, it is broken, or it is of a kind that cannot be used.
        SpecError: the key is missing or wrong.
    """
    return _kind(Path(path)).settings(Path(path), over, blocks, key)


def open_backend(app: App, block: EvaluationConfig | InferenceConfig) -> Backend:
    """The backend of `run.model_path`, chosen by the file's suffix.

    Args:
        app: settings, those of the model among them.
        block: how detections are made.

    Raises:
        WeightsError: as `model_settings`, or weights that do not fit the settings.
    """
    path = Path(app.run.model_path)
    return _kind(path).open(path, app, build.detection_settings(block))


class _Kind(NamedTuple):
    """How model files of one suffix are used."""

    settings: Callable[[Path, Document | None, Collection[str] | None, str], Document]
    open: Callable[[Path, App, DetectionSettings], Backend]


def _checkpoint_settings(
    path: Path, over: Document | None, blocks: Collection[str] | None, key: str
) -> Document:
    return Checkpoint(path, key=key).document(over=over, blocks=blocks)


def _open_checkpoint(path: Path, app: App, settings: DetectionSettings) -> TorchBackend:
    stored = Checkpoint(path, key=app.enc_key)
    detector = build.build_detector(app, plan=stored.channels)
    stored.load_into(detector)
    return TorchBackend(detector, settings, epochs=stored.epochs)


def _onnx_settings(path: Path, over: Document | None, blocks: Collection[str] | None, key: str) -> Document:
    return settings_of_model(OnnxFile(path, key=key).settings, path, over=over, blocks=blocks)


def _engine_settings(path: Path, over: Document | None, blocks: Collection[str] | None, _: str) -> Document:
    return settings_of_model(engine_settings(path), path, over=over, blocks=blocks)


def _open_onnx(path: Path, app: App, settings: DetectionSettings) -> OnnxBackend:
    file = OnnxFile(path, key=app.enc_key, gpu=app.trainer.accelerator in ("auto", "gpu"))
    own = file.facts["detections"]
    for name, asked in asdict(settings).items():
        if own[name] != asked:
            log.warning("%s: %s is %s in the exported graph, not %s", path.name, name, own[name], asked)
    return OnnxBackend(file, pixels=build.pixels(app))


def _open_engine(path: Path, app: App, settings: DetectionSettings) -> EngineBackend:
    return EngineBackend(path, settings, to_pixels=build.pixels(app).back)


def _kind(path: Path) -> _Kind:
    """How a file is used; what is of no known kind is taken for a checkpoint, which says what is wrong."""
    return _KINDS.get(model_suffix(path), _KINDS[".ckpt"])


_KINDS = {
    ".ckpt": _Kind(_checkpoint_settings, _open_checkpoint),
    ".onnx": _Kind(_onnx_settings, _open_onnx),
    **dict.fromkeys((".engine", ".trt"), _Kind(_engine_settings, _open_engine)),
}
