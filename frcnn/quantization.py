"""Quantisation of a trained detector as the settings `quantize` say."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from frcnn import build, results
from frcnn.backend import TorchBackend
from frcnn.data.images import eight_bit
from frcnn.data.pictures import find_pictures
from frcnn.data.readers.headers import UNREADABLE, unreadable
from frcnn.errors import SpecError
from frcnn.model.detector import FasterRCNN
from frcnn.paths import PathFinder, load_mounts
from frcnn.predictor import Predictor
from frcnn.quantize import activation_scales, calibrate, layer_errors, quantize, set_ranges, trait
from frcnn.quantize.ranges import METHODS
from frcnn.report.quantization import SHARES, errors_figure
from frcnn.report.tables import render, rows_table
from frcnn.spec.run import App
from frcnn.trainer import mixed_precision, training_device
from frcnn.weights.checkpoint import Checkpoint, save_detector

log = logging.getLogger(__name__)

Images = tuple[Tensor, Tensor]
"""(B, C, H, W) normalised, and (B, 2) height and width of the valid part of each."""


def quantize_trained(
    app: App,
    detector: FasterRCNN,
    batches: Callable[[], Iterator[Images]],
    *,
    ranges: Mapping[str, float],
) -> list[dict[str, Any]]:
    """Quantise a detector in place.

    Args:
        app: settings.
        detector: trained, in float.
        batches: begins with the images to calibrate with; called twice.
        ranges: those that activations have already, see `frcnn.quantize.set_ranges`.

    Returns:
        What rounding costs each layer, the worst first: rows of `frcnn.quantize.layer_errors`.

    Raises:
        SpecError: the network does not have a layer to skip, or there are no images.
    """
    settings, device, seen = app.quantize, training_device(app), 0
    view = build.detection_settings(app.evaluation_config)
    quantize(detector.to(device).eval(), skip=settings.skip)
    if ranges:
        log.info("%d of %d ranges of the file are used", len(set_ranges(detector, ranges)), len(ranges))

    def run() -> None:
        nonlocal seen
        with mixed_precision(app, device):
            for images, sizes in batches():
                detector.detect(images.to(device), settings=view, image_sizes=sizes.to(device))
                seen += len(images)

    calibrate(detector, run, METHODS[settings.method](settings.percentile))
    if not seen:
        raise SpecError("there are no images to calibrate with", where="dataset_config.data_sources")
    log.info("calibrated by %s with %d images", settings.method, seen)
    rows = layer_errors(detector, run)
    detector.cpu()
    return rows


def training_images(app: App, data: build.Data) -> Iterator[Images]:
    """As many batches as the settings say, drawn from the training images as a training draws them."""
    loader: Iterable[Any] = data.module.train_dataloader()
    for batch in islice(loader, app.quantize.batches):
        yield batch.images, batch.image_sizes


def pictures(app: App, detector: FasterRCNN) -> Iterator[Images]:
    """As many of the pictures of `quantize.image_dir`, one by one, as the batches of a training have images.

    Raises:
        DataError: there are none, or one cannot be read.
    """
    finder = PathFinder(spec_folder=app.run.spec_folder, mounts=load_mounts(app.run.mounts))
    found = find_pictures(finder.find(app.quantize.image_dir, field="quantize.image_dir"))
    view = build.detection_settings(app.evaluation_config)
    device = next(detector.parameters()).device
    reader = Predictor(TorchBackend(detector, view), app, device=device, threshold=0.0)
    count = app.quantize.batches * app.training_config.batch_size_per_gpu
    for picture in islice(found.items, count):
        try:
            pixels = eight_bit(picture.read(), channels=reader.channels)
        except UNREADABLE as error:
            raise unreadable(picture.path, error) from error
        image = reader.prepare(pixels).image[None]
        yield image, torch.tensor([image.shape[-2:]], dtype=torch.float32)


def quantize_checkpoint(
    app: App,
    folder: Path,
    target: Path,
    *,
    data: build.Data | None,
    score: Callable[[FasterRCNN], float | None] | None,
) -> dict[str, Any]:
    """Quantise the network of `run.model_path` and write it, with what rounding costs each layer.

    Args:
        app: settings.
        folder: of the run; gets quantization.png, results.json and the settings.
        target: checkpoint to write.
        data: with the training images to calibrate with; those of `quantize.image_dir` if it is set.
        score: the mAP of a detector; None without validation data.

    Returns:
        The content of results.json.

    Raises:
        SpecError: it is quantised already, there is no layer of a name in `quantize.skip`, or no image.
    """
    settings, stored = app.quantize, Checkpoint(app.run.model_path)
    if "quantized" in stored.traits:
        hint = "evaluate.py evaluates it; quantise the checkpoint that it was made of"
        raise SpecError("is quantised already", where=app.run.model_path, hint=hint)
    detector = build.build_detector(app, plan=stored.channels)
    stored.load_into(detector)
    results.store_settings(app, folder)
    before = score(detector) if score else None
    batches = partial(pictures, app, detector)
    if data is not None and not settings.image_dir:
        batches = partial(training_images, app, data)
    traits = dict(stored.traits)
    rows = quantize_trained(app, detector, batches, ranges=traits.pop("activation_scales", {}))
    traits["quantized"] = trait(detector)
    save_detector(detector, target, stored=results.stored_texts(app) | traits)
    after = score(detector) if score else None
    title = "rounding's share of each layer's output, %"
    shown = [{key: 100 * value if key in SHARES else value for key, value in row.items()} for row in rows]
    log.info("%s", render(rows_table(shown, title=title)))
    worst = ", ".join(row["layer"] for row in rows[:3])
    log.info("most in %s; quantize.skip=[%s] leaves the first in float", worst, rows[0]["layer"])
    if score:
        log.info("mAP in float: %s, quantised: %s", *(_shown(value) for value in (before, after)))
    errors_figure(rows).savefig(folder / "quantization.png", dpi=120)
    found: dict[str, Any] = {
        "schema": 1,
        "command": "quantize",
        "mAP": after,
        "mAP_float": before,
        "per_class": {},
        "model": app.run.model_path,
        "checkpoint": str(target),
        "method": settings.method,
        "skipped": traits["quantized"]["skip"],
        "activation_scales": activation_scales(detector),
        "layers": rows,
        "versions": results.versions(),
    }
    results.write(folder, found)
    return found


def _shown(score: float | None) -> str:
    return "undefined" if score is None else f"{score:.4f}"
