"""What a run leaves behind besides its checkpoints and its report: settings and results.json."""

import hashlib
import json
import logging
import platform
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from frcnn import build
from frcnn.bridge import prototxt, yaml
from frcnn.bridge.files import write_text
from frcnn.callbacks import ValidationMap
from frcnn.folder import is_first_process
from frcnn.report.training import Look
from frcnn.spec.fields import walk
from frcnn.spec.run import App
from frcnn.spec.values import class_names
from frcnn.weights.report import LoadReport

log = logging.getLogger(__name__)


def stored_texts(app: App) -> dict[str, str]:
    """The settings as they are stored: without the key, and without what concerns this start only."""
    run = replace(app.run, resume="", overwrite=False, model_path="")
    app = replace(app, training_config=replace(app.training_config, resume_from_model=""))
    config = yaml.dumps(replace(app, enc_key="", run=run), full=True)
    return {"spec": prototxt.dumps(app.experiment()), "config": config}


def store_settings(app: App, folder: Path) -> None:
    """config.yaml and spec.txt; with the former the run has begun."""
    if is_first_process():
        texts = stored_texts(app)
        write_text(folder / "spec.txt", texts["spec"])
        write_text(folder / "config.yaml", texts["config"])


def store_report(report: LoadReport, folder: Path) -> None:
    """weights.json: what became of each layer of pretrained weights."""
    if is_first_process():
        write_text(folder / "weights.json", json.dumps(report.to_dict(), indent=2) + "\n")


def collect(app: App, validation: ValidationMap, command: str, *, seconds: float) -> dict[str, Any]:
    """The part of results.json that all commands share (schema 1)."""
    figures = (validation.result or validation.evaluator.compute()).to_dict()
    return {
        "schema": 1,
        "command": command,
        **figures,
        "seconds": seconds,
        "spec_sha256": hashlib.sha256(stored_texts(app)["spec"].encode()).hexdigest(),
        "versions": versions(),
    }


def settings(app: App) -> Iterator[tuple[str, object]]:
    """Every value by its dotted path, without the key."""
    for path, field, value in walk(app):
        if not field.is_message and path != "enc_key":
            yield path, value


def versions() -> dict[str, str]:
    """What a run was made with."""
    packages = ("frcnn", "torch", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf", "protobuf")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def look(app: App) -> Look:
    """What it takes to show this run's network input to people."""
    return Look(
        class_names=class_names(app.dataset_config),
        mean=build.means(app),
        scale=app.model_config.input_image_config.image_scaling_factor,
        bgr=build.is_bgr(app),
        min_score=app.inference_config.bbox_visualize_threshold,
    )


def write(folder: Path, results: dict[str, Any]) -> None:
    """results.json."""
    if is_first_process():
        write_text(folder / "results.json", json.dumps(results, indent=2, allow_nan=False) + "\n")
        log.info("results in %s", folder)
