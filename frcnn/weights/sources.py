"""Where pretrained weights may come from, and how each kind is read."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from frcnn.encryption import model_suffix
from frcnn.errors import WeightsError
from frcnn.model.batch_norm import BatchNorm2d
from frcnn.model.detector import FasterRCNN
from frcnn.weights import keras_hdf5
from frcnn.weights.checkpoint import Checkpoint
from frcnn.weights.imagenet.convert import Converted, Target, choose_format, convert
from frcnn.weights.imagenet.lookup import fetch, is_name, look_up
from frcnn.weights.keras_hdf5 import name_head, read_hdf5
from frcnn.weights.load import load_layers, weighted_layers
from frcnn.weights.report import LoadReport
from frcnn.weights.torch_files import SUFFIXES, read_state

__all__ = ["READERS", "Target", "is_name", "load_pretrained"]

log = logging.getLogger(__name__)


def load_pretrained(detector: FasterRCNN, source: str, *, target: Target | None = None) -> LoadReport:
    """Start a training: put in every layer of a file that fits by name and shape, heads included.

    Args:
        detector: a fresh network.
        source: what `training_config.pretrained_weights` says: a path, or a name as in `is_name`.
        target: its architecture and input, which weights of torchvision and timm are made for.

    Raises:
        WeightsError: a file of another kind, a broken one, or one without a single layer that fits.
    """
    read = _named if is_name(source) else READERS.get(model_suffix(source))
    if read is None:
        allowed = f"a suffix of {', '.join(READERS)}, torchvision:NAME or timm:NAME"
        raise WeightsError("is no weight file", where=source, allowed=allowed)
    layers, notes, other_images = read(source, detector, target)
    report = load_layers(detector, layers, source=source)
    for name, layer in weighted_layers(detector).items():
        # Training without freeze_bn does not see the statistics of photographs. Were they kept through its
        # first hundred steps, as those of a detector are, validation would be with them and fail.
        if other_images and isinstance(layer, BatchNorm2d) and name in report.loaded:
            layer.num_batches_tracked.zero_()
    rows = (row._replace(note=notes.get(row.name, "")) if row.status == "Yes" else row for row in report.rows)
    return replace(report, rows=tuple(rows))


def _keras(source: str, detector: FasterRCNN, _: Target | None) -> Converted:
    file = read_hdf5(source)
    _tell_ceiling(source, detector, relu6=file.relu6)
    return Converted(name_head(file, detector.head.body).layers, {})


def _checkpoint(source: str, detector: FasterRCNN, _: Target | None) -> Converted:
    stored = Checkpoint(source)
    _tell_ceiling(source, detector, relu6=bool(stored.traits.get("relu6")))
    return Converted(stored.layers, {})


def _tell_ceiling(source: str, detector: FasterRCNN, *, relu6: bool) -> None:
    if relu6 and detector.trunk.ceiling is None:
        message = (
            "%s: its activations end at 6, and those of this network do not; with run.relu6=true they do"
        )
        log.warning(message, source)


def _state_dict(source: str, detector: FasterRCNN, target: Target | None) -> Converted:
    """A file says nothing of its epsilon: TensorFlow's 1e-3 if it has timm's name for weights from there."""
    target, state = _needed(target, source), read_state(source)
    form = choose_format(detector, state, target.arch, source=source)
    if form.origin == "timm" and "tf_" in Path(source).name:
        form = form._replace(eps=1e-3)
    elif form.origin == "timm" and target.arch.startswith("efficientnet"):
        log.warning(
            "%s: taken for weights with an epsilon of %g; TensorFlow's have 1e-3, and tf_ in the file's name",
            *(source, form.eps),
        )
    return convert(detector, state, form, target)


def _named(source: str, detector: FasterRCNN, target: Target | None) -> Converted:
    target, named = _needed(target, source), look_up(source)
    form = choose_format(detector, named.names, target.arch, source=source)
    form = form._replace(eps=named.eps or form.eps, normalisation=named.normalisation or form.normalisation)
    state = read_state(path := fetch(named))
    choose_format(detector, state, target.arch, source=str(path))
    return convert(detector, state, form, target)


def _needed(target: Target | None, source: str) -> Target:
    if target is None:
        message = "weights for images in RGB need the network's own input to be made for it"
        raise WeightsError(message, where=source, hint="give the target")
    return target


READERS: Mapping[str, Callable[[str, FasterRCNN, Target | None], Converted]] = {
    **dict.fromkeys(keras_hdf5.SUFFIXES, _keras),
    ".ckpt": _checkpoint,
    **dict.fromkeys(SUFFIXES, _state_dict),
}
"""By suffix: from the path, the network that it is for and its input to layers."""
