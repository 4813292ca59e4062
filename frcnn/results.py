"""What a run leaves behind besides its checkpoints: settings, results.json and pictures."""

import hashlib
import json
import logging
import platform
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from frcnn import build
from frcnn.bridge import prototxt, yaml
from frcnn.bridge.files import write_text
from frcnn.callbacks import ValidationMap
from frcnn.data.sample import Batch, Sample, unbatch
from frcnn.folder import is_first_process
from frcnn.report import training as report
from frcnn.report.plots import precision_recall_figure
from frcnn.spec.run import App
from frcnn.spec.values import class_names
from frcnn.weights.report import LoadReport

log = logging.getLogger(__name__)


def stored_texts(app: App) -> dict[str, str]:
    """The settings as they are stored: without the key, and without what concerns this start only."""
    run = replace(app.run, resume="", overwrite=False, model_path="")
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
    packages = ("frcnn", "torch", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf", "protobuf")
    return {
        "schema": 1,
        "command": command,
        **figures,
        "seconds": seconds,
        "spec_sha256": hashlib.sha256(stored_texts(app)["spec"].encode()).hexdigest(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def write_first_batch(app: App, folder: Path, batch: Batch) -> None:
    """report/first_batch.png: the first training batch as the network sees it."""
    (folder / "report").mkdir(exist_ok=True)
    draw_training_samples(app, unbatch(batch)[:12], folder / "report" / "first_batch.png")


def draw_training_samples(
    app: App,
    samples: Sequence[Sample],
    path: Path,
    *,
    titles: Sequence[str] = (),
    columns: int | None = None,
) -> None:
    """A grid of training samples with their objects, as PNG; titles are their file names by default."""
    report.write_training_samples(
        samples,
        path,
        titles=titles,
        columns=columns,
        class_names=class_names(app.dataset_config),
        mean=build.means(app),
        scale=app.model_config.input_image_config.image_scaling_factor,
        bgr=build.is_bgr(app),
    )


def write(app: App, folder: Path, validation: ValidationMap, results: dict[str, Any]) -> None:
    """results.json and the pictures."""
    if not is_first_process():
        return
    write_text(folder / "results.json", json.dumps(results, indent=2, allow_nan=False) + "\n")
    target, image = folder / "report", app.model_config.input_image_config
    target.mkdir(exist_ok=True)
    if (folder / "metrics.csv").exists():
        report.write_curves(folder / "metrics.csv", target)
    if validation.samples:
        report.write_samples(
            validation.samples,
            target / "validation.png",
            class_names=class_names(app.dataset_config),
            mean=build.means(app),
            scale=image.image_scaling_factor,
            bgr=build.is_bgr(app),
            min_score=app.inference_config.bbox_visualize_threshold,
        )
    if app.evaluation_config.visualize_pr_curve and validation.result:
        precision_recall_figure(validation.result).savefig(target / "PR_curve.png", dpi=120)
    log.info("results in %s", folder)
