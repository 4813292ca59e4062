"""Quantisation of a trained detector as the settings `quantize` say."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from frcnn import build
from frcnn.backend import TorchBackend
from frcnn.data.images import eight_bit
from frcnn.data.pictures import find_pictures
from frcnn.data.readers.headers import UNREADABLE, unreadable
from frcnn.errors import SpecError
from frcnn.model.detector import FasterRCNN
from frcnn.paths import PathFinder, load_mounts
from frcnn.predictor import Predictor
from frcnn.quantize import calibrate, layer_errors, quantize, set_ranges
from frcnn.quantize.ranges import METHODS
from frcnn.spec.run import App
from frcnn.trainer import mixed_precision, training_device

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
