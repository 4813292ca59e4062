"""The network of the settings in words: block by block, and part by part on its devices."""

import logging
from collections.abc import Sequence
from typing import Any

import torch

from frcnn import build
from frcnn.model.detector import FasterRCNN, channel_plan
from frcnn.report.summary import split_rows, summary_rows
from frcnn.report.tables import render, rows_table
from frcnn.spec.run import App

log = logging.getLogger(__name__)


def network_summary(app: App, detector: FasterRCNN) -> list[dict[str, Any]]:
    """The network block by block, for an input of the usual size; logged too."""
    (height, width), regions = build.usual_size(app), app.evaluation_config.rpn_nms_max_boxes
    rows = summary_rows(
        _twin(app, detector), size=(height, width), channels=build.channels(app), regions=regions
    )
    title = f"{app.model_config.arch}, input {width}x{height}, {regions} regions"
    log.info("%s", render(rows_table(rows, title=title)))
    return rows


def split_summary(app: App, detector: FasterRCNN, groups: Sequence[Sequence[torch.device]]) -> str:
    """The network part by part, as `model_parallelism` puts it on the devices of each process."""
    images = app.training_config.batch_size_per_gpu
    rows = split_rows(
        _twin(app, detector),
        fractions=app.training_config.model_parallelism,
        devices=groups[0],
        size=build.usual_size(app),
        channels=build.channels(app),
        regions=app.model_config.roi_mini_batch,
        images=images,
        value_bytes=4 if app.trainer.precision == "32-true" else 2,
    )
    title = (
        f"model parallelism, processes: {len(groups)}; memory of weights and of a step with {images} images"
    )
    return render(rows_table(rows, title=title))


def _twin(app: App, detector: FasterRCNN) -> FasterRCNN:
    """The same network without values."""
    with torch.device("meta"):
        return build.build_detector(app, plan=channel_plan(detector))
