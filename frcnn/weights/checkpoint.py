"""Our checkpoints: the weights of a detector and the settings that it was made from."""

import copy
import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from frcnn.bridge import yaml
from frcnn.bridge.document import Document
from frcnn.checkpoint_io import write_checkpoint
from frcnn.encryption import model_suffix
from frcnn.errors import SpecError, WeightsError
from frcnn.model.detector import FasterRCNN
from frcnn.quantize import TENSORS as QUANTIZER_TENSORS
from frcnn.quantize import quantize
from frcnn.safe_load import safe_load
from frcnn.spec.experiment import Experiment
from frcnn.spec.fields import Message
from frcnn.spec.run import App
from frcnn.spec.values import class_names
from frcnn.weights.keras_hdf5 import SUFFIXES
from frcnn.weights.load import Layers, channel_plan_of, weighted_layers
from frcnn.weights.report import LayerStatus, LoadReport

log = logging.getLogger(__name__)

PREFIX = "detector."
TRAITS = ("relu6", "activation_scales", "quantized")
FOREIGN = (*SUFFIXES, ".onnx", ".engine", ".etlt")
HINTS = {
    **dict.fromkeys(SUFFIXES, "scripts/import_weights.py IN OUT.ckpt spec=FILE makes one of it"),
    ".etlt": "only the toolkit that wrote it decodes it: bring its .hdf5 in with scripts/import_weights.py",
}
"""By suffix, the way to a checkpoint."""


class Checkpoint:
    """A checkpoint of ours, read once; nothing in the file is executed.

    Args:
        path: a .ckpt file, or a .ckpt.enc file, which is opened in memory.
        key: of the latter; that of the environment if empty.

    Raises:
        WeightsError: no such file, broken, or not written by `frcnn`.
        SpecError: the key is missing or wrong.
    """

    def __init__(self, path: str | Path, *, key: str = "") -> None:
        self.path = Path(path)
        if (suffix := model_suffix(path)) in FOREIGN:
            hint = HINTS.get(suffix)
            raise WeightsError(
                "is no checkpoint of frcnn", where=path, allowed="a .ckpt file of a run", hint=hint
            )
        content = safe_load(self.path, what="checkpoint", key=key)
        if wrong := _malformed(content):
            allowed = "a .ckpt file of a run"
            raise WeightsError("is no checkpoint of frcnn", where=path, found=wrong, allowed=allowed)
        self.content: dict[str, Any] = content

    @cached_property
    def _stored(self) -> Document:
        return yaml.parse(self.content["frcnn"]["config"], source=str(self.path))

    @property
    def settings(self) -> Experiment:
        """The spec that it was trained with, as it was then."""
        return self._stored.spec

    @property
    def beside(self) -> dict[str, Any]:
        """What stood beside the spec: sections `run`, `trainer` and `logger`."""
        return self._stored.extra

    @property
    def epochs(self) -> int:
        """How many whole epochs it has behind it."""
        return int(self._progress.get("epochs", self.content["epoch"] + 1))

    @property
    def batches(self) -> int:
        """How many batches of the next epoch it has behind it."""
        return int(self._progress.get("batches", 0))

    @property
    def images_per_step(self) -> int:
        """How many images a batch had, on all devices together."""
        return int(self._progress.get("images_per_step", 0))

    @property
    def steps(self) -> int:
        """How many optimizer steps it has behind it."""
        return int(self.content["global_step"])

    @property
    def _progress(self) -> dict[str, Any]:
        progress: dict[str, Any] = self.content["frcnn"].get("progress", {})
        return progress

    @property
    def layers(self) -> Layers:
        """Its weights by layer, as a start for another network."""
        layers: dict[str, dict[str, Tensor]] = {}
        for name, value in self.content["state_dict"].items():
            *_, layer, tensor = name.split(".")
            if tensor in QUANTIZER_TENSORS:
                continue
            layers.setdefault(layer, {})[tensor] = value
        return layers

    @property
    def channels(self) -> dict[str, int]:
        """The channel plan of its network: the shapes of its weights are the plan."""
        return channel_plan_of(self.layers)

    @property
    def traits(self) -> dict[str, Any]:
        """What it says of its network beside the weights: `relu6`, `activation_scales`, `quantized`."""
        stored = self.content["frcnn"]
        return {name: stored[name] for name in TRAITS if name in stored}

    def document(self, *, over: Document | None = None, blocks: Collection[str] | None = None) -> Document:
        """Its settings.

        Args:
            over: a spec whose blocks take the place of the checkpoint's; the network's settings stay.
            blocks: the blocks of `over` that count; all if None.
        """
        return settings_of_model(self._stored, self.path, over=over, blocks=blocks)

    def refuse_other_network(self, app: App) -> None:
        """Stop a resumed run whose network, classes or optimizer are not the checkpoint's.

        Raises:
            SpecError: names what differs.
        """
        stored, strides = self._stored.spec, self._stored.extra.get("run", {}).get("stride_on_3x3", False)
        pairs = {
            "run.stride_on_3x3": (strides, app.run.stride_on_3x3),
            "model_config": (stored.model_config, app.model_config),
            "the classes": (class_names(stored.dataset_config), class_names(app.dataset_config)),
            "the optimizer": (_kind(stored), _kind(app)),
            "run.ema_decay": ("averaging_state" in self.content, app.run.ema_decay > 0),
            "training_config.enable_qat": ("quantized" in self.traits, app.training_config.enable_qat),
        }
        changed = [name for name, (before, now) in pairs.items() if before != now]
        if changed:
            hint = "resume with the settings of the run, or train in another folder"
            raise SpecError(
                "differs from the run to resume", where=self.path, found=", ".join(changed), hint=hint
            )

    def load_into(self, detector: FasterRCNN, *, as_float: bool = False) -> LoadReport:
        """Put its weights into a detector of the same settings, which then computes as its network did.

        Args:
            detector: fresh.
            as_float: leave out the rounding of a quantised network.

        Returns:
            The table of its layers, all of them loaded.

        Raises:
            WeightsError: layers that are missing, left over or of another shape.
        """
        state = self.content["state_dict"]
        weights = {
            name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)
        }
        traits = self.traits
        if as_float and traits.pop("quantized", None):
            weights = {k: v for k, v in weights.items() if k.rpartition(".")[2] not in QUANTIZER_TENSORS}
        apply_traits(detector, traits)
        own = detector.state_dict()
        wrong = [name for name in own if name not in weights or weights[name].shape != own[name].shape]
        wrong += [name for name in weights if name not in own]
        if wrong:
            found = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
            raise WeightsError("does not fit the network of its settings", where=self.path, found=found)
        with torch.no_grad():
            detector.load_state_dict(weights)
        own_layers = weighted_layers(detector).items()
        rows = (LayerStatus(name, type(layer).__name__, "Yes", "") for name, layer in own_layers)
        return LoadReport(str(self.path), tuple(rows), unused=())


