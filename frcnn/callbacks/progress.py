"""What a running training shows: a live bar on a terminal, a line now and then in a log."""

import logging
import math
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text
from torch import Tensor

log = logging.getLogger(__name__)

LOSSES = {
    "loss": "train/loss",
    "rpn class": "train/loss_rpn_class",
    "rpn box": "train/loss_rpn_box",
    "rcnn class": "train/loss_rcnn_class",
    "rcnn box": "train/loss_rcnn_box",
}
TERMINAL_SECONDS = 0.5  # reading a loss waits for the device, so do it rarely


def loss_line(metrics: Mapping[str, Tensor]) -> str:
    """The total loss and its parts, as far as they are known."""
    known = {name: metrics[key] for name, key in LOSSES.items() if key in metrics}
    return " · ".join(f"{name} {float(value):.3f}" for name, value in known.items())


def time_left(*, elapsed: float, done: float, left: float) -> str:
    """Time for the steps that are left, at the pace of those done; validation is part of it."""
    return str(timedelta(seconds=round(elapsed / done * left))) if done and math.isfinite(left) else "?"


class _Bars(Progress):
    """The bars with a line of losses below."""

    losses = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.losses:
            yield Text(self.losses, style="dim")


class TrainingProgress(ProgressBar):
    """Epoch, step, losses, images per second, time to go for the whole job, and the latest mAP.

    Args:
        console: where the bar is drawn. If it is no terminal there is no bar, but one line per epoch and
            one every `log_seconds` through `logging`, free of control characters.
        log_seconds: pause between two such lines.
    """

    def __init__(self, *, console: Console | None = None, log_seconds: float = 30.0) -> None:
        super().__init__()
        self.console = console or Console(stderr=True)
        self.log_seconds = log_seconds
        self._enabled = True
        self._bars: _Bars | None = None
        self._train_task = self._validation_task = TaskID(0)
        self._start = self._epoch_start = self._train_seconds = self._next_report = 0.0
        self._steps = self._images = self._earlier_images = 0
        self._earlier_seconds = 0.0

    @property
    def images_per_second(self) -> float:
        """Training images per second so far, validation left out."""
        seconds = self._earlier_seconds + self._train_seconds
        return (self._earlier_images + self._images) / seconds if seconds else 0.0

    def disable(self) -> None:
        """Show nothing; Lightning's wish for all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show progress."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock, and the bars on a terminal."""
        self._start = self._epoch_start = time.monotonic()
        self._steps = 0
        self._next_report = self._start + self._pause()
        self._show_bars()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Set the bar back."""
        self._earlier_images += self._images
        self._earlier_seconds += self._train_seconds
        self._epoch_start, self._images, self._train_seconds = time.monotonic(), 0, 0.0
        if self._bars is not None:
            total = self.total_train_batches
            self._bars.reset(
                self._train_task,
                total=total if math.isfinite(total) else None,
                description=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
                visible=True,
            )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance, and read the losses if it is time."""
        self._steps += 1
        self._images += len(batch.ids) * trainer.world_size
        self._train_seconds = time.monotonic() - self._epoch_start  # without the validation to come
        if self._bars is not None:
            self._bars.update(self._train_task, completed=batch_idx + 1)
        if self._enabled and time.monotonic() >= self._next_report:
            self._next_report = time.monotonic() + self._pause()
            self._report(trainer, step=batch_idx + 1, losses=trainer.callback_metrics)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The epoch's mean losses and its mAP."""
        metrics = trainer.callback_metrics  # reading them is a matter of all processes
        if self._enabled:
            means = {key: metrics[f"{key}_epoch"] for key in LOSSES.values() if f"{key}_epoch" in metrics}
            self._report(trainer, step=None, losses=metrics | means)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the second bar."""
        if not trainer.sanity_checking:
            self._show_bars()
            if self._bars is not None:
                self._bars.reset(self._validation_task, total=sum(trainer.num_val_batches), visible=True)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Advance the second bar."""
        if self._bars is not None:
            self._bars.advance(self._validation_task)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Hide the second bar."""
        if self._bars is not None:
            self._bars.update(self._validation_task, visible=False)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Give the terminal back."""
        self._hide_bars()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Give the terminal back."""
        self._hide_bars()

    def _pause(self) -> float:
        return TERMINAL_SECONDS if self.console.is_terminal else self.log_seconds

    def _show_bars(self) -> None:
        if self._bars is None and self._enabled and self.console.is_terminal:
            self._bars = _Bars(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[figures]}", style="cyan"),
                console=self.console,
                refresh_per_second=4,
                expand=True,
            )
            self._train_task = self._bars.add_task("epoch", visible=False, figures="")
            self._validation_task = self._bars.add_task("validation", visible=False, figures="")
            self._bars.start()

    def _hide_bars(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _report(self, trainer: pl.Trainer, *, step: int | None, losses: Mapping[str, Tensor]) -> None:
        """Show the figures after `step`, or after the whole epoch."""
        now, steps = time.monotonic(), self.total_train_batches
        metrics = trainer.callback_metrics
        left = (trainer.max_epochs or 0) * steps - trainer.current_epoch * steps - (step or steps)
        figures = [
            f"{self._images / max(self._train_seconds, 1e-9):.1f} img/s",
            f"ETA {time_left(elapsed=now - self._start, done=self._steps, left=max(left, 0))}",
        ]
        if "val/mAP" in metrics:
            figures.append(f"mAP {float(metrics['val/mAP']):.3f}")
        line = loss_line(losses)
        if self._bars is not None:
            self._bars.losses = line
            self._bars.update(self._train_task, figures=" · ".join(figures))
        else:
            place = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            place += "" if step is None else f" step {step}/{steps}"
            log.info("%s: %s", place, " · ".join([line, *figures]))
