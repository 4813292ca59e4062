"""What a training starts from: a run to go on with, a pruned model, pretrained weights, or nothing."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from frcnn import build
from frcnn.errors import SpecError, WeightsError
from frcnn.model.detector import FasterRCNN
from frcnn.paths import PathFinder, load_mounts
from frcnn.quantize import is_quantized, quantize, set_ranges, trait
from frcnn.spec.model import ModelConfig
from frcnn.spec.run import App
from frcnn.spec.values import class_names
from frcnn.weights.checkpoint import Checkpoint, apply_traits
from frcnn.weights.importer import guess, import_detector, look
from frcnn.weights.keras_hdf5 import SUFFIXES, read_hdf5
from frcnn.weights.report import LoadReport
from frcnn.weights.sources import is_name, load_pretrained

log = logging.getLogger(__name__)

# TAO: a pruned model brings its graph; anchors, crops, thresholds and what is frozen are the spec's.
GRAPH = (
    *("arch", "use_bias", "all_projections", "use_pooling"),
    *("dropout_rate", "drop_connect_rate", "activation"),
)


class Start(NamedTuple):
    """Where a training begins."""

    detector: FasterRCNN
    report: LoadReport | None  # of weights that were loaded
    traits: dict[str, Any]  # of an imported network, to be stored with its checkpoints


def locate_weights(app: App) -> None:
    """Make the path that the training starts from absolute; the original's order decides which that is.

    Raises:
        DataError: no such file, with the places that were tried.
    """
    training = app.training_config
    finder = PathFinder(spec_folder=app.run.spec_folder, mounts=load_mounts(app.run.mounts))
    for name in ("resume_from_model", "retrain_pruned_model", "pretrained_weights"):
        value = getattr(training, name)
        if value and not app.run.resume:
            if not is_name(value):
                setattr(training, name, str(finder.find(value, field=f"training_config.{name}")))
            return


def start(app: App, resumed: Path | None) -> Start:
    """Build the detector of a training.

    A checkpoint to go on from comes first, then `retrain_pruned_model` and `pretrained_weights`, as in the
    original.

    Args:
        app: settings; with a pruned model, its graph replaces that of `model_config`.
        resumed: the checkpoint of a run that goes on; its weights are left to Lightning.

    Raises:
        WeightsError: a file that cannot be used.
        SpecError: one that is for something else, or a quantised model that is to be trained without
            `enable_qat`.
    """
    training = app.training_config
    begin = _start(app, resumed)
    where, quantized = "training_config.enable_qat", is_quantized(begin.detector)
    if not training.enable_qat:
        if training.retrain_pruned_model and (quantized or begin.traits.get("activation_scales")):
            raise SpecError(
                "the model to retrain is quantised",
                where=where,
                found=False,
                hint="training_config.enable_qat=true",
            )
        return begin
    for other, used in (
        ("training_config.model_parallelism", bool(training.model_parallelism)),
        ("run.compile", app.run.compile),
    ):
        if used:
            raise SpecError(f"does not go together with {other}", where=where, hint="one of the two")
    learned = app.quantize.ranges == "learned"
    if quantized:
        _check_same_places(app, trait(begin.detector), learned=learned)
        return begin
    quantize(begin.detector, skip=app.quantize.skip, learned=learned)
    traits = {**begin.traits, "quantized": trait(begin.detector)}
    if ranges := traits.pop("activation_scales", {}):
        known = set_ranges(begin.detector, ranges)
        log.info("%d of the file's %d ranges are used; others are calibrated", len(known), len(ranges))
    return begin._replace(traits=traits)


def _check_same_places(app: App, stored: Mapping[str, Any], *, learned: bool) -> None:
    """Stop where settings say otherwise than a quantised model, whose places and parameters are given."""
    skipped = [name.removesuffix("_td") for name in app.quantize.skip]
    message = "the model is quantised otherwise"
    if skipped and set(skipped) != set(stored["skip"]):
        raise SpecError(message, where="quantize.skip", found=skipped, allowed=stored["skip"])
    if learned != stored["learned"]:
        allowed = "learned" if stored["learned"] else "averaged, fixed"
        raise SpecError(message, where="quantize.ranges", found=app.quantize.ranges, allowed=allowed)


def _start(app: App, resumed: Path | None) -> Start:
    training = app.training_config
    if resumed is not None:
        stored = Checkpoint(resumed)
        detector = build.build_detector(app, plan=stored.channels)
        apply_traits(detector, stored.traits)
        return Start(detector, None, stored.traits)
    if training.retrain_pruned_model:
        return _retrained(app, Path(training.retrain_pruned_model))
    detector, traits = build.build_detector(app), {"relu6": True} if app.run.relu6 else {}
    apply_traits(detector, traits)
    if not training.pretrained_weights:
        return Start(detector, None, traits)
    report = load_pretrained(detector, training.pretrained_weights, target=build.imagenet_target(app))
    return Start(detector, report, traits)


def _retrained(app: App, path: Path) -> Start:
    model, where = app.model_config, "training_config.retrain_pruned_model"
    if path.suffix not in SUFFIXES:
        stored = Checkpoint(path)
        document = stored.document()
        _take_graph(model, document.spec.model_config)
        app.run.stride_on_3x3 = bool(document.extra["run"].get("stride_on_3x3"))
        detector = build.build_detector(app, plan=stored.channels)
        try:
            report = stored.load_into(detector)
        except WeightsError as error:
            hint = (
                "classes, anchors, image channels and, for VGG, crops have to be as many as it was made for"
            )
            raise WeightsError("does not fit the spec", where=path, found=error.found, hint=hint) from error
        return Start(detector, report, stored.traits)
    file = read_hdf5(path)
    archs = guess(file)
    if not archs:
        raise WeightsError("is no network that we know", where=path, found=", ".join(list(file.layers)[:5]))
    if model.arch not in archs:
        log.info("model_config.arch is %s, as %s says, not %s", archs[0], where, model.arch)
        model.arch = archs[0]
    found = look(file, model.arch)[1]
    for name in ("use_bias", "all_projections", "use_pooling"):
        if name in found:
            setattr(model, name, found[name])
    expected = {
        "in_channels": build.channels(app),
        "num_classes": len(class_names(app.dataset_config)),
        "num_anchors": len(model.anchor_box_config.scale) * len(model.anchor_box_config.ratio),
    }
    imported = import_detector(
        file, lambda plan: build.build_detector(app, plan=plan), arch=model.arch, expected=expected
    )
    return Start(imported.detector, imported.report, imported.traits)


def _take_graph(model: ModelConfig, stored: ModelConfig) -> None:
    for name in GRAPH:
        before, now = getattr(model, name), getattr(stored, name)
        if before != now:
            log.info("model_config.%s is %s, as the pruned model says, not %s", name, now, before)
            setattr(model, name, now)