def settings_of_model(
    stored: Document, path: Path, *, over: Document | None = None, blocks: Collection[str] | None = None
) -> Document:
    """The settings that come with a model file, for a command that uses it.

    Args:
        stored: what the file holds.
        path: of the file.
        over: as in `Checkpoint.document`.
        blocks: likewise.
    """
    spec, extra = copy.deepcopy(stored.spec), stored.extra
    # Where it was trained, and on how many devices, says nothing about where it is evaluated.
    trainer = {k: v for k, v in extra.get("trainer", {}).items() if k in ("precision", "limit_val_batches")}
    run = {k: v for k, v in extra.get("run", {}).items() if k != "name"}
    run["model_path"] = str(path.resolve())
    if over is not None:
        mentioned = over.spec.mentioned() - {"model_config", "enc_key"}
        for name in mentioned if blocks is None else mentioned & set(blocks):
            setattr(spec, name, getattr(over.spec, name))
        if not spec.dataset_config.data_sources:  # a spec of evaluation alone needs no training data
            sources = stored.spec.dataset_config.data_sources
            spec.dataset_config = replace(spec.dataset_config, data_sources=copy.deepcopy(sources))
        if "model_config" in over.spec.mentioned():
            message = "%s: model_config is not used; the network's settings come with %s"
            log.info(message, over.source, path)
        run["spec_folder"] = str(Path(over.source).resolve().parent)
        trainer |= over.extra.get("trainer", {})
    return Document(spec, stored.source, stored.places, {"run": run, "trainer": trainer})


def save_detector(detector: FasterRCNN, path: str | Path, *, stored: Mapping[str, Any]) -> None:
    """Write a checkpoint of a network that was not trained here: as a run does, with no epoch behind it.

    Args:
        detector: the network.
        path: a .ckpt file; sealed if it is called .ckpt.enc.
        stored: what its key `frcnn` holds: the texts `spec` and `config`, and of an imported network
            `imported` (what became of each layer), `activation_scales` (layer -> largest absolute output) and
            `relu6` (whether its activations end at 6); of a quantised one `quantized`, the arguments of
            `frcnn.quantize.quantize`.

    Raises:
        RunError: it cannot be written.
    """
    state = {PREFIX + name: value for name, value in detector.state_dict().items()}
    content: dict[str, Any] = {
        "epoch": -1,
        "global_step": 0,
        "pytorch-lightning_version": version("pytorch-lightning"),
    }
    content |= {"state_dict": state, "frcnn": dict(stored)}
    write_checkpoint(content, Path(path), hint="make room or choose another place")


def apply_traits(detector: FasterRCNN, traits: Mapping[str, Any]) -> None:
    """Let a fresh network compute as the one whose weights it is to have."""
    detector.limit_activations(6.0 if traits.get("relu6") else None)
    if quantized := traits.get("quantized"):
        quantize(detector, skip=quantized["skip"], learned=quantized["learned"])


def _malformed(content: object) -> str | None:
    """The first part that this module reads and that is missing or of another kind."""
    content = content if isinstance(content, dict) else {}
    stored, state = content.get("frcnn"), content.get("state_dict")
    stored = stored if isinstance(stored, dict) else {}
    parts: dict[str, tuple[object, type]] = {
        "frcnn.config": (stored.get("config"), str),
        "frcnn.progress": (stored.get("progress", {}), dict),
        "frcnn.activation_scales": (stored.get("activation_scales", {}), dict),
        "frcnn.quantized": (quantized := stored.get("quantized", {"skip": [], "learned": False}), dict),
        "epoch": (content.get("epoch"), int),
        "global_step": (content.get("global_step"), int),
        "state_dict": (state, dict),
    }
    if isinstance(quantized, dict):
        parts |= {"frcnn.quantized.skip": (quantized.get("skip"), list)}
        parts |= {"frcnn.quantized.learned": (quantized.get("learned"), bool)}
    if isinstance(progress := stored.get("progress"), dict):
        counts = ("epochs", "batches", "images_per_step")
        parts |= {f"frcnn.progress.{name}": (progress.get(name, 0), int) for name in counts}
    for name, (value, kind) in parts.items():
        if not isinstance(value, kind):
            return f"{name}: {'missing' if value is None else type(value).__name__}"
    for name, value in (state or {}).items():
        if not isinstance(name, str) or "." not in name or not isinstance(value, Tensor):
            return f"state_dict: {name!r}: {type(value).__name__}"[:200]
    return None


def _kind(spec: Experiment) -> list[str]:
    return [
        name for name, value in vars(spec.training_config.optimizer).items() if isinstance(value, Message)
    ]
