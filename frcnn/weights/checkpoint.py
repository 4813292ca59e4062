"""Our checkpoints: the weights of a detector and the settings that it was made from."""

import logging
from pathlib import Path
from typing import Any

import torch

from frcnn.bridge import yaml
from frcnn.bridge.document import Document
from frcnn.checkpoint_io import AtomicCheckpointIO
from frcnn.errors import WeightsError
from frcnn.model.detector import FasterRCNN

log = logging.getLogger(__name__)

PREFIX = "detector."


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content; nothing in the file is executed.

    Raises:
        WeightsError: no such file, broken, or not written by `frcnn`.
    """
    if str(path).endswith((".hdf5", ".h5", ".tlt", ".onnx", ".engine", ".etlt")):
        raise WeightsError("is no checkpoint of frcnn", where=path, allowed="a .ckpt file of a run")
    content = AtomicCheckpointIO().load_checkpoint(Path(path))
    if not isinstance(content, dict) or "frcnn" not in content:
        raise WeightsError("is no checkpoint of frcnn", where=path, allowed="a .ckpt file of a run")
    return content


def read_document(path: str | Path, *, over: Document | None = None) -> Document:
    """The settings in a checkpoint.

    Args:
        path: checkpoint file.
        over: a spec whose blocks take the place of the checkpoint's; the network's settings stay.
    """
    stored = yaml.parse(load_checkpoint(path)["frcnn"]["config"], source=str(path))
    kept = {k: v for k, v in stored.extra.get("run", {}).items() if k not in ("resume", "overwrite", "name")}
    extra = {**stored.extra, "run": {**kept, "model_path": str(Path(path).resolve())}}
    if over is not None:
        for name in over.spec.mentioned() - {"model_config", "enc_key"}:
            setattr(stored.spec, name, getattr(over.spec, name))
        if "model_config" in over.spec.mentioned():
            log.info("%s: model_config is not used; the network's settings come with %s", over.source, path)
        extra["run"]["spec_folder"] = str(Path(over.source).resolve().parent)
    return Document(stored.spec, stored.source, stored.places, extra)


def load_weights(detector: FasterRCNN, path: str | Path) -> None:
    """Put a checkpoint's weights into a detector of the same settings.

    Raises:
        WeightsError: layers that are missing, left over or of another shape.
    """
    state = load_checkpoint(path)["state_dict"]
    weights = {name.removeprefix(PREFIX): value for name, value in state.items() if name.startswith(PREFIX)}
    own = detector.state_dict()
    wrong = [name for name in own if name not in weights or weights[name].shape != own[name].shape]
    wrong += [name for name in weights if name not in own]
    if wrong:
        found = ", ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise WeightsError("does not fit the network of its settings", where=path, found=found)
    with torch.no_grad():
        detector.load_state_dict(weights)
