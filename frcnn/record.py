"""The report folder of a run: pictures and the page, of as much as there is when the run ends."""

import logging
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import torch

from frcnn import build, results
from frcnn.bridge.files import write_text
from frcnn.callbacks import History, StageTimes, TrainingProgress, ValidationMap
from frcnn.data.sample import Sample
from frcnn.errors import DataError
from frcnn.folder import is_first_process
from frcnn.metrics import EvaluationResult
from frcnn.metrics.outcomes import Outcome
from frcnn.report.draw import image_grid
from frcnn.report.page import Picture, RunPage, Setting, render_page
from frcnn.report.plots import (
    calibration_figure,
    confusion_figure,
    map_figure,
    precision_recall_figure,
    training_figure,
)
from frcnn.report.training import (
    draw_outcome,
    draw_training,
    draw_validation,
    training_grid,
    validation_grid,
)
from frcnn.spec.run import App

log = logging.getLogger(__name__)


@dataclass
class RunRecord:
    """What is known of a run while it goes on.

    Attributes:
        app: settings.
        folder: of the run.
        command: train or evaluate.
        model: rows of the network's summary.
        data: the data and its account.
        validation: what evaluates it.
        progress: what counts images.
        history: the curves of a training.
        times: how long an image took.
        resumed: whether the run goes on from a checkpoint.
    """

    app: App
    folder: Path
    command: str
    model: Sequence[Mapping[str, object]]
    data: build.Data
    validation: ValidationMap
    progress: TrainingProgress
    history: History = field(default_factory=History)
    times: StageTimes | None = None
    resumed: bool = False
    _training: list[Picture] = field(default_factory=list)
    _drawn: EvaluationResult | None = None
    _judged: dict[str, list[Picture]] = field(default_factory=dict)
    _begun: datetime = field(default_factory=datetime.now)
    _since: float = field(default_factory=time.perf_counter)

    def show_training(self, samples: Sequence[Sample]) -> None:
        """report/first_batch.png: the first training images as the network sees them."""
        look = results.look(self.app)
        training_grid(samples, look).save(self._report_folder() / "first_batch.png")
        self._training = [Picture(Path(s.id).name, draw_training(s, look)) for s in samples]

    def write_end(self, exception: BaseException) -> None:
        """The report of a run that did not finish."""
        failed = isinstance(exception, Exception)
        reason = (str(exception) or type(exception).__name__) if failed else "The run was interrupted."
        self.write(state="failed" if failed else "interrupted", reason=reason)

    def write(self, *, state: str = "finished", reason: str = "") -> None:
        """Everything in the report folder but first_batch.png."""
        if not is_first_process():
            return
        target, series, look = self._report_folder(), self.history.series(), results.look(self.app)
        if "train/loss" in series:
            training_figure(series).savefig(target / "losses.png", dpi=120)
        if "val/mAP" in series:
            map_figure(series).savefig(target / "map.png", dpi=120)
        result, samples = self.validation.result, self.validation.samples if self.validation.result else []
        if samples:
            validation_grid(samples, look).save(target / "validation.png")
        self.draw_evaluation()
        after = f"after epoch {self.validation.epoch}" if self.command == "train" else ""
        page = RunPage(
            title=self.app.run.name or self.folder.name,
            command=self.command,
            state=state,
            reason=reason,
            folder=str(self.folder.absolute()),
            facts=self._facts(),
            curves=series,
            result=result,
            evaluated=after,
            times=self.times.medians() if self.times else {},
            class_names=look.class_names,
            **self._judged,
            validation=[Picture(Path(s.id).name, draw_validation(s, look)) for s in samples],
            training=self._training,
            data={
                split: table
                for split, table in (("training", self.data.training), ("validation", self.data.validation))
                if table
            },
            model=self.model,
            settings=[
                Setting(path, value, self.app.origins().get(path, "default"))
                for path, value in results.settings(self.app)
            ],
            environment=_environment(),
        )
        write_text(target / "index.html", render_page(page))

    def draw_evaluation(self) -> None:
        """Pictures of the last validation: what was confused, scores, curves, best and worst images."""
        result, target = self.validation.result, self._report_folder()
        if result is None or result is self._drawn:
            return
        self._drawn = result
        confusion_figure(result).savefig(target / "confusion.png", dpi=120)
        calibration_figure(result).savefig(target / "calibration.png", dpi=120)
        if self.app.evaluation_config.visualize_pr_curve:
            several = len(result.iou_thresholds) > 1
            for level, iou in enumerate(result.iou_thresholds):
                name = f"PR_curve_{iou:.2f}.png" if several else "PR_curve.png"
                precision_recall_figure(result, level=level).savefig(target / name, dpi=120)
        for name, outcomes in (("worst", result.worst_images), ("best", result.best_images)):
            self._judged[name] = pictures = self._outcomes(outcomes, result.confusion.cuts)
            (target / f"{name}.png").unlink(missing_ok=True)  # of the part before a resumed one
            if pictures:
                titles, images = zip(*pictures, strict=True)
                areas = any(len(found.record.area_boxes) for found in outcomes)
                grid = image_grid(images, titles=titles, class_names=list(result.per_class), areas=areas)
                grid.save(target / f"{name}.png")

    def _outcomes(self, outcomes: Sequence[Outcome], cuts: Sequence[float]) -> list[Picture]:
        dataset, look, pictures = self.data.module.validation, results.look(self.app), []
        if dataset is None or not outcomes:
            return []
        wanted = {found.image for found in outcomes}
        numbers = {path: i for i in range(len(dataset)) if (path := str(dataset.index.path(i))) in wanted}
        for found in outcomes:
            try:
                image = dataset.sample(numbers[found.image]).image
            except DataError as error:  # a run does not fail for a file that went since
                log.warning("%s", error)
                continue
            counts = f"{found.right} right, {found.wrong} wrong, {found.missed} missed"
            title = f"{Path(found.image).name}: {counts}"
            pictures.append(Picture(title, draw_outcome(found, image, look, cuts=cuts)))
        return pictures

    def _report_folder(self) -> Path:
        folder = self.folder / "report"
        folder.mkdir(exist_ok=True)
        return folder

    def _facts(self) -> dict[str, Any]:
        epochs, result = self.history.epochs, self.validation.result
        validated = [row for row in epochs if "val/mAP" in row]
        best = max(validated, key=lambda row: row["val/mAP"], default=None)
        training = self.command == "train"
        facts: dict[str, Any] = {"mAP": _decimals(result.mAP if result else None)}
        if best:
            facts["Best mAP"] = f"{_decimals(best['val/mAP'])} in epoch {best['epoch']:g}"
        if training:
            facts["Epochs"] = (
                f"{epochs[-1]['epoch'] if epochs else 0:g} of {self.app.training_config.num_epochs}"
            )
        else:
            facts["Model"] = self.app.run.model_path
        duration = timedelta(seconds=round(time.perf_counter() - self._since))
        facts["Duration since it went on" if self.resumed else "Duration"] = str(duration)
        if training and self.progress.images_per_second:
            facts["Images per second"] = round(self.progress.images_per_second, 1)
        return facts | {"Started": f"{self._begun:%Y-%m-%d %H:%M}"}


def _decimals(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


def _environment() -> dict[str, object]:
    cuda = torch.cuda.is_available()
    cores: Callable[[int], Any] | None = getattr(os, "sched_getaffinity", None)
    return {
        "Device": torch.cuda.get_device_name() if cuda else f"CPU, {_processor()}",
        **({"GPUs": torch.cuda.device_count(), "CUDA": torch.version.cuda} if cuda else {}),
        "Threads": torch.get_num_threads(),
        "Cores": len(cores(0)) if cores else os.cpu_count(),
        "System": platform.platform(),
        **results.versions(),
    }


def _processor() -> str:
    """The name of the processor, which platform knows on some systems only."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
